"""``mlopskit run compare``: runs beside each other."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.output import (
    check_place,
    heading,
    json_option,
    line,
    moment,
    number,
    print_json,
    span,
    table,
    write_report,
)
from mlopskit.cli.run import found
from mlopskit.cli.sparkline import sparkline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlopskit.tracking import RunRecord, Tracker
    from mlopskit.tracking.compare import Course, RunComparison

BETWEEN = "::"


@click.command(cls=Command)
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page with the curves, which opens offline.",
)
@click.option(
    "--maximize", multiple=True, metavar="KEY", help="The best value of this metric is the highest."
)
@click.option(
    "--minimize", multiple=True, metavar="KEY", help="The best value of this metric is the lowest."
)
@json_option()
def command(
    runs: tuple[str, ...],
    html: Path | None,
    *,
    maximize: tuple[str, ...],
    minimize: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare two or more RUNS: params that differ, how metrics went, files by their digests.

    A run is an ID of the configured tracker, or LINE::ID for one of another tracker, such as
    mlflow:http://host:5000::3f2a....
    """
    from mlopskit.kit import open_tracker
    from mlopskit.tracking.compare import compare_runs
    from mlopskit.tracking.compare_page import page

    check_place(html)
    with kit() as opened, ExitStack() as ends:
        trackers: dict[str, Tracker] = {}
        wanted: list[tuple[Tracker, RunRecord]] = []
        for each in runs:
            where, between, wanted_id = each.rpartition(BETWEEN)
            if between and where not in trackers:
                trackers[where] = ends.enter_context(open_tracker(where))
                trackers[where].check_there()
            tracker = trackers[where] if between else opened.tracker
            wanted.append((tracker, found(tracker, wanted_id)))
        comparison = compare_runs(wanted, maximize=maximize, minimize=minimize)
    if html is not None:
        write_report(html, page(comparison))
    if as_json:
        print_json(_said(comparison))
    else:
        _show(comparison)
        if html is not None:
            line(f"The page is {html}")


def _show(comparison: RunComparison) -> None:
    names = [column.label for column in comparison.columns]
    table(
        ["run", "id", "experiment", "status", "started", "took", "where"],
        [
            [
                *(column.label, column.run.id, column.run.experiment, column.run.status),
                moment(column.run.started_at),
                span(column.run.started_at, column.run.ended_at),
                column.target,
            ]
            for column in comparison.columns
        ],
        whole=["id"],
    )
    for what, values, alike in (
        ("param", comparison.params, comparison.same_params),
        ("tag", comparison.tags, comparison.same_tags),
    ):
        _differing(what, names, values, alike)
    if comparison.metrics:
        _metrics(comparison, names)
    if comparison.artifacts:
        line()
        table(
            ["file", *names, ""],
            [
                [name, *((digest or "")[:19] for digest in row), "same" * (len(set(row)) == 1)]
                for name, row in comparison.artifacts.items()
            ],
        )


def _metrics(comparison: RunComparison, names: Sequence[str]) -> None:
    line()
    heading("metrics: how they went, the value at the last step, and the lowest and highest")
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    directed = bool(comparison.directions)
    rows = []
    for key, courses in comparison.metrics.items():
        winners = comparison.winners(key)
        for at, (name, course) in enumerate(zip(names, courses, strict=True)):
            if course is not None:
                best = _best(course, wins=at in winners) if directed else []
                rows.append([key, name, *_course(course, encoding), *best])
    columns = ["metric", "run", "over time", "last", "step", "lowest", "highest"]
    table(columns + ["best", "at step"] * directed, rows, drawn=["over time"])
    if directed:
        for direction, word in (("maximize", "highest"), ("minimize", "lowest")):
            keys = [key for key, each in comparison.directions.items() if each == direction]
            if keys:
                line(f"The best is the {word} of {', '.join(keys)}.")
        line("* is the best of all runs.")


def _best(course: Course, *, wins: bool) -> list[str]:
    if course.best is None:
        return ["", ""]
    return [f"{number(course.best)}{' *' * wins}", str(course.best_step)]


def _differing(
    what: str, names: Sequence[str], values: Mapping[str, tuple[Any, ...]], alike: int
) -> None:
    if values:
        line()
        rows = [[key, *(number(each) for each in row)] for key, row in values.items()]
        table([what, *names], rows)
    if alike:
        line(f"{alike} {what}{'s' * (alike != 1)} of all are the same.")


def _course(course: Course, encoding: str) -> list[str]:
    ends = [None if each is None else number(each) for each in (course.lowest, course.highest)]
    drawn = sparkline(course.values, encoding=encoding)
    return [drawn, number(course.last), str(course.last_step), *(each or "" for each in ends)]


def _said(comparison: RunComparison) -> dict[str, Any]:
    from mlopskit.tracking.compare import ABSENT

    def plain(row: tuple[Any, ...]) -> list[Any]:
        return [{} if each is ABSENT else {"value": each} for each in row]

    return {
        "runs": [
            {"label": each.label, "where": each.target, **each.run.model_dump()}
            for each in comparison.columns
        ],
        "params": {key: plain(row) for key, row in comparison.params.items()},
        "tags": {key: plain(row) for key, row in comparison.tags.items()},
        "same_params": comparison.same_params,
        "same_tags": comparison.same_tags,
        "metrics": {
            key: [
                None
                if course is None
                else {
                    "last": course.last,
                    "last_step": course.last_step,
                    "lowest": course.lowest,
                    "highest": course.highest,
                    "best": course.best,
                    "best_step": course.best_step,
                    "steps": list(course.steps),
                    "values": list(course.values),
                }
                for course in courses
            ]
            for key, courses in comparison.metrics.items()
        },
        "directions": dict(comparison.directions),
        "artifacts": {name: list(row) for name, row in comparison.artifacts.items()},
    }

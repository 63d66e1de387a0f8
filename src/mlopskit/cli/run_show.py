"""``mlopskit run show``: everything about one run."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.output import (
    Styled,
    flat,
    heading,
    json_option,
    line,
    moment,
    number,
    on_terminal,
    print_json,
    size,
    span,
    table,
    width,
)
from mlopskit.cli.run import found
from mlopskit.cli.sparkline import sparkline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlopskit.cli.output import Cell
    from mlopskit.tracking import Artifact, MetricHistory, RunRecord, Tracker

POINTS: Final = 400
LINE: Final = "over time"
SYSTEM: Final = "system/"
ROOM: Final = 100  # A terminal that is wider has room for long sparklines.
MANY: Final = 10  # A folder of more files than that is one line on a terminal.
SHORT: Final = len("sha256:") + 12
STYLES: Final = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "killed": "red",
    "lost": "yellow",
}


@click.command(cls=Command)
@click.argument("id")
@json_option()
def command(id: str, *, as_json: bool) -> None:
    """Show the run of an ID: what it was given, how its metrics went, and what it made.

    A metric's line shows how it went from the first point to the last. What a machine measured of
    itself stands at the end.
    """
    with kit() as opened:
        tracker = opened.tracker
        show(tracker, found(tracker, id), as_json=as_json)


def show(tracker: Tracker, run: RunRecord, *, as_json: bool) -> None:
    """Print one run."""
    artifacts = tracker.list_artifacts(run.id)
    histories = {
        key: tracker.get_metric_history(run.id, key, max_points=POINTS) for key in run.metrics
    }
    if as_json:
        said = run.model_dump() | {"url": tracker.run_url(run.id)}
        said["artifacts"] = [each.model_dump() for each in artifacts]
        print_json(said | {"series": {key: _series(each) for key, each in histories.items()}})
        return
    _head(tracker, run)
    _notes(run.notes)
    ours = {key: each for key, each in histories.items() if not key.startswith(SYSTEM)}
    _metrics("metric", ours, run)
    for title, values in (("param", run.params), ("tag", run.tags)):
        _section([title, "value"], [[key, each] for key, each in flat(values)])
    _data(run)
    _files(artifacts)
    _metrics("system", {k: each for k, each in histories.items() if k.startswith(SYSTEM)}, run)


def _head(tracker: Tracker, run: RunRecord) -> None:
    heading(run.name)
    rows: list[Sequence[Cell]] = [
        ["id", run.id],
        ["experiment", run.experiment],
        ["status", Styled(run.status, STYLES.get(run.status, ""))],
        ["started", moment(run.started_at)],
        ["ended", moment(run.ended_at)],
        ["took", span(run.started_at, run.ended_at)],
        ["part of", run.parent_id],
        ["group", run.group],
        ["job type", run.job_type],
        ["notes", None if _is_long(run.notes) else run.notes],
        ["page", tracker.run_url(run.id)],
    ]
    always = ("id", "experiment", "status", "started", "ended")
    table(["what", "value"], [row for row in rows if row[1] or row[0] in always])


def _notes(notes: str) -> None:
    if _is_long(notes):
        line()
        heading("notes")
        for each in notes.splitlines():
            line(each)


def _is_long(notes: str) -> bool:
    """Tell whether notes are shown line by line; in a pipe a record stays one line."""
    return on_terminal() and "\n" in notes


def _metrics(title: str, histories: Mapping[str, MetricHistory], run: RunRecord) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    columns = 24 if on_terminal() and width() >= ROOM else 12
    rows: list[Sequence[Cell]] = []
    for key, history in histories.items():
        values = [_plain(each) for each in history.values]
        known = [each for each in values if each == each]  # noqa: PLR0124 - NaN
        rows.append(
            [
                key.removeprefix(SYSTEM) if title == "system" else key,
                sparkline(values, columns, encoding=encoding),
                number(values[0]) if values else None,
                number(run.metrics[key]),
                number(min(known)) if known else None,
                number(max(known)) if known else None,
                str(run.last_steps[key]),
            ]
        )
    _section([title, LINE, "first", "last", "lowest", "highest", "step"], rows)


def _data(run: RunRecord) -> None:
    _section(
        ["dataset", "role", "rows", "columns", "where", "digest"],
        [
            [
                each.name,
                each.role,
                "" if each.rows is None else str(each.rows),
                str(len(each.columns) or ""),
                each.uri,
                each.digest[:SHORT] if on_terminal() else each.digest,
            ]
            for each in run.datasets
        ],
    )
    _section(
        ["input", "alias", "of run", "files"],
        [[each.name, each.alias, each.run_id, str(len(each.files))] for each in run.inputs],
    )


def _files(artifacts: Sequence[Artifact]) -> None:
    rows: list[Sequence[Cell]] = []
    for _, group in groupby(artifacts, lambda each: each.logged_as or each.name):
        files = list(group)
        if on_terminal() and len(files) > MANY:
            rows.append(_file(files[0], f"{files[0].logged_as}/ ({len(files)} files)", files))
        else:
            rows += [_file(each, each.name, [each]) for each in files]
    _section(["artifact", "type", "bytes", "aliases", "digest or address"], rows)


def _file(artifact: Artifact, name: str, files: Sequence[Artifact]) -> Sequence[Cell]:
    digest = artifact.digest[:SHORT] if on_terminal() else artifact.digest
    return [
        name,
        artifact.type,
        size(sum(each.size for each in files)),
        " ".join(artifact.aliases),
        artifact.uri or (digest if len(files) == 1 else None),
    ]


def _section(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    if rows:
        line()
        table(columns, rows, drawn=[LINE])


def _series(history: MetricHistory) -> dict[str, Any]:
    return {
        "steps": [int(each) for each in history.steps],
        "values": [_plain(each) for each in history.values],
        "timestamps": [int(each) for each in history.timestamps],
    }


def _plain(value: Any) -> int | float:
    found: int | float = value.item() if hasattr(value, "item") else value
    return found

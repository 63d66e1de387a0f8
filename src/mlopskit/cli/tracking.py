"""``mlopskit runs``: what was tracked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.numbers import Whole
from mlopskit.cli.output import (
    SHORTEST,
    WIDE,
    Styled,
    json_option,
    moment,
    on_terminal,
    pairs,
    print_json,
    remark,
    span,
    table,
    times,
    width,
)
from mlopskit.cli.run import found
from mlopskit.cli.run_show import STYLES, SYSTEM, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.cli.output import Cell
    from mlopskit.tracking import RunRecord

FEW: Final = 6
COLUMNS: Final = ["id", "name", "experiment", "status", "started", "metrics", "took", "params"]


@click.command(cls=Command)
@click.argument("id", required=False)
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option("--where", default="", metavar="FILTER", help="Only runs that this filter matches.")
@click.option(
    "--order-by",
    multiple=True,
    metavar="KEY",
    help="Such as 'metrics.loss desc'; may be repeated. The latest run comes first otherwise.",
)
@click.option(
    "--limit",
    type=Whole(),
    default=100,
    show_default=True,
    metavar="N",
    help="Show at most so many.",
)
@click.option("everything", "--all", is_flag=True, help="Show all, whatever the limit.")
@json_option()
def command(
    id: str | None,
    experiment: str | None,
    where: str,
    order_by: tuple[str, ...],
    limit: int,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    """List tracked runs, the latest first, or show the one of an ID.

    A filter compares params, metrics, tags and attributes, and joins comparisons with and, or, not
    and parentheses:

    \b
      mlopskit runs --where "metrics.auc > 0.7 and params.model = 'gbm'"
      mlopskit runs --experiment churn --order-by "metrics.loss asc" --limit 5
    """  # noqa: D301 - click takes the backspace as "do not wrap what follows"
    with kit() as opened:
        tracker = opened.tracker
        if id is not None:
            show(tracker, found(tracker, id), as_json=as_json)
            return
        listed = tracker.search_runs(
            where, experiment, order_by=order_by, limit=None if everything else limit
        )
    if as_json:
        runs = [each.model_dump() for each in listed]
        print_json({"runs": runs, "truncated": listed.truncated})
        return
    # A terminal has no room for all of it: `run show ID`, a pipe and --json have the rest.
    shown = COLUMNS[:-2] if on_terminal() else COLUMNS
    ids = _short([each.id for each in listed])
    table(
        shown,
        [_row(each, ids[each.id])[: len(shown)] for each in listed],
        whole=("id", "experiment", "status"),
        drawn=times("started"),
    )
    if not listed:
        remark("No run matches." if where or experiment else "There are no runs yet.")
    if listed.truncated:
        remark(f"There are more than these {len(listed)}: see them with --limit N or --all.")


def _row(run: RunRecord, id: str) -> list[Cell]:
    return [
        id,
        run.name,
        run.experiment,
        Styled(run.status, STYLES.get(run.status, "")),
        moment(run.started_at),
        _metrics(run) if on_terminal() else pairs(run.metrics),
        span(run.started_at, run.ended_at),
        pairs(run.params),
    ]


def _short(ids: Sequence[str]) -> dict[str, str]:
    """Return for each id what tells it from the others here, where a terminal is narrow."""
    if not on_terminal() or width() >= WIDE:
        return {each: each for each in ids}
    most = max(map(len, ids), default=SHORTEST)
    for count in range(SHORTEST, most):
        if len({each[:count] for each in ids}) == len(ids):
            # `run show` takes the beginning of an id only where it is letters and digits.
            return {each: each[:count] if each.isalnum() else each for each in ids}
    return {each: each for each in ids}


def _metrics(run: RunRecord) -> str:
    """Show the first few metrics, and none of the machine's."""
    ours = {key: each for key, each in run.metrics.items() if not key.startswith(SYSTEM)}
    few = pairs({key: ours[key] for key in sorted(ours)[:FEW]})
    return f"{few} and {len(ours) - FEW} more" if len(ours) > FEW else few

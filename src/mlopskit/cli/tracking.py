"""``mlopskit runs``: what was tracked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.output import Styled, json_option, moment, pairs, print_json, remark, span, table

if TYPE_CHECKING:
    from mlopskit.cli.output import Cell
    from mlopskit.tracking import RunRecord

STYLES = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "killed": "red",
    "lost": "yellow",
}


@click.command(cls=Command)
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
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Show at most so many.",
)
@click.option("everything", "--all", is_flag=True, help="Show all, whatever the limit.")
@json_option()
def command(
    experiment: str | None,
    where: str,
    order_by: tuple[str, ...],
    limit: int,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    """List tracked runs, the latest first.

    A filter compares params, metrics, tags and attributes, and joins comparisons with and, or, not
    and parentheses:

    \b
      mlopskit runs --where "metrics.auc > 0.7 and params.model = 'gbm'"
      mlopskit runs --experiment churn --order-by "metrics.loss asc" --limit 5
    """  # noqa: D301 - click takes the backspace as "do not wrap what follows"
    with kit() as opened:
        found = opened.tracker.search_runs(
            where, experiment, order_by=order_by, limit=None if everything else limit
        )
    if as_json:
        runs = [each.model_dump() for each in found]
        print_json({"runs": runs, "truncated": found.truncated})
        return
    table(
        ["id", "name", "experiment", "status", "started", "took", "metrics", "params"],
        [_row(each) for each in found],
    )
    if not found:
        remark("No run matches." if where or experiment else "There are no runs yet.")
    if found.truncated:
        remark(f"There are more than these {len(found)}: see them with --limit N or --all.")


def _row(run: RunRecord) -> list[Cell]:
    return [
        run.id,
        run.name,
        run.experiment,
        Styled(run.status, STYLES.get(run.status, "")),
        moment(run.started_at),
        span(run.started_at, run.ended_at),
        pairs(run.metrics),
        pairs(run.params),
    ]

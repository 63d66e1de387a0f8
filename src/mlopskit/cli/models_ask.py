"""``mlopskit models request``, ``pending``, ``approve`` and ``reject``: promotions that wait."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.numbers import Whole
from mlopskit.cli.output import json_option, moment, print_json, remark, table, times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.registry import ApprovalRequest


@click.command(cls=Command)
@click.argument("name")
@click.argument("ref")
@click.argument("stage")
@click.option("--why", required=True, metavar="TEXT", help="The reason, for those who decide.")
@click.option("--by", metavar="NAME", help="Who asks; your login name if left out.")
@click.option(
    "--days",
    type=click.FloatRange(min=0, min_open=True),
    default=7,
    show_default=True,
    metavar="DAYS",
    help="For so long it can be approved, and then used.",
)
@json_option()
def request(
    name: str, ref: str, stage: str, *, why: str, by: str | None, days: float, as_json: bool
) -> None:
    """Ask that the version REF of the model called NAME may enter STAGE.

    The request's number is its place in the history of the model, not one more than that of the
    request before.
    """
    with kit() as opened:
        asked = opened.registry.request_approval(
            name, ref, stage, why=why, by=by, expires_in=timedelta(days=days)
        )
    _show([asked], as_json=as_json)
    if not as_json:
        remark(f"Another person decides: mlopskit models approve {asked.name} {asked.id}")


@click.command(cls=Command)
@click.argument("name", required=False)
@json_option()
def pending(name: str | None, *, as_json: bool) -> None:
    """List the requests of the model called NAME, or of all, that nobody has decided yet."""
    with kit() as opened:
        found = opened.registry.pending(name)
    if not found and not as_json:
        remark("Nothing waits for a decision.")
    _show(found, as_json=as_json)
    if found and not as_json:
        remark("REQUEST is the number that `models approve NAME REQUEST` and `reject` take.")


@click.command(cls=Command)
@click.argument("name")
@click.argument("request", type=Whole())
@click.option("--by", metavar="NAME", help="Who decides; your login name if left out.")
@click.option("--why", default="", metavar="TEXT", help="A reason for the history.")
@json_option()
def approve(name: str, request: int, by: str | None, why: str, *, as_json: bool) -> None:
    """Approve REQUEST of the model called NAME: its number, which `models pending` shows."""
    with kit() as opened:
        _show([opened.registry.approve(name, request, by=by, why=why)], as_json=as_json)


@click.command(cls=Command)
@click.argument("name")
@click.argument("request", type=Whole())
@click.option("--by", metavar="NAME", help="Who decides; your login name if left out.")
@click.option("--why", default="", metavar="TEXT", help="A reason for the history.")
@json_option()
def reject(name: str, request: int, by: str | None, why: str, *, as_json: bool) -> None:
    """Reject REQUEST of the model called NAME: its number, which `models pending` shows."""
    with kit() as opened:
        _show([opened.registry.reject(name, request, by=by, why=why)], as_json=as_json)


def _show(requests: Sequence[ApprovalRequest], *, as_json: bool) -> None:
    if as_json:
        print_json([each.model_dump() for each in requests])
        return
    table(
        ["request", "model", "version", "stage", "status", "by", "until", "decided by", "why"],
        [
            [
                str(each.id),
                each.name,
                str(each.version),
                each.stage,
                each.status,
                each.by,
                moment(each.expires_at),
                each.decided_by,
                each.decided_why or each.why,
            ]
            for each in requests
        ],
        drawn=times("until"),
    )

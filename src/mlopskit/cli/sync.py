"""``mlopskit sync``: deliver what runs could not deliver themselves."""

from __future__ import annotations

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.failure import FAILED
from mlopskit.cli.interrupt import interruptible
from mlopskit.cli.output import counted, json_option, line, print_json, table

WAITS = "what was delivered is delivered once, and the rest waits. The same command goes on."


@click.command(cls=Command)
@json_option()
def command(*, as_json: bool) -> None:
    """Deliver what runs left undelivered: a tracker that was down, a process that died.

    Journals of processes that still run are left to them. Exits with 1 if something is still
    waiting afterwards, or could not be read, and says why. What a tracker refuses for good is kept
    in the folder tracking/rejected of the home.
    """
    with interruptible(lambda: WAITS), kit() as opened:
        tracker = opened.tracker
        report = tracker.sync()
        refuge = str(tracker.context.home / "tracking" / "rejected")
    if as_json:
        print_json(report.model_dump() | {"rejected_in": refuge})
    else:
        refused = f"{report.rejected} {'was' if report.rejected == 1 else 'were'} refused for good"
        line(f"Delivered {counted(report.delivered, 'record')}, {refused}.")
        if report.pending:
            line("Still waiting:")
            table(["journal", "why"], sorted(report.pending.items()))
        if report.damaged:
            line("Could not be read; the rest was delivered:")
            table(["journal", "where"], sorted(report.damaged.items()))
        if report.rejected or report.damaged:
            line(f"What was refused or unreadable is kept, with the reasons, in {refuge}")
    if report.pending or report.damaged:
        click.get_current_context().exit(FAILED)

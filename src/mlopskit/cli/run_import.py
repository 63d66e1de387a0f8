"""``mlopskit run import``: exported runs, into a tracker."""

from __future__ import annotations

from pathlib import Path

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.output import json_option
from mlopskit.cli.transfer import progress, show


@click.command(cls=Command)
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))
@click.option("--where", metavar="FILTER", default="", help="Only the runs that this matches.")
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option("--replace", is_flag=True, help="Replace runs of the same id that differ.")
@json_option()
def command(
    folder: Path, where: str, experiment: str | None, *, replace: bool, as_json: bool
) -> None:
    """Take the runs of FOLDER, which "mlopskit run export" wrote, into the configured tracker.

    FOLDER is that of one run, or holds the folders of several. What is there already, and equal,
    is left alone.
    """
    from mlopskit.kit import transfer

    with progress("imported") as told, kit() as opened:
        report = transfer(
            folder, opened.tracker, where, experiment=experiment, replace=replace, told=told
        )
    show(report, as_json=as_json)

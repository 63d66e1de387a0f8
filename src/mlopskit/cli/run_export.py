"""``mlopskit run export``: runs as plain files."""

from __future__ import annotations

from pathlib import Path

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.output import json_option, line, on_terminal, print_json, remark
from mlopskit.cli.run import found


@click.command(cls=Command)
@click.argument("ids", nargs=-1)
@click.option("--where", metavar="FILTER", help="Export the runs that this filter matches.")
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option(
    "to",
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Where to make a folder for each run; here if left out.",
)
@click.option("--no-artifacts", is_flag=True, help="Leave the files of the runs out.")
@click.option("--force", is_flag=True, help="Replace what an earlier export has written.")
@json_option()
def command(
    ids: tuple[str, ...],
    where: str | None,
    experiment: str | None,
    to: Path,
    *,
    no_artifacts: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write each run of the IDs to a folder of its name, which needs no mlopskit to read.

    \b
      run.json      what the run was given, and what is known of it
      metrics.csv   key, step, timestamp, value: every point
      artifacts/    its files, verified

    A folder appears when all of it is written. Exits with 1 if a run could not be exported.
    """  # noqa: D301 - click takes the backspace as "do not wrap what follows"
    from mlopskit.tracking.export import export_run

    if not ids and where is None and experiment is None:
        raise click.UsageError("Name a run, or give --where or --experiment.")
    written = []
    with kit() as opened:
        tracker = opened.tracker
        runs = [found(tracker, each).id for each in ids]
        if where is not None or experiment is not None:
            runs += [each.id for each in tracker.search_runs(where or "", experiment, limit=None)]
        for at, each in enumerate(dict.fromkeys(runs), 1):
            if on_terminal():
                remark(f"{at} of {len(runs)}: {each}")
            folder = export_run(tracker, each, to / each, artifacts=not no_artifacts, force=force)
            written.append(str(folder))
    if as_json:
        print_json({"exported": written})
        return
    for each in written:
        line(each)

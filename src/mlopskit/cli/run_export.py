"""``mlopskit run export``: runs as plain files."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.failure import FAILED, tell
from mlopskit.cli.interrupt import interruptible
from mlopskit.cli.output import counted, json_option, line, print_json, remark, size
from mlopskit.cli.run import found
from mlopskit.cli.safe import safe
from mlopskit.errors import MlopskitError
from mlopskit.names import check_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlopskit.tracking import Artifact


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
@click.option(
    "--metrics",
    type=click.Choice(["csv", "parquet"]),
    default="csv",
    show_default=True,
    help="The format of the points.",
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
    metrics: Literal["csv", "parquet"],
    no_artifacts: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write each run of the IDs to a folder of its name, which needs no mlopskit to read.

    \b
      run.json      what the run was given, and what is known of it
      metrics.csv   key, step, timestamp, value: every point (or metrics.parquet)
      artifacts/    its files, verified

    A folder appears when all of it is written. Goes on after a run that cannot be exported, says
    why, and exits with 1 in the end.
    """  # noqa: D301 - click takes the backspace as "do not wrap what follows"
    from mlopskit.tracking.export import export_run

    if not ids and where is None and experiment is None:
        raise click.UsageError("Name a run, or give --where or --experiment.")
    written: list[str] = []
    failed: dict[str, str] = {}
    runs: list[str] = []

    def far() -> str:
        return (
            f"{len(written)} of {counted(len(runs), 'run')} exported; every folder that is there "
            "is whole. The same command with --force exports all of them."
        )

    with interruptible(far), kit() as opened:
        tracker = opened.tracker
        runs = [found(tracker, each).id for each in ids]
        if where is not None or experiment is not None:
            runs += [each.id for each in tracker.search_runs(where or "", experiment, limit=None)]
        runs = list(dict.fromkeys(runs))
        for at, each in enumerate(runs, 1):
            try:
                with _progress(f"{at} of {len(runs)}: {each}") as told:
                    folder = export_run(
                        tracker,
                        each,
                        to / check_path("run", each),
                        metrics=metrics,
                        artifacts=not no_artifacts,
                        force=force,
                        told=told,
                    )
            except MlopskitError as exc:
                tell(exc)
                failed[each] = str(exc)
                continue
            written.append(str(folder))
            if not as_json:
                line(str(folder))
    if as_json:
        print_json({"exported": written, "failed": failed})
    if not runs:
        remark("No run matches.")
    if failed:
        click.get_current_context().exit(FAILED)


@contextmanager
def _progress(which: str) -> Iterator[Callable[[Artifact], None]]:
    """Show on a terminal which file is on its way."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True, highlight=False).status(Text(safe(which))) as status:

        def told(artifact: Artifact) -> None:
            status.update(Text(safe(f"{which}, {artifact.name} ({size(artifact.size)})")))

        yield told

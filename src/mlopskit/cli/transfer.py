"""``mlopskit transfer``: runs from one tracker to another."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.interrupt import interruptible
from mlopskit.cli.output import counted, json_option, line, print_json, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.tracking.entities import RunRecord
    from mlopskit.tracking.transfer import Told, TransferReport

MOST_SHOWN = 20


@click.command(cls=Command)
@click.argument("src", metavar="FROM")
@click.argument("dst", metavar="TO")
@click.option("--where", metavar="FILTER", default="", help="Only the runs that this matches.")
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option("--no-verify", is_flag=True, help="Do not read the copies back.")
@click.option("--replace", is_flag=True, help="Replace runs of the same id that differ.")
@json_option()
def command(
    src: str,
    dst: str,
    where: str,
    experiment: str | None,
    *,
    no_verify: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Copy runs between two trackers, such as mlflow:http://host:5000 and local:FOLDER.

    Each of them is a line as the configuration has it; "." stands for the configured tracker.
    Params keep their types, points their steps and times, runs their ids, parents and files. What
    is there already, and equal, is left alone: after an outage or a kill, say the same again.

    Exits with 1 if a run of the same id differs, in which case nothing is copied, or if a copy
    does not read back equal.
    """
    from mlopskit.kit import open_tracker, transfer

    with progress("copied") as told, kit() as opened, ExitStack() as ends:

        def end(said: str) -> Any:
            return opened.tracker if said == "." else ends.enter_context(open_tracker(said))

        report = transfer(
            end(src),
            end(dst),
            where,
            experiment=experiment,
            verify=not no_verify,
            replace=replace,
            told=told,
        )
    show(report, as_json=as_json)


def show(report: TransferReport, *, as_json: bool) -> None:
    """Print what a transfer did."""
    if as_json:
        print_json(report.model_dump())
        return
    line(f"From {report.source}")
    line(f"to   {report.destination}")
    copied, present = len(report.copied), len(report.present)
    were = "was" if present == 1 else "were"
    line(f"Copied {counted(copied, 'run')}; {present} {were} there already, and equal.")
    for run, keys in report.left_out.items():
        line(f"left out of run {run}: {', '.join(keys)} (what a copy has no place for)")
    if report.digests:
        shown = list(report.digests.items())[:MOST_SHOWN]
        table(
            ["run", "digest at the source", "at the destination"],
            [(run, one[:23], other[:23]) for run, (one, other) in shown],
        )
        if len(report.digests) > MOST_SHOWN:
            line(f"and {len(report.digests) - MOST_SHOWN} more, as equal; --json prints all.")


@contextmanager
def progress(done_to: str) -> Iterator[Told]:
    """Show on a terminal how far it is, name the option where runs differ, and heed Ctrl-C.

    Args:
        done_to: What has been done to a run at its end, such as ``copied``.
    """
    from mlopskit.tracking.progress import bar
    from mlopskit.tracking.transfer import RunsDiffer

    finished = runs = 0
    parts: list[str] = []

    def interrupted() -> str:
        if runs:
            far = f"{finished} of {counted(runs, 'run')} {'is' if finished == 1 else 'are'} done"
        else:
            far = f"no run was {done_to} yet"
        half = f". {' '.join(parts)}" if parts else ", and nothing is half-written."
        return f"{far}{half} The same command goes on from here."

    with interruptible(interrupted), bar("runs", asked=True) as shown:

        def told(done: int, total: int, run: RunRecord) -> None:
            nonlocal finished, runs
            finished, runs = done, total
            shown.at(done, total, run.name)

        try:
            yield told
        except RunsDiffer as exc:
            raise RunsDiffer(exc.found, "--replace") from exc
        except KeyboardInterrupt as exc:
            parts += getattr(exc, "__notes__", [])
            raise
        shown.at(runs, runs)

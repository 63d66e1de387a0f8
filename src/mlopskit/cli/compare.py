"""``mlopskit compare``: tools by one workload."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlopskit.cli.command import Command
from mlopskit.cli.interrupt import interruptible
from mlopskit.cli.numbers import Whole
from mlopskit.cli.output import (
    check_place,
    heading,
    json_option,
    line,
    on_terminal,
    print_json,
    table,
    write_report,
)
from mlopskit.cli.safe import safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTE = 28
DOMAINS = ["tracking", "registry", "serving", "features", "monitoring", "pipelines"]
ENDED = (
    "nothing was written, and what was started has ended. What was made where a config line says "
    "stays there. The same command begins anew."
)


@click.command(cls=Command)
@click.argument("domain", metavar="DOMAIN", type=click.Choice(DOMAINS))
@click.argument("tools", nargs=-1)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page, which opens offline.",
)
@click.option(
    "--markdown",
    "text",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the tables as Markdown.",
)
@click.option(
    "--outage",
    type=click.FloatRange(min=0),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a program may take without its server, or after its death; 0 leaves both out.",
)
@click.option(
    "--times",
    type=Whole(),
    default=3,
    show_default=True,
    metavar="N",
    help="How often each cost is measured, for the median.",
)
@json_option()
def command(
    domain: str,
    tools: tuple[str, ...],
    *,
    html: Path | None,
    text: Path | None,
    outage: float,
    times: int,
    as_json: bool,
) -> None:
    """Compare TOOLS of a DOMAIN, such as "tracking mlflow wandb"; all that are installed if none.

    One workload goes through each tool's own client and through mlopskit: what each keeps, changes,
    refuses or loses, and what it costs; for tracking, what a program meets whose server is away or
    dies; for the registry, whether damage is noticed, loading runs code, and there is a history. A
    tool's name alone works in temporary folders. A config line, such as
    mlflow:http://127.0.0.1:5000, works where it says, in experiments (W&B: projects; a registry:
    models) of its own, which are named and stay.

    Domains other than tracking and registry have no workload yet: only what their backends declare
    is shown.
    """
    from mlopskit.comparison import compare
    from mlopskit.comparison.page import markdown, page
    from mlopskit.comparison.tables import tables

    for path in (html, text):
        check_place(path)
    with interruptible(lambda: ENDED), _ended_in_order(), _progress() as told:
        comparison = compare(*tools, domain=domain, outage_s=outage, times=times, told=told)
    for path, written in ((html, page), (text, markdown)):
        if path is not None:
            write_report(path, written(comparison))
    if as_json:
        print_json(comparison.model_dump())
        return
    for title, _, head, rows in tables(comparison):
        heading(title)
        table(head, [[_short(cell[0], cell[2]) for cell in row] for row in rows])
        line()
    for path in (html, text):
        if path is not None:
            line(f"Written to {path}")


def _short(text: str, note: str) -> str:
    if len(note) > NOTE and on_terminal():
        note = f"{note[:NOTE]}..."  # The page has all of it, and so has a pipe.
    return f"{text}: {note}" if note else text


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end the program as ctrl-C does, so that no temporary folder stays."""
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, _: object) -> None:
    sys.exit(128 + number)


@contextmanager
def _progress() -> Iterator[Callable[[str], object]]:
    """Show on a terminal what is measured."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True, highlight=False).status(Text("Comparing")) as status:
        yield lambda what: status.update(Text(safe(f"Comparing: {what}")))

"""What commands print: tables on a terminal, aligned lines in a pipe, JSON where it is asked for.

In a pipe every record is one line, nothing is cut and nothing is coloured; on a terminal long
values are folded. Everything that came from a store is made safe for the terminal first.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from mlopskit.cli.safe import safe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

NOTHING = "-"
WIDE = 110
ROOM = 88
SHORTEST = 8  # Of an id, where a terminal is narrow.


@dataclass(frozen=True, slots=True)
class Styled:
    """A cell with a style, such as ``green``, that only a terminal shows."""

    text: str
    style: str


Cell = str | Styled | None


def json_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the flag ``--json``, as its argument `as_json`."""
    return click.option("as_json", "--json", is_flag=True, help="Print JSON.")


def on_terminal() -> bool:
    """Tell whether a person is looking."""
    return bool(sys.stdout) and sys.stdout.isatty()


def width() -> int:
    """Return how many columns the terminal has."""
    from rich.console import Console

    return Console().width


def times(*columns: str) -> tuple[str, ...]:
    """Return the columns of times where a terminal has room for whole ones beside the rest."""
    return columns if on_terminal() and width() >= ROOM else ()


def heading(text: str) -> None:
    """Print a line above a table."""
    click.echo(click.style(safe(text), bold=True) if on_terminal() else safe(text))


def line(text: str = "") -> None:
    """Print one line of text."""
    click.echo(safe(text))


def remark(text: str) -> None:
    """Print a line for the person alone, on stderr: the output stays what a program can read."""
    click.echo(safe(text), err=True)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    whole: Collection[str] = (),
    drawn: Collection[str] = (),
) -> None:
    """Print rows under their columns' names. An empty cell shows as ``-``.

    Args:
        columns: The names.
        rows: A cell for each of the columns.
        whole: Columns that a wide terminal does not fold, so that they can be copied.
        drawn: Columns that no terminal folds, since they mean little in pieces.
    """
    if on_terminal():
        _rich_table(columns, rows, whole, drawn)
    else:
        _plain_table(columns, rows)


def print_json(value: Any) -> None:
    """Print a value as JSON that every parser takes: ASCII, and NaN and infinities as texts."""
    click.echo(json.dumps(_jsonable(value), indent=2, allow_nan=False))


def check_place(path: Path | None) -> None:
    """Refuse a report whose folder is not there, before the work that it would tell of."""
    if path is not None and not path.resolve().parent.is_dir():
        raise click.UsageError(f"There is no folder {str(path.resolve().parent)!r} for {path}.")


def write_report(path: Path, text: str) -> None:
    """Write a page, as `write_page` does, to a folder that has to be there.

    Raises:
        UsageError: If the folder is not there.
        StorageError: If it cannot be written.
    """
    from mlopskit.storage import write_page

    check_place(path)
    write_page(path, text)


def moment(when: datetime | None) -> str:
    """Show a time to the second, in UTC."""
    if when is None:
        return ""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def span(start: datetime | None, end: datetime | None) -> str:
    """Show how long something took; nothing while it goes on."""
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def number(value: Any) -> str:
    """Show a number in full in a pipe, to six digits on a terminal; anything else as text."""
    if isinstance(value, float) and on_terminal():
        return f"{value:.6g}"
    return value if isinstance(value, str) else repr(value)


def counted(count: int, noun: str) -> str:
    """Show how many there are: ``1 run``, ``2 runs``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def size(count: int) -> str:
    """Show a number of bytes: in full in a pipe, in binary units on a terminal."""
    if count < 1024 or not on_terminal():
        return str(count)
    units = min((count.bit_length() - 1) // 10, 5)
    return f"{count / 1024**units:.1f} {'KMGTP'[units - 1]}iB"


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield a mapping's keys in order, each with its value as text; nested as ``outer.inner``."""
    for key, value in sorted(values.items()):
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", number(value)


def pairs(values: Mapping[str, Any]) -> str:
    """Show a mapping in one cell, as ``key=value``."""
    return " ".join(f"{key}={text}" for key, text in flat(values))


def _rich_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    whole: Collection[str],
    drawn: Collection[str],
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    wide = console.width >= WIDE
    shown = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),  # Two blanks between columns: most tables are near the edge.
        pad_edge=False,
        header_style="bold",
        show_edge=False,
    )
    for column in columns:
        kept = column in drawn or (wide and column in whole)
        shown.add_column(column, overflow="fold", no_wrap=kept)
    for row in rows:
        shown.add_row(*(Text(_text(cell), style=_style(cell)) for cell in row))
    console.print(shown)


def _plain_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    from rich.cells import cell_len

    lines = [[name.upper() for name in columns], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        padded = [
            cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def _text(cell: Cell) -> str:
    text = cell.text if isinstance(cell, Styled) else cell
    return safe(text) if text else NOTHING


def _style(cell: Cell) -> str:
    if isinstance(cell, Styled):
        return cell.style
    return "" if cell else "dim"


def _jsonable(value: Any) -> Any:
    from collections.abc import Mapping

    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)

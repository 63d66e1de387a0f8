"""Words that others wrote, made harmless in Markdown: no markup, no mention, no line of its own.

What follows a character that GitHub and GitLab take for a mention, a reference or an address is
parted from it by a word joiner (U+2060), which nobody sees.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import TYPE_CHECKING, Final

from mlopskit.names import UNPRINTABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LONGEST: Final = 2000
_PUNCTUATION: Final = re.compile(r"([\\`*_{}\[\]<>|~#&$!])")
_LINKING: Final = re.compile(r"[@#!%~&$^](?=\S)|(?<=\w):(?=//)|(?<=\bwww)\.", re.IGNORECASE)
# A list, a rule, a heading, or one of GitLab's quick actions.
_BEGINNING: Final = re.compile(r"^(\d*)([.)](?=\s|$)|[-+](?=[-\s]|$)|[=/])")
_JOINER: Final = "&#8288;"


def prose(text: str) -> str:
    """Return a text as Markdown that shows just that text, in one line."""
    line = shown(text)
    found, last = "", 0
    for match in _LINKING.finditer(line):
        found += _PUNCTUATION.sub(r"\\\1", line[last : match.end()]) + _JOINER
        last = match.end()
    found += _PUNCTUATION.sub(r"\\\1", line[last:])
    return _BEGINNING.sub(r"\1\\\2", found)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def number(value: float | None) -> str:
    """Return a number to six digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:.6g}" if not math.isnan(value) else "NaN"


def shown(text: str) -> str:
    """Return a text in one line, cut where it is very long, its unprintable characters escaped."""
    line = " ".join(text.split())
    if len(line) > LONGEST:
        line = f"{line[:LONGEST]}..."
    if line.isprintable():
        return line
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in UNPRINTABLE
        else char
        for char in line
    )

"""A series of numbers as one line of block characters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKS: Final = "▁▂▃▄▅▆▇█"
PLAIN: Final = "_.-=+*%#"


def sparkline(values: Sequence[float], width: int = 24, *, encoding: str = "utf-8") -> str:
    """Draw values as at most `width` characters, the lowest of them low and the highest high.

    Each character stands for the last value of its share of the series. NaN is a gap, infinities
    are at the edges, and a series that never changes runs along the middle.

    Args:
        values: In their order.
        width: How wide it may be.
        encoding: Of where it is shown: without block characters it is drawn in ASCII.
    """
    count = min(width, len(values))
    picked = [_near(values[(at + 1) * len(values) // count - 1]) for at in range(count)]
    finite = [each for each in picked if math.isfinite(each)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    levels = _levels(encoding)
    return "".join(_level(each, low, high, levels) for each in picked)


def _near(value: float) -> float:
    """Return the nearest float; an int that is too large for one is at the edge."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _level(value: float, low: float, high: float, levels: str) -> str:
    if math.isnan(value):
        return " "
    if math.isinf(value):
        return levels[-1] if value > 0 else levels[0]
    if high == low:
        return levels[len(levels) // 2 - 1]
    # Halves first: the difference of the two largest floats is no float.
    share = (value / 2 - low / 2) / (high / 2 - low / 2)
    return levels[min(int(share * len(levels)), len(levels) - 1)]


def _levels(encoding: str) -> str:
    try:
        BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return BLOCKS

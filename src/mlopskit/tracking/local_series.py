"""The points of one metric, packed: 24 bytes each, and what these cannot hold beside them."""

from __future__ import annotations

import json
import math
from array import array
from typing import TYPE_CHECKING, Any, Final

from mlopskit.tracking.entities import MetricHistory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlopskit.tracking.entities import Number

# New points are joined to a chunk that has fewer: few rows for who logs slowly, and little to
# write again.
CHUNK: Final = 256
INT64: Final = range(-(1 << 63), 1 << 63)


class Points:
    """New points of one series, to be stored as a chunk.

    Args:
        series: Its row.
        begin: How many points were stored before.
        last_step: The highest step of these.
        last_value: The value there.
    """

    __slots__ = (
        "_numbers",
        "_odd",
        "_steps",
        "_times",
        "begin",
        "last_step",
        "last_value",
        "series",
    )

    def __init__(self, series: int, begin: int, last_step: int, last_value: Number) -> None:
        self.series = series
        self.begin = begin
        self.last_step = last_step
        self.last_value = last_value
        self._steps = array("q")
        self._times = array("q")
        self._numbers = array("d")
        self._odd: dict[int, list[int | None]] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, time_ms: int, value: Number) -> None:
        """Take one more point."""
        if step >= self.last_step or not (self.begin or self._steps):
            self.last_step, self.last_value = step, value
        if type(value) is float and step in INT64:
            self._steps.append(step)
            self._numbers.append(value)
        else:
            whole = None if isinstance(value, float) else int(value)
            self._odd[len(self._steps)] = [step if step not in INT64 else None, whole]
            self._steps.append(step if step in INT64 else 0)
            self._numbers.append(value if whole is None else 0.0)
        self._times.append(time_ms)

    def join(self, row: Sequence[Any]) -> None:
        """Put the points of a stored chunk in front, whose row of `chunk` this takes over."""
        _, place, count, steps, times, numbers, odd = row
        self.begin = place
        self._steps = array("q", steps) + self._steps
        self._times = array("q", times) + self._times
        self._numbers = array("d", numbers) + self._numbers
        self._odd = {**_odd(odd), **{count + at: each for at, each in self._odd.items()}}

    def row(self) -> tuple[Any, ...]:
        """Return the row of table `chunk`."""
        return (
            self.series,
            self.begin,
            len(self._steps),
            self._steps.tobytes(),
            self._times.tobytes(),
            self._numbers.tobytes(),
            json.dumps(self._odd) if self._odd else None,
        )

    def summary(self) -> tuple[Any, ...]:
        """Return the points, the last step and value, its nearest float, and the series."""
        return (
            self.begin + len(self._steps),
            self.last_step if self.last_step in INT64 else str(self.last_step),
            written_number(self.last_value),
            nearest(self.last_value),
            self.series,
        )


def history_of(chunks: Iterable[Sequence[Any]]) -> MetricHistory:
    """Return the history in chunks of (count, steps, times, numbers, odd), in their order."""
    steps, times, numbers = array("q"), array("q"), array("d")
    odd: dict[int, list[int | None]] = {}
    for _, some_steps, some_times, some_numbers, some_odd in chunks:
        odd |= {len(steps) + at: each for at, each in _odd(some_odd).items()}
        steps.frombytes(some_steps)
        times.frombytes(some_times)
        numbers.frombytes(some_numbers)
    if not odd:
        return MetricHistory.packed(steps, numbers, times)
    exact_steps: list[int] = list(steps)
    exact: list[Number] = list(numbers)
    for at, (step, whole) in odd.items():
        exact_steps[at] = exact_steps[at] if step is None else step
        exact[at] = exact[at] if whole is None else whole
    return MetricHistory.of(exact_steps, exact, times)


def read_step(stored: int | str) -> int:
    """Return a step as it was logged."""
    return int(stored)


def written_number(value: Number) -> float | str | None:
    """SQLite holds floats, but neither NaN, which is null here, nor -0.0 nor larger ints."""
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return None
    return "-0.0" if value == 0 and math.copysign(1, value) < 0 else value


def read_number(stored: float | str | None) -> Number:
    """Return a value as it was logged."""
    if stored is None:
        return math.nan
    if isinstance(stored, str):
        return -0.0 if stored == "-0.0" else int(stored)
    return float(stored)


def nearest(value: object) -> float | None:
    """Return the float nearest to a number; None for NaN and for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _odd(text: str | None) -> dict[int, list[int | None]]:
    return {int(at): each for at, each in json.loads(text).items()} if text else {}

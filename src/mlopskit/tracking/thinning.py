"""Fewer points for a plot, so that it looks the same.

Of each of equally many neighbouring points the first, the last, the smallest and the largest are
kept, which is all that a line chart of that many columns can show. The method is M4: Jugel et al.,
"M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlopskit.tracking.entities import MetricHistory

if TYPE_CHECKING:
    from collections.abc import Sequence

PER_BUCKET = 4


def thinned(history: MetricHistory, max_points: int) -> MetricHistory:
    """Return at most `max_points` points of a history, in their order. Every one was logged."""
    if len(history) <= max_points:
        return history
    buckets = max_points // PER_BUCKET
    count = len(history)
    kept: list[int] = []
    for bucket in range(buckets):
        begin, end = bucket * count // buckets, (bucket + 1) * count // buckets
        kept += places(history.values, begin, end)
    return MetricHistory.of(
        [int(history.steps[at]) for at in kept],
        [_plain(history.values[at]) for at in kept],
        [int(history.timestamps[at]) for at in kept],
    )


def places(values: Sequence[Any], begin: int, end: int) -> list[int]:
    """Return where the first, the smallest, the largest and the last value of a stretch are.

    NaN is neither small nor large.
    """
    there = [(value, at) for at, value in enumerate(values[begin:end], begin) if value == value]  # noqa: PLR0124 - NaN
    extremes = (min(there)[1], max(there)[1]) if there else ()
    return sorted({begin, *extremes, end - 1})


def _plain(value: Any) -> int | float:
    number: int | float = value.item() if hasattr(value, "item") else value
    return number

"""Metrics of slices of the data, kept among the metrics of a version: ``auc[country=DE]``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mlopskit.errors import InvalidName
from mlopskit.names import check_label

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS: Final = "rows"
_SLICED: Final = re.compile(r"(?P<metric>.+?)\[(?P<slice>.+)\]\Z")


def by_slice(
    metric: str, values: Mapping[str, float], rows: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Return the metrics of slices, named to be registered: ``{"auc[country=DE]": 0.81}``.

    Args:
        metric: The metric, such as ``"auc"``.
        values: What was measured, by slice, such as ``"country=DE"``.
        rows: How many rows each slice has, which become ``"rows[country=DE]"``.

    Raises:
        InvalidName: If a name cannot be kept.
    """
    found = {_key(metric, name): float(value) for name, value in values.items()}
    return found | {_key(ROWS, name): float(count) for name, count in (rows or {}).items()}


def slices_of(metrics: Mapping[str, float], metric: str) -> dict[str, float]:
    """Return the values of a metric by slice."""
    return all_slices(metrics).get(metric, {})


def rows_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return how many rows each slice has, where that is known."""
    return slices_of(metrics, ROWS)


def all_slices(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the values of every metric that has slices, by metric and slice."""
    found: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        if match := _SLICED.match(key):
            found.setdefault(match["metric"], {})[match["slice"]] = value
    return found


def whole(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of all the data, without those of slices."""
    return {key: value for key, value in metrics.items() if not _SLICED.match(key)}


def _key(metric: str, name: str) -> str:
    if "[" in metric:
        raise InvalidName("metric", metric, "a bracket begins the slice in the registered name")
    return check_label("metric", f"{check_label('metric', metric)}[{check_label('slice', name)}]")

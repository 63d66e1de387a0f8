"""P-values corrected for how many columns were tested."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Bound the share of false alarms among the alarms (Benjamini and Hochberg 1995).

    Where no column drifted, it also bounds how often a report raises any alarm, for columns that
    are independent or positively dependent.
    """
    n = len(p_values)
    adjusted = [1.0] * n
    least = 1.0
    for rank, at in reversed(list(enumerate(_ascending(p_values), start=1))):
        # Rounding may not make a p-value smaller than it was.
        least = min(least, max(p_values[at], p_values[at] * n / rank))
        adjusted[at] = least
    return adjusted


def holm(p_values: Sequence[float]) -> list[float]:
    """Bound how often a report raises any false alarm, whatever the dependence (Holm 1979)."""
    n = len(p_values)
    adjusted = [1.0] * n
    most = 0.0
    for rank, at in enumerate(_ascending(p_values)):
        most = max(most, min(p_values[at] * (n - rank), 1.0))
        adjusted[at] = most
    return adjusted


def bonferroni(p_values: Sequence[float]) -> list[float]:
    """Multiply by the number of columns: the same bound as `holm`, with less power."""
    return [min(p * len(p_values), 1.0) for p in p_values]


def none(p_values: Sequence[float]) -> list[float]:
    """Correct nothing: with 20 columns, two reports in three raise a false alarm."""
    return list(p_values)


CORRECTIONS: Final[Mapping[str, Callable[[Sequence[float]], list[float]]]] = MappingProxyType(
    {"bh": benjamini_hochberg, "holm": holm, "bonferroni": bonferroni, "none": none}
)


def _ascending(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=p_values.__getitem__)

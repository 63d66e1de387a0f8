"""Distances and tests between the counts of two columns.

Everything here sees two arrays of counts over the same groups, and gives a `Measure`. Under no
drift, with n and m rows in k groups, each of the chi-squared, PSI and Jensen-Shannon statistics
has a known mean; it is subtracted from the effect, so that an effect does not grow as samples
shrink.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from mlopskit.monitoring.profile import CategoricalColumn, NumericColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Counts = NDArray[np.float64]

# The effect from which on a significant drift counts. For a normal column they all lie between a
# shift of 0.2 and of 0.32 standard deviations: Cohen's "small" effect (Statistical Power Analysis
# for the Behavioral Sciences, 2nd ed., 1988: d = 0.2, w = 0.1), and Siddiqi's limit for a PSI that
# deserves a look (Credit Risk Scorecards, 2006: 0.1).
THRESHOLDS: Final[Mapping[str, float]] = MappingProxyType(
    {"ks": 0.1, "chi2": 0.1, "psi": 0.1, "js": 0.1, "wasserstein": 0.2}
)
ONLY_NUMERIC: Final = frozenset(["ks", "wasserstein"])
GROUPS: Final = 10
# Cochran's rule (Biometrics 10, 1954): the approximation wants about 5 expected in every group.
LEAST_EXPECTED: Final = 5.0


@dataclass(frozen=True, slots=True)
class Measure:
    """What one method says of one column: its statistic, its p-value, and the size of the drift."""

    method: str
    test: str
    statistic: float
    p_value: float
    effect: float


def choose(method: str, kind: str) -> str:
    """Return the method for a column: `auto` and methods for numbers only depend on its kind."""
    if method == "auto":
        return "ks" if kind == "numeric" else "chi2"
    return "chi2" if kind != "numeric" and method in ONLY_NUMERIC else method


def measure(
    method: str,
    reference: NumericColumn | CategoricalColumn,
    current: NumericColumn | CategoricalColumn,
) -> Measure:
    """Measure one column with a method that `choose` gave; both sides have values."""
    if isinstance(reference, NumericColumn) and isinstance(current, NumericColumn):
        if method == "ks":
            return ks(fine(reference), fine(current))
        if method == "wasserstein":
            return wasserstein(reference, current)
    return GROUPED[method](*cells(reference, current))


def fine(column: NumericColumn | CategoricalColumn) -> Counts:
    """Return a column's counts as they are, for shape (groups,)."""
    if isinstance(column, NumericColumn):
        return np.array(column.counts, dtype=np.float64)
    return np.array([*column.counts.values(), column.other], dtype=np.float64)


def cells(
    reference: NumericColumn | CategoricalColumn, current: NumericColumn | CategoricalColumn
) -> tuple[Counts, Counts]:
    """Return both sides' counts in groups that are large enough for a test.

    Numbers are put into ten groups of the same share of the reference, and two for what lies
    below and above all of it. Of what remains, groups in
    which fewer than 5 rows are expected on the smaller side are taken together.
    """
    one, two = fine(reference), fine(current)
    if isinstance(reference, NumericColumn):
        where = deciles(one)
        one = np.bincount(where, weights=one, minlength=GROUPS + 2).astype(np.float64)
        two = np.bincount(where, weights=two, minlength=GROUPS + 2).astype(np.float64)
    both = one + two
    rare = both * min(one.sum(), two.sum()) / both.sum() < LEAST_EXPECTED
    a = np.append(one[~rare], one[rare].sum())
    b = np.append(two[~rare], two[rare].sum())
    used = a + b > 0
    return a[used], b[used]


def deciles(counts: Counts, groups: int = GROUPS) -> NDArray[np.intp]:
    """Return for every fine group of a reference which of the equal shares its middle lies in.

    Groups below all of the reference get the number `groups`, those above all of it the next.
    """
    middle = (np.cumsum(counts) - counts / 2) / counts.sum()
    seen = np.flatnonzero(counts)
    groups_of: NDArray[np.intp] = np.minimum((middle * groups).astype(np.intp), groups - 1)
    groups_of[: seen[0]], groups_of[seen[-1] + 1 :] = groups, groups + 1
    return groups_of


def ks(one: Counts, two: Counts) -> Measure:
    """Compare two cumulative distributions by their greatest distance, from 0 to 1.

    The p-value is Kolmogorov's limit (Smirnov 1948), which is on the safe side for values that
    repeat and for distances that are looked at between groups only. The effect is the statistic.
    """
    n, m = one.sum(), two.sum()
    distance = float(np.abs(np.cumsum(one) / n - np.cumsum(two) / m).max())
    p_value = float(special.kolmogorov(distance * math.sqrt(n * m / (n + m))))
    return Measure("ks", "ks", distance, p_value, distance)


def chi2(one: Counts, two: Counts) -> Measure:
    """Test whether two sets of counts come from the same shares (Pearson).

    The effect is Cramer's V between 0 and 1, as it would be for two samples of one size, and
    corrected for bias in the manner of Bergsma (J. Korean Stat. Soc. 42, 2013).
    """
    n, m = one.sum(), two.sum()
    expected = (one + two) * n / (n + m)
    other = (one + two) * m / (n + m)
    statistic = float(((one - expected) ** 2 / expected + (two - other) ** 2 / other).sum())
    p, q = one / n, two / m
    v_squared = float(((p - q) ** 2 / (p + q)).sum()) / 2
    bias = _freedom(one) * (1 / n + 1 / m) / 4
    effect = math.sqrt(max(v_squared - bias, 0.0))
    return Measure("chi2", "chi2", statistic, _p_chi2(statistic, one), effect)


def psi(one: Counts, two: Counts) -> Measure:
    """Sum ``(q - p) * ln(q / p)`` over the groups, p and q being the shares of both sides.

    Half a row is added to every group, so that an empty one is no infinity. Without drift
    ``PSI / (1/n + 1/m)`` is chi-squared with k - 1 degrees of freedom (Yurdakul, Statistical
    Properties of Population Stability Index, 2018); its mean is subtracted from the effect.
    """
    n, m = one.sum(), two.sum()
    k = len(one)
    p, q = (one + 0.5) / (n + k / 2), (two + 0.5) / (m + k / 2)
    statistic = float(((q - p) * np.log(q / p)).sum())
    scale = 1 / n + 1 / m
    p_value = _p_chi2(statistic / scale, one)
    return Measure(
        "psi", "psi", statistic, p_value, max(statistic - _freedom(one) * float(scale), 0.0)
    )


def js(one: Counts, two: Counts) -> Measure:
    """Return the square root of the Jensen-Shannon divergence in bits, from 0 to 1.

    Without drift ``8 ln(2) * divergence / (1/n + 1/m)`` is chi-squared with k - 1 degrees of
    freedom, from the second-order expansion of the divergence (Lin, IEEE Trans. Inf. Theory 37,
    1991, gives the divergence); its mean is subtracted from the effect.
    """
    n, m = one.sum(), two.sum()
    p, q = one / n, two / m
    mean = (p + q) / 2
    divergence = float((special.rel_entr(p, mean) + special.rel_entr(q, mean)).sum()) / 2
    divergence = min(max(divergence / math.log(2), 0.0), 1.0)
    scale = (1 / n + 1 / m) / (8 * math.log(2))
    effect = math.sqrt(max(divergence - _freedom(one) * scale, 0.0))
    return Measure("js", "js", math.sqrt(divergence), _p_chi2(divergence / scale, one), effect)


def wasserstein(reference: NumericColumn, current: NumericColumn) -> Measure:
    """Return the area between two cumulative distributions, in reference standard deviations.

    Values are taken as spread evenly within a group. The significance is that of `ks`.
    """
    one, two = fine(reference), fine(current)
    ends = [side for side in (reference, current) if side.minimum is not None]
    low = min((side.minimum for side in ends if side.minimum is not None), default=0.0)
    high = max((side.maximum for side in ends if side.maximum is not None), default=0.0)
    edges = np.clip(np.concatenate([[low], reference.edges, [high]]), low, high)
    gap = np.cumsum(one) / one.sum() - np.cumsum(two) / two.sum()
    gap = np.concatenate([[0.0], gap])
    # Halved before the subtraction: the distance of two doubles may be no double.
    widths = edges[1:] / 2 - edges[:-1] / 2
    area = float((_mean_size(gap[:-1], gap[1:]) * widths).sum()) * 2
    signed = float(((gap[:-1] + gap[1:]) / 2 * widths).sum()) * 2
    area = _corrected(area, signed, reference, current)
    test = ks(one, two)
    scaled = _scaled(area, reference.std or current.std)
    return Measure("wasserstein", "ks", scaled, test.p_value, scaled)


def _corrected(
    area: float, signed: float, reference: NumericColumn, current: NumericColumn
) -> float:
    """Take the error of the groups out of an area: its signed part is known, from the exact means.

    The signed area between two distributions is the distance of their means, and the area is never
    less.
    """
    infinite = reference.finite < reference.present or current.finite < current.present
    one, two = reference.mean, current.mean
    if infinite or one is None or two is None:
        return area
    apart = abs(one / 2 - two / 2) * 2
    return max(apart, area - abs(signed) + apart)


GROUPED: Final[Mapping[str, Callable[[Counts, Counts], Measure]]] = MappingProxyType(
    {"chi2": chi2, "psi": psi, "js": js}
)


def _mean_size(left: Counts, right: Counts) -> Counts:
    """Return the mean size of straight lines from `left` to `right`, some of which cross zero."""
    crosses = left * right < 0
    total = np.abs(left) + np.abs(right)
    safe = np.where(total > 0, total, 1.0)
    crossing: Counts = (left**2 + right**2) / (2 * safe)
    return np.where(crosses, crossing, total / 2)


def _scaled(area: float, std: float | None) -> float:
    """Divide by a deviation; where neither side has one, any distance at all is one deviation."""
    if not area:
        return 0.0
    value = area / std if std else 1.0
    return value if math.isfinite(value) else 1e300


def _freedom(counts: Counts) -> int:
    return len(counts) - 1


def _p_chi2(statistic: float, counts: Counts) -> float:
    return float(special.chdtrc(_freedom(counts), statistic)) if len(counts) > 1 else 1.0

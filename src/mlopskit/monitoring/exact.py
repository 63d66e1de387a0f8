"""Sums of doubles without any rounding, as rationals.

Every double is a whole multiple of a power of two. Adding and subtracting a large constant cuts an
array into slices of 24 bits whose sums fit a double exactly, in any order; the slices are summed by
NumPy and added up as rationals. See Demmel and Nguyen, "Parallel Reproducible Summation" (2015).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLICE_BITS: Final = 24
# 2 ** 24 rows of 24 bits still fit the 53 bits of a double, with some to spare.
MOST_ROWS: Final = 1 << 24
# Three slices hold the 53 bits of doubles of similar size; then few values have anything left.
USUAL_SLICES: Final = 3
LARGEST: Final = 2.0**900
SMALLEST: Final = 2.0**-900


def exact_sum(values: NDArray[np.float64]) -> Fraction:
    """Return the sum of finite doubles of shape (n,), exactly."""
    total = Fraction(0)
    for start in range(0, len(values), MOST_ROWS):
        total += _sum(values[start : start + MOST_ROWS])
    return total


def _sum(values: NDArray[np.float64]) -> Fraction:
    total = Fraction(0)
    rest = values
    slices = 0
    while len(rest):
        largest = float(max(rest.max(), -rest.min()))
        if largest == 0.0:
            break
        if not SMALLEST < largest < LARGEST:
            rest, extreme = _parted(rest)
            total += sum(map(Fraction, extreme), Fraction(0))
            continue
        # Adding 1.5 * 2^k rounds to multiples of 2^(k - 52); choose it 24 bits below the largest.
        exponent = int(np.frexp(largest)[1])
        constant = 1.5 * 2.0 ** (exponent - SLICE_BITS + 52)
        high = (rest + constant) - constant
        total += Fraction(float(high.sum()))
        rest = rest - high
        slices += 1
        if slices >= USUAL_SLICES:
            rest = rest[rest != 0.0]
    return total


def _parted(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[float]]:
    """Part off the values whose slices would overflow or underflow: they are few, or hostile."""
    size = np.abs(values)
    usual = (size < LARGEST) & (size > SMALLEST)
    return values[usual], values[~usual & (size > 0.0)].tolist()

"""Fewer points for a plot."""

from __future__ import annotations

import math
import random

import pytest

from mlopskit.tracking.entities import MetricHistory
from mlopskit.tracking.thinning import thinned

pytestmark = pytest.mark.core


def history(values: list[float]) -> MetricHistory:
    steps = list(range(len(values)))
    return MetricHistory.of(steps, values, [1000 + step for step in steps])


@pytest.mark.parametrize("count", [0, 1, 5, 400, 401, 10_000])
@pytest.mark.parametrize("most", [4, 7, 400])
def test_ends_and_extremes_stay_and_nothing_is_made_up(count: int, most: int) -> None:
    chance = random.Random(count)
    values = [chance.gauss(0, 1) for _ in range(count)]

    thin = thinned(history(values), most)

    assert len(thin) <= max(most, 4)
    assert list(thin.steps) == sorted(thin.steps)
    assert [values[step] for step in thin.steps] == list(thin.values)
    assert [1000 + step for step in thin.steps] == list(thin.timestamps)
    if values:
        assert (thin.steps[0], thin.steps[-1]) == (0, count - 1)
        assert (min(thin.values), max(thin.values)) == (min(values), max(values))
    if count <= most:
        assert len(thin) == count


def test_nan_is_no_extreme_and_infinity_is_one() -> None:
    values = [math.nan] * 100 + [0.0, math.inf, -1.0] + [math.nan] * 100

    thin = thinned(history(values), 8)

    assert {math.inf, -1.0} <= set(thin.values)
    assert len(thinned(history([math.nan] * 100), 8)) <= 8


def test_ints_that_no_float_equals_stay_exact() -> None:
    thin = thinned(MetricHistory.of([0, 1], [2**53 + 1, 0.5], [0, 0]), 4)
    many = thinned(MetricHistory.of(range(100), [2**70 + i for i in range(100)], [0] * 100), 4)

    assert list(thin.values) == [2**53 + 1, 0.5]
    assert many.values[-1] == 2**70 + 99

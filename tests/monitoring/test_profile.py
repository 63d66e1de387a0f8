from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlopskit.errors import InvalidInput, NotFound
from mlopskit.monitoring import NumericColumn, Profile
from mlopskit.monitoring.exact import exact_sum
from mlopskit.monitoring.profiling import CELLS, make_edges, places_of, profile

NUMBERS = st.one_of(
    st.none(),
    st.floats(),
    st.floats(-10, 10).map(lambda x: round(x, 1)),
    st.sampled_from([0.0, -0.0, 5e-324, 1.7e308, -1.7e308, 1e-310]),
)
WORDS = st.one_of(st.none(), st.sampled_from(["a", "b", "", "ä", "z" * 500]))


def table(rows: list[tuple[float | None, str | None]]) -> pa.Table:
    numbers = pa.array([row[0] for row in rows], pa.float64())
    words = pa.array([row[1] for row in rows], pa.string())
    return pa.table({"number": numbers, "word": words})


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(NUMBERS, WORDS), min_size=2, max_size=60),
    cuts=st.lists(st.integers(1, 59), max_size=4),
    first=st.lists(st.tuples(NUMBERS, WORDS), min_size=1, max_size=30),
)
def test_partitions_merged_in_any_order_equal_the_whole(
    rows: list[Any], cuts: list[int], first: list[Any]
) -> None:
    like = profile(table(first), "The first")
    whole = profile(table(rows), "The whole", like)
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    parts = [profile(table(rows[a:b]), "A part", like) for a, b in pairwise(bounds)]
    forward, backward = parts[0], parts[-1]
    for part in parts[1:]:
        forward = forward.merge(part)
    for part in parts[-2::-1]:
        backward = backward.merge(part)

    assert forward == backward == whole
    assert Profile.from_json(whole.to_json()) == whole


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=50))
def test_sums_are_exact(values: list[float]) -> None:
    assert exact_sum(np.array(values)) == sum(map(Fraction, values), Fraction(0))


def test_sums_are_exact_where_rounding_would_lose_everything() -> None:
    values = np.array([1e200, 1.0, -1e200, 1e-200] * 1000)
    assert exact_sum(values) == 1000 * (1 + Fraction(1e-200))


@pytest.mark.parametrize("name", ["normal", "heavy", "few", "huge", "constant"])
def test_the_table_finds_the_same_groups_as_a_search(name: str) -> None:
    rng = np.random.default_rng(4)
    n = 3 * CELLS
    values = {
        "normal": rng.normal(size=n),
        "heavy": rng.standard_cauchy(n),
        "few": rng.integers(0, 9, n) / 3,
        "huge": rng.uniform(-1.0, 1.0, n) * 1.7e308,
        "constant": np.full(n, 3.25),
    }[name]
    edges = make_edges(values)
    asked = np.concatenate([values / 1.01, edges, np.nextafter(edges, 9), [np.inf, -np.inf]])

    assert (places_of(asked, edges) == np.searchsorted(edges, asked, side="left")).all()
    assert (np.diff(edges) > 0).all()
    assert len(edges) <= 300


def test_a_column_knows_its_mean_and_its_deviation() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1e9, 2.0, 5000)
    column = profile({"x": values}, "It")["x"]

    assert isinstance(column, NumericColumn)
    assert column.mean == pytest.approx(values.mean(), rel=1e-15)
    assert column.std == pytest.approx(values.std(), rel=1e-9)
    assert (column.minimum, column.maximum) == (values.min(), values.max())


def test_missing_and_infinite_values_are_told_apart() -> None:
    values = pa.array([1.0, None, float("nan"), float("inf"), float("-inf"), 2.0])
    column = profile(pa.table({"x": values}), "It")["x"]

    assert isinstance(column, NumericColumn)
    assert (column.n, column.nulls, column.nans, column.present) == (6, 1, 1, 4)
    assert (column.positive_infinities, column.negative_infinities, column.finite) == (1, 1, 2)
    assert column.missing_share == 2 / 6
    assert column.mean == 1.5


def test_a_profile_is_small() -> None:
    rng = np.random.default_rng(0)
    frame = {f"x{i}": rng.normal(size=5000) for i in range(10)}
    frame["c"] = rng.choice([f"category {i}" for i in range(1000)], 5000)

    assert len(profile(frame, "It").to_json()) < 50_000


def test_partitions_of_other_tables_do_not_merge() -> None:
    one = profile({"x": np.arange(3.0)}, "It")
    with pytest.raises(InvalidInput, match="'y'"):
        one.merge(profile({"x": np.arange(3.0), "y": np.arange(3.0)}, "It"))
    with pytest.raises(InvalidInput, match="no profile"):
        one.merge("x")  # type: ignore[arg-type]  # what a user may do
    with pytest.raises(NotFound, match="There is: x"):
        one["X"]


def test_a_column_of_two_types_is_merged_without_its_values() -> None:
    like = profile({"x": np.arange(3.0)}, "It")
    text = profile({"x": np.array(["a", "b"])}, "It", like)
    merged = like.merge(text)

    assert merged == text.merge(like)
    assert (merged["x"].kind, merged.n) == ("other", 5)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"n": -1},
        {"n": 7},
        {"surprise": 1},
        {"counts": [1]},
        {"edges": [3.0, 1.0]},
        {"total": "1e999999999"},
        {"total": "1/0"},
        {"total": "9" * 5000},
        {"kind": "pickle"},
        {"nulls": 99},
        {"maximum": None},
    ],
)
def test_a_file_that_does_not_add_up_is_refused(change: dict[str, Any]) -> None:
    good = json.loads(profile({"x": np.arange(3.0)}, "It").to_json())
    for key, value in change.items():
        target = good if key in ("version", "n", "surprise") else good["columns"]["x"]
        target[key] = value
    with pytest.raises(InvalidInput, match="no profile"):
        Profile.from_json(json.dumps(good))


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "{}", b"\xff"])
def test_what_is_no_json_of_a_profile_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidInput, match="no profile"):
        Profile.from_json(text)

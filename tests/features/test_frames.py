from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mlopskit.errors import InvalidInput
from mlopskit.features import FeatureView, frames, rows
from mlopskit.features.local import LocalFeatureStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
VIEW = FeatureView("v", ["k"], ["x"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalFeatureStore]:
    with LocalFeatureStore(tmp_path / "store") as store:
        store.apply(VIEW)
        store.push("v", {"k": [1, 2], "x": ["a", "b"], "event_timestamp": [NOON, NOON]})
        yield store


@pytest.mark.parametrize(
    "keys",
    [
        pd.Series([1.0, np.nan, 2.0]),
        pd.Series([1, None, 2], dtype="Int64"),
        pd.Series([1, None, 2], dtype="category"),
        pd.Series([1, None, 2], dtype="object"),
        pd.Series([1, None, 2], dtype="int8[pyarrow]"),
    ],
    ids=lambda series: str(series.dtype),
)
def test_integers_with_a_gap_are_keys_however_pandas_holds_them(
    store: LocalFeatureStore, keys: pd.Series[Any]
) -> None:
    frame = pd.DataFrame({"k": keys, "event_timestamp": [NOON] * 3})
    found = store.get_historical_features(frame, ["v:x"])
    assert [x if isinstance(x, str) else None for x in found["x"]] == ["a", None, "b"]
    assert found["k"].dtype == keys.dtype
    assert store.get_online_features(frame[["k"]], ["v:x"]).to_dict()["x"] == ["a", None, "b"]


def test_polars_keys_of_any_width_join(store: LocalFeatureStore) -> None:
    for dtype in (pl.Int8, pl.UInt64):
        frame = pl.DataFrame(
            {"k": [2, 1], "event_timestamp": [NOON] * 2}, schema_overrides={"k": dtype}
        )
        found = store.get_historical_features(frame, ["v:x"])
        assert found["x"].to_list() == ["b", "a"]
        assert found.schema["k"] == dtype


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pl.LazyFrame({"k": [1]}), "collect a lazy one"),
        ({"k": [1]}, "dict is no frame"),
        (None, "NoneType is no frame"),
        (pd.DataFrame([[1, 2, 3]], columns=["k", "k", "event_timestamp"]), "cannot be read"),
        (pd.DataFrame({"k": [1, "a"], "event_timestamp": [NOON] * 2}), "mixed"),
        (pd.DataFrame({"k": [1.5], "event_timestamp": [NOON]}), "'k'.*cannot be a key"),
        (pd.DataFrame({"k": [1], "event_timestamp": ["noon"]}), "no time"),
        (pa.table({"k": pa.array([2**64 - 1], pa.uint64()), "event_timestamp": [NOON]}), "'k'"),
        (pa.table({"k": [[1]], "event_timestamp": [NOON]}), "A key is text"),
    ],
)
def test_what_is_no_frame_to_join_is_refused(
    store: LocalFeatureStore, frame: Any, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        store.get_historical_features(frame, ["v:x"])


def test_a_record_batch_is_a_table(store: LocalFeatureStore) -> None:
    batch = pa.record_batch({"k": [2], "event_timestamp": [NOON]})
    assert store.get_historical_features(batch, ["v:x"])["x"].to_pylist() == ["b"]


def test_dates_and_chunks_and_slices_join(store: LocalFeatureStore) -> None:
    next_day = date(2024, 3, 11)
    table = pa.concat_tables(
        pa.table({"k": [9, k], "event_timestamp": [next_day] * 2}).slice(1) for k in (2, 1)
    )
    assert store.get_historical_features(table, ["v:x"])["x"].to_pylist() == ["b", "a"]
    early = table.set_column(1, "event_timestamp", pa.array([date(2024, 3, 10)] * 2))
    assert store.get_historical_features(early, ["v:x"])["x"].to_pylist() == [None, None]


def test_pandas_gaps_are_null_and_times_are_utc_when_pushed() -> None:
    tokyo = pd.Timestamp("2024-03-10T21:00", tz="Asia/Tokyo")
    view = FeatureView("v", ["k"], ["x", "at", "n"], created="created")
    frame = pd.DataFrame(
        {
            "k": ["a", "b"],
            "x": [1.5, np.nan],
            "at": [tokyo, pd.NaT],
            "n": pd.Series([1, None], dtype="Int64"),
            "event_timestamp": [tokyo, tokyo],
            "created": pd.to_datetime(["2024-03-10", "2024-03-11"]),
        }
    )
    found = rows.events(view, frame)
    assert found.values == [{"x": 1.5, "at": NOON, "n": 1}, {"x": None, "at": None, "n": None}]
    assert found.values[0]["at"].tzinfo is UTC
    assert found.times == [int(NOON.timestamp()) * 10**6] * 2
    assert found.created[1] - found.created[0] == 86400 * 10**6
    assert rows.events(view, frame.to_dict("records")).values[0] == found.values[0]


def test_numpy_values_in_plain_rows_are_plain_when_stored() -> None:
    event = {
        "k": np.int32(7),
        "x": np.float32(0.5),
        "event_timestamp": np.datetime64("2024-03-10T12:00:00.000000001"),
    }
    found = rows.events(VIEW, [event])
    assert (found.keys, found.values) == ([(7,)], [{"x": 0.5}])
    assert type(found.values[0]["x"]) is float
    assert found.times == [int(NOON.timestamp()) * 10**6 + 1], "up to the next microsecond"
    columns = {name: np.array([value]) for name, value in event.items()}
    assert rows.events(VIEW, columns) == found
    assert rows.events(VIEW, [{**event, "x": np.array([1, 2])}]).values == [{"x": [1, 2]}]
    for value in (np.timedelta64(1, "s"), np.array(["2024"], "datetime64[ns]"), 1j):
        with pytest.raises(InvalidInput, match="cannot be kept"):
            rows.events(VIEW, [{**event, "x": value}])
    with pytest.raises(InvalidInput, match="no time"):
        rows.events(VIEW, [{**event, "event_timestamp": np.datetime64("NaT")}])
    with pytest.raises(InvalidInput, match="no time"):
        rows.events(VIEW, [{**event, "event_timestamp": pd.NaT}])


def test_a_feature_that_is_a_time_keeps_its_last_digit_or_is_refused() -> None:
    exact = pa.array([1000], pa.timestamp("ns"))
    finer = pa.array([1001], pa.timestamp("ns"))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert frames.plain(exact, "it") == [epoch + timedelta(microseconds=1)]
    with pytest.raises(InvalidInput, match="whole microseconds"):
        frames.plain(finer, "it")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_every_unit_are_the_same_microseconds(unit: str) -> None:
    column = pa.array([NOON, None], pa.timestamp(unit, "Asia/Tokyo"))
    count = int(NOON.timestamp()) * 10**6
    assert frames.microseconds(column, "it").to_pylist() == [count, None]
    assert frames.microseconds(pa.chunked_array([column]), "it", up=True).to_pylist() == [
        count,
        None,
    ]


def test_times_before_1970_round_the_right_way() -> None:
    column = pa.array([-1, -1000, -1001], pa.timestamp("ns"))
    assert frames.microseconds(column, "it").to_pylist() == [-1, -1, -2]
    assert frames.microseconds(column, "it", up=True).to_pylist() == [0, -1, -1]


def test_a_time_that_no_calendar_holds_is_refused() -> None:
    with pytest.raises(InvalidInput, match="out of range"):
        frames.microseconds(pa.array([2**62], pa.timestamp("s")), "it")
    table = pa.table({"k": [1], "x": [1], "event_timestamp": pa.array([2**62], pa.timestamp("us"))})
    with pytest.raises(InvalidInput, match="years 1 and 9999"):
        rows.events(VIEW, table)

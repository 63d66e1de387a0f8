from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mlopskit.pipelines import pipeline, step
from mlopskit.pipelines.files import Files, Unstorable
from mlopskit.pipelines.local import LocalRunner
from mlopskit.pipelines.values import Decoder, Encoder
from mlopskit.storage import Blobs

if TYPE_CHECKING:
    from pathlib import Path


class Store:
    def __init__(self, root: Path) -> None:
        self.blobs = Blobs(root / "blobs")
        self.decoder = Decoder(self.blobs, Files(root / "files", self.blobs))

    def there_and_back(self, value: Any) -> Any:
        return self.decoder.value(Encoder(self.blobs.put).document(value))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(100_000, dtype=">i4")[::3],
        np.array(3.5, dtype=np.float16),
        np.zeros((0, 4), dtype=np.uint8),
        np.array(["a", "bcd"]),
        np.array([b"a", b"\x00b"]),
        np.array(["2026-01-01", "NaT"], dtype="datetime64[ns]"),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    ],
    ids=lambda array: str(array.dtype),
)
def test_an_array_keeps_its_type_shape_order_and_bytes(store: Store, array: Any) -> None:
    back = store.there_and_back(array)

    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_every_bit_of_a_nan_is_kept(store: Store) -> None:
    array = np.array([0x7FF8000000000001, 0xFFF8000000000002], dtype=np.uint64).view(np.float64)

    assert store.there_and_back(array).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "scalar",
    [np.float64(0.1), np.float32("nan"), np.int8(-1), np.bool_(True), np.str_("ä"),
     np.datetime64("2026-01-01", "D")],
    ids=lambda scalar: type(scalar).__name__,
)  # fmt: skip
def test_a_scalar_of_numpy_stays_one(store: Store, scalar: Any) -> None:
    back = store.there_and_back({"score": scalar})["score"]

    assert type(back) is type(scalar)
    assert back.dtype == scalar.dtype
    assert back.tobytes() == scalar.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.array([object()]),
        np.array([{}], dtype=object),
        np.ma.masked_array([1, 2], mask=[True, False]),
        np.array(["a"], dtype=np.dtypes.StringDType()),
        np.array([1], dtype=np.dtype("i4", metadata={"a": 1})),
    ],
    ids=lambda array: f"{type(array).__name__} {array.dtype}",
)
def test_an_array_that_only_pickle_would_keep_is_refused(store: Store, array: Any) -> None:
    with pytest.raises(Unstorable):
        store.there_and_back(array)


def frames() -> dict[str, Any]:
    days = pd.date_range("2026-01-01", periods=3, freq="D")
    odd = pd.DataFrame({"x": [1.0, np.nan, -0.0], "s": ["a", None, "ü"]}, index=[5, 3, 3])
    named = odd.rename_axis("row")
    named.attrs = {"source": "test"}
    return {
        "plain": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
        "index": odd,
        "names and attrs": named,
        "days": pd.DataFrame({"v": [1, 2, 3]}, index=days),
        "zone": pd.DataFrame({"t": days.tz_localize("Europe/Berlin")}),
        "multi": pd.DataFrame(
            {"v": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["k", None])
        ),
        "categories": pd.DataFrame(
            {"c": pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"], ordered=True)}
        ),
        "nullable": pd.DataFrame({"i": pd.array([1, None], dtype="Int64")}),
        "numbered columns": pd.DataFrame([[1, 2], [3, 4]]),
        "empty": pd.DataFrame({"a": pd.Series([], dtype="float32")}),
        "periods": pd.DataFrame({"v": [1]}, index=pd.period_range("2026-01", periods=1, freq="M")),
    }


# pyarrow 25 asks pandas 3.1 for what pandas 4 will return differently.
@pytest.mark.filterwarnings("ignore:Series.values returning")
@pytest.mark.parametrize("name", list(frames()))
def test_a_frame_of_pandas_comes_back_equal(store: Store, name: str) -> None:
    frame = frames()[name]
    back = store.there_and_back(frame)

    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_freq=True)
    assert back.attrs == frame.attrs


@pytest.mark.parametrize("name", ["v", None, 3, "a.b"])
def test_a_series_keeps_its_name(store: Store, name: Any) -> None:
    series = pd.Series([1.5, np.nan], index=["x", "y"], name=name)

    pd.testing.assert_series_equal(store.there_and_back(series), series, check_exact=True)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"o": [1, "a"]}),
        pd.DataFrame({"o": [object()]}),
        pd.DataFrame({"o": [{"a": 1}, {"b": 2}]}),
        pd.DataFrame({"o": np.array([1, 2], dtype=object)}),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame(index=[1, 2]),
    ],
    ids=["mixed", "objects", "dicts", "boxed", "double names", "no columns"],
)
def test_a_frame_that_would_come_back_changed_is_refused(store: Store, frame: Any) -> None:
    try:
        back = store.there_and_back(frame)
    except Unstorable:
        return
    pd.testing.assert_frame_equal(back, frame, check_exact=True)


def test_tables_of_arrow_come_back_equal(store: Store) -> None:
    table = pa.table(
        {
            "d": pa.chunked_array(
                [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c"]).dictionary_encode()]
            ),
            "l": pa.array([[1], None, []], pa.list_(pa.int8())),
            "t": pa.array([1, 2, None], pa.timestamp("s", "UTC")),
        }
    ).replace_schema_metadata({"k": "v"})
    back = store.there_and_back(table)

    assert back.equals(table)
    assert back.schema.equals(table.schema, check_metadata=True)


def test_frames_of_polars_come_back_equal(store: Store) -> None:
    frame = pl.DataFrame(
        {
            "c": pl.Series(["a", None, "b"], dtype=pl.Categorical),
            "n": [1.5, None, float("nan")],
            "l": [[1], [], None],
        }
    )
    back = store.there_and_back(frame)

    assert back.schema == frame.schema
    assert back.equals(frame)
    assert store.there_and_back(frame["l"]).equals(frame["l"])
    assert store.there_and_back(frame["l"]).name == "l"


def test_a_polars_frame_of_python_objects_is_refused(store: Store) -> None:
    with pytest.raises(Unstorable, match="not kept exactly"):
        store.there_and_back(pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}))


@step(cache=False)
def overwritten(array: Any, table: Any) -> list[float]:
    array[0] += 1
    table.loc[0, "a"] += 1
    return [float(array[0]), float(table["a"][0])]


@step(retries=1, cache=False)
def overwritten_twice(array: Any) -> float:
    array[0] += 1
    if array[0] == 1 and not TRIED:
        TRIED.append(1)
        raise RuntimeError
    return float(array[0])


TRIED: list[int] = []


def test_a_step_that_is_tried_again_sees_nothing_of_its_first_try(tmp_path: Path) -> None:
    TRIED.clear()

    @pipeline
    def stubborn(array: Any) -> Any:
        return overwritten_twice(array)

    with LocalRunner(tmp_path / "pipelines") as runner:
        assert runner.run(stubborn, np.zeros(2)).output == 1
    assert TRIED == [1]


def test_an_array_and_a_frame_that_two_steps_change_reach_each_unchanged(tmp_path: Path) -> None:
    @pipeline
    def changing(array: Any, table: Any) -> Any:
        return [overwritten(array, table), overwritten(array, table), overwritten_twice(array)]

    TRIED.clear()
    array, table = np.zeros(2), pd.DataFrame({"a": [0.0]})
    with LocalRunner(tmp_path / "pipelines") as runner:
        assert runner.run(changing, array, table).output == [[1, 1], [1, 1], 1]
    assert array[0] == 0

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mlopskit import infer_signature
from mlopskit.errors import InvalidInput
from mlopskit.registry import TensorSpec

COLUMNS: dict[str, Any] = {
    "age": np.array([1, 2], dtype=np.int32),
    "x": np.array([0.5, 1.5]),
    "on": np.array([True, False]),
}


@pytest.mark.parametrize(
    "frame", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "arrow"]
)
def test_a_frame_gives_names_and_types(frame: Any) -> None:
    made = infer_signature(frame({**COLUMNS, "city": ["a", "b"]}))

    assert made.inputs == (
        TensorSpec(name="age", dtype="int32", shape=(-1,)),
        TensorSpec(name="x", dtype="float64", shape=(-1,)),
        TensorSpec(name="on", dtype="bool", shape=(-1,)),
        TensorSpec(name="city", dtype="str", shape=(-1,)),
    )
    assert made.outputs == ()


def test_arrays_give_their_shape_without_the_rows() -> None:
    made = infer_signature({"image": np.zeros((4, 28, 28), "float32")}, np.zeros(4, "int64"))

    assert made.inputs == (TensorSpec(name="image", dtype="float32", shape=(-1, 28, 28)),)
    assert made.outputs == (TensorSpec(name="output", dtype="int64", shape=(-1,)),)


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.array(["a", "bc"]), "str"),
        (np.array(["a", "bc"], dtype=object), "str"),
        (np.array(["a", None], dtype=object), "object"),
        (np.array([b"a"]), "bytes"),
        (np.array(["2020-01-01"], dtype="datetime64[ns]"), "datetime"),
        (np.zeros(2, "uint8"), "uint8"),
    ],
)
def test_types_go_by_plain_words(array: Any, word: str) -> None:
    assert infer_signature({"a": array}).inputs[0].dtype == word


def test_a_series_keeps_its_name() -> None:
    assert infer_signature(pd.Series([1.0], name="x")).inputs[0].name == "x"
    assert infer_signature(pl.Series("y", [1])).inputs[0].name == "y"


@pytest.mark.parametrize("given", [{}, 3, "text", {"a": np.float64(1)}, {"": np.zeros(2)}, None])
def test_what_has_no_rows_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInput):
        infer_signature(given)


def test_columns_of_one_name_are_refused() -> None:
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])

    with pytest.raises(InvalidInput, match="one name"):
        infer_signature(frame)

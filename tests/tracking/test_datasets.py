"""Equal data has an equal fingerprint, whichever library holds it."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput, InvalidName
from mlopskit.redaction import Redactor
from mlopskit.tracking import datasets

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.tracking.entities import Dataset

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pytest.importorskip("narwhals")

COLUMNS: dict[str, list[Any]] = {
    "int": [1, -2, 3],
    "float": [0.5, None, -0.0],
    "text": ["a", "", "ü\n"],
    "bool": [True, False, True],
    "time": [datetime(2026, 1, 31, 12, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), None],
}


def described(data: Any, **options: Any) -> Dataset:
    given: dict[str, Any] = {"role": "training", "uri": None, "digest": "", **options}
    return datasets.describe(data, "d", redactor=Redactor(), **given)


# pyarrow reads pandas 3.1 in a way that pandas 4 will not have.
@pytest.mark.filterwarnings("ignore:Series.values returning an ndarray")
def test_pandas_polars_pyarrow_and_rows_agree() -> None:
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    found = {
        "pandas": described(pd.DataFrame(COLUMNS)),
        "polars": described(pl.DataFrame(COLUMNS)),
        "pyarrow": described(pa.table(COLUMNS)),
        "rows": described(rows),
        "columns": described(COLUMNS),
    }

    assert {source: each.source for source, each in found.items()} == {s: s for s in found}
    assert len({each.digest for each in found.values()}) == 1
    assert {each.columns for each in found.values()} == {
        (
            ("int", "int"),
            ("float", "float"),
            ("text", "text"),
            ("bool", "bool"),
            ("time", "datetime"),
        )
    }
    assert {each.rows for each in found.values()} == {3}


def test_widths_indexes_chunks_and_categories_do_not_count() -> None:
    plain = described(pa.table({"n": [1, 2, 3], "t": ["a", "b", "a"]})).digest

    narrow = pa.table({"n": pa.array([1, 2, 3], pa.int8()), "t": pa.array(["a", "b", "a"])})
    chunks = pa.concat_tables([narrow.slice(0, 1), narrow.slice(1)])
    frame = pd.DataFrame({"n": [1, 2, 3], "t": pd.Categorical(["a", "b", "a"])}, index=[7, 8, 9])
    lazy = pl.DataFrame({"n": [1, 2, 3], "t": ["a", "b", "a"]}).lazy()

    assert {described(each).digest for each in (narrow, chunks, frame, lazy)} == {plain}
    assert (
        described(pa.table({"n": [0, 1, 2, 3]}).slice(1)).digest
        == described(pa.table({"n": [1, 2, 3]})).digest
    )


@pytest.mark.parametrize(
    "other",
    [
        {"a": [1, 2], "b": ["x", "z"]},
        {"a": [2, 1], "b": ["y", "x"]},
        {"b": ["x", "y"], "a": [1, 2]},
        {"c": [1, 2], "b": ["x", "y"]},
        {"a": [1.0, 2.0], "b": ["x", "y"]},
        {"a": [1, None], "b": ["x", "y"]},
        {"a": [1, 2], "b": ["xy", ""]},
        {"a": [1, 2], "b": ["x", None]},
        {"a": [1], "b": ["x"]},
        {"a": [1, 2]},
    ],
    ids=str,
)
def test_whatever_differs_changes_the_fingerprint(other: dict[str, list[Any]]) -> None:
    assert (
        described(pa.table({"a": [1, 2], "b": ["x", "y"]})).digest
        != described(pa.table(other)).digest
    )


@pytest.mark.parametrize("seed", range(10))
def test_one_changed_cell_is_always_seen(seed: int) -> None:
    chance = random.Random(seed)
    table: dict[str, list[Any]] = {
        "n": [chance.choice([None, chance.randrange(-5, 5)]) for _ in range(100)],
        "t": [chance.choice([None, "", "a", "ab", "b"]) for _ in range(100)],
        "d": [chance.choice([None, date(2026, 1, 1)]) for _ in range(100)],
        "x": [timedelta(seconds=chance.random()) for _ in range(100)],
    }
    changed = {key: [*column] for key, column in table.items()}
    changed["t"][chance.randrange(100)] = "changed"

    assert described(pa.table(table)).digest != described(pa.table(changed)).digest


def test_arrays_have_fingerprints() -> None:
    array = np.arange(12.0).reshape(3, 4)

    flat = described(array)

    assert (flat.source, flat.rows, len(flat.columns)) == ("numpy", 3, 4)
    assert described(np.asfortranarray(array)).digest == flat.digest
    assert described(array + 1).digest != flat.digest
    images = {"x": np.zeros((2, 4, 4), dtype=np.uint8), "y": [0, 1]}
    assert described(images).rows == 2
    torch = pytest.importorskip("torch")
    assert described(torch.tensor(array)).digest == flat.digest


def test_odd_columns_have_fingerprints_too() -> None:
    table = pa.table({"l": [[1, 2], None], "b": [b"x", b"y"], "n": [None, None]})

    found = described(table)

    assert [kind for _, kind in found.columns] == ["other", "other", "null"]
    assert described(table).digest == found.digest
    assert described(pa.table({"a": []})).rows == 0


def test_files_and_folders_have_fingerprints(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_bytes(b"hello")

    file, whole = described(folder / "deep" / "a"), described(str(folder), uri="s3://u:pw9x@b/f")

    assert file.digest.endswith("9824")
    assert (file.source, whole.source, whole.rows) == ("file", "folder", None)
    assert "pw9x" not in str(whole.uri)
    (folder / "deep" / "a").rename(folder / "deep" / "b")
    assert described(folder).digest != whole.digest
    with pytest.raises(InvalidInput, match="no file"):
        described(tmp_path / "none")


def test_data_that_lies_elsewhere_is_known_by_its_address() -> None:
    digest = "sha256:" + "a" * 64

    assert described(None, uri="s3://b/k", digest=digest).digest == digest
    assert described(None, uri="s3://b/k").digest == ""
    for data, options in (
        (None, {}),
        (None, {"uri": "s3://b/k", "digest": "md5:1"}),
        ([{"a": 1}], {"digest": digest}),
        (3, {}),
        ([1, 2], {}),
        ({"a": [1], "b": [1, 2]}, {}),
    ):
        with pytest.raises(InvalidInput):
            described(data, **options)
    with pytest.raises(InvalidName):
        described(None, uri="s3://b/k", role="")

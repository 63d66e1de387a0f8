"""Equal data has an equal fingerprint, whichever library holds it."""

from __future__ import annotations

import random
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput, InvalidName, MissingDependency
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


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ([time(1, 2, 3), None], "time"),
        ([date(1066, 10, 14), None], "date"),
        ([timedelta(microseconds=1), None], "duration"),
        ([timedelta(days=500_000), None], "duration"),
        ([datetime(3000, 1, 1), None], "datetime"),  # noqa: DTZ001 - naive on purpose
        ([datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))], "datetime"),
        ([Decimal("1.10"), Decimal(2)], "decimal"),
        ([b"a\0", None, b""], "bytes"),
        ([[1.0, None], None, []], "list[float]"),
        ([["a"], [], ["", "b"]], "list[text]"),
        ([[[1], [2, 3]], []], "list[list[int]]"),
        ([{"a": 1, "b": "x"}, None], "struct"),
        ([True, None], "bool"),
        ([None, None], "null"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Series.values returning an ndarray")
def test_columns_of_every_type_agree(column: list[Any], kind: str) -> None:
    found = [
        described(each)
        for each in (
            pd.DataFrame({"c": column}),
            pl.DataFrame({"c": column}),
            pa.table({"c": column}),
            [{"c": each} for each in column],
            {"c": pd.Series(column)},
            {"c": pl.Series(column)},
        )
    ]

    assert {each.columns for each in found} == {(("c", kind),)}
    assert len({each.digest for each in found}) == 1
    shorter = described(pa.table({"c": column}).slice(1))
    assert shorter.digest != found[0].digest
    again = pa.array(column[1:], pa.table({"c": column}).schema[0].type)
    assert shorter.digest == described(pa.table({"c": again})).digest


def test_how_a_column_is_held_does_not_count() -> None:
    def digest(values: list[Any], kind: Any) -> str:
        return described(pa.table({"c": pa.array(values, kind)})).digest

    odd_nan = np.array([0x7FF8000000000001], dtype=np.uint64).view(np.float64)
    part = pa.RecordBatch.from_pydict({"c": pa.array(["a", None, "bc", "d"], pa.large_string())})

    assert digest([float("nan")], None) == digest([None], pa.float64())
    assert described({"c": odd_nan}).digest == digest([None], pa.float64())
    assert digest([Decimal("1.10")], pa.decimal128(9, 2)) == digest(
        [Decimal("1.1")], pa.decimal256(40, 7)
    )
    assert described(part.slice(1, 2)).digest == digest([None, "bc"], pa.string())
    assert described(part.slice(2)).digest == digest(["bc", "d"], None)
    assert digest([b"ab"], pa.binary(2)) == digest([b"ab"], pa.binary())
    assert digest([2.0], pa.float16()) == digest([2.0], pa.float64())


def test_microseconds_are_not_nanoseconds() -> None:
    far = pa.array([datetime(3000, 1, 1)], pa.timestamp("us"))  # noqa: DTZ001 - naive on purpose
    near = far.cast(pa.int64()).cast(pa.timestamp("ns"))

    assert described(pa.table({"t": far})).digest != described(pa.table({"t": near})).digest


def test_integers_of_64_bits_have_no_double() -> None:
    small, large = (
        described(pa.table({"n": pa.array(each, pa.uint64())})) for each in ([1], [2**64 - 1])
    )

    assert small.digest == described(pa.table({"n": [1]})).digest
    assert large.columns == (("n", "uint"),)
    assert large.digest != described(pa.table({"n": [-1]})).digest
    assert large.digest == described(pl.DataFrame({"n": [2**64 - 1]})).digest


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
        {"a": [1, 2], "b": [["x"], ["y"]]},
        {"a": [1, 2], "b": [b"x", b"y"]},
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
    assert described(array[::-1]).digest != flat.digest
    assert described(np.zeros((0, 3))).rows == 0
    torch = pytest.importorskip("torch")
    assert described(torch.tensor(array)).digest == flat.digest


def test_tensors_are_one_column_and_their_shape_and_type_count() -> None:
    pixels = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)

    found = described(pixels)

    assert (found.rows, found.columns) == (2, (("0", "uint8[4, 4, 3]"),))
    others = [
        pixels.reshape(2, 4, 12),
        pixels.astype(np.int8),
        pixels[::-1],
        pixels.swapaxes(1, 2),
        {"x": pixels},
        {"x": pixels.reshape(2, 48)},
    ]
    assert len({found.digest, *(described(each).digest for each in others)}) == 7
    assert described(np.asfortranarray(pixels)).digest == found.digest
    assert described(pixels.astype(">u2")).digest == described(pixels.astype("<u2")).digest
    assert len(described(np.zeros((2, 257))).columns) == 1
    torch = pytest.importorskip("torch")
    named = described({"x": torch.tensor(pixels), "y": torch.tensor([1.5, 2]).bfloat16()})
    assert named.columns == (("x", "uint8[4, 4, 3]"), ("y", "float"))
    assert named.digest == described({"x": pixels, "y": pd.Series([1.5, 2.0])}).digest


def test_what_has_no_content_of_its_own_is_refused() -> None:
    for wrong in (
        pd.Series([1]),
        pl.Series([1]),
        pl.DataFrame({"o": [object()]}),
        pd.DataFrame({"a": [1, "x"]}),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
        {1: [1], "1": [2]},
        {"a": "text"},
        {"a": np.zeros((2, 2)), "b": [1, 2, 3]},
        {"a": np.array([[object()]])},
        np.array([1j]),
        b"bytes",
    ):
        with pytest.raises(InvalidInput):
            described(wrong)


def test_without_narwhals_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "narwhals.stable.v1", None)

    with pytest.raises(MissingDependency, match=r"'narwhals'.*mlopskit\[local\]"):
        described([{"a": 1}])


def test_odd_columns_have_fingerprints_too() -> None:
    pairs = pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64()))
    table = pa.table({"l": [[1, 2], None], "m": pairs, "n": [None, None]})

    found = described(table)

    assert [kind for _, kind in found.columns] == ["list[int]", "other", "null"]
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

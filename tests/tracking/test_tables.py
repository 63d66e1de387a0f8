"""Tables keep the types of their cells, and their pictures."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput
from mlopskit.redaction import Redactor
from mlopskit.tracking.media import Media
from mlopskit.tracking.tables import read_table, table

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.core


def back(made: Media, folder: Path) -> list[dict[str, Any]]:
    """Write a table as a run keeps it, and read it."""
    for path, content in made.files.items():
        file = folder / "t" / path if path else folder / "t.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(content, bytes)
        file.write_bytes(content)
    return read_table(folder / "t.json" if "" in made.files else folder / "t")


@pytest.mark.parametrize(
    "rows",
    [
        [{"a": 1, "token": "abcdef"}, {"a": None, "token": ""}],
        {"a": [1, None], "token": ["abcdef", ""]},
    ],
)
def test_rows_and_columns_become_the_same_table(rows: Any) -> None:
    made = table(rows, Redactor())
    content = made.files[""]

    assert isinstance(content, bytes)
    assert made.metadata["types"] == ["int", "text"]
    assert json.loads(content) == {
        "columns": ["a", "token"],
        "data": [[1, "[redacted]"], [None, ""]],
    }


def test_pandas_reads_what_was_written(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    content = table([{"a": 1, "b": "x"}, {"a": 2, "b": None}], Redactor()).files[""]
    assert isinstance(content, bytes)
    (tmp_path / "t.json").write_bytes(content)

    frame = pandas.read_json(tmp_path / "t.json", orient="split")

    assert (list(frame.columns), frame["a"].tolist()) == (["a", "b"], [1, 2])


@pytest.mark.parametrize("package", ["pandas", "polars", "pyarrow"])
def test_frames_are_tables(package: str, tmp_path: Path) -> None:
    library = pytest.importorskip(package)
    frame = (library.table if package == "pyarrow" else library.DataFrame)(
        {"a": [1, 2], "b": ["x", "y"], "t": [datetime(2026, 1, 31, 12), datetime(2026, 2, 1)]}  # noqa: DTZ001 - naive on purpose
    )

    assert back(table(frame, Redactor()), tmp_path) == [
        {"a": 1, "b": "x", "t": datetime(2026, 1, 31, 12)},  # noqa: DTZ001 - naive on purpose
        {"a": 2, "b": "y", "t": datetime(2026, 2, 1)},  # noqa: DTZ001 - naive on purpose
    ]


def test_cells_keep_their_types(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"v": value}
        for value in (
            None,
            True,
            1,
            2**70,
            0.5,
            -0.0,
            math.inf,
            "",
            "ü\n",
            date(2026, 1, 31),
            datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
            time(12, 30),
            timedelta(seconds=1.5),
            Decimal("1.10"),
            b"\0\xff",
            [1, {"a": None}],
            {"$": "file", "v": "/etc/passwd"},
            timedelta(days=999_999_999, microseconds=1),
            timedelta(microseconds=-1),
            (1, (2,)),
            {1: {"a": (date(2026, 1, 31), Decimal("1.0"))}, None: b"x"},
            [{"$": "date", "v": "2026-01-31"}, {"b": [time(1)]}],
        )
    ]

    made = table(rows, Redactor())

    assert made.metadata == {"rows": len(rows), "columns": ["v"], "types": ["mixed"]}
    found = back(made, tmp_path)
    assert [(type(each["v"]), each["v"]) for each in found] == [
        (type(each["v"]), each["v"]) for each in rows
    ]
    assert math.copysign(1, found[5]["v"]) == -1


@pytest.mark.parametrize("package", ["pandas", "polars", "pyarrow"])
def test_frames_of_no_rows_keep_their_columns(package: str) -> None:
    library = pytest.importorskip(package)
    frame = (library.table if package == "pyarrow" else library.DataFrame)({"a": [], "b": []})

    assert table(frame, Redactor()).metadata == {
        "rows": 0,
        "columns": ["a", "b"],
        "types": ["null", "null"],
    }


def test_no_column_of_a_frame_is_lost() -> None:
    pa, pd, pl = (pytest.importorskip(each) for each in ("pyarrow", "pandas", "polars"))
    for frame in (
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=[1, "1"]),
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
    ):
        with pytest.raises(InvalidInput, match="Two columns"):
            table(frame, Redactor())
    assert table(pl.LazyFrame({"a": [1]}), Redactor()).metadata["rows"] == 1
    assert table(pa.RecordBatch.from_pydict({"a": [1]}), Redactor()).metadata["rows"] == 1


def test_values_of_numpy_become_those_of_python(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    columns = {
        "t": np.array(["2026-01-31T12:00:00.000001", "NaT"], dtype="datetime64[ns]"),
        "d": np.array([1500, 0], dtype="timedelta64[ms]"),
        "n": np.array([1, 2], dtype=np.uint8),
        "l": [np.array([0.5, 1.5]), np.array([1, 2])],
    }

    made = table(columns, Redactor())

    assert made.metadata["types"] == ["datetime", "duration", "int", "json"]
    naive = datetime(2026, 1, 31, 12, 0, 0, 1)  # noqa: DTZ001 - NumPy knows no zones
    assert back(made, tmp_path) == [
        {"t": naive, "d": timedelta(seconds=1.5), "n": 1, "l": [0.5, 1.5]},
        {"t": None, "d": timedelta(0), "n": 2, "l": [1, 2]},
    ]


def test_secrets_are_taken_out_wherever_they_are() -> None:
    rows = [{"a": [("api", {"password": "hunter22"})], "postgres://u:hunter22@h": 1}]

    made = table(rows, Redactor())

    content = made.files[""]
    assert isinstance(content, bytes)
    assert b"hunter22" not in content + repr(made.metadata).encode()


def test_pictures_in_cells_become_files(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure()
    rows = [
        {"n": np.int64(1), "x": np.zeros((2, 3), dtype=np.uint8), "y": figure},
        {"n": np.int64(2), "x": None, "y": Media("html", {"": b"<p>"})},
    ]

    made = table(rows, Redactor())
    found = back(made, tmp_path)

    assert made.metadata["types"] == ["int", "media", "media"]
    assert [each["n"] for each in found] == [1, 2]
    assert found[0]["x"].read_bytes().startswith(b"\x89PNG")
    assert found[0]["y"].read_bytes().startswith(b"\x89PNG")
    assert found[1]["x"] is None
    assert found[1]["y"].read_bytes() == b"<p>"
    assert [path.rpartition(".")[2] for path in made.files] == ["json", "png", "png", "html"]
    mp3 = tmp_path / "x.mp3"
    assert list(table([{"x": Media("audio", {"": mp3})}], Redactor()).files.values())[1] == mp3
    assert "media/0-0.mp3" in table([{"x": Media("audio", {"": mp3})}], Redactor()).files
    with pytest.raises(InvalidInput, match=r"Row 1 of the column 'x'.*from 0 to 1"):
        table({"x": [None, np.full((2, 2), 7.0)]}, Redactor())
    with pytest.raises(InvalidInput, match="several"):
        table([{"x": Media("images", {"a": b"", "b": b""})}], Redactor())


def test_what_is_no_table_is_refused() -> None:
    for wrong in (
        3,
        ["x"],
        {"a": [1], "b": [1, 2]},
        [{"a": object()}],
        [{1: 1, "1": 2}],
        [{"a": [object()]}],
        {"a": "text"},
        {"a": 3},
        [{"a": "\ud800"}],
    ):
        with pytest.raises(InvalidInput):
            table(wrong, Redactor())


def test_a_hostile_table_reads_nothing_outside(tmp_path: Path) -> None:
    for cell in (
        {"$": "file", "v": "../../etc/passwd"},
        {"$": "what", "v": ""},
        {"$": "file"},
        {"$": "decimal", "v": "x"},
        {"$": "duration", "v": "1e999999"},
        {"$": "duration", "v": "inf"},
        {"$": "date", "v": 3},
        {"$": "nested", "v": "[" * 100_000},
        {"$": "nested", "v": '{"$": "dict", "v": [[[], 1]]}'},
    ):
        (tmp_path / "rows.json").write_text(json.dumps({"columns": ["a"], "data": [[cell]]}))
        with pytest.raises(InvalidInput):
            read_table(tmp_path)
    (tmp_path / "rows.json").write_text("[]")
    with pytest.raises(InvalidInput, match="no table"):
        read_table(tmp_path)


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    assert back(table([], Redactor()), tmp_path) == []
    assert back(table({"a": []}, Redactor()), tmp_path) == []

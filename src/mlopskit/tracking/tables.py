"""Tables as JSON that keeps the types of their cells, with images and figures as files beside it.

A table is ``{"columns": [...], "data": [[...], ...]}``, which pandas reads too
(``read_json(..., orient="split")``). The type of a column, in the metadata, is ``bool``, ``int``,
``float``, ``text``, ``datetime``, ``date``, ``time``, ``duration``, ``decimal``, ``bytes``,
``media``, ``json`` (lists and mappings), ``mixed`` or ``null``.

A cell for which JSON has no type is tagged with it, and what is tagged is a text:
``{"$": "datetime", "v": "2026-01-31T12:00:00+00:00"}``. A media cell is
``{"$": "file", "v": "media/<column>-<row>.png"}``. Lists and mappings that hold what JSON does not
are ``{"$": "nested", "v": "<JSON with tags>"}``. NaN and infinities are written as Python's json
writes them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput
from mlopskit.tracking.media import Media, figure, image, is_figure, is_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.redaction import Redactor

ROWS: Final = "rows.json"
MARK: Final = "$"
MICROSECOND: Final = timedelta(microseconds=1)
# In the order in which they are tried: a datetime is a date, too.
_TAGGED: Final[tuple[tuple[type, str, Callable[[Any], str], Callable[[str], Any]], ...]] = (
    (datetime, "datetime", lambda value: value.isoformat(), datetime.fromisoformat),
    (date, "date", date.isoformat, date.fromisoformat),
    (time, "time", time.isoformat, time.fromisoformat),
    (
        timedelta,
        "duration",
        lambda value: str(Decimal(value // MICROSECOND) / 10**6),
        lambda text: int(Decimal(text) * 10**6) * MICROSECOND,
    ),
    (Decimal, "decimal", str, Decimal),
    (bytes, "bytes", lambda value: base64.b64encode(value).decode(), base64.b64decode),
)
_PLAIN: Final = ((bool, "bool"), (int, "int"), (float, "float"), (str, "text"))
# Units of times of NumPy that Python has not, and that `tolist` would make bare ints.
_FINER: Final = ("ns]", "ps]", "fs]", "as]")
_NUMBERS: Final[Mapping[type, str]] = {bool: "bool", int: "int", float: "float", type(None): "null"}


def table(rows: Any, redactor: Redactor) -> Media:
    """Return rows or columns as files: one of JSON, and one for each image or figure in a cell.

    Args:
        rows: A list of mappings, a mapping of columns, or a frame of pandas, polars or pyarrow. A
            cell may be an image of Pillow, an array of 2 or 3 dimensions that is one, a figure, or
            a `Media` of one file; an array of one dimension is a list. The index of a pandas frame
            is no column.
        redactor: Removes the secrets in texts.

    Raises:
        InvalidInput: If it is no table, two columns have one name, or a cell can neither be
            written nor drawn.
    """
    names, columns = _columns(rows)
    files: dict[str, bytes | Path] = {}
    types, written = [], []
    for place, (name, column) in enumerate(zip(names, columns, strict=True)):
        kinds: set[str] = set()
        cells = []
        for number, cell in enumerate(column):
            kind, value = _NUMBERS.get(type(cell)), cell
            if kind is None:
                try:
                    kind, value = _cell(redactor.value(cell, name), f"{place}-{number}", files)
                except (InvalidInput, RecursionError) as exc:
                    raise InvalidInput(f"Row {number} of the column {name!r}: {exc}") from exc
            kinds.add(kind)
            cells.append(value)
        types.append(_common(kinds))
        written.append(cells)
    names = _named(redactor.text(name) for name in names)
    lines = ",\n".join(_json(row) for row in zip(*written, strict=True))
    try:
        content = (f'{{"columns": {_json(names)},\n"data": [\n{lines}\n]}}\n').encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"The table cannot be written in UTF-8: {exc}.") from exc
    said = {"rows": len(written[0]) if written else 0, "columns": names, "types": types}
    return Media("table", {ROWS: content, **files} if files else {"": content}, said)


def read_table(path: Path) -> list[dict[str, Any]]:
    """Read back what `table` has written, from its file or its folder.

    Cells read back equal, but for: a media cell is the path of its file, a time zone is its offset,
    and nanoseconds of pandas are cut to the microseconds that a datetime of Python holds.

    Raises:
        InvalidInput: If it is no such table.
    """
    file = path / ROWS if path.is_dir() else path
    try:
        said = json.loads(file.read_bytes())
        names, data = said["columns"], said["data"]
        return [
            {name: _back(cell, path) for name, cell in zip(names, row, strict=True)} for row in data
        ]
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as exc:
        raise InvalidInput(f"{path} is no table of a run: {exc}.") from exc


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cell(value: Any, place: str, files: dict[str, bytes | Path]) -> tuple[str, Any]:
    """Return the type of a cell, and how it is written."""
    if is_figure(value) or is_image(value) or isinstance(value, Media):
        return "media", {MARK: "file", "v": _filed(value, place, files)}
    value = _python(value)
    kind, packed = _packed(value)
    if kind == "json" and packed != value:
        return "json", {MARK: "nested", "v": _json(packed)}
    return kind, packed


def _packed(value: Any) -> tuple[str, Any]:
    """Return the type of a value, and plain JSON for it, tagged where JSON has no such type."""
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return "null", None
    for kind, name, write, _ in _TAGGED:
        if isinstance(value, kind):
            return name, {MARK: name, "v": write(value)}
    for kind, name in _PLAIN:
        if isinstance(value, kind):
            return name, kind(value)
    return "json", _packed_many(value)


def _packed_many(value: Any) -> Any:
    if isinstance(value, list):
        return [_inner(each) for each in value]
    if isinstance(value, tuple):
        return {MARK: "tuple", "v": [_inner(each) for each in value]}
    if isinstance(value, Mapping):
        if MARK not in value and all(type(key) is str for key in value):
            return {key: _inner(each) for key, each in value.items()}
        pairs = [[_inner(key), _inner(each)] for key, each in value.items()]
        return {MARK: "dict", "v": pairs}
    raise InvalidInput(f"A {type(value).__name__} is no cell of a table.")


def _inner(value: Any) -> Any:
    return _packed(_python(value))[1]


def _python(value: Any) -> Any:
    """Return the Python value of a scalar, or an array of one dimension, of NumPy or torch."""
    if not hasattr(value, "dtype") or not hasattr(value, "tolist"):
        return value
    if _library(value) == "numpy" and value.dtype.str.endswith(_FINER):
        value = value.astype(f"{value.dtype.kind}8[us]")
    return value.tolist()


def _filed(value: Any, place: str, files: dict[str, bytes | Path]) -> str:
    if isinstance(value, Media):
        if set(value.files) != {""}:
            raise InvalidInput(f"A cell holds one file, and a {value.type} has several.")
        suffix, made = _suffix(value), value
    elif is_figure(value):
        suffix = ".png" if hasattr(value, "savefig") else ".json"
        made = figure(value, f"x{suffix}")
    else:
        suffix, made = ".png", image(value, "x.png")
    path = f"media/{place}{suffix}"
    files[path] = made.files[""]
    return path


def _suffix(made: Media) -> str:
    content = made.files[""]
    if isinstance(content, Path):
        return PurePosixPath(content.name).suffix
    if made.type == "figure":
        kind = made.metadata.get("format", "png")
        return ".json" if kind == "plotly" else f".{kind}"
    if made.type == "image":
        return ".jpg" if content.startswith(b"\xff\xd8") else ".png"
    return {"html": ".html", "audio": ".wav", "table": ".json"}.get(made.type, "")


def _back(cell: Any, path: Path) -> Any:
    if not isinstance(cell, dict) or MARK not in cell:
        return cell
    if cell[MARK] == "file":
        found = (path / cell["v"]).resolve()
        if not found.is_relative_to(path.resolve()):
            raise InvalidInput(f"A cell of {path} points out of it: {cell['v']!r}.")
        return found
    return _unpacked(json.loads(cell["v"]) if cell[MARK] == "nested" else cell)


def _unpacked(value: Any) -> Any:
    """Return the value for which `_packed` returned this."""
    if isinstance(value, list):
        return [_unpacked(each) for each in value]
    if not isinstance(value, dict):
        return value
    if MARK not in value:
        return {key: _unpacked(each) for key, each in value.items()}
    kind, held = value[MARK], value["v"]
    if kind == "tuple":
        return tuple(_unpacked(each) for each in held)
    if kind == "dict":
        return {_unpacked(key): _unpacked(each) for key, each in held}
    for _, name, _, read in _TAGGED:
        if kind == name:
            return read(held)
    raise InvalidInput(f"A cell is of the unknown type {kind!r}.")


def _common(kinds: set[str]) -> str:
    kinds = kinds - {"null"}
    if kinds == {"int", "float"}:
        return "float"
    return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "null"


def _columns(rows: Any) -> tuple[list[str], list[Sequence[Any]]]:
    """Return the names of the columns, and the cells of each."""
    library = _library(rows)
    if library == "polars" and hasattr(rows, "collect"):
        rows = rows.collect()
    if library == "polars" and hasattr(rows, "get_columns"):
        return _named(rows.columns), [each.to_list() for each in rows.get_columns()]
    if library == "pyarrow" and hasattr(rows, "schema"):
        return _named(rows.schema.names), [each.to_pylist() for each in rows.columns]
    if library == "pandas" and hasattr(rows, "columns"):
        places = range(len(rows.columns))
        return _named(rows.columns), [rows.iloc[:, place].tolist() for place in places]
    if isinstance(rows, Mapping):
        if any(
            isinstance(column, str) or not hasattr(column, "__len__") for column in rows.values()
        ):
            raise InvalidInput("A column of a table is a list of cells, and one is none.")
        lengths = {len(column) for column in rows.values()}
        if len(lengths) > 1:
            raise InvalidInput(f"The columns of a table are of unequal length: {sorted(lengths)}.")
        return _named(rows), [_cells(column) for column in rows.values()]
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise InvalidInput(
            f"This is no table: {type(rows).__name__}. Pass a list of mappings, a mapping of "
            "columns, or a frame."
        )
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return _named(keys), [[row.get(key) for row in rows] for key in keys]


def _cells(column: Any) -> Any:
    plain = _library(column) in ("numpy", "torch") and column.ndim == 1
    return _python(column) if plain else column


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _named(keys: Any) -> list[str]:
    names = [str(key) for key in keys]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"Two columns of a table are called {twice[0]!r}.")
    return names

"""Tables as JSON that keeps the types of their cells, with images and figures as files beside it.

A table is ``{"columns": [...], "types": [...], "data": [[...], ...]}``. A cell for which JSON has
no type is tagged: ``{"$": "datetime", "v": "2026-01-31T12:00:00+00:00"}``; a media cell is
``{"$": "file", "v": "media/<column>-<row>.png"}``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput
from mlopskit.tracking.media import Media, figure, image, is_figure, is_image, json_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlopskit.redaction import Redactor

ROWS: Final = "rows.json"
MARK: Final = "$"
# In the order in which they are tried: a datetime is a date, too.
_TAGGED: Final[tuple[tuple[type, str, Callable[[Any], str], Callable[[str], Any]], ...]] = (
    (datetime, "datetime", datetime.isoformat, datetime.fromisoformat),
    (date, "date", date.isoformat, date.fromisoformat),
    (time, "time", time.isoformat, time.fromisoformat),
    (
        timedelta,
        "duration",
        lambda value: repr(value.total_seconds()),
        lambda text: timedelta(seconds=float(text)),
    ),
    (Decimal, "decimal", str, Decimal),
    (bytes, "bytes", lambda value: base64.b64encode(value).decode(), base64.b64decode),
)
_PLAIN: Final = ((bool, "bool"), (int, "int"), (float, "float"), (str, "text"))


def table(rows: Any, redactor: Redactor) -> Media:
    """Return rows or columns as files: one of JSON, and one for each image or figure in a cell.

    Args:
        rows: A list of mappings, a mapping of columns, or a frame of pandas, polars or pyarrow.
        redactor: Removes the secrets in texts.

    Raises:
        InvalidInput: If it is no table, or a cell can neither be written as JSON nor drawn.
    """
    names, data = _columns(rows)
    files: dict[str, bytes | Path] = {}
    kinds: list[set[str]] = [set() for _ in names]
    written = []
    for number, row in enumerate(data):
        line = []
        for place, (name, cell) in enumerate(zip(names, row, strict=True)):
            kind, value = _cell(redactor.value(cell, name), f"{place}-{number}", files)
            kinds[place].add(kind)
            line.append(value)
        written.append(line)
    types = [_common(each) for each in kinds]
    content = json_of({"columns": names, "types": types, "data": written})
    said = {"rows": len(data), "columns": names, "types": types}
    return Media("table", {ROWS: content, **files} if files else {"": content}, said)


def read_table(path: Path) -> list[dict[str, Any]]:
    """Read back what `table` has written, from its file or its folder.

    A media cell reads as the path of its file.

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
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InvalidInput(f"{path} is no table of a run: {exc}.") from exc


def _cell(value: Any, place: str, files: dict[str, bytes | Path]) -> tuple[str, Any]:
    """Return the type of a cell, and how it is written."""
    if is_figure(value) or is_image(value) or isinstance(value, Media):
        return "media", {MARK: "file", "v": _filed(value, place, files)}
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return "null", None
    for kind, name, write, _ in _TAGGED:
        if isinstance(value, kind):
            return name, {MARK: name, "v": write(value)}
    for kind, name in _PLAIN:
        if isinstance(value, kind):
            return name, value
    if isinstance(value, Mapping) and MARK in value:
        return "json", {MARK: "json", "v": json.dumps(value)}
    return "json", value


def _filed(value: Any, place: str, files: dict[str, bytes | Path]) -> str:
    if isinstance(value, Media):
        if set(value.files) != {""}:
            raise InvalidInput(f"A cell holds one file, and a {value.type} has several.")
        suffix, made = {"html": ".html", "audio": ".wav"}.get(value.type, ".png"), value
    elif is_figure(value):
        suffix = ".png" if hasattr(value, "savefig") else ".json"
        made = figure(value, f"x{suffix}")
    else:
        suffix, made = ".png", image(value, "x.png")
    path = f"media/{place}{suffix}"
    files[path] = made.files[""]
    return path


def _back(cell: Any, path: Path) -> Any:
    if not isinstance(cell, dict) or MARK not in cell:
        return cell
    kind, text = cell[MARK], cell["v"]
    if kind == "file":
        found = (path / text).resolve()
        if not found.is_relative_to(path.resolve()):
            raise InvalidInput(f"A cell of {path} points out of it: {text!r}.")
        return found
    if kind == "json":
        return json.loads(text)
    for _, name, _, read in _TAGGED:
        if kind == name:
            return read(text)
    raise InvalidInput(f"A cell of {path} is of the unknown type {kind!r}.")


def _common(kinds: set[str]) -> str:
    kinds = kinds - {"null"}
    if kinds == {"int", "float"}:
        return "float"
    return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "null"


def _columns(rows: Any) -> tuple[list[str], list[list[Any]]]:
    if hasattr(rows, "to_pylist"):  # pyarrow
        rows = rows.to_pylist()
    elif hasattr(rows, "to_dicts"):  # polars
        rows = rows.to_dicts()
    elif hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # pandas
        rows = rows.to_dict("records")
    if isinstance(rows, Mapping):
        lengths = {len(column) for column in rows.values()}
        if len(lengths) > 1:
            raise InvalidInput(f"The columns of a table are of unequal length: {sorted(lengths)}.")
        return _named(rows), [list(row) for row in zip(*rows.values(), strict=True)]
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise InvalidInput(
            f"This is no table: {type(rows).__name__}. Pass a list of mappings, a mapping of "
            "columns, or a frame."
        )
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return _named(keys), [[row.get(key) for key in keys] for row in rows]


def _named(keys: Any) -> list[str]:
    names = [str(key) for key in keys]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"Two columns of a table are called {twice[0]!r}.")
    return names

"""Rows, checked and put into one form: events to be stored, keys to be looked up.

Rows come as a list of dicts, as a dict of columns, or as a frame; only frames need more than the
standard library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.features.values import PLAIN, check_times, fits, key, microseconds, plain, small

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from mlopskit.features.entities import FeatureView
    from mlopskit.features.references import Selection

Key = tuple[Any, ...]
Columns = Mapping[str, list[Any]]

_PLAIN_KEYS: Final = frozenset([int, str])


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one view, checked.

    Attributes:
        keys: Each a tuple in the order of the view's join keys: ints, texts and bools.
        times: When each became true, in microseconds since 1970.
        created: When each was written, in microseconds; 0 in a view without such a column.
        values: Every feature of the view: plain values, with aware times in UTC.
    """

    keys: list[Key]
    times: list[int]
    created: list[int]
    values: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Lookup:
    """Keys that are asked for.

    Attributes:
        entities: The join keys of all views, a column each.
        keys: For each list of join keys, the keys in the order of the rows; None has a null in it.
    """

    entities: Columns
    keys: Mapping[tuple[str, ...], list[Key | None]]


def events(view: FeatureView, given: Any) -> Events:
    """Take events of one view, in whatever form they come.

    Raises:
        InvalidInput: If a column is missing, a key or a time is null, or a value is of a wrong
            type. The message names the column and the value.
    """
    what = f"What is pushed to {view.name!r}"
    times = [name for name in (view.timestamp, view.created) if name is not None]
    if not isinstance(given, Mapping | list | tuple):
        return checked(view, frames().columns(given, view.columns, what, times), what)
    columns = _columns(given, view.columns, what)
    for name in times:
        columns[name] = [
            microseconds(f"{what}, column {name!r}, row {at}", value, up=True)
            for at, value in enumerate(columns[name])
        ]
    return checked(view, columns, what)


def checked(view: FeatureView, columns: Columns, what: str) -> Events:
    """Return columns as events, where times are in microseconds already.

    Raises:
        InvalidInput: If a key or a time is null, or a value is of a wrong type.
    """
    keys: list[Any] = _keys(columns, view.entities, what)
    if None in keys:
        raise InvalidInput(f"{what} has a null key in row {keys.index(None)}. Drop such rows.")
    times = check_times(f"{what}, column {view.timestamp!r}", columns[view.timestamp])
    created = [0] * len(times) if view.created is None else columns[view.created]
    features = [_values(view, name, columns[name]) for name in view.features]
    values = [dict(zip(view.features, row, strict=True)) for row in zip(*features, strict=True)]
    return Events(keys, times, created, values)


def lookups(selection: Selection, given: Any) -> Lookup:
    """Take the keys that a caller asks for.

    Raises:
        InvalidInput: If a join key is missing, or of a type that cannot be a key.
    """
    what = "What is asked for"
    names = tuple(dict.fromkeys(name for view in selection.views for name in view.entities))
    plain_rows = isinstance(given, Mapping | list | tuple)
    columns = _columns(given, names, what) if plain_rows else frames().columns(given, names, what)
    kinds = dict.fromkeys(view.entities for view in selection.views)
    return Lookup(columns, {kind: _keys(columns, kind, what) for kind in kinds})


def frames() -> ModuleType:
    """Import what reads frames.

    Raises:
        MissingDependency: If narwhals or pyarrow is not installed.
    """
    try:
        return import_module("mlopskit.features.frames")
    except ModuleNotFoundError as exc:
        package = exc.name or "narwhals"
        raise MissingDependency("Reading frames", package, "pip install 'mlopskit[local]'") from exc


def _columns(
    given: Mapping[str, Any] | Sequence[Any], names: Sequence[str], what: str
) -> dict[str, list[Any]]:
    """Return the named columns of plain rows, as lists of one length."""
    if not isinstance(given, Mapping):
        try:
            return {name: [row[name] for row in given] for name in names}
        except (KeyError, TypeError, IndexError):
            raise _broken_row(given, names, what) from None
    columns = {name: _column(given, name, what) for name in names}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInput(f"{what} has columns of different lengths: {lengths}.")
    return columns


def _column(given: Mapping[str, Any], name: str, what: str) -> list[Any]:
    if name not in given:
        raise _missing(what, name, given)
    column = given[name]
    if isinstance(column, list):
        return column
    if getattr(getattr(column, "dtype", None), "kind", "") == "M":
        return list(column)  # The `tolist` of NumPy's nanoseconds is a mere count.
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(column, method):
            found = getattr(column, method)()
            if isinstance(found, list):
                return found
    if isinstance(column, Sequence) and not isinstance(column, str | bytes):
        return list(column)
    raise InvalidInput(f"{what}: the column {name!r} must be a list, and is {column!r}.")


def _broken_row(given: Sequence[Any], names: Sequence[str], what: str) -> InvalidInput:
    for at, row in enumerate(given):
        if not isinstance(row, Mapping):
            return InvalidInput(f"{what}: row {at} is no dict but {row!r}.")
        for name in names:
            if name not in row:
                return _missing(f"{what}, row {at},", name, row)
    return InvalidInput(f"{what} cannot be read as rows.")


def _missing(what: str, name: str, there: Iterable[Any]) -> InvalidInput:
    return InvalidInput(
        f"{what} lacks the column {name!r}. It has: {', '.join(map(repr, there)) or 'none'}."
    )


def _keys(columns: Columns, names: Sequence[str], what: str) -> list[Key | None]:
    parts = [_key_column(columns[name], f"{what}, column {name!r}") for name in names]
    rows = zip(*parts, strict=True)
    if any(None in part for part in parts):
        return [None if None in row else row for row in rows]
    return list(rows)


def _key_column(column: list[Any], what: str) -> list[Any]:
    kinds = set(map(type, column))
    if kinds <= _PLAIN_KEYS and (int not in kinds or all(map(small, column))):
        return column
    return [key(value, what) for value in column]


def _values(view: FeatureView, name: str, column: list[Any]) -> list[Any]:
    kinds = set(map(type, column))
    if not kinds <= PLAIN or (int in kinds and not all(map(small, column))):
        column = [plain(v, f"The feature {name!r} of the view {view.name!r}") for v in column]
    dtype = view.dtypes.get(name)
    if dtype is None:
        return column
    for value in column:
        if not fits(value, dtype):
            raise InvalidInput(
                f"The feature {name!r} of the view {view.name!r} is {dtype}, and {value!r} "
                f"({type(value).__name__}) is not."
            )
    return [float(v) if type(v) is int else v for v in column] if dtype == "float" else column

"""Plain rows, checked and put into one form: events to be stored, keys to be looked up, answers.

Rows come as a list of dicts, as a dict of columns, or as a frame; only frames need more than the
standard library.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.features.entities import EPOCH, FeatureStatus, OnlineFeatures

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from mlopskit.features.entities import FeatureView
    from mlopskit.features.references import Selection

MICROSECOND = timedelta(microseconds=1)
LARGEST_KEY = 2**63

Key = tuple[Any, ...]

_PLAIN_KEYS = {int, str}
_PLAIN_VALUES = {int, float, str, bool, type(None)}
_ABSENT = object()


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

    entities: Mapping[str, list[Any]]
    keys: Mapping[tuple[str, ...], list[Key | None]]


def events(view: FeatureView, given: Any) -> Events:
    """Take events of one view, in whatever form they come.

    Raises:
        InvalidInput: If a column is missing, a key or a time is null, or a value is of a wrong
            type. The message names the column and the value.
    """
    what = f"What is pushed to {view.name!r}"
    columns = columns_of(given, view.columns, what, times=(view.timestamp, view.created))
    keys = _keys(columns, view.entities, what)
    if None in keys:
        raise InvalidInput(f"{what} has a null key in row {keys.index(None)}. Drop such rows.")
    times = _times(columns[view.timestamp], f"{what}, column {view.timestamp!r}")
    created = (
        [0] * len(times)
        if view.created is None
        else _times(columns[view.created], f"{what}, column {view.created!r}")
    )
    checked = [_values(view, name, columns[name]) for name in view.features]
    values = [dict(zip(view.features, row, strict=True)) for row in zip(*checked, strict=True)]
    return Events([key for key in keys if key is not None], times, created, values)


def lookups(selection: Selection, given: Any) -> Lookup:
    """Take the keys that a caller asks for.

    Raises:
        InvalidInput: If a join key is missing, or of a type that cannot be a key.
    """
    names = tuple(dict.fromkeys(key for view in selection.views for key in view.entities))
    columns = columns_of(given, names, "What is asked for")
    kinds = dict.fromkeys(view.entities for view in selection.views)
    keys = {kind: _keys(columns, kind, "What is asked for") for kind in kinds}
    return Lookup(columns, keys)


def answer(
    selection: Selection,
    asked: Lookup,
    found: Sequence[Sequence[tuple[int, Mapping[str, Any]] | None]],
    max_age: timedelta | None,
    now: datetime | str | None,
) -> OnlineFeatures:
    """Judge what was found by its age, and lay it out by column."""
    size = len(selection.references)
    values: list[list[Any]] = [[] for _ in range(size)]
    statuses: list[list[FeatureStatus]] = [[] for _ in range(size)]
    times: list[list[int | None]] = [[] for _ in range(size)]
    moment = time.time_ns() // 1000 if now is None else microseconds("now", now)
    for view, records in zip(selection.views, found, strict=True):
        limits = [limit // MICROSECOND for limit in (view.ttl, max_age) if limit is not None]
        oldest = moment - min(limits) if limits else None
        newest = None if now is None else moment
        for feature, at in selection.columns[view.name]:
            _judge(feature, records, oldest, newest, (values[at], statuses[at], times[at]))
    return OnlineFeatures(
        asked.entities,
        selection.references,
        selection.names,
        values=values,
        statuses=statuses,
        event_times=times,
    )


def _judge(
    feature: str,
    records: Sequence[tuple[int, Mapping[str, Any]] | None],
    oldest: int | None,
    newest: int | None,
    into: tuple[list[Any], list[FeatureStatus], list[int | None]],
) -> None:
    missing, expired = FeatureStatus.MISSING, FeatureStatus.EXPIRED
    fresh, null = FeatureStatus.FRESH, FeatureStatus.NULL
    values, statuses, times = into
    for record in records:
        value: Any = None
        status = missing
        event: int | None = None
        if record is not None and (newest is None or record[0] <= newest):
            known = record[1].get(feature, _ABSENT)
            # A record older than the feature itself says nothing about it.
            if known is not _ABSENT:
                event = record[0]
                if oldest is not None and event < oldest:
                    status = expired
                elif known is None:
                    status = null
                else:
                    value, status = known, fresh
        values.append(value)
        statuses.append(status)
        times.append(event)


def columns_of(
    given: Any, names: Iterable[str], what: str, times: Sequence[str | None] = ()
) -> dict[str, list[Any]]:
    """Return the named columns of rows in any form, as lists of one length.

    Raises:
        InvalidInput: If one is missing, they differ in length, or `given` holds no rows at all.
    """
    if isinstance(given, Mapping):
        columns = {name: _listed(given, name, what) for name in names}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidInput(f"{what} has columns of different lengths: {lengths}.")
        return columns
    if isinstance(given, list | tuple):
        try:
            return {name: [row[name] for row in given] for name in names}
        except (KeyError, TypeError, IndexError):
            raise _broken_row(given, tuple(names), what) from None
    return frames().columns(given, tuple(names), what, times)  # type: ignore[no-any-return]  # a module found by name


def microseconds(what: str, value: Any, *, up: bool = False) -> int:
    """Return a time as microseconds since 1970. A naive one is UTC.

    Args:
        what: Its name in an error.
        value: A datetime, a date (its first moment), an ISO 8601 text, or NumPy's datetime64.
        up: Round nanoseconds up, so that no event is known before it happened.

    Raises:
        InvalidInput: If it is none of these, or no time at all (NaT).
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as exc:
            raise InvalidInput(f"{what}: {value!r} is no time. Write ISO 8601.") from exc
    if isinstance(value, datetime) and value == value:  # noqa: PLR0124 - pandas' NaT is unlike itself
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value
        beyond = 1 if up and getattr(value, "nanosecond", None) else 0
        return (aware - EPOCH) // MICROSECOND + beyond
    if isinstance(value, date) and not isinstance(value, datetime):
        return (datetime(value.year, value.month, value.day, tzinfo=UTC) - EPOCH) // MICROSECOND
    if type(value).__name__ == "datetime64":
        return _numpy_microseconds(what, value, up=up)
    raise InvalidInput(
        f"{what}: {value!r} ({type(value).__name__}) is no time. Give a datetime, or ISO 8601 text."
    )


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


def _numpy_microseconds(what: str, value: Any, *, up: bool) -> int:
    count = value.astype("datetime64[us]")
    number = count.astype("int64").item()
    if number == -(2**63):
        raise InvalidInput(f"{what}: {value!r} is no time.")
    return int(number) + (1 if up and count < value else 0)


def _listed(given: Mapping[str, Any], name: str, what: str) -> list[Any]:
    try:
        column = given[name]
    except KeyError:
        raise _missing(what, name, given) from None
    if isinstance(column, list):
        return column
    if hasattr(column, "tolist") and hasattr(column, "__len__"):
        return list(column) if "datetime64" in str(column.dtype) else list(column.tolist())
    if isinstance(column, str | bytes) or not isinstance(column, Sequence):
        raise InvalidInput(f"{what}: the column {name!r} must be a list, and is {column!r}.")
    return list(column)


def _broken_row(given: Sequence[Any], names: tuple[str, ...], what: str) -> InvalidInput:
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


def _keys(columns: Mapping[str, list[Any]], names: Sequence[str], what: str) -> list[Key | None]:
    parts = [_key_column(columns[name], name, what) for name in names]
    rows = list(zip(*parts, strict=True))
    if any(None in part for part in parts):
        return [None if None in row else row for row in rows]
    return list(rows)


def _key_column(column: list[Any], name: str, what: str) -> list[Any]:
    kinds = set(map(type, column))
    if kinds <= _PLAIN_KEYS and (int not in kinds or _small(column)):
        return column
    return [_key(value, name, what) for value in column]


def _small(column: list[Any]) -> bool:
    return all(type(v) is not int or -LARGEST_KEY <= v < LARGEST_KEY for v in column)


def _key(value: Any, name: str, what: str) -> Any:
    value = _unwrapped(value)
    if value is None or type(value) in (str, bool):
        return value
    if type(value) is float and math.isnan(value):
        return None
    # pandas turns a column of ints with a gap into floats.
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and -LARGEST_KEY <= value < LARGEST_KEY:
        return value
    raise InvalidInput(
        f"{what}: {value!r} ({type(value).__name__}) in the column {name!r} cannot be a key. "
        "A key is text, a bool, or an integer of 64 bits."
    )


def _times(column: list[Any], what: str) -> list[int]:
    return [
        value if type(value) is int else microseconds(f"{what}, row {at}", value, up=True)
        for at, value in enumerate(column)
    ]


def _values(view: FeatureView, name: str, column: list[Any]) -> list[Any]:
    dtype = view.dtypes.get(name)
    if not set(map(type, column)) <= _PLAIN_VALUES:
        where = f"The feature {name!r} of the view {view.name!r}"
        column = [_value(value, where) for value in column]
    if dtype is None:
        return column
    for value in column:
        if not _fits(value, dtype):
            raise InvalidInput(
                f"The feature {name!r} of the view {view.name!r} is {dtype}, and {value!r} "
                f"({type(value).__name__}) is not."
            )
    return [float(v) if type(v) is int else v for v in column] if dtype == "float" else column


def _fits(value: Any, dtype: str) -> bool:
    kind = kind_of(value)
    return kind in (None, dtype) or (dtype == "float" and kind == "int" and float(value) == value)


def kind_of(value: Any) -> str | None:
    """Return the dtype of a plain value, or None of None."""
    if value is None:
        return None
    if type(value) is datetime:
        return "timestamp"
    return type(value).__name__


def _value(value: Any, where: str) -> Any:
    """Return one value as a plain Python value, or refuse it."""
    value = _unwrapped(value)
    if type(value) in _PLAIN_VALUES or type(value) in (bytes, date):
        return value
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if getattr(value, "nanosecond", 0):
            raise InvalidInput(f"{where}: {value!r} is finer than a microsecond. Round it.")
        return aware.to_pydatetime(warn=False) if hasattr(aware, "to_pydatetime") else aware
    if isinstance(value, list | tuple):
        return [_value(item, where) for item in value]
    if isinstance(value, str):
        return str(value)
    raise InvalidInput(
        f"{where}: {value!r} ({type(value).__name__}) cannot be kept. A value is a number, text, "
        "bytes, a bool, a date, a time, a list of these, or None."
    )


def _unwrapped(value: Any) -> Any:
    """Return the plain value in a NumPy scalar or array, and None for pandas' NA and NaT."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if type(value).__module__ == "numpy":
        if type(value).__name__ == "datetime64":
            return EPOCH + _numpy_microseconds("a value", value, up=False) * MICROSECOND
        return value.tolist()
    return value

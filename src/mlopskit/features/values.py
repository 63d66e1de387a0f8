"""Single values made plain: times as microseconds, keys that match by value, features to keep."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from mlopskit.errors import InvalidInput
from mlopskit.features.entities import EPOCH

MICROSECOND: Final = timedelta(microseconds=1)
EARLIEST: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LATEST: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
PLAIN: Final = frozenset([int, float, str, bool, type(None)])

_BOUND: Final = 2**63


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
    if isinstance(value, datetime) and value == value:  # noqa: PLR0124 - NaT is unlike itself
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


def check_times(what: str, times: list[Any]) -> list[int]:
    """Return times in microseconds, or refuse what no calendar holds.

    Raises:
        InvalidInput: If one is null, or not between the years 1 and 9999.
    """
    if None in times:
        raise InvalidInput(f"{what}, row {times.index(None)}: there is no time. Drop such rows.")
    if times and (min(times) < EARLIEST or max(times) > LATEST):
        raise InvalidInput(f"{what}: a time is not between the years 1 and 9999.")
    return times


def key(value: Any, what: str) -> Any:
    """Return a part of a key as a text, a bool, an int, or None for a null.

    Raises:
        InvalidInput: If it is anything else, or an integer of more than 64 bits.
    """
    value = _unwrapped(value, what)
    if value is None or type(value) in (str, bool):
        return value
    if type(value) is float and math.isnan(value):
        return None
    # pandas turns a column of ints with a gap into floats.
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and -_BOUND <= value < _BOUND:
        return value
    raise InvalidInput(
        f"{what}: {value!r} ({type(value).__name__}) cannot be a key. A key is text, a bool, or an "
        "integer of 64 bits."
    )


def plain(value: Any, what: str) -> Any:
    """Return the value of a feature as a plain Python value; times in UTC.

    Raises:
        InvalidInput: If it cannot be kept as it is.
    """
    value = _unwrapped(value, what)
    if type(value) is int and not -_BOUND <= value < _BOUND:
        raise InvalidInput(f"{what}: {value!r} needs more than 64 bits. Give a float or a text.")
    if type(value) in PLAIN or type(value) in (bytes, date):
        return value
    if isinstance(value, datetime):
        return _utc(value, what)
    if isinstance(value, list | tuple):
        return [plain(item, what) for item in value]
    if isinstance(value, str):
        return str(value)
    raise InvalidInput(
        f"{what}: {value!r} ({type(value).__name__}) cannot be kept. A value is a number, text, "
        "bytes, a bool, a date, a time, a list of these, or None."
    )


def small(value: Any) -> bool:
    """Tell whether a value, if it is an integer, fits 64 bits."""
    return type(value) is not int or -_BOUND <= value < _BOUND


def kind_of(value: Any) -> str | None:
    """Return the dtype of a plain value, or None of None."""
    if value is None:
        return None
    if type(value) is datetime:
        return "timestamp"
    return type(value).__name__


def fits(value: Any, dtype: str) -> bool:
    """Tell whether a plain value is of a dtype. Null is of any, an exact int also a float."""
    kind = kind_of(value)
    return kind in (None, dtype) or (dtype == "float" and kind == "int" and float(value) == value)


def _utc(value: datetime, what: str) -> datetime:
    if getattr(value, "nanosecond", None):
        raise InvalidInput(f"{what}: {value!r} is finer than a microsecond. Round it.")
    return EPOCH + microseconds(what, value) * MICROSECOND


def _numpy_microseconds(what: str, value: Any, *, up: bool) -> int:
    rounded = value.astype("datetime64[us]")
    count = int(rounded.astype("int64"))
    if count == -_BOUND:
        raise InvalidInput(f"{what}: {value!r} is no time.")
    return count + (1 if up and rounded < value else 0)


def _unwrapped(value: Any, what: str) -> Any:
    """Return the plain value in a NumPy scalar or array, and None for pandas' NA and NaT."""
    kind = type(value)
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if kind.__module__ != "numpy":
        return value
    if kind.__name__ == "datetime64":
        return EPOCH + _numpy_microseconds(what, value, up=False) * MICROSECOND
    if value.dtype.kind in "mM":  # Their `tolist` is a mere count for nanoseconds.
        raise InvalidInput(f"{what}: {value!r} cannot be kept. Give a list of datetimes.")
    return value.tolist()

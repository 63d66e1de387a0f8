"""What may be logged, checked once, and the JSON that keeps it exactly.

Params are None, bools, ints of any size, floats, texts, and lists, tuples and mappings of these;
scalars of NumPy and torch become the Python number that they hold. JSON knows no tuples and no
mapping with other keys than texts, so these are written as ``{"$": "tuple", "v": [...]}`` and
``{"$": "dict", "v": [[key, value], ...]}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, InvalidName
from mlopskit.names import check_label

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.tracking.entities import Number

MARK: Final = "$"
DEEPEST: Final = 64
_RUN_ID = re.compile(r"[0-9a-f]{32}\Z")
_encode = json.JSONEncoder(separators=(",", ":")).encode
# What `json.loads` ends in, at a third of its cost; it has no type of its own.
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def check_run_id(id: str) -> str:
    """Return a run id, or refuse it.

    Raises:
        InvalidName: If it is not 32 lower-case hexadecimal digits.
    """
    if not _RUN_ID.match(id):
        raise InvalidName("run id", id, "it must be 32 lower-case hexadecimal digits")
    return id


def number(key: str, value: object) -> Number:
    """Return a metric's value as the float that equals it, or as an int where no float does.

    Raises:
        InvalidInput: If it is not one real number.
    """
    if type(value) is float:
        return value
    plain = _scalar(value)
    if isinstance(plain, float):
        return float(plain)
    if isinstance(plain, int):
        try:
            near = float(plain)
        except OverflowError:
            return int(plain)
        return near if near == plain else int(plain)
    raise InvalidInput(
        f"Metric {key!r} is {_shown(value)}, and a metric is one real number. "
        "Log a text or a structure as a param, an array as an artifact."
    )


def check_step(step: object) -> int:
    """Return a step as an int.

    Raises:
        InvalidInput: If it is no whole number.
    """
    plain = _scalar(step)
    if isinstance(plain, int) and not isinstance(plain, bool):
        return int(plain)
    raise InvalidInput(f"The step is {_shown(step)}; it must be an int.")


def check_params(params: Mapping[str, object]) -> dict[str, Any]:
    """Return a deep, plain copy of params.

    Raises:
        InvalidName: If a key cannot be kept.
        InvalidInput: If a value could not be read back equal.
    """
    if not isinstance(params, Mapping):
        raise InvalidInput(f"Params are {_shown(params)}; they must be a mapping.")
    return {check_label("param", key): _plain(key, value, 0) for key, value in params.items()}


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of tags.

    Raises:
        InvalidName: If a key cannot be kept.
        InvalidInput: If a value is no text.
    """
    if not isinstance(tags, Mapping):
        raise InvalidInput(f"Tags are {_shown(tags)}; they must be a mapping.")
    for key, value in tags.items():
        check_label("tag", key)
        if not isinstance(value, str):
            raise InvalidInput(
                f"Tag {key!r} is {_shown(value)}, and a tag is text. Use a param for typed values."
            )
    return {key: str.__str__(value) for key, value in tags.items()}


def check_text(what: str, text: str) -> str:
    """Return a text, or say that it is none.

    Raises:
        InvalidInput: If it is something else.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"{what} must be a text, and this is a {type(text).__name__}.")
    return text


def to_json(value: Any) -> str:
    """Return JSON, in ASCII, from which `from_json` makes an equal value."""
    return _encode(pack(value))


def from_json(text: str) -> Any:
    """Return the value that `to_json` was given."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        end = -1
    if end != len(text):  # Blanks around it, or no JSON at all.
        value = json.loads(text)
    return unpack(value) if isinstance(value, list | dict) else value


def from_members(text: str) -> dict[str, Any]:
    """Return values by key from ``"key":value`` pairs joined by commas, each value by `to_json`."""
    found: dict[str, Any] = _scan(f"{{{text}}}", 0)[0]
    for key, value in found.items():
        if isinstance(value, list | dict):
            found[key] = unpack(value)
    return found


def same(one: object, other: object) -> bool:
    """Tell whether two params are the same: of one type, and NaN is the same as NaN."""
    return to_json(one) == to_json(other)


def _plain(key: str, value: object, depth: int) -> Any:
    if depth > DEEPEST:
        raise InvalidInput(f"Param {key!r} is nested deeper than {DEEPEST} levels.")
    value = _scalar(value)
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return str.__str__(value)
    return _plain_many(key, value, depth)


def _plain_many(key: str, value: object, depth: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain(key, item, depth + 1) for item in value)
    if isinstance(value, list):
        return [_plain(key, item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {
            _plain(key, inner, depth + 1): _plain(key, item, depth + 1)
            for inner, item in value.items()
        }
    raise InvalidInput(
        f"Param {key!r} holds {_shown(value)}, which would not read back equal. "
        "Pass a number, a text, None, or a list, tuple or mapping of these; for the rest, str(...)."
    )


def _scalar(value: object) -> object:
    """Return what a scalar of NumPy or torch holds, and anything else as it is."""
    if type(value) in (float, int, str, bool, list, dict, tuple) or not hasattr(value, "item"):
        return value
    if isinstance(value, (Mapping, str)) or getattr(value, "ndim", 0) != 0:
        return value
    return value.item()


def pack(value: Any) -> Any:
    """Return what JSON can hold for a param."""
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, tuple):
        return {MARK: "tuple", "v": [pack(item) for item in value]}
    if isinstance(value, dict):
        if MARK in value or not all(type(key) is str for key in value):
            pairs = [[pack(key), pack(item)] for key, item in value.items()]
            return {MARK: "dict", "v": pairs}
        return {key: pack(item) for key, item in value.items()}
    return value


def unpack(value: Any) -> Any:
    """Return the param that `pack` was given."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if isinstance(value, dict):
        kind = value.get(MARK)
        if kind == "tuple":
            return tuple(unpack(item) for item in value["v"])
        if kind == "dict":
            return {unpack(key): unpack(item) for key, item in value["v"]}
        return {key: unpack(item) for key, item in value.items()}
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text[:60]}{'...' if len(text) > 60 else ''} (a {type(value).__name__})"

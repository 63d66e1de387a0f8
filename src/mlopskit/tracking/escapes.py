"""Keys and values for stores that keep only text under a narrow alphabet, and back.

What such a store can hold as it is stays as it is, so that its own pages read well; the rest is
escaped so that no two keys or values ever meet in one.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from mlopskit.tracking.values import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.tracking.entities import Number

ESCAPED: Final = "_mk_"
HASHED: Final = "_mkh_"
_PLAIN = re.compile(r"[/\w. -]+\Z")
_INT64: Final = range(-(1 << 63), 1 << 63)


def key_to_store(key: str, *, longest: int = 250, reserved: tuple[str, ...] = ()) -> str:
    """Return the key to store for a key: itself if it can be, or an escape or a hash of it."""
    if (
        len(key) <= longest
        and _PLAIN.match(key)
        and posixpath.normpath(key) == key
        and not key.startswith(("..", "/", "_mk", *reserved))
        and key != "."
    ):
        return key
    escaped = ESCAPED + re.sub(r"[^A-Za-z0-9 -]", lambda found: f"_{ord(found[0]):x}_", key)
    if len(escaped) <= longest:
        return escaped
    return HASHED + sha256(key.encode()).hexdigest()[:32]


def key_from_store(stored: str, hashed: Mapping[str, str]) -> str:
    """Return the key that was stored, given the keys that were stored by their hashes."""
    if stored.startswith(HASHED):
        return hashed.get(stored, stored)
    if stored.startswith(ESCAPED):
        return re.sub(
            r"_([0-9a-f]+)_", lambda found: chr(int(found[1], 16)), stored.removeprefix(ESCAPED)
        )
    return stored


def param_to_text(value: Any) -> str:
    """Return a text that `param_from_text` reads back equal: a text stays as it is if it can."""
    if isinstance(value, str) and value.isprintable() and not _is_json(value) and value:
        return value
    return to_json(value)


def param_from_text(text: str) -> Any:
    """Return the value of a param."""
    try:
        return from_json(text)
    except (ValueError, KeyError, TypeError, RecursionError):
        return text


def tag_to_text(value: str) -> str:
    """Return a text that `tag_from_text` reads back equal."""
    plain = all(char.isprintable() or char in "\n\t" for char in value)
    if plain and value and not value.startswith(('"', "{")):
        return value
    return json.dumps(value)


def tag_from_text(text: str) -> str:
    """Return the value of a tag."""
    if text.startswith('"'):
        value = param_from_text(text)
        return value if isinstance(value, str) else text
    return text


def shown(value: Number) -> float:
    """Return the finite float nearest to a number, or NaN."""
    most = math.nextafter(math.inf, 0)
    try:
        near = float(value)
    except OverflowError:
        near = math.inf if value > 0 else -math.inf
    return max(-most, min(most, near)) if not math.isnan(near) else near


def is_plain(step: int, value: Number) -> bool:
    """Tell whether a point is one that every store holds exactly: an int64, a finite float or NaN.

    SQLite's REAL columns lose the sign of -0.0.
    """
    if step not in _INT64 or not isinstance(value, float) or math.isinf(value):
        return False
    return value != 0 or math.copysign(1, value) > 0


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True

"""Values as W&B's files have them: JSON texts, at keys of several parts, in nested mappings.

As seen with W&B 0.31, its service writes a whole float as an integer (``1.0`` as ``1``), a number
beyond 64 bits as a float, ``-0.0`` as ``-0``, and keeps NaN and the infinities as words.
"""

from __future__ import annotations

import json
from typing import Any, Final

KeyPath = tuple[str, ...]  # a key of a mapping in mappings


def _int(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


_JSON: Final = json.JSONDecoder(parse_int=_int)


def decoded(text: str | bytes) -> Any:
    """Return the value of a JSON text, or what is none as it is."""
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    try:
        return _JSON.decode(shown)
    except (ValueError, RecursionError):
        return shown


class Json(bytes):
    """A JSON text that nobody asked for yet."""

    __slots__ = ()


def put(tree: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set a value in mappings of mappings."""
    for part in path[:-1]:
        below = tree.get(part)
        if isinstance(below, Json):
            below = decoded(below)
        tree[part] = tree = below if isinstance(below, dict) else {}
    tree[path[-1]] = value


def remove(tree: dict[str, Any], path: KeyPath) -> None:
    """Remove a value from mappings of mappings, if it is there."""
    for part in path[:-1]:
        below = tree.get(part)
        if isinstance(below, Json):
            below = tree[part] = decoded(below)
        if not isinstance(below, dict):
            return
        tree = below
    tree.pop(path[-1], None)


def plain(value: Any) -> Any:
    """Return mappings of mappings with all JSON texts decoded."""
    if isinstance(value, Json):
        return decoded(value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value


def is_number(value: Any) -> bool:
    """Tell whether a value is a number: True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)

"""What trainers log, as the plain values that a run keeps exactly."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

DEEPEST = 60  # A run keeps params of 64 levels.


def one_value(value: Any) -> Any:
    """Return what an array or tensor of one element holds, and anything else as it is."""
    if type(value) in (float, int, str, bool) or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (TypeError, ValueError, RuntimeError):
        return value  # It has several elements, or none.


def plain(value: Any, depth: int = 0) -> Any:
    """Return None, bools, ints, floats, texts, and lists, tuples and dicts of them.

    These pass unchanged, and so do NumPy's and torch's scalars as what they hold. Arrays become
    lists; sets sorted lists; dataclasses and namespaces dicts; enums their values; paths texts;
    classes and functions their names; the rest ``str(value)``.
    """
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth >= DEEPEST:
        return str(value)
    items = value if isinstance(value, Mapping | list | tuple) else _items(value)
    if isinstance(items, Mapping):
        return {_key(key, depth): plain(item, depth + 1) for key, item in items.items()}
    if isinstance(items, list | tuple):
        inner = [plain(item, depth + 1) for item in items]
        return tuple(inner) if isinstance(items, tuple) else inner
    return items


def _items(value: Any) -> Any:
    """Return a value as a mapping, a list or a tuple, if it has parts; else what it is as one."""
    if isinstance(value, Namespace):
        return vars(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    if isinstance(value, AbstractSet):
        return sorted(value, key=repr)
    if not isinstance(value, type):  # The classes of NumPy have the methods of their values.
        if is_dataclass(value):
            return {each.name: getattr(value, each.name) for each in fields(value)}
        if hasattr(value, "tolist") and hasattr(value, "shape"):
            return value.tolist()
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def _key(key: Any, depth: int) -> Any:
    kept = plain(key, depth + 1)
    return kept if kept is None or isinstance(kept, bool | int | float | str) else str(key)

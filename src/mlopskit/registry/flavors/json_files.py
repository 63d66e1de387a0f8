"""JSON that somebody else wrote, read without surprise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST: Final = 256 << 20


def read_json(source: Path | bytes, label: str) -> Any:
    """Return what a JSON text holds.

    Raises:
        InvalidModel: If it is none, is nested too deeply, or names a key twice.
    """
    try:
        if not isinstance(source, bytes):
            size = source.stat().st_size
            if size > LARGEST:
                raise ValueError(f"{size} bytes, and {LARGEST} are read")  # noqa: TRY301
            source = source.read_bytes()
        return json.loads(source, object_pairs_hook=_once)
    except (ValueError, RecursionError, OSError) as exc:
        raise InvalidModel(f"{label} holds no sound JSON: {exc}") from exc


def mappings_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in a JSON value, itself included."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def numbers_in(value: Any) -> Iterator[int]:
    """Yield every whole number in a JSON value but those in mappings, itself included."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, int) and not isinstance(item, bool):
            yield item
        elif isinstance(item, list):
            waiting += item


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found

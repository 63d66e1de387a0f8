"""What a message ``Record`` of W&B's says, as far as it is a row: told from its bytes.

Most of a file are rows of the history and of the summary. W&B's own classes take three times as
long to read them as these lines, which leave what looks unusual to the classes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mlopskit.tracking.wandb_values import KeyPath

HISTORY, SUMMARY = 0x12, 0x1A  # tags on the wire
_ITEM, _STEP = 0x0A, 0x12
_VALUE_JSON: Final = b"\x82\x01"


def protocol() -> Any:
    """Return W&B's classes. They have no types, and importing them imports all of W&B."""
    from wandb.proto import wandb_internal_pb2  # noqa: PLC0415 - only who has such files pays

    return wandb_internal_pb2


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def body(message: bytes) -> tuple[int, int]:
    """Return the tag of what a record holds, and where that begins; 0 if there is nothing."""
    try:
        at = _varint(message, 1)[1] if message[:1] == b"\x08" else 0  # its number
    except IndexError:
        return 0, 0
    return (message[at], at) if at < len(message) else (0, at)


def items_of(message: bytes, at: int, tag: int) -> list[tuple[bytes, bytes]] | None:
    """Return the items of a row, each as its encoded key and its JSON text.

    None if the row is not laid out as W&B's service does it.
    """
    try:
        length, at = _varint(message, at + 1)
        end = at + length
        if end != len(message):
            return None
        items = []
        while at < end:
            what, length = message[at], message[at + 1]
            at += 2
            if length >= 0x80:
                length, at = _varint(message, at - 1)
            if what == _ITEM:
                item = message[at : at + length]
                place = item[1] + 2  # behind a key of one part
                if item[place : place + 2] != _VALUE_JSON or item[place + 2] != length - place - 3:
                    place = _behind_key(item)
                size, begin = item[place + 2], place + 3
                if size >= 0x80:
                    size, begin = _varint(item, place + 2)
                if item[place : place + 2] != _VALUE_JSON or begin + size != len(item):
                    return None
                items.append((item[:place], item[begin:]))
            elif what != _STEP or tag != HISTORY:
                return None
            at += length
    except IndexError:
        return None
    return items


def _behind_key(item: bytes) -> int:
    at = 0
    while item[at] in (0x0A, 0x12):  # key, nested_key
        length = item[at + 1]
        at += 2
        if length >= 0x80:
            length, at = _varint(item, at - 1)
        at += length
    return at


@lru_cache(maxsize=4096)
def path_of(head: bytes) -> KeyPath:
    """Return the parts of an encoded key."""
    item = protocol().HistoryItem.FromString(head)
    return tuple(item.nested_key) or (item.key,)


def pair_of(item: Any) -> tuple[bytes, bytes]:
    """Return an item as `items_of` has it."""
    key = protocol().HistoryItem(key=item.key, nested_key=item.nested_key)
    return key.SerializeToString(), item.value_json.encode()

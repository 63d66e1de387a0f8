"""Keys and values as bytes: equal keys are equal bytes, and values read back equal."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlopskit.errors import InvalidInput, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.features.rows import Key

# msgspec writes a date as text; as an extension type it comes back as a date.
DATE: Final = 1


def encode_key(key: Key) -> bytes:
    """Return a key as a JSON list. 1, "1" and true are three different keys.

    Raises:
        InvalidInput: If a text in it is no Unicode.
    """
    try:
        return _to_json(key)
    except (UnicodeError, ValueError) as exc:
        raise InvalidInput(f"{key!r} cannot be a key: {exc}.") from exc


def decode_key(data: bytes) -> list[Any]:
    """Return the parts of a key."""
    return _from_json(data)


def encode(values: Mapping[str, Any]) -> bytes:
    """Return values as MessagePack, NaN, infinities and -0.0 included.

    Raises:
        InvalidInput: If an integer needs more than 64 bits, or a text is no Unicode.
    """
    try:
        return _pack({name: _outward(value) for name, value in values.items()})
    except (OverflowError, UnicodeError, ValueError) as exc:
        raise InvalidInput(
            f"{dict(values)!r} cannot be kept: {exc}. An integer has 64 bits, a text is Unicode."
        ) from exc


def decode(data: bytes) -> dict[str, Any]:
    """Return values as they were encoded; times in UTC.

    Raises:
        StorageError: If the bytes are none of ours.
    """
    try:
        return _unpack(data)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise StorageError(f"A record of features cannot be read: {exc}.") from exc


def _outward(value: Any) -> Any:
    if type(value) is date:
        return msgspec.msgpack.Ext(DATE, value.isoformat().encode())
    if type(value) is list:
        return [_outward(item) for item in value]
    return value


def _extension(code: int, data: memoryview) -> Any:
    if code == DATE:
        return date.fromisoformat(bytes(data).decode())
    raise StorageError(f"A record of features holds the unknown extension type {code}.")


_to_json: Final = msgspec.json.Encoder().encode
_from_json: Final = msgspec.json.Decoder(list[Any]).decode
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_extension).decode

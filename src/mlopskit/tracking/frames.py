"""Records as frames of bytes, which a segment of a journal is a sequence of.

A frame is four marker bytes, the payload's length and CRC-32 (both little-endian uint32), and the
payload, one JSON list in ASCII: the marker's first byte occurs in none.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

MARKER: Final = b"\xabMKJ"
HEAD: Final = struct.Struct("<4sII")
LARGEST: Final = 16 << 20


def _encoder() -> Callable[[Any], str]:
    """Return a JSON encoder made once: `json` makes a new one for every call, at half of its cost.

    Its last arguments are item separator, sorted keys, skipped keys, and NaN and infinities.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(separators=(",", ":")).encode
    text = json.encoder.encode_basestring_ascii
    encode = make(None, None, text, None, ":", ",", False, False, True)
    return lambda record: "".join(encode(record, 0))


_encode = _encoder()
# `json.loads` guesses the encoding of each text anew; what it calls then has no type of its own.
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def frame_of(record: list[Any]) -> bytes:
    """Return a record as it lies in a segment.

    Raises:
        InvalidInput: If it is larger than 16 MiB.
    """
    payload = _encode(record).encode("ascii")
    size = len(payload)
    if size > LARGEST:
        raise InvalidInput(
            f"One record of {size} bytes is more than a journal takes ({LARGEST}). "
            "Log it as an artifact; pack very many files into an archive."
        )
    return HEAD.pack(MARKER, size, zlib.crc32(payload)) + payload


def record_at(data: bytes, at: int) -> tuple[list[Any] | None, int]:
    """Return the record whose frame begins at `at`, None if it is not whole, and where it ends."""
    if len(data) - at < HEAD.size:
        return None, at
    marker, length, crc = HEAD.unpack_from(data, at)
    end = at + HEAD.size + length
    payload = data[at + HEAD.size : end]
    if marker != MARKER or end > len(data) or zlib.crc32(payload) != crc:
        return None, at
    record: list[Any] = _scan(payload.decode("ascii"), 0)[0]
    return record, end


def next_frame(data: bytes, at: int) -> int | None:
    """Return where the next whole frame begins."""
    while (at := data.find(MARKER, at)) >= 0:
        if record_at(data, at)[0] is not None:
            return at
        at += 1
    return None


def is_cut_short(data: bytes, at: int) -> bool:
    """Tell whether the last bytes are the beginning of a frame that never was written whole."""
    if len(data) - at < HEAD.size:
        return MARKER.startswith(data[at : at + len(MARKER)]) or data.startswith(MARKER, at)
    marker, length, _ = HEAD.unpack_from(data, at)
    return bool(marker == MARKER and at + HEAD.size + length > len(data))

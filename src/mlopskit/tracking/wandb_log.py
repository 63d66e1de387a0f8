"""The log that is a run's ``.wandb`` file: its bytes, cut into W&B's messages ``Record``.

A header of seven bytes, and then LevelDB's log: blocks of 32 KiB with frames (CRC-32, length, type)
that make up the messages. As seen with W&B 0.31, the file grows whenever a block is full, and at
least every 15 seconds (``x_transaction_log_flush_interval``), when the run ends, and when its
process was killed.

Nothing here is locked: one thread at a time may use a `RunFile`.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import NotFound, StorageError
from mlopskit.storage import disk_errors
from mlopskit.tracking.wandb_messages import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

BLOCK: Final = 32768
MAGIC: Final = b":W&B\xe1\xbe\x00"
FULL, FIRST, LAST, LOST = 1, 2, 4, 0  # 3 is a frame in the middle
_FRAME: Final = struct.Struct("<IHB")
_SEEDS: Final = {kind: zlib.crc32(bytes([kind])) for kind in (1, 2, 3, 4)}
_KINDS: Final = re.compile(rb"[\x01-\x04]")


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a file that are part of no record any more.

    Attributes:
        offset: Where they begin, in bytes.
        length: How many they are.
        reason: What is wrong with them.
    """

    offset: int
    length: int
    reason: str


class RunFile:
    """A ``.wandb`` file, read from where the last look ended.

    Attributes:
        path: The file.
        offset: Up to where it has been read, in bytes; always the end of a record or of damage.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self._damage: list[Damage] = []
        self._tail: Damage | None = None

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What was passed over so far, and what at the end is more than unfinished."""
        return (*self._damage, self._tail) if self._tail else tuple(self._damage)

    def messages(self) -> Iterator[bytes]:
        """Yield the messages that came since the last look. An unfinished end is left for the next.

        Raises:
            NotFound: If the file is gone.
            StorageError: If it is no file of W&B's, became shorter, or cannot be read.
        """
        parts: list[bytes] = []
        for start, stop, kind, payload in self._frames():
            if kind == FULL and not parts:
                self.offset = stop
                yield payload
                continue
            if kind == LOST:
                self._lose(stop, _reason(payload))
                parts = []
                continue
            if kind in (FULL, FIRST):
                if parts:
                    self._lose(start, "the end of this record is missing")
                parts = []
            elif not parts:
                self._lose(stop, "the beginning of this record is missing")
                continue
            parts.append(payload)
            if kind in (FULL, LAST):
                self.offset = stop
                yield b"".join(parts)
                parts = []

    def parsed(self, message: bytes) -> Any:
        """Return a message as W&B's ``Record``; None, with damage named, if it is none."""
        # It has no types, and comes with wandb.
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415 - with wandb

        try:
            return protocol().Record.FromString(message)
        except DecodeError:
            size = len(message)
            self._damage.append(Damage(self.offset - size, size, "this is no record of W&B's"))
            return None

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield start, end, type and payload of each frame, and of each stretch that is lost."""
        self._tail = None
        with self._open() as file:
            if not self._begin(file):
                return
            at = self.offset
            while data := self._read(file, BLOCK - at % BLOCK):
                whole = (at + len(data)) % BLOCK == 0
                place, end = 0, len(data)
                while end - place >= _FRAME.size:
                    crc, length, kind = _FRAME.unpack_from(data, place)
                    stop = place + _FRAME.size + length
                    payload = data[place + _FRAME.size : stop]
                    seed = _SEEDS.get(kind)
                    if seed is not None and stop <= end and zlib.crc32(payload, seed) == crc:
                        yield at + place, at + stop, kind, payload
                        place = stop
                        continue
                    found = _next_frame(data, place + 1)
                    if found is None and not whole:
                        torn = seed is not None and end < stop <= BLOCK - at % BLOCK
                        if not torn:
                            rest = data[place:]
                            self._tail = Damage(at + place, len(rest), _reason(rest))
                        return
                    stop = end if found is None else found
                    yield at + place, at + stop, LOST, data[place:stop]
                    place = stop
                if not whole:
                    return
                at += end

    def _lose(self, stop: int, reason: str) -> None:
        begin = self.offset
        if self._damage and self._damage[-1].offset + self._damage[-1].length == begin:
            last = self._damage.pop()
            begin, reason = last.offset, last.reason
        self._damage.append(Damage(begin, stop - begin, reason))
        self.offset = stop

    def _begin(self, file: BinaryIO) -> bool:
        """Go to where the last look ended; tell whether there is something."""
        with disk_errors(self.path):
            size = os.fstat(file.fileno()).st_size
            head = file.read(len(MAGIC))
            file.seek(max(self.offset, len(MAGIC)))
        if not MAGIC.startswith(head):
            raise StorageError(f"{self.path} is no file of W&B's: it begins with {head!r}.")
        if size < self.offset:
            raise StorageError(
                f"{self.path} became shorter: {size} bytes, of which {self.offset} were read."
            )
        if len(head) < len(MAGIC):
            return False
        self.offset = max(self.offset, len(MAGIC))
        return True

    def _open(self) -> BinaryIO:
        with disk_errors(self.path):
            try:
                return open(self.path, "rb", buffering=1 << 20)
            except FileNotFoundError as exc:
                raise NotFound("file of a W&B run", str(self.path)) from exc

    def _read(self, file: BinaryIO, size: int) -> bytes:
        with disk_errors(self.path):
            return file.read(size)


def _next_frame(data: bytes, place: int) -> int | None:
    """Return where the first whole frame begins from a place on, told by its checksum."""
    for found in _KINDS.finditer(data, place + _FRAME.size - 1):
        start = found.end() - _FRAME.size
        crc, length, kind = _FRAME.unpack_from(data, start)
        stop = start + _FRAME.size + length
        if stop <= len(data) and zlib.crc32(data[start + _FRAME.size : stop], _SEEDS[kind]) == crc:
            return start
    return None


def _reason(lost: bytes) -> str:
    return "the checksum does not match" if any(lost) else "there are only zeros"

"""A run's journal: what was logged and has not reached every backend yet.

A file of frames: four marker bytes, the payload's length and CRC-32 (both little-endian uint32),
the payload, one JSON list. A frame is appended by one `os.write` to a file opened with O_APPEND,
so that threads and forked children never mix theirs, and what was acknowledged survives the death
of the process by any signal. A torn frame was never acknowledged; a reader skips it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import threading
import uuid
import zlib
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, StorageError
from mlopskit.storage import disk_errors, make_private_folder, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MARKER: Final = b"\xabMKJ"
HEAD: Final = struct.Struct("<4sII")
LARGEST: Final = 16 << 20
SUFFIX: Final = ".journal"


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


class Journal:
    """The writing end of one journal, held under a file lock for as long as its process lives.

    Args:
        folder: Where journals lie.
        run_id: The run it belongs to.
        limit: The most bytes it may grow to.

    Raises:
        StorageError: If it cannot be made.
    """

    def __init__(self, folder: Path, run_id: str, *, limit: int) -> None:
        self._fd = -1
        self.source = f"{run_id}.{uuid.uuid4().hex[:12]}"
        self.path = make_private_folder(folder) / (self.source + SUFFIX)
        self.limit = limit
        self._size = 0
        self._named = False
        self._fd = -1
        self._pid = os.getpid()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        with disk_errors(self.path):
            self._fd = os.open(self.path, flags, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def append(self, record: list[Any]) -> None:
        """Hand one record to the operating system.

        Raises:
            InvalidInput: If it is larger than 16 MiB.
            StorageError: If it could not be written whole, the journal is full, or the run has
                been finished by the process that this one was forked from.
        """
        frame = frame_of(record)
        if self._size + len(frame) > self.limit:
            raise StorageError(
                f"The journal {self.path} has reached its limit of {self.limit} bytes. "
                "Raise journal_limit, log less, or find out why it is not delivered: run.delivery."
            )
        try:
            written = os.write(self._fd, frame)
        except OSError as exc:
            raise StorageError(
                f"Nothing can be written to the journal {self.path}: {exc.strerror or exc}."
            ) from exc
        if written != len(frame):
            # The rest would be no frame of its own, and readers skip what is torn.
            reason = os.strerror(errno.ENOSPC)
            raise StorageError(
                f"Only a part of the record was written to {self.path}: {reason}. "
                "It counts as not logged."
            )
        self._size += written
        if self._pid != os.getpid() and os.fstat(self._fd).st_nlink == 0:
            raise StorageError(
                f"The run of {self.path} was finished by process {self._pid}, which this one was "
                "forked from. Finish a run after its children."
            )

    def sync(self) -> None:
        """Put what was appended on the disk, power loss included."""
        with disk_errors(self.path):
            os.fsync(self._fd)
            if not self._named:
                sync_folder(self.path.parent)
                self._named = True

    def close(self) -> None:
        """Let go of the file and its lock. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Reader:
    """The reading end of a journal, with a place in it.

    Args:
        path: The journal.
        offset: Where to begin.

    Raises:
        StorageError: If it cannot be opened.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._fd = -1
        self.path = path
        self.offset = offset
        self._lock = threading.Lock()
        self._fd = -1
        with disk_errors(path):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def size(self) -> int:
        """Return how many bytes the journal holds now; once closed, how many were read."""
        # Without the lock, another thread could close the number and a third be given it.
        with self._lock, disk_errors(self.path):
            return self.offset if self._fd < 0 else os.fstat(self._fd).st_size

    def read(
        self, *, records: int = 1000, size: int = 1 << 20, whole: bool = False
    ) -> list[tuple[int, list[Any]]]:
        """Return the next records, each with the offset where it ends, and move on behind them.

        Args:
            records: At most so many.
            size: Read so many bytes, and more only where the next record is larger.
            whole: Nobody writes any more: what is torn at the end is skipped, not waited for.
        """
        found: list[tuple[int, list[Any]]] = []
        at = 0
        with self._lock, disk_errors(self.path):
            data = b"" if self._fd < 0 else os.pread(self._fd, size, self.offset)
            while data and len(found) < records:
                record, end = _frame(data, at)
                if record is None:
                    if found:
                        break
                    data += os.pread(self._fd, LARGEST + HEAD.size, self.offset + len(data))
                    record, end = _frame(data, at)
                if record is None:
                    after = _next_frame(data, at + 1)
                    if after is None:
                        at = len(data) if whole else at
                        break
                    at = after
                    continue
                at = end
                found.append((self.offset + at, record))
        self.offset += at
        return found

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()


def frame_of(record: list[Any]) -> bytes:
    """Return a record as it lies in the file.

    Raises:
        InvalidInput: If it is larger than 16 MiB.
    """
    payload = _encode(record).encode("ascii")
    if len(payload) > LARGEST:
        raise InvalidInput(
            f"One record of {len(payload)} bytes is more than a journal takes ({LARGEST}). "
            "Log it as an artifact."
        )
    return HEAD.pack(MARKER, len(payload), zlib.crc32(payload)) + payload


def _next_frame(data: bytes, at: int) -> int | None:
    """Return where the next whole frame begins: what lies before it was torn."""
    while (at := data.find(MARKER, at)) >= 0:
        if _frame(data, at)[0] is not None:
            return at
        at += 1
    return None


def _frame(data: bytes, at: int) -> tuple[list[Any] | None, int]:
    """Return the record whose frame begins at `at`, None if torn, and where it ends."""
    if len(data) - at < HEAD.size:
        return None, at
    marker, length, crc = HEAD.unpack_from(data, at)
    end = at + HEAD.size + length
    payload = data[at + HEAD.size : end]
    if marker != MARKER or end > len(data) or zlib.crc32(payload) != crc:
        return None, at
    record: list[Any] = json.loads(payload)
    return record, end

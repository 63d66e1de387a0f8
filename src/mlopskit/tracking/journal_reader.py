"""The reading end of a journal.

A frame that the end of its segment cuts short was never acknowledged; any other that cannot be read
is damage, which a `Reader` skips and names.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlopskit.storage import disk_errors
from mlopskit.tracking.frames import HEAD, LARGEST, is_cut_short, next_frame, record_at
from mlopskit.tracking.segments import end_of, segment, stretches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a journal that cannot be read."""

    offset: int
    length: int
    reason: str

    def __str__(self) -> str:
        return f"{self.length} bytes at {self.offset} ({self.reason})"


class Reader:
    """The reading end of a journal, with a place in it.

    Args:
        path: The journal.
        offset: Where to begin; what was removed before is passed over.

    Attributes:
        damage: What could not be read so far.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._fd = -1
        self.path = path
        self.offset = offset
        self.damage: list[Damage] = []
        self._begin = -1
        self._closed = False
        self._lock = threading.Lock()

    def size(self) -> int:
        """Return where the journal ends now; once closed or removed, where was read to."""
        with self._lock, disk_errors(self.path):
            if self._closed:
                return self.offset
            with suppress(FileNotFoundError):
                end = end_of(self.path)
                return self.offset if end is None else end
            return self.offset

    def read(
        self,
        *,
        most: int = 1000,
        weigh: Callable[[list[Any]], int] | None = None,
        size: int = 1 << 18,
        whole: bool = False,
    ) -> list[tuple[int, list[Any]]]:
        """Return the next records, each with the offset where it ends, and move on behind them.

        Args:
            most: So many records; or so much of their weight, but at least one.
            weigh: Says what a record weighs.
            size: Read so many bytes, and more only where the next record is larger.
            whole: Nobody writes any more: what is cut short at the end is skipped, not waited for.
        """
        with self._lock, disk_errors(self.path):
            while not self._closed and self._open():
                # Looked up first: once there is a next segment, nothing is added to this one.
                following = next((b for b, _ in stretches(self.path) if b > self._begin), None)
                before = self.offset
                found = self._read(most, weigh or _one, size, whole=whole or following is not None)
                if found or following is None:
                    return found
                if self.offset < following:
                    self.damage.append(Damage(before, following - before, "they are missing"))
                self.offset = following
                self._let_go()
            return []

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        with self._lock:
            self._closed = True
            self._let_go()

    def back_to(self, offset: int) -> None:
        """Return to a place that was read before."""
        with self._lock:
            self.offset = offset
            if offset < self._begin:
                self._let_go()

    def __del__(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> bool:
        """Open the segment that holds the place; tell whether there is one."""
        if self._fd >= 0:
            return True
        known = stretches(self.path)
        if not known:
            return False
        # What lies before the first segment was removed since every backend has it.
        self.offset = max(self.offset, known[0][0])
        begin = max(begin for begin, _ in known if begin <= self.offset)
        try:
            self._fd = os.open(segment(self.path, begin), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return self._open()  # It was removed a moment ago.
        self._begin = begin
        return True

    def _read(
        self, most: int, weigh: Callable[[list[Any]], int], size: int, *, whole: bool
    ) -> list[tuple[int, list[Any]]]:
        found: list[tuple[int, list[Any]]] = []
        place = self.offset - self._begin
        data = os.pread(self._fd, size, place)
        at = weight = 0
        while at < len(data):
            record, end = record_at(data, at)
            if record is None:
                if found:
                    break
                data += os.pread(self._fd, LARGEST + HEAD.size, place + len(data))
                record, end = record_at(data, at)
            if record is None:
                after = self._skip(data, at, whole=whole)
                if after == at:
                    break
                at = after
                continue
            weight += weigh(record)
            if weight > most and found:
                break
            at = end
            found.append((self.offset + at, record))
        self.offset += at
        return found

    def _skip(self, data: bytes, at: int, *, whole: bool) -> int:
        """Return where reading goes on after what cannot be read at `at`; `at` itself to wait."""
        after = next_frame(data, at + 1)
        if after is None:
            if not whole:
                return at
            after = len(data)
            if is_cut_short(data, at):
                return after  # It was never acknowledged.
        self.damage.append(Damage(self.offset + at, after - at, "their checksum is wrong"))
        return after


def _one(record: list[Any]) -> int:  # noqa: ARG001 - whatever it is
    return 1

"""A run's journal: what was logged and has not reached every backend yet.

A folder, written by one process, with

* ``about.json``: the run, the backends and the process, which later processes need to deliver it,
* ``lock``: held by the process that writes, for as long as it lives (both: `journal_folders`),
* ``<offset>.log``: segments of a few MiB, named by where they begin (`segments`), of frames
  (`frames`); those that every backend has are removed while the run goes on,
* ``files``: the bytes of artifacts, by digest,
* ``<mark>.cursor``: how far each backend has got.

A record is appended by one ``write`` to a file opened with O_APPEND, so what was acknowledged
survives the death of the process by any signal.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import uuid
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import StorageError
from mlopskit.storage import Blobs, disk_errors, make_private_folder, sync_folder
from mlopskit.tracking.frames import frame_of
from mlopskit.tracking.journal_folders import SUFFIX, first_claim
from mlopskit.tracking.segments import new_segment, segment, stretches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlopskit.tracking.journal_folders import About, Claim

SEGMENT: Final = 4 << 20


def _writer() -> Callable[[int, bytes, int], int]:
    """Return write(2), called without letting go of the interpreter lock.

    `os.write` lets go of it, and a caller that logs while another thread computes then waits for
    up to 5 ms to get it back, where writing 150 bytes to the page cache takes one microsecond.
    """
    write = ctypes.PyDLL(None, use_errno=True).write
    write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    write.restype = ctypes.c_ssize_t
    found: Callable[[int, bytes, int], int] = write
    return found


_write = _writer()
_open: weakref.WeakSet[Journal] = weakref.WeakSet()


def _close_in_child() -> None:
    """Close what a forked child inherited: it writes to journals of its own."""
    for each in list(_open):
        each.close()


os.register_at_fork(after_in_child=_close_in_child)


class Journal:
    """The writing end of one journal, held under a file lock for as long as its process lives.

    Its owner serialises `append` with `lock`.

    Args:
        folder: Where journals lie.
        about: Whose it is.
        limit: The most bytes that it may take on the disk at a time.
        hidden: Nobody sees it before `show`; if its process dies before that, it is swept away.

    Raises:
        StorageError: If it cannot be made.
    """

    def __init__(self, folder: Path, about: About, *, limit: int, hidden: bool = False) -> None:
        self._fd = -1
        self._claim: Claim | None = None
        self.source = f"{about.run_id}.{uuid.uuid4().hex[:12]}"
        # Nobody may find it before its lock is held.
        self.path = make_private_folder(folder / f".{self.source}.new")
        self.limit = limit
        self._full = min(SEGMENT, limit // 4)
        self.lock = threading.Lock()
        self.end = 0
        self.files = Blobs(self.path / "files")
        self._kept = self._begin = 0
        self._syncing = threading.Lock()
        self._unsynced = [0]
        self._broken = ""
        self._named = False
        with disk_errors(self.path):
            self._claim = first_claim(self.path)
            about.write(self.path)
            self._fd = new_segment(self.path, 0)
        _open.add(self)
        if not hidden:
            self.show()

    def show(self) -> None:
        """Let others find it.

        Raises:
            StorageError: If it cannot be renamed.
        """
        shown = self.path.with_name(self.source + SUFFIX)
        with disk_errors(self.path):
            os.rename(self.path, shown)
        self.path, self.files = shown, Blobs(shown / "files")

    def append(self, record: list[Any], *, last: bool = False) -> None:
        """Hand one record to the operating system; the last one has room whatever the limit says.

        Raises:
            InvalidInput: If it is larger than 16 MiB.
            StorageError: If it could not be written whole, or the journal is full.
        """
        frame = frame_of(record)
        size = len(frame)
        if self.end + size - self._kept > self.limit and not last:
            raise StorageError(
                f"The journal {self.path} has reached its limit of {self.limit} bytes. "
                "Raise journal_limit, log less, or find out why it is not delivered: run.delivery."
            )
        if self.end - self._begin >= self._full:
            self._next_segment()
        if _write(self._fd, frame, size) != size:
            raise self._failed(ctypes.get_errno())
        self.end += size

    def sync(self) -> None:
        """Put what was appended on the disk, power loss included.

        Raises:
            StorageError: If it could not be put there, now or at an earlier try: after one failure
                the operating system may have dropped what it could not write.
        """
        with self._syncing:  # What another thread is still putting there is not there yet.
            if self._broken:
                raise StorageError(self._broken)
            with self.lock:
                begins, self._unsynced = self._unsynced, [self._begin]
            try:
                self._sync(begins)
            except BaseException:
                with self.lock:
                    self._unsynced = sorted({*begins, *self._unsynced})
                raise

    def reclaim(self, offset: int) -> None:
        """Remove the segments that lie before an offset: every backend has them."""
        if offset - self._kept < self._full:
            return
        for begin, end in stretches(self.path):
            if end is None or end > offset:
                return
            with suppress(FileNotFoundError):
                os.unlink(segment(self.path, begin))
            self._kept = max(self._kept, end)

    def close(self) -> None:
        """Let go of the files and the lock. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._claim is not None:
            self._claim.let_go()

    def __del__(self) -> None:
        self.close()

    def _next_segment(self) -> None:
        with disk_errors(self.path):
            fd = new_segment(self.path, self.end)
            os.close(self._fd)
        self._fd, self._begin = fd, self.end
        self._unsynced.append(self.end)

    def _sync(self, begins: list[int]) -> None:
        for begin in begins:
            self._sync_segment(begin)
        if len(begins) > 1 or not self._named:
            with disk_errors(self.path):
                sync_folder(self.path)
                sync_folder(self.path.parent)
            self._named = True

    def _sync_segment(self, begin: int) -> None:
        try:
            fd = os.open(segment(self.path, begin), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # It was delivered and removed.
        except OSError as exc:
            raise StorageError(f"{self.path} cannot be used: {exc.strerror}.") from exc
        try:
            os.fsync(fd)
        except OSError as exc:
            self._broken = (
                f"The journal {self.path} could not be put on the disk: {exc.strerror}. "
                "What was logged so far may not survive a loss of power."
            )
            raise StorageError(self._broken) from exc
        finally:
            os.close(fd)

    def _failed(self, code: int) -> StorageError:
        """Take back the part of a frame that was written, and say what happened."""
        # Where that fails too, a reader will skip the part by its checksum.
        with suppress(OSError):
            os.ftruncate(self._fd, self.end - self._begin)
        with suppress(OSError):
            self.end = self._begin + os.fstat(self._fd).st_size
        reason = os.strerror(code or errno.ENOSPC)
        return StorageError(
            f"Nothing can be written to the journal {self.path}: {reason}. "
            "The record counts as not logged."
        )

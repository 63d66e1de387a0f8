"""A run's journal: what was logged and has not reached every backend yet.

A folder, written by one process, with

* ``about.json``: the run, the backends and the process, which later processes need to deliver it,
* ``lock``: held by the process that writes, for as long as it lives,
* ``<offset>.log``: segments of a few MiB, named by where they begin; those that every backend has
  are removed while the run goes on,
* ``files``: the bytes of artifacts, by digest,
* ``<mark>.cursor``: how far each backend has got.

A segment is a sequence of frames: four marker bytes, the payload's length and CRC-32 (both
little-endian uint32), the payload, one JSON list. A frame is appended by one ``write`` to a file
opened with O_APPEND, so what was acknowledged survives the death of the process by any signal. A
frame that the end of its segment cuts short was never acknowledged; any other that cannot be read
is damage, which a `Reader` skips and names.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
import struct
import threading
import time
import uuid
import weakref
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, StorageError
from mlopskit.storage import Blobs, disk_errors, make_private_folder, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MARKER: Final = b"\xabMKJ"
HEAD: Final = struct.Struct("<4sII")
LARGEST: Final = 16 << 20
SEGMENT: Final = 4 << 20
SUFFIX: Final = ".journal"
ABOUT: Final = "about.json"
LOCK: Final = "lock"
STILLBORN_S: Final = 60.0


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


_encode = _encoder()
# `json.loads` guesses the encoding of each text anew; what it calls then has no type of its own.
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_write = _writer()
_open: weakref.WeakSet[Journal] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """Close what a forked child inherited: it must not hold the locks of a parent that dies."""
    for each in list(_open):
        each.close()


os.register_at_fork(after_in_child=_let_go_in_child)


@dataclass(frozen=True, slots=True)
class About:
    """What a journal says of itself.

    Attributes:
        run_id: The run.
        targets: The backends that all of it goes to.
        owner: The process that writes it, as `owner.this_process` has it.
        child: Whether that process was forked from the run's own; then it never ends the run.
        begun_ns: When it was begun, in nanoseconds since 1970-01-01 UTC.
    """

    run_id: str
    targets: tuple[str, ...]
    owner: str
    child: bool = False
    begun_ns: int = field(default_factory=time.time_ns, compare=False)


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a journal that cannot be read."""

    offset: int
    length: int
    reason: str

    def __str__(self) -> str:
        return f"{self.length} bytes at {self.offset} ({self.reason})"


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
        self._fd = self._lock_fd = -1
        self.source = f"{about.run_id}.{uuid.uuid4().hex[:12]}"
        # Nobody may find it before its lock is held.
        self.path = make_private_folder(folder / f".{self.source}.new")
        self.limit = limit
        self._full = min(SEGMENT, limit // 4)
        self.lock = threading.Lock()
        self.end = 0
        self.files = Blobs(self.path / "files")
        self._kept = self._begin = 0
        self._unsynced = [0]
        self._broken = ""
        self._named = False
        with disk_errors(self.path):
            self._lock_fd = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            said = {
                "version": 1,
                "run": about.run_id,
                "targets": about.targets,
                "owner": about.owner,
                "child": about.child,
                "begun": about.begun_ns,
            }
            _write_new(self.path / ABOUT, json.dumps(said).encode())
            self._fd = _open_segment(self.path, 0)
            if not hidden:
                self.show()
        _open.add(self)

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
        payload = _encode(record).encode("ascii")
        size = len(payload)
        if size > LARGEST:
            raise _too_large(size)
        frame = HEAD.pack(MARKER, size, zlib.crc32(payload)) + payload
        size += HEAD.size
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
        if self._broken:
            raise StorageError(self._broken)
        with self.lock:
            begins, self._unsynced = self._unsynced, [self._begin]
        for begin in begins:
            self._sync_segment(begin)
        if len(begins) > 1 or not self._named:
            with disk_errors(self.path):
                sync_folder(self.path)
                sync_folder(self.path.parent)
            self._named = True

    def reclaim(self, offset: int) -> None:
        """Remove the segments that lie before an offset: every backend has them."""
        if offset - self._kept < self._full:
            return
        for begin, end in _stretches(self.path):
            if end is None or end > offset:
                return
            with suppress(FileNotFoundError):
                os.unlink(_segment(self.path, begin))
            self._kept = end

    def close(self) -> None:
        """Let go of the files and the lock. Closing twice is fine."""
        for name in ("_fd", "_lock_fd"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()

    def _next_segment(self) -> None:
        with disk_errors(self.path):
            fd = _open_segment(self.path, self.end)
            os.close(self._fd)
        self._fd, self._begin = fd, self.end
        self._unsynced.append(self.end)

    def _sync_segment(self, begin: int) -> None:
        try:
            fd = os.open(_segment(self.path, begin), os.O_RDONLY | os.O_CLOEXEC)
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
            stretches = _stretches(self.path)
            if not stretches:
                return self.offset
            with suppress(FileNotFoundError):
                begin = stretches[-1][0]
                return begin + os.stat(_segment(self.path, begin)).st_size
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
                following = next((b for b, _ in _stretches(self.path) if b > self._begin), None)
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
        stretches = _stretches(self.path)
        if not stretches:
            return False
        # What lies before the first segment was removed since every backend has it.
        self.offset = max(self.offset, stretches[0][0])
        begin = max(begin for begin, _ in stretches if begin <= self.offset)
        try:
            self._fd = os.open(_segment(self.path, begin), os.O_RDONLY | os.O_CLOEXEC)
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
            record, end = _frame(data, at)
            if record is None:
                if found:
                    break
                data += os.pread(self._fd, LARGEST + HEAD.size, place + len(data))
                record, end = _frame(data, at)
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
        after = _next_frame(data, at + 1)
        if after is None:
            if not whole:
                return at
            after = len(data)
            if _is_cut_short(data, at):
                return after  # It was never acknowledged.
        self.damage.append(Damage(self.offset + at, after - at, "their checksum is wrong"))
        return after


def about(path: Path) -> About | None:
    """Return what a journal says of itself; None if it is none."""
    try:
        said = json.loads((path / ABOUT).read_bytes())
        return About(
            said["run"], tuple(said["targets"]), said["owner"], said["child"], said["begun"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def claim(path: Path) -> int | None:
    """Take over a journal that no living process writes; return the lock, to be closed after."""
    try:
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if not path.exists() or os.fstat(fd).st_nlink == 0:
        os.close(fd)  # Somebody else has just delivered all of it.
        return None
    return fd


def add_to(path: Path, record: list[Any]) -> None:
    """Append a record to a journal that was claimed."""
    begins = [begin for begin, _ in _stretches(path)]
    with disk_errors(path):
        last = begins[-1] + os.stat(_segment(path, begins[-1])).st_size if begins else 0
        # A segment of its own: the end of the last one may be torn.
        fd = os.open(
            _segment(path, last), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            frame = frame_of(record)
            if os.write(fd, frame) != len(frame):
                raise StorageError(f"{path} cannot be ended: no space is left.")
        finally:
            os.close(fd)


def remove(path: Path) -> None:
    """Remove a journal with all that is in it, so that no other process sees a part of it."""
    gone = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.gone")
    with suppress(FileNotFoundError):
        os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what was left of journals whose making or removal was cut short."""
    for path in folder.glob(".*.gone"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.new"):
        with suppress(OSError):
            begun = (path / LOCK).exists() or time.time() - path.stat().st_mtime < STILLBORN_S
            if (fd := claim(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(fd)
            elif not begun:
                shutil.rmtree(path, ignore_errors=True)


def frame_of(record: list[Any]) -> bytes:
    """Return a record as it lies in a segment.

    Raises:
        InvalidInput: If it is larger than 16 MiB.
    """
    payload = _encode(record).encode("ascii")
    if len(payload) > LARGEST:
        raise _too_large(len(payload))
    return HEAD.pack(MARKER, len(payload), zlib.crc32(payload)) + payload


def _too_large(size: int) -> InvalidInput:
    return InvalidInput(
        f"One record of {size} bytes is more than a journal takes ({LARGEST}). "
        "Log it as an artifact; pack very many files into an archive."
    )


def _segment(path: Path, begin: int) -> str:
    return f"{path}/{begin:020d}.log"


def _open_segment(path: Path, begin: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    return os.open(_segment(path, begin), flags, 0o600)


def _stretches(path: Path) -> Sequence[tuple[int, int | None]]:
    """Return where each segment begins, and where the next one does."""
    try:
        begins = sorted(int(name[:-4]) for name in os.listdir(path) if name.endswith(".log"))
    except FileNotFoundError:
        return []
    return list(zip(begins, [*begins[1:], None], strict=True))


def _write_new(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def _next_frame(data: bytes, at: int) -> int | None:
    """Return where the next whole frame begins."""
    while (at := data.find(MARKER, at)) >= 0:
        if _frame(data, at)[0] is not None:
            return at
        at += 1
    return None


def _is_cut_short(data: bytes, at: int) -> bool:
    """Tell whether the last bytes are the beginning of a frame that never was written whole."""
    if len(data) - at < HEAD.size:
        return MARKER.startswith(data[at : at + len(MARKER)]) or data.startswith(MARKER, at)
    marker, length, _ = HEAD.unpack_from(data, at)
    return bool(marker == MARKER and at + HEAD.size + length > len(data))


def _frame(data: bytes, at: int) -> tuple[list[Any] | None, int]:
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


def _one(record: list[Any]) -> int:  # noqa: ARG001 - whatever it is
    return 1

"""Bytes of this machine: folders and files that are private, written whole, and known by digest.

Those of object stores are in `addresses`.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import stat
import tempfile
import uuid
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final

from mlopskit.errors import IntegrityError, InvalidInput, NotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

CHUNK: Final = 1 << 20
_ZEROS: Final = bytes(CHUNK)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def make_private_folder(path: Path) -> Path:
    """Make a folder and its parents, readable by their owner only, and return it.

    Raises:
        StorageError: If it cannot be made, or something else is in its place.
    """
    try:
        # `mkdir(parents=True)` would give the parents the mode of any folder.
        for folder in reversed([path, *path.parents]):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise StorageError(
            f"The folder {path} cannot be made: {exc.strerror or exc}. Choose another home with "
            "--home, MLOPSKIT_HOME, or home = '...' in mlopskit.toml."
        ) from exc
    return path


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees all of it or nothing. Survives power loss.

    Raises:
        StorageError: If it cannot be written; what was there before is untouched.
    """
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_page(path: Path, text: str) -> None:
    """Write a text that others may read, as the umask has it.

    A reader, or a crash, sees all of it or what was there before. What is no ordinary file, such as
    ``/dev/stdout``, is written to as it is, and so is a link to a file.

    Raises:
        StorageError: If it cannot be written.
    """
    content = text.encode("utf-8", errors="backslashreplace")
    with disk_errors(path):
        target = path.resolve()
        if target.exists() and not target.is_file():
            target.write_bytes(content)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with part.open("xb") as file:  # With the mode of any new file.
                if target.exists():
                    os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a private temporary file beside `path` that takes its place when the block ends well."""
    make_private_folder(path.parent)
    with disk_errors(path):
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(fd, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise


def sync_folder(path: Path) -> None:
    """Make the names inside a folder survive power loss."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def disk_errors(what: object) -> Iterator[None]:
    """Turn the operating system's refusals into `StorageError`."""
    try:
        yield
    except OSError as exc:
        raise StorageError(f"{what} cannot be used: {exc.strerror or exc}.") from exc


def digest_of(path: Path) -> str:
    """Return a file's digest as ``sha256:<64 hex digits>``."""
    with disk_errors(path), path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(digest: str) -> str:
    """Return a digest, or refuse it.

    Raises:
        InvalidInput: If it is not ``sha256:<64 hex digits>``.
    """
    if not _DIGEST.match(digest):
        raise InvalidInput(f"{digest!r} is no digest such as 'sha256:<64 hex digits>'.")
    return digest


class Blobs:
    """Files by their digest: equal bytes are stored once, and verified whenever they are read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(
        self,
        source: Path | bytes,
        *,
        digest: str = "",
        link: bool = False,
        told: Callable[[int], object] | None = None,
    ) -> tuple[str, int]:
        """Store bytes, or a copy of a file, and return their digest and their size in bytes.

        Durable before it returns. A file that changes while it is read is stored as it was read.
        What is here already is read once, and stored anew if the disk has spoiled it.

        Args:
            source: The bytes, or the path of a file. Holes of a sparse file stay holes.
            digest: What the source is known to have; other bytes are refused.
            link: Share the disk blocks of a file that is known by `digest` and that nobody may
                write, such as a blob of another store, instead of copying it. It is not read again
                here: it was when it was first stored, and is whenever it leaves this store. Where
                it cannot be linked, it is copied.
            told: Is given how many bytes were read since it was last called.

        Raises:
            IntegrityError: If the source has another digest than `digest`.
            InvalidInput: If `digest` is none.
            StorageError: If it cannot be read or written; nothing half-written stays.
        """
        if digest:
            check_digest(digest)
        make_private_folder(self.root)
        with disk_errors(self.root):
            if link and digest and not isinstance(source, bytes):
                size = self._link(source, digest)
                if size is not None:
                    return digest, size
            fd, name = tempfile.mkstemp(dir=self.root, prefix=".", suffix=".part")
            try:
                with os.fdopen(fd, "wb") as file:
                    found, size = copy_bytes(source, file, told)
                    if digest and found != digest:
                        raise IntegrityError(_named(source), digest, found)
                    path = self.path(found)
                    if _holds(path, size, found):
                        return found, size
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(name, 0o400)
                self._place(name, path)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name)
        return found, size

    def _link(self, source: Path, digest: str) -> int | None:
        """Link a file that nobody may write, and return its size; None where it must be copied."""
        state = source.lstat()
        writable = state.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(state.st_mode) or writable or state.st_uid != os.geteuid():
            return None
        path = self.path(digest)
        if _holds(path, state.st_size, digest):
            return state.st_size
        name = self.root / f".{uuid.uuid4().hex}.part"
        try:
            os.link(source, name, follow_symlinks=False)
        except OSError:  # Another file system, or one without links.
            return None
        try:
            self._place(name, path)
        finally:
            # A link that is renamed over another one of the same file stays where it was.
            with suppress(FileNotFoundError):
                os.unlink(name)
        return state.st_size

    def _place(self, name: str | Path, path: Path) -> None:
        if not path.parent.is_dir():
            make_private_folder(path.parent)
            sync_folder(self.root)
        os.replace(name, path)
        sync_folder(path.parent)

    def has(self, digest: str) -> bool:
        """Tell whether a digest's bytes are here. They are not read.

        Raises:
            NotFound: If it is no digest.
        """
        return self.path(digest).is_file()

    def remove(self, digest: str) -> None:
        """Remove a digest's bytes, if they are here.

        Raises:
            StorageError: If they cannot be removed.
        """
        with disk_errors(self.root), suppress(FileNotFoundError):
            self.path(digest).unlink()

    def all(self) -> Iterator[tuple[str, int]]:
        """Yield every digest that is here, and its size in bytes, in their order.

        Raises:
            StorageError: If the folder cannot be read.
        """
        with disk_errors(self.root):
            for path in sorted(self.root.glob("[0-9a-f][0-9a-f]/*")):
                if _DIGEST.match(f"sha256:{path.name}") and path.is_file():
                    yield f"sha256:{path.name}", path.stat().st_size

    def sweep(self) -> None:
        """Remove what killed processes left half-written. Nobody may be writing meanwhile."""
        with disk_errors(self.root):
            for path in self.root.glob(".*.part"):
                path.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Return where a digest's bytes are kept, whether or not they are there."""
        return self.root / key_of(digest)

    def verify(self, digest: str) -> Path:
        """Return the path of a digest's bytes after reading all of them.

        Raises:
            NotFound: If they are not here.
            IntegrityError: If they are no longer the bytes that were stored.
        """
        path = self.path(digest)
        if not path.is_file():
            raise NotFound("digest", digest)
        found = digest_of(path)
        if found != digest:
            raise IntegrityError(str(path), digest, found)
        return path

    def copy(self, digest: str, destination: Path) -> None:
        """Write a digest's bytes to a new private file, verified while they are copied.

        Raises:
            NotFound: If they are not here.
            IntegrityError: If they are no longer what was stored; no file is left behind.
        """
        path = self.path(digest)
        if not path.is_file():
            raise NotFound("digest", digest)
        with writing(destination) as file:
            found, _ = copy_bytes(path, file)
            if found != digest:
                raise IntegrityError(str(path), digest, found)


def key_of(digest: str) -> str:
    """Return the relative path under which every store keeps a digest's bytes.

    Raises:
        NotFound: If it is no digest, so that nothing can be there.
    """
    if not _DIGEST.match(digest):
        raise NotFound("digest", digest)
    hexadecimal = digest.partition(":")[2]
    return f"{hexadecimal[:2]}/{hexadecimal}"


def copy_bytes(
    source: Path | bytes | Iterable[bytes],
    file: IO[bytes],
    told: Callable[[int], object] | None = None,
) -> tuple[str, int]:
    """Write bytes, those of a file, or chunks, to a new open file; return their digest and size.

    A MiB of nothing but zeros becomes a hole, which takes no room on the disk.
    """
    hasher, size, hole = hashlib.sha256(), 0, False
    for chunk in chunks(source):
        hasher.update(chunk)
        size += len(chunk)
        hole = chunk is _ZEROS or chunk == _ZEROS
        if hole:
            file.seek(len(chunk), os.SEEK_CUR)
        else:
            file.write(chunk)
        if told is not None:
            told(len(chunk))
    if hole:
        file.truncate(size)
    return "sha256:" + hasher.hexdigest(), size


def chunks(source: Path | bytes | Iterable[bytes]) -> Iterator[bytes]:
    """Yield bytes, or those of a file, a MiB at a time. The holes of a file are not read."""
    if isinstance(source, bytes):
        for start in range(0, len(source), CHUNK):
            yield source[start : start + CHUNK]
        return
    if not isinstance(source, os.PathLike):
        yield from source
        return
    with source.open("rb", buffering=0) as file:
        while True:
            for _ in range(_hole(file) // CHUNK):
                yield _ZEROS
                file.seek(CHUNK, os.SEEK_CUR)
            chunk = file.read(CHUNK)
            if not chunk:
                return
            yield chunk


def _hole(file: IO[bytes]) -> int:
    """Return how many bytes of a hole lie ahead in a file, 0 where that is not known."""
    if not hasattr(os, "SEEK_DATA") or not file.seekable():
        return 0
    here = file.tell()
    try:
        there = file.seek(here, os.SEEK_DATA)
    except OSError as exc:
        # ENXIO means that no data follows; anything else, that the file system cannot say.
        there = os.fstat(file.fileno()).st_size if exc.errno == errno.ENXIO else here
    file.seek(here)
    return there - here


def _holds(path: Path, size: int, digest: str) -> bool:
    """Tell whether a file has these bytes; one that a disk has spoiled is to be stored anew."""
    try:
        if path.stat().st_size == size and digest_of(path) == digest:
            return True
    except FileNotFoundError:
        return False
    logger.warning("%s is not what was stored under its name; it is stored anew.", path)
    return False


def _named(source: Path | bytes) -> str:
    return "The content" if isinstance(source, bytes) else str(source)

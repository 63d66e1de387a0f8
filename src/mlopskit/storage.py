"""Bytes of this machine: folders and files that are private, written whole, and known by digest.

Those of object stores are in `addresses`.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from mlopskit.errors import IntegrityError, InvalidInput, NotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 20
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

    def put(self, source: Path | bytes) -> tuple[str, int]:
        """Store bytes, or a copy of a file, and return their digest and their size in bytes.

        Durable before it returns. A file that changes while it is read is stored as it was read.

        Raises:
            StorageError: If it cannot be read or written; nothing half-written stays.
        """
        make_private_folder(self.root)
        with disk_errors(self.root):
            fd, name = tempfile.mkstemp(dir=self.root, prefix=".", suffix=".part")
            try:
                with os.fdopen(fd, "wb") as file:
                    digest, size = copy_bytes(source, file)
                    path = self.path(digest)
                    if path.exists() and path.stat().st_size == size:
                        os.unlink(name)
                        return digest, size
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(name, 0o400)
                make_private_folder(path.parent)
                os.replace(name, path)
                sync_folder(path.parent)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(name)
                raise
        return digest, size

    def has(self, digest: str) -> bool:
        """Tell whether a digest's bytes are here."""
        return self.path(digest).is_file()

    def remove(self, digest: str) -> None:
        """Remove a digest's bytes, if they are here.

        Raises:
            StorageError: If they cannot be removed.
        """
        with disk_errors(self.root), suppress(FileNotFoundError):
            self.path(digest).unlink()

    def path(self, digest: str) -> Path:
        """Return where a digest's bytes are kept, whether or not they are there."""
        kind, _, hexadecimal = digest.partition(":")
        if kind != "sha256" or len(hexadecimal) != 64 or not hexadecimal.isalnum():
            raise NotFound("digest", digest)
        return self.root / hexadecimal[:2] / hexadecimal

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


def copy_bytes(source: Path | bytes, file: IO[bytes]) -> tuple[str, int]:
    """Write bytes, or those of a file, to a new open one; return their digest and size.

    What is a hole in a sparse file stays one.
    """
    hasher, size, hole = hashlib.sha256(), 0, False
    for chunk in chunks(source):
        hasher.update(chunk)
        size += len(chunk)
        hole = len(chunk) == CHUNK and not chunk.strip(b"\0")
        if hole:
            file.seek(len(chunk), os.SEEK_CUR)
        else:
            file.write(chunk)
    if hole:
        file.truncate(size)
    return "sha256:" + hasher.hexdigest(), size


def chunks(source: Path | bytes) -> Iterator[bytes]:
    """Yield bytes, or those of a file, a MiB at a time."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk

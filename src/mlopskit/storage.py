"""Bytes at an address: folders and files that are private, written whole, and known by digest.

Today an address is a path of this machine. Object stores come through the same few functions.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from mlopskit.errors import IntegrityError, NotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 20


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
        hasher = hashlib.sha256()
        size = 0
        with disk_errors(self.root):
            fd, name = tempfile.mkstemp(dir=self.root, prefix=".", suffix=".part")
            try:
                with os.fdopen(fd, "wb") as file:
                    for chunk in _chunks(source):
                        hasher.update(chunk)
                        size += len(chunk)
                        file.write(chunk)
                    digest = "sha256:" + hasher.hexdigest()
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
        hasher = hashlib.sha256()
        with writing(destination) as file:
            for chunk in _chunks(path):
                hasher.update(chunk)
                file.write(chunk)
            found = "sha256:" + hasher.hexdigest()
            if found != digest:
                raise IntegrityError(str(path), digest, found)


def _chunks(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk

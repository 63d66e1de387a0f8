"""Bytes at any address that fsspec knows: a bucket of S3, GCS or Azure, a web server, a folder.

`blobs_at` is the one seam for every domain that keeps bytes: a path of this machine gives `Blobs`,
anything else `RemoteBlobs`, and both behave alike. fsspec is imported when a remote address is
first used, and each kind of address has an extra of its own.
"""

from __future__ import annotations

import errno
import hashlib
import re
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from mlopskit.errors import (
    IntegrityError,
    InvalidInput,
    MissingDependency,
    NotFound,
    StorageError,
    Unavailable,
)
from mlopskit.names import check_path
from mlopskit.storage import Blobs, check_digest, chunks, copy_bytes, writing

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK: Final = 4 << 20
EXTRAS: Final = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "abfss": ("adlfs", "azure"),
    "http": ("aiohttp", "s3"),
    "https": ("aiohttp", "s3"),
}
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")


class BlobStore(Protocol):
    """Bytes by their digest, wherever they lie."""

    def put(self, source: Path | bytes) -> tuple[str, int]:
        """Store bytes, or a copy of a file; return their digest and their size."""

    def has(self, digest: str) -> bool:
        """Tell whether a digest's bytes are here."""

    def copy(self, digest: str, destination: Path) -> None:
        """Write a digest's bytes to a new private file, verified while they are copied."""

    def remove(self, digest: str) -> None:
        """Remove a digest's bytes, if they are here."""


def blobs_at(address: str | Path, **options: Any) -> BlobStore:
    """Return the bytes at an address: a path, ``file:`` or anything that fsspec knows.

    Args:
        address: Such as ``artifacts``, ``file:///data/artifacts`` or ``s3://bucket/prefix``.
        options: What the file system of fsspec takes, such as ``client_kwargs``.

    Raises:
        InvalidInput: If options are given for a path, which takes none.
        MissingDependency: If the extra for such addresses is not installed.
    """
    local = local_path(address)
    if local is None:
        return RemoteBlobs(str(address), **options)
    if options:
        raise InvalidInput(f"The folder {local} takes no options, and was given {sorted(options)}.")
    return Blobs(local)


def local_path(address: str | Path) -> Path | None:
    """Return the path that an address names on this machine; None for a remote one."""
    if isinstance(address, Path):
        return address.expanduser()
    if address.startswith("file:"):
        return Path(unquote(urlsplit(address).path))
    return None if _SCHEME.match(address) else Path(address).expanduser()


class RemoteBlobs:
    """Files by their digest in an object store, verified whenever they are read.

    Args:
        address: The folder or prefix below which they lie.
        options: What the file system of fsspec takes.

    Raises:
        InvalidInput: If fsspec knows no such address.
        MissingDependency: If the extra for it is not installed.
    """

    def __init__(self, address: str, **options: Any) -> None:
        self.address = address
        self._shown = shown(address)
        self._files, root = _filesystem(address, options)
        self._root = root.rstrip("/")

    def put(self, source: Path | bytes) -> tuple[str, int]:
        """Store bytes, or a copy of a file, and return their digest and their size in bytes.

        Nothing is sent where they are already there. A reader sees all of them or nothing.

        Raises:
            Unavailable: If the store does not answer.
            StorageError: If it refuses.
        """
        digest, size = _measured(source)
        key = self._key(digest)
        with self._errors():
            if self._files.exists(key) and self._files.size(key) == size:
                return digest, size
            # Object stores show an object once it is whole; a rename makes that true of the rest.
            part = key if self._is_atomic else f"{key}.{uuid.uuid4().hex[:8]}.part"
            if part != key:  # Object stores have no folders, and this would make a bucket.
                self._files.makedirs(key.rpartition("/")[0], exist_ok=True)
            again = hashlib.sha256()
            try:
                with self._files.open(part, "wb") as file:
                    for chunk in chunks(source):
                        again.update(chunk)
                        file.write(chunk)
                    if again.hexdigest() != digest.partition(":")[2]:
                        if hasattr(file, "discard"):
                            file.discard()
                        raise StorageError("A file changed while it was stored.")  # noqa: TRY301 - cleaned up below
                if part != key:
                    self._files.mv(part, key)
            except BaseException:
                if part != key:
                    with suppress(Exception):
                        self._files.rm_file(part)
                raise
        return digest, size

    def has(self, digest: str) -> bool:
        """Tell whether a digest's bytes are here."""
        with self._errors():
            return bool(self._files.exists(self._key(digest)))

    def remove(self, digest: str) -> None:
        """Remove a digest's bytes, if they are here."""
        with self._errors(), suppress(FileNotFoundError):
            self._files.rm_file(self._key(digest))

    def copy(self, digest: str, destination: Path) -> None:
        """Write a digest's bytes to a new private file, verified while they are copied.

        Raises:
            NotFound: If they are not here.
            IntegrityError: If they are no longer what was stored; no file is left behind.
            Unavailable: If the store does not answer.
        """
        key = self._key(digest)
        with self._errors():
            try:
                _download(self._files, key, destination, digest, f"{self._shown}/{digest}")
            except FileNotFoundError:
                raise NotFound("digest", digest) from None

    @property
    def _is_atomic(self) -> bool:
        protocol = self._files.protocol
        return bool({protocol} if isinstance(protocol, str) else {*protocol} & {*EXTRAS})

    def _key(self, digest: str) -> str:
        hexadecimal = check_digest(digest).partition(":")[2]
        return f"{self._root}/{hexadecimal[:2]}/{hexadecimal}"

    def _errors(self) -> Any:
        return remote_errors(self._shown)


def fetch(uri: str, destination: Path, digest: str = "", **options: Any) -> int:
    """Write what lies at an address to a new private file, or a folder of files; return the bytes.

    Args:
        uri: An address: ``file:``, or anything that fsspec knows.
        destination: Where to write. A prefix that holds many files becomes a folder there.
        digest: What the bytes of a file must have; nothing is left behind if they have not.
        options: What the file system of fsspec takes.

    Raises:
        NotFound: If nothing lies there.
        IntegrityError: If the bytes have another digest.
        InvalidName: If a file of a prefix has a name that would leave the folder.
        Unavailable: If it does not answer.
    """
    name = shown(uri)
    local = local_path(uri)
    if local is not None:
        return _fetch_local(local, destination, digest)
    files, path = _filesystem(uri, options)
    with remote_errors(name):
        if not files.exists(path):
            raise NotFound("file", name)
        if not files.isdir(path):
            return _download(files, path, destination, digest, name)
        _no_digest(name, digest)
        total = 0
        for each in sorted(files.find(path)):
            inside = check_path("file", str(each)[len(path.rstrip("/")) + 1 :])
            total += _download(files, each, destination / inside, "", name)
        return total


def shown(address: str) -> str:
    """Return an address without what may be secret in it: its user, its password and its query."""
    head = address.partition("?")[0].partition("#")[0]
    scheme, mark, rest = head.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}" if mark else head


@contextmanager
def remote_errors(where: str) -> Iterator[None]:
    """Turn the refusals of a file system into our errors; none of them is passed on as it is."""
    try:
        yield
    except FileNotFoundError as exc:
        raise StorageError(
            f"{where} cannot be used: {_bare(exc, where)}. Does the bucket or folder exist?"
        ) from exc
    except PermissionError as exc:
        raise StorageError(
            f"{where} refuses: {_bare(exc, where)}. Give credentials as its own tools take them."
        ) from exc
    except (TimeoutError, ConnectionError) as exc:
        raise Unavailable(where, exc) from exc
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            raise StorageError(f"{where} cannot be used: {_bare(exc, where)}.") from exc
        raise Unavailable(where, _bare(exc, where)) from exc
    except Exception as exc:
        if type(exc).__module__.partition(".")[0] in _SDKS:
            if "credentials" in str(exc).lower():
                raise StorageError(f"{where} refuses: {exc}.") from exc
            raise Unavailable(where, exc) from exc
        raise


_SDKS: Final = {
    "botocore",
    "aiobotocore",
    "aiohttp",
    "gcsfs",
    "google",
    "azure",
    "adlfs",
    "requests",
}


def _bare(error: OSError, where: str) -> str:
    return (error.strerror or str(error) or type(error).__name__).replace(where, "it")


def _filesystem(address: str, options: dict[str, Any]) -> tuple[Any, str]:
    scheme = urlsplit(address).scheme.lower()
    package, extra = EXTRAS.get(scheme, ("fsspec", "s3"))
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - few keep their bytes elsewhere
    except ImportError as exc:
        raise MissingDependency(
            f"{scheme}: addresses", package, f"pip install 'mlopskit[{extra}]'"
        ) from exc
    try:
        files, path = url_to_fs(address, **options)
    except ImportError as exc:
        raise MissingDependency(
            f"{scheme}: addresses", package, f"pip install 'mlopskit[{extra}]'"
        ) from exc
    except ValueError as exc:
        raise InvalidInput(f"{shown(address)!r} is no address that fsspec knows: {exc}.") from exc
    return files, str(path)


def _measured(source: Path | bytes) -> tuple[str, int]:
    hasher, size = hashlib.sha256(), 0
    try:
        for chunk in chunks(source):
            hasher.update(chunk)
            size += len(chunk)
    except OSError as exc:
        raise StorageError(f"{source!s} cannot be read: {exc.strerror or exc}.") from exc
    return "sha256:" + hasher.hexdigest(), size


def _download(files: Any, path: str, destination: Path, digest: str, name: str) -> int:
    if digest:
        check_digest(digest)
    hasher, size = hashlib.sha256(), 0
    with files.open(path, "rb") as remote, writing(destination) as file:
        size = _copied(remote, file, hasher)
        found = "sha256:" + hasher.hexdigest()
        if digest and found != digest:
            raise IntegrityError(name, digest, found)
    return size


def _fetch_local(path: Path, destination: Path, digest: str) -> int:
    if path.is_dir():
        _no_digest(str(path), digest)
        files = [each for each in sorted(path.rglob("*")) if each.is_file()]
        return sum(_fetch_local(each, destination / each.relative_to(path), "") for each in files)
    if not path.exists():
        raise NotFound("file", path)
    with writing(destination) as file:
        found, size = copy_bytes(path, file)
        if digest and found != check_digest(digest):
            raise IntegrityError(str(path), digest, found)
    return size


def _no_digest(name: str, digest: str) -> None:
    if digest:
        raise InvalidInput(f"{name} is a folder, and a digest is of one file.")


def _copied(remote: IO[bytes], file: IO[bytes], hasher: Any) -> int:
    size = 0
    while chunk := remote.read(CHUNK):
        hasher.update(chunk)
        file.write(chunk)
        size += len(chunk)
    return size


def name_of(uri: str) -> str:
    """Return the last part of an address, to name what lies there."""
    return PurePosixPath(unquote(urlsplit(uri).path)).name

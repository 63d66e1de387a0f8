"""Bytes at any address that fsspec knows: a bucket of S3, GCS or Azure, a web server, a folder.

`blobs_at` is the one seam for every domain that keeps bytes: a path of this machine gives `Blobs`,
anything else `RemoteBlobs`, and both behave alike. fsspec is imported when a remote address is
first used, and each kind of address has an extra of its own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import uuid
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from mlopskit.errors import (
    IntegrityError,
    InvalidInput,
    InvalidName,
    MissingDependency,
    MlopskitError,
    NotFound,
    StorageError,
    Unavailable,
)
from mlopskit.names import check_path
from mlopskit.storage import Blobs, check_digest, chunks, copy_bytes, disk_errors, key_of, writing

if TYPE_CHECKING:
    from collections.abc import Iterator

# S3 takes at most 10 000 parts of an object; this many leave room for rounding.
PART: Final = 16 << 20
PARTS: Final = 9_000
READ: Final = 1 << 20
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
WEB: Final = frozenset({"http", "https"})
_ADDRESS: Final = re.compile(r"(?:[a-z][a-z0-9+.-]*::)*(?P<scheme>[a-z][a-z0-9+.-]*)://", re.I)
_SHOWN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.I)


class BlobStore(Protocol):
    """Bytes by their digest, wherever they lie."""

    def put(self, source: Path | bytes, *, digest: str = "", link: bool = False) -> tuple[str, int]:
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
        InvalidInput: If options are given for a path, which takes none, or cannot be taken.
        MissingDependency: If the extra for such addresses is not installed.
    """
    local = local_path(address)
    if local is None:
        return RemoteBlobs(str(address), **options)
    if options:
        raise InvalidInput(f"The folder {local} takes no options, and was given {sorted(options)}.")
    return Blobs(local)


def local_path(address: str | Path) -> Path | None:
    """Return the path that an address names on this machine; None for a remote one.

    Raises:
        InvalidInput: If a ``file:`` address names another machine.
    """
    if isinstance(address, Path):
        return address.expanduser()
    if address[:5].lower() == "file:":
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost"):
            raise InvalidInput(f"{shown(address)!r} names a file of another machine.")
        return Path(unquote(parts.path))
    return None if _ADDRESS.match(address) else Path(address).expanduser()


class RemoteBlobs:
    """Files by their digest in an object store, verified whenever they are read.

    They lie at ``<address>/<2 hex digits>/<64 hex digits>``. Threads may share it, and so may
    forked children.

    Args:
        address: The folder or prefix below which they lie. A bucket must exist.
        options: What the file system of fsspec takes.

    Raises:
        InvalidInput: If fsspec knows no such address, or cannot take an option.
        MissingDependency: If the extra for it is not installed.
    """

    def __init__(self, address: str, **options: Any) -> None:
        self.address = address
        self._options = options
        self._shown = shown(address)
        # Object stores show an object once it is whole. Elsewhere, a rename makes that true.
        self._is_atomic = scheme_of(address) in {*EXTRAS} - WEB
        self._opened: tuple[int, Any, str] = (0, None, "")
        self._open()

    def put(
        self,
        source: Path | bytes,
        *,
        digest: str = "",
        link: bool = False,  # noqa: ARG002 - what is far away cannot be linked
    ) -> tuple[str, int]:
        """Store bytes, or a copy of a file, and return their digest and their size in bytes.

        Nothing is sent where they are already there. A reader sees all of them or nothing.

        Args:
            source: The bytes, or the path of a file. It is read once for its digest, and once more
                when it is sent, in parts.
            digest: What the source is known to have, so that the first reading is left out.
            link: Changes nothing here.

        Raises:
            IntegrityError: If the source has another digest, or changed while it was stored.
            Unavailable: If the store does not answer.
            StorageError: If it refuses, or the source cannot be read.
        """
        with disk_errors(source if isinstance(source, Path) else "The content"):
            found, size = _measured(source, digest)
        key = self._key(found)
        if self._size(key) == size:
            return found, size
        if self._is_atomic:
            self._send(source, key, found, size)
            return found, size
        part = f"{key}.{uuid.uuid4().hex}.part"
        try:
            with self._errors():
                self._files.makedirs(key.rpartition("/")[0], exist_ok=True)
            self._send(source, part, found, size)
            with self._errors():
                self._files.mv(part, key)
        except BaseException:
            with suppress(Exception):
                self._files.rm_file(part)
            raise
        return found, size

    def has(self, digest: str) -> bool:
        """Tell whether a digest's bytes are here. They are not read.

        Raises:
            NotFound: If it is no digest.
            Unavailable: If the store does not answer.
            StorageError: If it refuses, or there is no such bucket.
        """
        return self._size(self._key(digest)) is not None

    def remove(self, digest: str) -> None:
        """Remove a digest's bytes, if they are here.

        Raises:
            Unavailable: If the store does not answer.
            StorageError: If it refuses, or there is no such bucket.
        """
        key = self._key(digest)
        with self._errors(), _unless_missing():
            self._files.rm_file(key)

    def copy(self, digest: str, destination: Path) -> None:
        """Write a digest's bytes to a new private file, verified while they are copied.

        Raises:
            NotFound: If they are not here.
            IntegrityError: If they are no longer what was stored; no file is left behind.
            Unavailable: If the store does not answer.
            StorageError: If it refuses, or there is no such bucket.
        """
        key = self._key(digest)
        name = f"{self._shown}/{key_of(digest)}"
        try:
            _download(self._files, key, destination, digest, name)
        except _Missing:
            raise NotFound("digest", digest) from None

    @property
    def _files(self) -> Any:
        return self._open()[0]

    def _open(self) -> tuple[Any, str]:
        """Return the file system and the root. A forked child needs one of its own."""
        process, files, root = self._opened
        if process != os.getpid():
            files, root = filesystem(self.address, self._options)
            self._opened = (os.getpid(), files, root)
        return files, root

    def _key(self, digest: str) -> str:
        return f"{self._open()[1].rstrip('/')}/{key_of(digest)}"

    def _size(self, key: str) -> int | None:
        """Return how large the file of a key is; None where there is none."""
        with self._errors(), _unless_missing():
            details = self._files.info(key)
            return int(details["size"]) if details["type"] == "file" else None
        return None

    def _send(self, source: Path | bytes, key: str, digest: str, size: int) -> None:
        with self._errors():
            file = self._files.open(key, "wb", block_size=max(PART, -(-size // PARTS)))
        hasher = hashlib.sha256()
        try:
            for chunk in _read_source(source):
                hasher.update(chunk)
                with self._errors():
                    file.write(chunk)
            _check(source, digest, "sha256:" + hasher.hexdigest())
            with self._errors():
                file.close()
        except BaseException:
            _abandon(file)
            raise

    def _errors(self) -> Any:
        return remote_errors(self._shown)


def fetch(uri: str, destination: Path, digest: str = "", **options: Any) -> int:
    """Write what lies at an address to a new private file, or a folder of files; return the bytes.

    Args:
        uri: An address: a path, ``file:``, or anything that fsspec knows.
        destination: Where to write. A folder or prefix becomes a folder there; if one of its files
            fails, those before it stay.
        digest: What the bytes of a file must have; nothing is left behind if they have not.
        options: What the file system of fsspec takes.

    Raises:
        NotFound: If nothing lies there.
        IntegrityError: If the bytes have another digest.
        InvalidInput: If `digest` is none, or is given for a folder.
        InvalidName: If a file of a prefix has a name that would leave the folder.
        StorageError: If it refuses, or the destination cannot be written.
        Unavailable: If it does not answer.
    """
    if digest:
        check_digest(digest)
    name = shown(uri)
    local = local_path(uri)
    if local is not None:
        return _fetch_local(local, destination, digest)
    files, path = filesystem(uri, options)
    try:
        # A web server has files only: asked for a folder, it would be taken by its links.
        if scheme_of(uri) in WEB or not _is_folder(files, path, name):
            return _download(files, path, destination, digest, name)
    except _Missing:
        raise NotFound("file", name) from None
    _no_digest(name, digest)
    with remote_errors(name):
        found = files.find(path)
    return sum(
        _download(files, each, destination / inside, "", f"{name.rstrip('/')}/{inside}")
        for each, inside in _inside(path, found)
    )


def shown(address: str) -> str:
    """Return an address without what may be secret in it: its user, its password and its query."""
    head = address.partition("?")[0].partition("#")[0]
    return re.sub(r"://[^/]*@", "://", head)


def scheme_of(address: str) -> str:
    """Return the kind of an address in lower case, ``s3`` for ``simplecache::s3://b/x``."""
    match = _ADDRESS.match(address)
    return match["scheme"].lower() if match else ""


def name_of(uri: str) -> str:
    """Return the last part of an address, to name what lies there."""
    return PurePosixPath(unquote(urlsplit(uri).path)).name


def filesystem(address: str, options: dict[str, Any]) -> tuple[Any, str]:
    """Return the file system of fsspec for an address, and the path in it.

    Raises:
        InvalidInput: If fsspec knows no such address, or cannot take an option.
        MissingDependency: If the extra for it is not installed.
    """
    scheme = scheme_of(address)
    package, extra = EXTRAS.get(scheme, ("fsspec", "s3"))
    head, mark, rest = address.partition("://")
    try:
        url_to_fs = import_module("fsspec.core").url_to_fs
        taken = options if "::" in head else _with_defaults(scheme, options)
        files, path = url_to_fs(head.lower() + mark + rest, **taken)
    except ImportError as exc:
        raise MissingDependency(
            f"{scheme}: addresses", package, f"pip install 'mlopskit[{extra}]'"
        ) from exc
    except Exception as exc:
        raise InvalidInput(
            f"{shown(address)!r} with the options {sorted(options)} cannot be used: {_plain(exc)}."
        ) from exc
    return files, str(path)


def _with_defaults(scheme: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return options so that nothing old is seen, and no store may stay silent for ever."""
    if scheme in WEB:
        client = dict(options.get("client_kwargs") or {})
        if "timeout" not in client:
            # aiohttp's own limit of five minutes ends a download however well it goes.
            limit = import_module("aiohttp").ClientTimeout
            client["timeout"] = limit(total=None, sock_connect=5, sock_read=15)
        return {**options, "client_kwargs": client}
    if scheme not in EXTRAS:
        return options
    # What others wrote or removed since a folder was listed must be seen.
    options = {"use_listings_cache": False, **options}
    if scheme in ("s3", "s3a") and not {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & {*os.environ}:
        # s3fs tries five times what botocore tries five times, and each may wait for its timeouts.
        config = dict(options.get("config_kwargs") or {})
        config.setdefault("retries", {"mode": "standard", "total_max_attempts": 2})
        options["config_kwargs"] = config
    return options


class _Missing(MlopskitError):
    """Nothing lies there, in a place that is there itself."""


@contextmanager
def _unless_missing() -> Iterator[None]:
    """Go on after the block where a file is not there, unless its whole bucket is not."""
    try:
        yield
    except FileNotFoundError as exc:
        if _no_bucket(exc):
            raise


@contextmanager
def _missing() -> Iterator[None]:
    """Turn a file that is not there into `_Missing`, unless its whole bucket is not."""
    try:
        yield
    except FileNotFoundError as exc:
        if _no_bucket(exc):
            raise
        raise _Missing from exc


def _no_bucket(error: FileNotFoundError) -> bool:
    return re.search(r"(bucket|container) does not exist", str(error)) is not None


@contextmanager
def remote_errors(where: str) -> Iterator[None]:
    """Turn what a file system raises into our errors; none of it is passed on as it is."""
    try:
        yield
    except MlopskitError:
        raise
    except Exception as exc:
        raise _translated(where, exc) from exc


def _translated(where: str, error: Exception) -> MlopskitError:
    status, why = _status(error), _plain(error).replace(where, "it")
    if isinstance(error, FileNotFoundError) or status == 404:
        return StorageError(f"{where} cannot be used: {why}. Does the bucket or folder exist?")
    if status in (401, 403) or _is_refusal(error):
        return StorageError(
            f"{where} refuses: {why}. Give credentials as its own tools take them, with the "
            "permission to list, read, write and delete."
        )
    if isinstance(error, NotImplementedError):
        return StorageError(f"{where} cannot do that. It may be there for reading only.")
    if status in (408, 429) or status >= 500:
        return Unavailable(where, why)
    if 400 <= status < 500 or not _is_network(error):
        return StorageError(f"{where} cannot be used: {why}.")
    return Unavailable(where, why)


def _status(error: BaseException | None) -> int:
    """Return the status of HTTP that an error or its cause tells; 0 if none does."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):  # botocore
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:  # aiohttp, azure and gcsfs, in this order. A `code` of others is none of a server.
            theirs = type(error).__module__.partition(".")[0] in ("gcsfs", "google")
            names = ("status", "status_code", *(["code"] if theirs else []))
            found = next((getattr(error, name) for name in names if hasattr(error, name)), None)
        if isinstance(found, int | str) and str(found).isdigit():
            return int(found)
        error = error.__cause__
    return 0


def _is_refusal(error: Exception) -> bool:
    """Tell whether an error is one of permission, or of credentials that are not there."""
    names = {each.__name__ for each in type(error).__mro__}
    lacking = {
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
        *("DefaultCredentialsError", "RefreshError", "ClientAuthenticationError"),
        *("ProfileNotFound", "TokenRetrievalError", "UnauthorizedSSOTokenError"),
    }
    # gcsfs makes a plain OSError of a 403.
    forbidden = isinstance(error, OSError) and str(error).startswith("Forbidden")
    return isinstance(error, PermissionError) or forbidden or bool(names & lacking)


def _is_network(error: Exception) -> bool:
    """Tell whether an error without a status is one of the way to the store, not of what it does.

    What is not known counts as such: the same may work later.
    """
    if isinstance(error, TypeError | ValueError | RuntimeError | KeyError | AttributeError):
        return False
    if type(error).__name__ in ("ParamValidationError", "NoRegionError", "InvalidRegionError"):
        return False
    refusals = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, errno.ENOSPC)
    return getattr(error, "errno", None) not in refusals


def _plain(error: BaseException) -> str:
    """Return what an error says in one line, without the secret parts of addresses in it."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return _SHOWN.sub(lambda match: shown(match[0]), " ".join(str(text).split())).rstrip(".")


def _abandon(file: Any) -> None:
    """Let go of a file that is half written, so that closing it does not make it appear."""
    with suppress(Exception):
        file.discard()
    with suppress(Exception):
        file.closed = True


def _measured(source: Path | bytes, digest: str) -> tuple[str, int]:
    if digest:
        check_digest(digest)
        return digest, len(source) if isinstance(source, bytes) else source.stat().st_size
    hasher, size = hashlib.sha256(), 0
    for chunk in chunks(source):
        hasher.update(chunk)
        size += len(chunk)
    return "sha256:" + hasher.hexdigest(), size


def _read_source(source: Path | bytes) -> Iterator[bytes]:
    """Yield chunks, with the errors of this machine's disk told apart from those of the store."""
    left = chunks(source)
    while True:
        with disk_errors(_named(source)):
            chunk = next(left, None)
        if chunk is None:
            return
        yield chunk


def _check(source: Path | bytes, digest: str, found: str) -> None:
    if found != digest:
        raise IntegrityError(_named(source), digest, found)


def _named(source: Path | bytes) -> str:
    return "The content" if isinstance(source, bytes) else str(source)


def _is_folder(files: Any, path: str, name: str) -> bool:
    with remote_errors(name), _missing():
        return bool(files.info(path)["type"] == "directory")


def _inside(folder: str, found: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each path below a folder, and its relative name there."""
    root = folder.rstrip("/") + "/"
    for each in sorted(found):
        if each.endswith("/"):  # Some tools leave an empty object where they show a folder.
            continue
        if not each.startswith(root):
            raise InvalidName("file", each, f"it does not lie in {root}")
        yield each, check_path("file", each.removeprefix(root))


def _download(files: Any, path: str, destination: Path, digest: str, name: str) -> int:
    # A web server need not know sizes or ranges, and would be asked for both.
    how = {"block_size": 0, "size": 1} if _is_web(files) else {"block_size": PART}
    with remote_errors(name), _missing():
        remote = files.open(path, "rb", **how)
    try:
        with writing(destination) as file:
            found, size = copy_bytes(_read(remote, name), file)
            if digest and found != digest:
                raise IntegrityError(name, digest, found)
    finally:
        with suppress(Exception):
            remote.close()
    return size


def _read(remote: IO[bytes], name: str) -> Iterator[bytes]:
    while True:
        with remote_errors(name), _missing():
            chunk = remote.read(READ)
        if not chunk:
            return
        yield chunk


def _is_web(files: Any) -> bool:
    protocol = files.protocol
    return bool(WEB & ({protocol} if isinstance(protocol, str) else {*protocol}))


def _fetch_local(path: Path, destination: Path, digest: str) -> int:
    with disk_errors(path):
        if not path.is_dir():
            return _fetch_file(path, destination, digest)
        files = [each for each in sorted(path.rglob("*")) if each.is_file()]
    _no_digest(str(path), digest)
    return sum(_fetch_file(each, destination / each.relative_to(path), "") for each in files)


def _fetch_file(path: Path, destination: Path, digest: str) -> int:
    if not path.exists():
        raise NotFound("file", str(path))
    with writing(destination) as file:
        found, size = copy_bytes(_read_source(path), file)
        if digest and found != digest:
            raise IntegrityError(str(path), digest, found)
    return size


def _no_digest(name: str, digest: str) -> None:
    if digest:
        raise InvalidInput(f"{name} is a folder, and a digest is of one file.")

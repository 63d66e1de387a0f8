"""A version's files: the manifest that lists them, and the checks that nothing differs from it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from mlopskit.errors import IntegrityError, InvalidModel, NotFound, StorageError
from mlopskit.names import check_path
from mlopskit.registry.entities import Removed, Signature
from mlopskit.storage import digest_of, disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from mlopskit.storage import Blobs

FORMAT: Final = 1


class ManifestFile(BaseModel):
    """One file of a version."""

    model_config = ConfigDict(frozen=True)

    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class Environment(BaseModel):
    """What a model was saved with, and so what loading it needs.

    Attributes:
        python: The version of Python.
        platform: The system and the processor, such as ``"Linux-x86_64"``.
        requirements: A line of pip for each library that the flavor loads with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str = ""
    platform: str = ""
    requirements: tuple[str, ...] = ()


class Manifest(BaseModel):
    """What a version consists of. Its canonical JSON is what the version's digest is of.

    Attributes:
        format: The layout of the manifest itself.
        flavor: How the files are loaded; decided when they were registered, and never guessed.
        files: Every file, by path, with forward slashes.
        libraries: The versions of the libraries that made the files.
        python: The version of Python that did.
        signature: What the model takes and answers.
        environment: What loading it needs; None in manifests that are older, and for paths.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    flavor: str
    files: tuple[ManifestFile, ...]
    libraries: dict[str, str] = Field(default_factory=dict)
    python: str = ""
    signature: Signature | None = None
    environment: Environment | None = None

    @property
    def canonical(self) -> bytes:
        """The manifest as JSON with sorted keys, no blanks and ASCII only."""
        # A manifest from before there were environments keeps its digest.
        without = {"environment"} if self.environment is None else None
        return json.dumps(
            self.model_dump(mode="json", exclude=without),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=True,
        ).encode()

    @property
    def digest(self) -> str:
        """The digest of the canonical JSON."""
        return "sha256:" + hashlib.sha256(self.canonical).hexdigest()

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)


def read(text: bytes, what: str) -> Manifest:
    """Return the manifest that a text holds.

    Raises:
        InvalidModel: If it is no manifest of ours, or lists a path that could leave its folder.
    """
    try:
        manifest = Manifest.model_validate_json(text)
        for file in manifest.files:
            check_path("file of a model", file.path)
    except ValueError as exc:  # Of pydantic, and InvalidName.
        raise InvalidModel(f"The manifest of {what} cannot be read: {exc}") from exc
    return manifest


def files_of(source: Path) -> list[tuple[str, Path]]:
    """Return the files of a file or a folder with their paths in the version, sorted.

    A link is followed where it is the source itself, and refused inside a folder.

    Raises:
        NotFound: If there is nothing at the path.
        InvalidName: If a file has a name that not every system can keep.
        InvalidModel: If the source is a device or the like, or a folder that is empty, or holds a
            link or anything else that is not a file.
    """
    if source.is_file():
        return [(check_path("file of a model", source.name), source)]
    if not source.is_dir():
        if source.exists():
            raise InvalidModel(f"{source} is neither a file nor a folder; a model is one of them.")
        raise NotFound("file or folder", str(source))
    found = sorted(
        (check_path("file of a model", path.relative_to(source).as_posix()), path)
        for path in _walk(source)
    )
    _check_case(source, [name for name, _ in found])
    return found


def store(
    blobs: Blobs,
    files: list[tuple[str, Path]],
    told: Callable[[int, int], object] | None = None,
) -> tuple[ManifestFile, ...]:
    """Store files by digest, and return what a manifest says of them.

    Args:
        blobs: Where.
        files: The path of each in the version, and where it lies now.
        told: Is given how many bytes are stored, and how many there are.

    Raises:
        StorageError: If a file changes while it is read, or cannot be read or stored.
    """
    kept = []
    total = sum(path.stat().st_size for _, path in files) if told else 0
    done = 0
    for name, path in files:

        def more(size: int) -> None:
            nonlocal done
            done += size
            if told is not None:
                told(done, total)

        with steady(path):
            digest, size = blobs.put(path, told=more if told else None)
        kept.append(ManifestFile(path=name, size=size, sha256=digest))
    return tuple(kept)


@contextmanager
def steady(path: Path) -> Iterator[None]:
    """See that a file is the same before and after it is read.

    Raises:
        StorageError: If it is not, or cannot be read.
    """
    before = _state(path)
    yield
    if _state(path) != before:
        raise StorageError(
            f"{path} changed while it was stored. Register it once nobody writes to it."
        )


def _state(path: Path) -> tuple[int, int, int]:
    with disk_errors(path):
        found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def fetch(blobs: Blobs, manifest: Manifest, folder: Path, what: str) -> None:
    """Write a version's files into a folder, verified while they are copied.

    Raises:
        IntegrityError: If a file is missing or changed.
    """
    try:
        for file in manifest.files:
            blobs.copy(file.sha256, folder / file.path)
    except NotFound as exc:
        raise IntegrityError(f"A file of {what}", str(exc.name), "missing") from exc


def collect(
    blobs: Blobs, needed: Iterable[str], wanted: Iterable[str] = (), *, dry_run: bool
) -> list[Removed]:
    """Remove every file that is in none of the manifests that are needed or wanted.

    A needed manifest that cannot be read keeps everything: what it needs is not known.

    Args:
        blobs: Where.
        needed: The digests of manifests that must be there.
        wanted: The digests of manifests whose files stay if they are there.
        dry_run: Only return what would go.

    Raises:
        IntegrityError: If a manifest is missing or has changed; nothing is removed.
    """
    keep: set[str] = set()
    must = set(needed)
    for digest in must | set(wanted):
        try:
            manifest = read(blobs.verify(digest).read_bytes(), digest)
        except NotFound as exc:
            if digest not in must:
                continue
            raise IntegrityError("A manifest", digest, "missing") from exc
        keep |= {digest, *(file.sha256 for file in manifest.files)}
    removed = []
    for digest, size in blobs.all():
        if digest not in keep:
            removed.append(Removed(digest=digest, size=size))
            if not dry_run:
                blobs.remove(digest)
    if not dry_run:
        blobs.sweep()
    return removed


def check_folder(folder: Path, manifest: Manifest, *, names_only: bool = False) -> None:
    """Check that a folder holds a manifest's files, unchanged, and nothing else.

    Args:
        folder: The folder.
        manifest: What it should hold.
        names_only: Whether the bytes were compared while they were written.

    Raises:
        IntegrityError: If a file is missing, changed or extra.
    """
    expected = {file.path: file for file in manifest.files}
    with disk_errors(folder):
        found = {path.relative_to(folder).as_posix(): path for path in _walk(folder)}
    for name in sorted(expected.keys() - found.keys()):
        raise IntegrityError(f"The file {name!r} of the model", expected[name].sha256, "missing")
    for name in sorted(found.keys() - expected.keys()):
        raise IntegrityError(f"The file {name!r} in the model", "in no manifest", "extra")
    if names_only:
        return
    for name, path in found.items():
        if (digest := digest_of(path)) != expected[name].sha256:
            raise IntegrityError(f"The file {name!r} of the model", expected[name].sha256, digest)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder; a link, a device or an empty folder is refused."""
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    if not listed:
        raise InvalidModel(f"{folder} is an empty folder, which cannot be kept. Remove it.")
    for entry in listed:
        path = folder / entry.name
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _walk(path)
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise InvalidModel(
                f"{path} is no ordinary file, and a model keeps only those. "
                "Put a copy in the place of a link."
            )


def _check_case(source: Path, names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise InvalidModel(
                f"{source} holds {other!r} and {name!r}, which are one file on some systems. "
                "Rename one of them."
            )

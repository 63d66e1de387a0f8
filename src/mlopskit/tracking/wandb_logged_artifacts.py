"""Artifacts as W&B's files have them: what a run logged, and where its bytes lie."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mlopskit.errors import IntegrityError, NotFound, StorageError
from mlopskit.storage import disk_errors
from mlopskit.tracking.wandb_values import decoded

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an artifact, or a reference.

    Attributes:
        path: Its name within the artifact.
        digest: Base64 of the MD5, or of what `algorithm` says; of a reference whatever its store
            gave.
        size: In bytes; None of a reference that was not looked at.
        ref: The address of a reference.
        local_path: Where W&B keeps the bytes until it has sent them.
        algorithm: ``MD5`` or ``XXH128``.
    """

    path: str
    digest: str
    size: int | None
    ref: str | None = None
    local_path: str | None = None
    algorithm: str = "MD5"


@dataclass(frozen=True, slots=True)
class LoggedArtifact:
    """An artifact that a run logged.

    Attributes:
        name: W&B's name, without a version: W&B gives that when it has the artifact.
        type: W&B's type.
        description: What was said of it.
        metadata: Its metadata.
        aliases: Its aliases; W&B adds ``latest``.
        digest: The digest of its manifest, in hexadecimal.
        folder: The folder of the run, for bytes that were moved along with it.
    """

    name: str
    type: str
    description: str
    metadata: Mapping[str, Any]
    aliases: tuple[str, ...]
    digest: str
    folder: Path
    _contents: tuple[Entry, ...] = field(repr=False)
    _manifest: str = field(repr=False)

    def entries(self) -> tuple[Entry, ...]:
        """Return what is in it. Beyond 100,000 entries W&B writes them to a file of its own.

        Raises:
            NotFound: If that file is gone.
            StorageError: If it cannot be read.
        """
        if not self._manifest:
            return self._contents
        path = self._here(self._manifest)
        if path is None:
            raise NotFound("manifest of a W&B artifact", self._manifest)
        try:
            with disk_errors(path), gzip.open(path, "rt", encoding="utf-8") as lines:
                return tuple(_entry_of(json.loads(line)) for line in lines)
        except (EOFError, ValueError, LookupError, TypeError, AttributeError, zlib.error) as exc:
            raise StorageError(f"{path} is no manifest of W&B's: {exc}.") from exc

    def path_of(self, entry: Entry) -> Path:
        """Return where the bytes of an entry lie on this machine, unverified.

        Raises:
            NotFound: If they do not.
        """
        place = entry.local_path
        if not place and entry.ref:
            address = urlsplit(entry.ref)
            place = unquote(address.path) if address.scheme == "file" else None
        path = self._here(place) if place else None
        if path is None:
            raise NotFound("local copy of", f"{self.name}/{entry.path}")
        return path

    def verified(self, entry: Entry) -> Path:
        """Return where the bytes of an entry lie, once their size and digest are right.

        Raises:
            NotFound: If they are not on this machine.
            IntegrityError: If they are not what was logged.
        """
        path = self.path_of(entry)
        what = f"{self.name}/{entry.path}"
        with disk_errors(path):
            size = path.stat().st_size
            if entry.size is not None and size != entry.size:
                raise IntegrityError(what, f"of {entry.size} bytes", f"of {size} bytes")
            found = _digest_of(path, entry.algorithm)
        if found != entry.digest:
            raise IntegrityError(what, entry.digest, found)
        return path

    def _here(self, place: str) -> Path | None:
        """Return a path that W&B noted, or where it is if the folders around it were moved."""
        path = Path(place)
        if path.is_file():
            return path
        parts = path.parts
        if ".." in parts:
            return None
        for root in (self.folder, *self.folder.absolute().parents[:2]):
            for begin in range(1, len(parts) - 1):  # never by its last name alone
                moved = root.joinpath(*parts[begin:])
                if moved.is_file():
                    return moved
        return None


def _digest_of(path: Path, algorithm: str) -> str:
    if algorithm == "MD5":
        with path.open("rb") as file:
            made = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        return base64.b64encode(made.digest()).decode()
    if algorithm == "XXH128":
        import xxhash  # noqa: PLC0415 - comes with wandb; few artifacts ask for it

        other = xxhash.xxh128()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                other.update(chunk)
        return base64.b64encode(other.digest()).decode()
    raise StorageError(f"{path} has a digest of an unknown kind, {algorithm!r}.")


def _entry_of(said: Mapping[str, Any]) -> Entry:
    """Return an entry of a line of a manifest's file."""
    return Entry(
        path=said["path"],
        digest=said["digest"],
        size=said.get("size"),
        ref=said.get("ref"),
        local_path=said.get("local_path"),
        algorithm=str((said.get("extra") or {}).get("alg", "MD5")),
    )


def artifact_of(record: Any, folder: Path) -> LoggedArtifact:
    """Return the artifact of a message of W&B's, which a run logged into its folder."""
    contents = tuple(
        Entry(
            path=each.path,
            digest=each.digest,
            size=None if each.ref and not each.size else each.size,
            ref=each.ref or None,
            local_path=each.local_path or None,
            algorithm=next(
                (str(decoded(e.value_json)) for e in each.extra if e.key == "alg"), "MD5"
            ),
        )
        for each in record.manifest.contents
    )
    metadata = decoded(record.metadata) if record.metadata else {}
    return LoggedArtifact(
        name=record.name,
        type=record.type,
        description=record.description,
        metadata=metadata if isinstance(metadata, dict) else {},
        aliases=tuple(record.aliases),
        digest=record.digest,
        folder=folder,
        _contents=contents,
        _manifest=record.manifest.manifest_file_path,
    )

"""The bytes of versions, wherever MLflow keeps a run's artifacts.

A version has a folder of its own under the run of its model: the manifest, and beside it the files
as they are, for MLflow's own clients. Nothing is stored there twice, so that nobody can remove what
another is about to name.
"""

from __future__ import annotations

import inspect
import os
import re
import secrets
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from requests import RequestException

from mlopskit.errors import BackendError, IntegrityError, MlopskitError, StorageError, Unavailable
from mlopskit.mlflow_stores import is_missing
from mlopskit.redaction import Redactor
from mlopskit.registry import blobs
from mlopskit.registry.blobs import ManifestFile, steady
from mlopskit.registry.entities import Removed
from mlopskit.registry.mlflow_layout import FILES, MANIFEST, MODELS
from mlopskit.storage import digest_of, disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mlopskit.registry.blobs import Manifest

TIME: Final = "%Y%m%dT%H%M%S"
# A registration is over, or was killed, when its folder is as old as that.
YOUNG: Final = timedelta(days=1)
# MLflow's server takes an address apart at some, and before 3.17 cannot answer with a file whose
# name is not ASCII.
_AWKWARD: Final = re.compile(r"[^A-Za-z0-9_./ -]")


def new_folder() -> str:
    """Return the name of a folder that nobody ever had: when it was made, and a random part."""
    return f"{datetime.now(UTC).strftime(TIME)}-{secrets.token_hex(8)}"


def is_young(folder: str, now: datetime) -> bool:
    """Tell whether a registration may still be filling a folder, or the folder is none of ours."""
    try:
        made = datetime.strptime(folder.partition("-")[0], TIME).replace(tzinfo=UTC)
    except ValueError:
        return True
    return now - made < YOUNG


class Files:
    """Files below one address.

    Args:
        address: The address, in the words of MLflow's artifact stores.
        tracking_uri: Where MLflow's server is, if it serves them.
        target: What cannot be reached if they cannot be.
    """

    def __init__(self, address: str, tracking_uri: str, target: str) -> None:
        self._target = target
        with self._asking():
            self._store: Any = _store_at(address, tracking_uri)

    def put(
        self,
        folder: str,
        files: Sequence[tuple[str, Path]],
        told: Callable[[int, int], object] | None,
    ) -> tuple[ManifestFile, ...]:
        """Store files, and return what a manifest says of them.

        Raises:
            StorageError: If one changes meanwhile, or is not there afterwards in its length.
        """
        with disk_errors(folder):
            total = sum(path.stat().st_size for _, path in files)
        done, kept = 0, []
        for name, path in files:
            kept.append(self._put_one(f"{folder}/{FILES}", name, path))
            done += kept[-1].size
            if told is not None:
                told(done, total)
        self._check_sizes(f"{folder}/{FILES}", kept)
        return tuple(kept)

    def put_manifest(self, folder: str, manifest: Manifest) -> None:
        """Store a manifest beside its files, and see that it reads back equal."""
        with tempfile.TemporaryDirectory(prefix="mlopskit-") as scratch:
            path = Path(scratch, MANIFEST)
            path.write_bytes(manifest.canonical)
            with self._asking():
                self._store.log_artifact(str(path), folder)
        if self.read(f"{folder}/{MANIFEST}", manifest.digest) != manifest.canonical:
            raise StorageError(f"The manifest in {folder} does not read back as it was written.")

    def read(self, name: str, digest: str) -> bytes:
        """Return the bytes of a small file.

        Raises:
            IntegrityError: If it is missing.
        """
        with tempfile.TemporaryDirectory(prefix="mlopskit-") as scratch:
            path = Path(scratch, "file")
            self.get(name, path, digest)
            return path.read_bytes()

    def get(self, name: str, path: Path, digest: str) -> None:
        """Write a file to a path.

        Raises:
            IntegrityError: If it is missing.
        """
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._asking():
                # `download_artifacts` would list the folder first, and draw a bar.
                self._store._download_file(name, str(path))
        except _Missing as exc:
            raise IntegrityError(f"The file {name!r}", digest, "missing") from exc

    def walk(self, folder: str = "") -> Iterator[tuple[str, int | None]]:
        """Yield the path and the size of every file below a folder."""
        with self._asking():
            found = self._store.list_artifacts(folder or None)
        for each in found:
            if each.is_dir:
                yield from self.walk(each.path)
            else:
                yield each.path, each.file_size

    def folders(self) -> list[str]:
        """Return the folders of versions, the oldest first."""
        with self._asking():
            found = self._store.list_artifacts(MODELS)
        return sorted(PurePosixPath(each.path).name for each in found if each.is_dir)

    def told_of(self, folder: str) -> list[Removed]:
        """Return what a folder holds, by digest if its manifest can be read, and else by path."""
        try:
            text = self.read(f"{folder}/{MANIFEST}", folder)
            manifest = blobs.read(text, folder)
        except (MlopskitError, ValueError):  # Killed before it was written, or changed.
            return [Removed(digest=path, size=size or 0) for path, size in self.walk(folder)]
        kept = [Removed(digest=file.sha256, size=file.size) for file in manifest.files]
        return [*kept, Removed(digest=manifest.digest, size=len(text))]

    def remove(self, folder: str) -> None:
        """Remove a folder with all that is in it."""
        with self._asking():
            self._store.delete_artifacts(folder)

    def _put_one(self, folder: str, name: str, path: Path) -> ManifestFile:
        stored = PurePosixPath(folder, stored_name(name))
        with steady(path):
            digest, size = digest_of(path), path.stat().st_size
            with tempfile.TemporaryDirectory(prefix="mlopskit-") as scratch:
                link = Path(scratch, stored.name)
                os.symlink(path.absolute(), link)
                with self._asking():
                    self._store.log_artifact(str(link), str(stored.parent))
        return ManifestFile(path=name, size=size, sha256=digest)

    def _check_sizes(self, folder: str, kept: Sequence[ManifestFile]) -> None:
        found = {path.removeprefix(folder + "/"): size for path, size in self.walk(folder)}
        for file in kept:
            name = stored_name(file.path)
            if name not in found:
                raise StorageError(f"{file.path!r} was stored in {folder}, and is not there.")
            # Not every store tells.
            if (found[name] or file.size) != file.size:
                raise StorageError(
                    f"{file.path!r} in {folder} has {found[name]} bytes instead of {file.size}."
                )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what a store of artifacts raises into our errors; each has its own exceptions."""
        try:
            yield
        except MlopskitError:
            raise
        except Exception as exc:
            said = Redactor().text(str(exc))
            if is_missing(exc):
                raise _Missing(said) from exc
            if _is_away(exc):
                raise Unavailable(self._target, said) from exc
            if isinstance(exc, OSError) and not isinstance(exc, RequestException):
                raise StorageError(f"{self._target} cannot store or read a file: {said}") from exc
            raise BackendError(f"{self._target} failed to store or read a file: {said}") from exc


class _Missing(BackendError):
    """There is no such file."""


def stored_name(name: str) -> str:
    """Return the path that a file is stored at: its own, but for awkward characters."""
    return _AWKWARD.sub(lambda found: f"~{ord(found[0]):x}~", name)


def _is_away(exc: Exception) -> bool:
    """Tell whether nobody answered, or somebody in between, or a server in trouble."""
    if isinstance(exc, MlflowException):
        return str(exc).startswith("API request to")
    if not isinstance(exc, RequestException):
        return False
    return exc.response is None or exc.response.status_code >= 500


def _store_at(address: str, tracking_uri: str) -> Any:
    """Return MLflow's own way to the files at an address, without its global address."""
    if "tracking_uri" in inspect.signature(get_artifact_repository).parameters:
        # MLflow has no types here.
        return get_artifact_repository(address, tracking_uri=tracking_uri)
    if address.startswith("mlflow-artifacts:"):  # MLflow 2 would ask the global address.
        from mlflow.store.artifact.mlflow_artifacts_repo import (  # noqa: PLC0415 - MLflow 2 only
            MlflowArtifactsRepository,
        )

        resolve: Any = MlflowArtifactsRepository.resolve_uri
        address = resolve(address, tracking_uri)
    return get_artifact_repository(address)

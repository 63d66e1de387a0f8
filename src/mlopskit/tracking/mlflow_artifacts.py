"""Reads the files of runs from wherever MLflow keeps them, without the bars that it draws.

`MlflowClient.download_artifacts` shows a bar on the standard error for every file, and only the
environment of the whole process could switch that off. What it does below the bar is done here.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri
from requests import RequestException

from mlopskit.errors import BackendError, MlopskitError, NotFound, StorageError
from mlopskit.mlflow_stores import is_missing
from mlopskit.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

AT_ONCE: Final = 8


class RunFiles:
    """The files of one run, or of one of its models.

    Args:
        client: MLflow's.
        run: MLflow's.
        place: Where they lie; the run's own if left out.
    """

    def __init__(self, client: MlflowClient, run: MlflowRun, place: str = "") -> None:
        self._run = run.info.run_id
        profiled: Any = add_databricks_profile_info_to_artifact_uri  # MLflow has no types here.
        address = profiled(place or run.info.artifact_uri, client.tracking_uri)
        # Not the client's own, which stays at the address that a server had before.
        self._store: Any = get_artifact_repository(address, tracking_uri=client.tracking_uri)

    def fetch(self, name: str, path: Path) -> None:
        """Write a file to a path, whose folder exists.

        Raises:
            NotFound: If it is no longer there.
            StorageError: If a disk of this machine fails.
            BackendError: If the store of the files does.
        """
        with self._asking(name):
            self._store._download_file(name, str(path))

    def read(self, name: str) -> str:
        """Return a text. Raises what `fetch` raises."""
        with tempfile.TemporaryDirectory(prefix="mlopskit-") as folder:
            path = Path(folder, "text")
            self.fetch(name, path)
            return path.read_text(encoding="utf-8")

    def texts(self, folder: str) -> Iterator[tuple[str, str]]:
        """Yield every file of a folder by its name, with its text. Raises what `fetch` raises."""
        with self._asking(folder):
            names = sorted(each.path for each in self._store.list_artifacts(folder))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from zip(names, pool.map(self.read, names), strict=True)

    def walk(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Yield the name and the size of every file below a folder. Raises what `fetch` raises."""
        with self._asking(folder):
            found = list(self._store.list_artifacts(folder or None))
        for each in found:
            if each.is_dir:
                yield from self.walk(each.path)
            else:
                yield each.path, each.file_size or 0

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Turn what a store raises into our errors; leave MLflow's and requests' to who asks."""
        try:
            yield
        except MlopskitError:
            raise
        except Exception as exc:
            if is_missing(exc):
                raise NotFound(f"file of the run {self._run}", name) from exc
            refused = getattr(exc, "error_code", "") == "INVALID_PARAMETER_VALUE"  # Its name.
            if isinstance(exc, MlflowException | RequestException) and not refused:
                raise
            said = Redactor().text(str(exc))
            if isinstance(exc, OSError):
                raise StorageError(f"{name!r} of the run {self._run}: {said}") from exc
            raise BackendError(f"{name!r} of the run {self._run} cannot be read: {said}") from exc

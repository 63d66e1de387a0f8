"""Runs that `export_run` wrote, as a source that they can be copied from."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from mlopskit import filters
from mlopskit.errors import IntegrityError, InvalidInput, MissingDependency, NotFound
from mlopskit.names import check_path
from mlopskit.storage import digest_of
from mlopskit.tracking.entities import Artifact, MetricHistory, RunRecord
from mlopskit.tracking.export import ABOUT, ARTIFACTS, CSV, FORMAT, PARQUET, loose
from mlopskit.tracking.values import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.tracking.entities import Number

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


class ExportedRuns:
    """The runs below a folder: that of one run, or a folder of such folders.

    Args:
        folder: The folder.

    Raises:
        InvalidInput: If no exported run is there.
    """

    def __init__(self, folder: Path | str) -> None:
        self._root = Path(folder).resolve()
        places = [self._root, *sorted(each for each in _inside(self._root) if each.is_dir())]
        found = [each for each in places if (each / ABOUT).is_file()]
        if not found:
            raise InvalidInput(f"{folder} holds no exported run: there is no {ABOUT} in it.")
        self._runs: dict[str, tuple[RunRecord, list[Artifact], Path]] = {}
        for each in found:
            run, artifacts = _about(each)
            self._runs[run.id] = run, artifacts, each
        self._points: tuple[str, dict[str, MetricHistory]] = ("", {})

    @property
    def target(self) -> str:
        """The folder, from the root."""
        return f"export:{self._root}"

    def search_runs(
        self, where: str = "", experiment: str | None = None, *, limit: int | None = 100
    ) -> list[RunRecord]:
        """Find runs as `Tracker.search_runs` does, the latest first."""
        question = filters.parse(where)
        found = [
            run
            for run, *_ in self._runs.values()
            if experiment in (None, run.experiment)
            and (question is None or filters.matches(question, run))
        ]
        found.sort(key=lambda run: run.started_at or _EPOCH, reverse=True)
        return found[:limit]

    def get_metric_history(self, id: str, key: str) -> MetricHistory:
        """Read the points of one metric.

        Raises:
            NotFound: If there is no such run or metric.
            InvalidInput: If its file cannot be read.
        """
        if self._points[0] != id:
            self._points = id, _histories(self._place(id))
        if key not in self._points[1]:
            raise NotFound("metric", key, self._points[1])
        return self._points[1][key]

    def list_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run.

        Raises:
            NotFound: If there is no such run.
        """
        self._place(id)
        return self._runs[id][1]

    def fetch_artifact(self, id: str, artifact: Artifact, path: Path) -> None:
        """Copy one file, verified.

        Raises:
            NotFound: If it was not exported.
            IntegrityError: If it is no longer what was logged.
        """
        from shutil import copyfile  # noqa: PLC0415 - only files need it

        source = self._place(id) / ARTIFACTS / check_path("artifact", artifact.name)
        if not source.is_file():
            raise NotFound("exported file", str(source))
        copyfile(source, path)
        if artifact.digest and (digest := digest_of(path)) != artifact.digest:
            path.unlink()
            raise IntegrityError(f"The exported file {source}", artifact.digest, digest)

    def _place(self, id: str) -> Path:
        if id not in self._runs:
            raise NotFound("exported run", id, self._runs)
        return self._runs[id][2]


def _inside(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def _about(folder: Path) -> tuple[RunRecord, list[Artifact]]:
    try:
        said = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise InvalidInput(
                f"{folder} has format {said['format']}; this mlopskit reads {FORMAT}."
            )
        exact = loose(said["exact"])
        run = RunRecord(**{**exact["run"], "params": unpack(loose(said["typed_params"]))})
        return run, [Artifact(**each) for each in exact["artifacts"]]
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as exc:
        if isinstance(exc, InvalidInput):
            raise
        raise InvalidInput(f"{folder} is no exported run: {type(exc).__name__}: {exc}.") from exc


def _histories(folder: Path) -> dict[str, MetricHistory]:
    columns: dict[str, tuple[list[int], list[Number], list[int]]] = {}
    try:
        rows = _parquet(folder / PARQUET) if (folder / PARQUET).exists() else _csv(folder / CSV)
        for key, step, time_ms, value in rows:
            steps, values, times = columns.setdefault(key, ([], [], []))
            steps.append(step)
            values.append(value)
            times.append(time_ms)
    except (OSError, ValueError, KeyError) as exc:
        raise InvalidInput(f"The metrics of {folder} cannot be read: {exc}.") from exc
    return {key: MetricHistory.of(*each) for key, each in columns.items()}


def _csv(path: Path) -> Iterator[tuple[str, int, int, Number]]:
    with path.open(encoding="utf-8", errors="surrogatepass", newline="") as file:
        for row in csv.DictReader(file):
            time = datetime.fromisoformat(row["timestamp"])
            yield row["key"], int(row["step"]), (time - _EPOCH) // _MS, _number(row["value"])


def _parquet(path: Path) -> Iterator[tuple[str, int, int, Number]]:
    try:
        import pyarrow.parquet as pq  # noqa: PLC0415 - only who reads Parquet needs it
    except ImportError as exc:
        raise MissingDependency("Parquet", "pyarrow", "pip install 'mlopskit[local]'") from exc
    for batch in pq.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            exact: dict[str, Any] = json.loads(row["exact"]) if row["exact"] else {}
            step, value = exact.get("step", row["step"]), exact.get("value", row["value"])
            yield row["key"], step, (row["timestamp"] - _EPOCH) // _MS, value


def _number(text: str) -> Number:
    try:
        return int(text)
    except ValueError:
        return float(text)

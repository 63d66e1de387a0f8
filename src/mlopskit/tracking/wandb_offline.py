"""Runs that lie in W&B's files: read back, and watched while the service writes them.

A run of ours may have several folders: each process that goes on with it begins another one, with
the same id. They are read as one.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import wandb

from mlopskit.errors import NotFound
from mlopskit.storage import Blobs, disk_errors, make_private_folder, sync_folder
from mlopskit.tracking import wandb_artifacts, wandb_kept
from mlopskit.tracking import wandb_layout as layout
from mlopskit.tracking.wandb_log import Log, Tail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlopskit.tracking.entities import Artifact, MetricHistory, RunRecord
    from mlopskit.tracking.filters import Filter
    from mlopskit.tracking.wandb_kept import Kept
    from mlopskit.tracking.wandb_writer import Open

PREFIX: Final = "offline-run-"


@dataclass(slots=True)
class OnDisk:
    """What the files have of a run; see `wandb_writer.Stored`."""

    kept: Kept
    next_step: int
    rows: dict[str, int]
    artifacts: set[str]


class OfflineStore:
    """The offline runs of one project below a folder.

    Args:
        root: The folder that W&B keeps its folder ``wandb`` in.
        project: W&B's project.
        entity: W&B's entity; None for the runs of any.
    """

    native = wandb

    def __init__(self, root: Path, project: str, entity: str | None) -> None:
        self.root = root
        self._project = project
        self._entity = entity
        self._logs: dict[Path, Log] = {}
        self._tails: dict[Path, Tail] = {}

    def ping(self, timeout_s: float) -> None:  # noqa: ARG002 - files answer at once
        """Make the folder, if it is not there yet."""
        make_private_folder(self.root)

    def url(self, id: str) -> str | None:  # noqa: ARG002 - as of the other store
        """Return None: files have no page."""
        return None

    def read_run(self, id: str) -> RunRecord:
        """Read one run."""
        return self._record(self._found(id))

    def scan_runs(
        self,
        experiment: str | None,
        where: Filter | None,  # noqa: ARG002 - evaluated by the caller
    ) -> Iterator[RunRecord]:
        """Yield runs, the latest first."""
        records = [self._record(logs) for logs in self._all().values()]
        records.sort(key=_started, reverse=True)
        yield from (run for run in records if experiment in (None, run.experiment))

    def history(self, id: str, key: str) -> MetricHistory:
        """Read one metric."""
        logs = self._found(id)
        rows = (row for log in logs for row in log.rows())
        if wandb_kept.is_ours(_config(logs)):
            points = list(layout.points_of(rows, key))
        else:
            points = [point for name, point in layout.foreign_points(rows) if name == key]
        if not points:
            raise NotFound("metric", key, self._record(logs).metrics)
        return layout.history_of(points)

    def artifacts(self, id: str) -> list[Artifact]:
        """List the files, of each name the newest."""
        found: dict[str, Artifact] = {}
        logs = self._found(id)
        ours = wandb_kept.is_ours(_config(logs))
        for each in (each for log in logs for each in log.artifacts):
            if wandb_artifacts.is_ours(each.metadata):
                said = wandb_artifacts.said_of(each.metadata)
                found.update((a.name, a) for a, _ in wandb_artifacts.files_of(said))
            elif not ours:  # In a run of ours it is what W&B made of a table.
                found.update((a.name, a) for a in each.files())
        return list(found.values())

    def copy(self, id: str, artifact: Artifact, destination: Path) -> None:
        """Copy the bytes of a file out of the run's folder, wherever that was moved to."""
        for log in reversed(self._found(id)):
            kept = Blobs(log.path.parent / "artifacts")
            if artifact.digest and kept.has(artifact.digest):
                kept.copy(artifact.digest, destination)
                return
            for each in log.artifacts:
                path = each.local_path(artifact.name)
                if not artifact.digest and path is not None and path.exists():
                    with disk_errors(destination):
                        shutil.copyfile(path, destination)
                    return
        raise NotFound("artifact", artifact.name)

    def remove(self, id: str) -> None:
        """Remove the folders of a run."""
        for log in self._found(id):
            with disk_errors(log.path.parent):
                shutil.rmtree(log.path.parent)
            self._logs.pop(log.path, None)

    def check(self) -> None:
        """Files are always there."""

    def stored(self, id: str) -> OnDisk | None:
        """Return what the files have of a run of ours, or None."""
        try:
            logs = self._found(id)
        except NotFound:
            return None
        if not wandb_kept.is_ours(_config(logs)):
            return None
        rows: dict[str, int] = {}
        step = -1
        for log in logs:
            for row in log.rows():
                step = max(step, int(row.get("_step", -1)))
                place = layout.place_of(row)
                if place is not None:
                    rows[place.source] = max(place.position, rows.get(place.source, -1))
        places = {
            wandb_artifacts.said_of(each.metadata)["at"]
            for log in logs
            for each in log.artifacts
            if wandb_artifacts.is_ours(each.metadata)
        }
        return OnDisk(_kept(logs), step + 1, rows, places)

    def settle(self, opened: Open) -> bool:
        """See how far W&B's file has come; tell whether all that was handed on is in it."""
        path = Path(str(opened.run.settings.sync_file))
        if opened.ended:
            _sync(path)
            self._tails.pop(path, None)
            opened.settled.update(opened.handed)
            return True
        tail = self._tails.get(path)
        if tail is None:
            tail = self._tails[path] = Tail(path)
        mark = tail.mark()
        if mark is not None and (reached := opened.reached(mark)):
            _sync(path)
            opened.settled.update(reached)
        return opened.settled == opened.handed

    # Files.

    def _all(self) -> dict[str, list[Log]]:
        """Return the files of every run of the project, each run's in the order begun."""
        found: dict[str, list[Log]] = {}
        with suppress(FileNotFoundError), disk_errors(self.root):
            for folder in sorted((self.root / "wandb").iterdir()):
                if folder.name.startswith(PREFIX) and (log := self._log(folder)) is not None:
                    found.setdefault(log.run.run_id, []).append(log)
        for logs in found.values():
            logs.sort(key=lambda log: (log.started_ms, log.path))
        return found

    def _found(self, id: str) -> list[Log]:
        """Return the files of one run."""
        names = []
        with suppress(FileNotFoundError):
            names = [each for each in os.listdir(self.root / "wandb") if id in each]
        logs = [
            log
            for name in names
            if name.startswith(PREFIX)
            and (log := self._log(self.root / "wandb" / name)) is not None
            and log.run.run_id == id
        ]
        if not logs:
            raise NotFound("run", id)
        return sorted(logs, key=lambda log: (log.started_ms, log.path))

    def _log(self, folder: Path) -> Log | None:
        """Return the file of a run's folder, read up to its end; None if it is none of ours."""
        path = self._path(folder)
        if path is None:
            return None
        log = self._logs.get(path)
        if log is None:
            log = self._logs[path] = Log(path)
        try:
            log.read()
        except FileNotFoundError:
            self._logs.pop(path, None)
            return None
        mine = log.run.project == self._project and self._entity in (None, log.run.entity)
        return log if mine and log.run.run_id else None

    def _path(self, folder: Path) -> Path | None:
        for path in self._logs:
            if path.parent == folder:
                return path
        with suppress(OSError):
            return next(folder.glob("run-*.wandb"), None)
        return None

    def _record(self, logs: Sequence[Log]) -> RunRecord:
        if wandb_kept.is_ours(_config(logs)):
            return _kept(logs).record()
        last = logs[-1]
        points: dict[str, layout.Point] = {}
        for log in logs:
            points.update(layout.foreign_points(log.rows()))
        return layout.foreign(
            last.run.run_id,
            _config(logs),
            last.run.tags,
            points,
            name=last.run.display_name or last.run.run_id,
            experiment=last.run.project,
            status=layout.status_of(last.exit_code, ended=last.exit_code is not None),
            group=last.run.run_group or None,
            job_type=last.run.job_type or None,
            notes=last.run.notes,
            started_at=layout.time_of(logs[0].started_ms),
            ended_at=layout.time_of(last.ended_ms),
        )


def _config(logs: Sequence[Log]) -> dict[str, Any]:
    return {key: value for log in logs for key, value in log.config.items()}


def _kept(logs: Sequence[Log]) -> Kept:
    summary = {key: value for log in logs for key, value in log.summary.items()}
    last = logs[-1].run
    return wandb_kept.kept_of(last.run_id, _config(logs), summary, last.notes)


def _started(run: RunRecord) -> datetime:
    return run.started_at or datetime.fromtimestamp(0, UTC)


def _sync(path: Path) -> None:
    with disk_errors(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_folder(path.parent)

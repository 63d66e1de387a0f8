"""Runs that lie in W&B's files: read back, and watched while the service writes them.

A run of ours may have several folders: each process that goes on with it begins another one, with
the same id. They are read as one.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
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
from mlopskit.tracking.entities import Artifact
from mlopskit.tracking.wandb_folders import by_id, find_runs
from mlopskit.tracking.wandb_log import RunFile
from mlopskit.tracking.wandb_summary import FILES, SAVED, only_in_summary, saved_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlopskit.filters import Filter
    from mlopskit.tracking.entities import MetricHistory, RunRecord
    from mlopskit.tracking.wandb_kept import Kept
    from mlopskit.tracking.wandb_logged_artifacts import LoggedArtifact
    from mlopskit.tracking.wandb_offline_run import OfflineRun
    from mlopskit.tracking.wandb_summary import OnlyInSummary
    from mlopskit.tracking.wandb_writer import Open

MARKED: Final = layout.MARK.encode()


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
        self._lock = threading.RLock()
        self._runs: dict[Path, OfflineRun] = {}
        self._tails: dict[Path, _Tail] = {}

    def ping(self, timeout_s: float) -> None:  # noqa: ARG002 - files answer at once
        """Make the folder, if it is not there yet."""
        make_private_folder(self.root)

    def url(self, id: str) -> str | None:  # noqa: ARG002 - as of the other store
        """Return None: files have no page."""
        return None

    def read_run(self, id: str) -> RunRecord:
        """Read one run."""
        with self._lock:
            return _record(self._found(id))

    def scan_runs(
        self,
        experiment: str | None,
        where: Filter | None,  # noqa: ARG002 - evaluated by the caller
    ) -> Iterator[RunRecord]:
        """Yield runs, the latest first."""
        with self._lock:
            records = [_record(parts) for parts in by_id(self._all()).values()]
        records.sort(key=_started, reverse=True)
        yield from (run for run in records if experiment in (None, run.experiment))

    def files(self) -> set[tuple[int, int]]:
        """Return which files the runs are, whatever path leads to them."""
        found: set[tuple[int, int]] = set()
        with self._lock:
            for part in self._all():
                with disk_errors(part.path), suppress(FileNotFoundError):
                    at = part.path.stat()
                    found.add((at.st_dev, at.st_ino))
        return found

    def history(self, id: str, key: str) -> MetricHistory:
        """Read one metric."""
        with self._lock:
            parts = self._found(id)
            ours = wandb_kept.is_ours(_config(parts))
            points: list[layout.Point] = []
            for part in parts:
                with suppress(NotFound):
                    points += _points(part, key) if ours else _foreign_points(part, key)
                part.forget()
            if not points and not ours:
                beside = _beside(parts).points
                points = [beside[key]] if key in beside else []
            if not points:
                raise NotFound("metric", key, _record(parts).metrics)
        return layout.history_of(points)

    def unread_keys(self, id: str) -> tuple[str, ...]:
        """Return what of a foreign run cannot be read, as `TransferReport.left_out` names it."""
        with self._lock:
            parts = self._found(id)
            if wandb_kept.is_ours(_config(parts)):
                return ()
            found: set[str] = set()
            for part in parts:
                found.update(part.other_keys())
                part.forget()
            found.update(_beside(parts).others)
            kept = {each.name for each in _saved(parts)}
            found.update(FILES + name for part in parts for name in part.saved)
            return tuple(sorted(found - kept))

    def artifacts(self, id: str) -> list[Artifact]:
        """List the files, of each name the newest."""
        with self._lock:
            found: dict[str, Artifact] = {}
            parts = self._found(id)
            ours = wandb_kept.is_ours(_config(parts))
            for each in _logged(parts):
                if wandb_artifacts.is_ours(each.metadata):
                    said = wandb_artifacts.said_of(each.metadata)
                    found.update((a.name, a) for a, _ in wandb_artifacts.files_of(said))
                elif not ours:  # In a run of ours it is what W&B made of a table.
                    found.update((a.name, a) for a in _files(each))
            if not ours:
                found = {**{each.name: each for each in _saved(parts)}, **found}
            return list(found.values())

    def copy(self, id: str, artifact: Artifact, destination: Path) -> None:
        """Copy the bytes of a file out of the run's folder, wherever that was moved to."""
        with self._lock:
            parts = self._found(id)
            for part in reversed(parts):
                kept = Blobs(part.folder / wandb_artifacts.FOLDER)
                if artifact.digest and kept.has(artifact.digest):
                    kept.copy(artifact.digest, destination)
                    return
            for each in reversed(_logged(parts)):
                for entry in each.entries():
                    if f"{each.name}/{entry.path}" == artifact.name and not artifact.digest:
                        path = each.verified(entry)
                        with disk_errors(destination):
                            shutil.copyfile(path, destination)
                        return
            for part in reversed(parts):
                if artifact.type == SAVED and not artifact.digest:
                    with suppress(NotFound):
                        path = part.saved_file(artifact.name.removeprefix(FILES))
                        with disk_errors(destination):
                            shutil.copyfile(path, destination)
                        return
            raise NotFound("artifact", artifact.name)

    def remove(self, id: str) -> None:
        """Remove the folders of a run."""
        with self._lock:
            for part in self._found(id):
                with disk_errors(part.folder):
                    shutil.rmtree(part.folder)
                self._runs.pop(part.path, None)

    def check(self) -> None:
        """Files are always there."""

    def stored(self, id: str) -> OnDisk | None:
        """Return what the files have of a run of ours, or None."""
        with self._lock:
            try:
                parts = self._found(id)
            except NotFound:
                return None
            if not wandb_kept.is_ours(_config(parts)):
                return None
            rows: dict[str, int] = {}
            last = -1
            for part in parts:
                for step, text in part.others(layout.AT):
                    last = max(last, step)
                    if (place := layout.place_of(text)) is not None:
                        rows[place[1]] = max(place[2], rows.get(place[1], -1))
                part.forget()
            places = {
                wandb_artifacts.said_of(each.metadata)["at"]
                for each in _logged(parts)
                if wandb_artifacts.is_ours(each.metadata)
            }
            return OnDisk(_kept(parts), last + 1, rows, places)

    def settle(self, opened: Open) -> bool:
        """See how far W&B's file has come; tell whether all that was handed on is in it."""
        path = Path(str(opened.run.settings.sync_file))
        tail = self._tails.get(path)
        if tail is None:
            tail = self._tails[path] = _Tail(path)
        mark = tail.mark()
        if mark is not None and (reached := opened.reached(mark)):
            _sync(path)
            opened.settled.update(reached)
        done = opened.settled == opened.handed
        if done and opened.ended:  # That W&B's `finish` has returned does not tell it yet.
            self._tails.pop(path, None)
        return done

    # Files.

    def _all(self, id: str | None = None) -> Iterator[OfflineRun]:
        """Yield every folder of the project, or of one run, read up to its end."""
        for found in find_runs(self.root):
            if found.online or id not in (None, found.id):
                continue
            run = self._runs.setdefault(found.path, found)
            try:
                run.read()
            except NotFound:  # Deleted meanwhile.
                self._runs.pop(found.path, None)
                continue
            if run.project == self._project and self._entity in (None, run.entity):
                yield run

    def _found(self, id: str) -> list[OfflineRun]:
        """Return the folders of one run, read up to their ends."""
        parts = by_id(self._all(id)).get(id)
        if not parts:
            raise NotFound("run", id)
        return parts


class _Tail:
    """Looks for the marks that `wandb_writer` puts into a run's summary."""

    def __init__(self, path: Path) -> None:
        self._file = RunFile(path)
        self._last: int | None = None

    def mark(self) -> int | None:
        """Return the last mark that is in the file."""
        with suppress(NotFound):
            for message in self._file.messages():
                if MARKED in message and (record := self._file.parsed(message)) is not None:
                    for update in record.summary.update:
                        if update.key == layout.MARK:
                            self._last = int(json.loads(update.value_json))
        return self._last


def _record(parts: Sequence[OfflineRun]) -> RunRecord:
    if wandb_kept.is_ours(_config(parts)):
        return _kept(parts).record()
    last = parts[-1]
    points: dict[str, layout.Point] = {}
    for part in parts:
        for key in part.metrics():
            points[key] = max(_foreign_points(part, key), key=lambda point: point[:2])
        part.forget()
    beside = _beside(parts)
    return layout.foreign(
        last.id,
        _config(parts),
        last.tags,
        {**beside.points, **points},
        beside.tags,
        name=last.name or last.id,
        experiment=last.project,
        status=layout.status_of(last.exit_code, ended=last.exit_code is not None),
        group=last.group,
        job_type=last.job_type,
        notes=last.notes,
        started_at=parts[0].begun_at,
        ended_at=last.ended_at,
    )


def _points(part: OfflineRun, key: str) -> list[layout.Point]:
    beside = (layout.STEP, layout.AT, layout.ODD)
    rows = part.history(layout.key_to_wandb(key), *beside)
    columns = (rows.beside[name] for name in beside)
    return list(layout.points_of(zip(rows.values, *columns, strict=True), key))


def _foreign_points(part: OfflineRun, key: str) -> list[layout.Point]:
    rows = part.history(key)
    times = (0 if time != time else int(time * 1000) for time in rows.timestamps)  # noqa: PLR0124 - NaN
    return [
        (step, time_ms, value)
        for step, time_ms, value in zip(rows.steps, times, rows.values, strict=True)
    ]


def _files(each: LoggedArtifact) -> list[Artifact]:
    """Return the files of an artifact that mlopskit did not log."""
    return [
        Artifact(
            name=f"{each.name}/{entry.path}",
            size=entry.size or 0,
            digest="",
            type=each.type,
            uri=entry.ref,
            logged_as=each.name,
        )
        for entry in each.entries()
    ]


def _beside(parts: Sequence[OfflineRun]) -> OnlyInSummary:
    """Return what the summary of a foreign run has and its history does not."""
    logged: set[str] = set()
    last_step = 0
    for part in parts:
        logged.update(part.metrics(), part.other_keys())
        last_step = max(last_step, part.last_step())
        part.forget()
    summary = {key: value for part in parts for key, value in part.summary.items()}
    return only_in_summary(summary, logged, last_step, parts[-1].ended_at)


def _saved(parts: Sequence[OfflineRun]) -> list[Artifact]:
    """Return the files that a foreign run saved and that are still there."""
    found: dict[str, Artifact] = {}
    for part in parts:
        for name in part.saved:
            with suppress(NotFound):
                size = part.saved_file(name).stat().st_size
                found[name] = saved_file(name, size)
    return list(found.values())


def _logged(parts: Sequence[OfflineRun]) -> list[LoggedArtifact]:
    return [each for part in parts for each in part.artifacts]


def _config(parts: Sequence[OfflineRun]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.config.items()}


def _kept(parts: Sequence[OfflineRun]) -> Kept:
    summary = {key: value for part in parts for key, value in part.summary.items()}
    last = parts[-1]
    return wandb_kept.kept_of(last.id, _config(parts), summary, last.notes)


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

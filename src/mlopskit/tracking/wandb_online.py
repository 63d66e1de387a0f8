"""Runs on a W&B server, read through W&B's public API; and how far the server has come."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import wandb

from mlopskit.errors import BackendError, NotFound, Unavailable
from mlopskit.storage import disk_errors
from mlopskit.tracking import wandb_artifacts, wandb_kept
from mlopskit.tracking import wandb_layout as layout
from mlopskit.tracking.entities import Artifact
from mlopskit.tracking.owner import is_gone
from mlopskit.tracking.wandb_questions import VIEWER, Asking, Server, pushed_down
from mlopskit.tracking.wandb_service import BROKEN, service
from mlopskit.tracking.wandb_summary import FILES, SAVED, is_saved, only_in_summary, saved_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlopskit.filters import Filter
    from mlopskit.tracking.entities import MetricHistory, RunRecord
    from mlopskit.tracking.wandb_kept import Kept
    from mlopskit.tracking.wandb_summary import OnlyInSummary
    from mlopskit.tracking.wandb_writer import Open

PAGE: Final = 100
ROWS: Final = 1000
FEW: Final = 5
FIRST_LOOK_S: Final = 0.05
LONGEST_LOOK_S: Final = 2.0
STUCK_S: Final = 60.0
GONE_S: Final = 10.0
STATES: Final = {"finished": "finished", "failed": "failed", "crashed": "lost", "killed": "killed"}
_STATE: Final = """
query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    id
    name
    entity { id name }
    bucket(name: $name, missingOk: true) {
      id
      name
      summaryMetrics
      historyLineCount
      historyTail
      config
    }
  }
}
"""


@dataclass(slots=True)
class OnServer:
    """What the server has of a run; see `wandb_writer.Stored`."""

    kept: Kept
    next_step: int
    rows: dict[str, int]
    artifacts: set[str]


class OnlineStore:
    """The runs of one project on a server.

    Args:
        server: The server and the project.
        timeout_s: How long the server may take to answer before it counts as down.
        exit_s: How long the end of the program may wait for W&B's service.
    """

    def __init__(self, server: Server, timeout_s: float, exit_s: float) -> None:
        self._base_url = server.base_url
        self._asking = Asking(server, timeout_s)
        self._entity = server.entity
        self._project = server.project
        self._timeout_s = timeout_s
        self._exit_s = exit_s
        self._api: Any = None
        self._lock = threading.Lock()
        self._looks: dict[str, tuple[float, float, float]] = {}

    @property
    def native(self) -> Any:
        """W&B's public API."""
        with self._lock, self._errors():
            if self._api is None:
                service(self._exit_s)
                self._api = wandb.Api(
                    overrides={"base_url": self._base_url},
                    timeout=max(1, round(self._timeout_s)),
                    api_key=self._asking.key(),
                )
        return self._api

    @property
    def entity(self) -> str:
        """W&B's entity."""
        if self._entity is None:
            self._entity = str(self._asking.ask(VIEWER, {})["viewer"]["entity"])
        return self._entity

    def ping(self, timeout_s: float) -> None:
        """Ask the server who we are."""
        self._asking.ask(VIEWER, {}, timeout_s)

    def url(self, id: str) -> str | None:
        """Return a run's page, where the entity is known."""
        if self._entity is None:
            return None
        app = wandb.Settings(base_url=self._base_url).app_url.rstrip("/")
        return f"{app}/{self._entity}/{self._project}/runs/{id}"

    # Reading.

    def read_run(self, id: str) -> RunRecord:
        """Read one run."""
        return self._record(self._run(id))

    def scan_runs(self, experiment: str | None, where: Filter | None) -> Iterator[RunRecord]:
        """Yield runs, the latest first, a page at a time."""
        api = self._reachable()
        wanted = pushed_down(where)
        if experiment is not None and experiment != self._project:
            wanted.append({f"config.{layout.EXPERIMENT}": experiment})
        with self._errors():
            api.flush()
            runs = iter(
                api.runs(
                    f"{self.entity}/{self._project}",
                    filters={"$and": wanted} if wanted else {},
                    order="-created_at",
                    per_page=PAGE,
                    lazy=False,
                )
            )
        while True:
            try:
                with self._errors():
                    run = next(runs)
            except (StopIteration, NotFound):
                return
            record = self._record(run)
            if experiment in (None, record.experiment):
                yield record

    def latest(self) -> list[tuple[str, str]]:
        """Return what tells a few runs from any other: their paths, and when W&B made them."""
        api = self._reachable()
        with self._errors():
            api.flush()
            where = f"{self.entity}/{self._project}"
            try:
                runs = islice(api.runs(where, order="-created_at", per_page=FEW), FEW)
                return [(f"{where}/{run.id}", str(run.created_at)) for run in runs]
            except ValueError:
                return []  # The project is not there yet.

    def has_all(self, runs: Sequence[tuple[str, str]]) -> bool:
        """Tell whether there are such runs, and all of them are here."""
        where = f"{self.entity}/{self._project}/"
        for path, made in runs:
            try:
                same = path.startswith(where) and str(self._run(path[len(where) :]).created_at)
            except NotFound:
                return False
            if same != made:
                return False
        return len(runs) > 0

    def history(self, id: str, key: str) -> MetricHistory:
        """Read one metric: every row that has it."""
        run = self._run(id)
        with self._errors(id):
            if not wandb_kept.is_ours(run.config):
                rows = self._rows(run)
                found = [point for name, point in layout.foreign_points(rows) if name == key]
                if not found and key in (beside := self._beside(run).points):
                    found = [beside[key]]
            else:
                name = layout.key_to_wandb(key)
                picked = (
                    (row[name], row.get(layout.STEP), row.get(layout.AT), row.get(layout.ODD))
                    for row in self._rows(run)
                    if name in row
                )
                found = list(layout.points_of(picked, key))
        if not found:
            raise NotFound("metric", key, self._record(run).metrics)
        return layout.history_of(found)

    def unread_keys(self, id: str) -> tuple[str, ...]:
        """Return what of a foreign run cannot be read, as `TransferReport.left_out` names it."""
        run = self._run(id)
        if wandb_kept.is_ours(run.config):
            return ()
        with self._errors(id):
            found = {key for row in self._rows(run) for key in layout.other_keys(row)}
            found.update(self._beside(run).others)
        return tuple(sorted(found))

    def artifacts(self, id: str) -> list[Artifact]:
        """List the files, of each name the newest."""
        run = self._run(id)
        ours = wandb_kept.is_ours(run.config)
        found: dict[str, Artifact] = {}
        with self._errors(id):
            for logged in self._logged(run):
                if wandb_artifacts.is_ours(logged.metadata):
                    said = wandb_artifacts.said_of(logged.metadata)
                    found.update((a.name, a) for a, _ in wandb_artifacts.files_of(said))
                elif not ours:
                    found.update((a.name, a) for a in _files(logged))
            if not ours:
                saved = (each for each in run.files(per_page=PAGE) if is_saved(each.name))
                found = {
                    **{a.name: a for a in (saved_file(f.name, int(f.size)) for f in saved)},
                    **found,
                }
        return list(found.values())

    def copy(self, id: str, artifact: Artifact, destination: Path) -> None:
        """Download a file."""
        run = self._run(id)
        with self._errors(id):
            for logged in reversed(self._logged(run)):
                entry = _entry(logged, artifact)
                if entry is None:
                    continue
                with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
                    path = logged.get_entry(entry).download(root=folder, skip_cache=True)
                    with disk_errors(destination):
                        os.replace(path, destination)
                return
            if artifact.type == SAVED and not artifact.digest:
                with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
                    name = artifact.name.removeprefix(FILES)
                    run.file(name).download(root=folder, replace=True).close()
                    with disk_errors(destination):
                        os.replace(Path(folder, name), destination)
                return
        raise NotFound("artifact", artifact.name)

    def remove(self, id: str) -> None:
        """Delete a run with its artifacts."""
        run = self._run(id)
        with self._errors(id):
            run.delete(delete_artifacts=True)

    # Writing.

    def check(self) -> None:
        """Make sure that the server is there and knows us: W&B's SDK would ask on the terminal."""
        if self._asking.key() is None and not os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
            raise Unavailable(self._asking.name, "there is no key; set WANDB_API_KEY")
        self.ping(self._timeout_s)

    def stored(self, id: str) -> OnServer | None:
        """Return what the server has of a run of ours, or None."""
        try:
            run = self._run(id)
        except NotFound:
            return None
        if not wandb_kept.is_ours(run.config):
            return None
        self._wait_for_writer(run.config[layout.ABOUT].get("owner") or "")
        rows: dict[str, int] = {}
        with self._errors(id):
            run.load(force=True)
            for row in self._rows(run):
                if (place := layout.place_of(row.get(layout.AT))) is not None:
                    rows[place[1]] = max(place[2], rows.get(place[1], -1))
            places = {
                wandb_artifacts.said_of(each.metadata)["at"]
                for each in self._logged(run)
                if wandb_artifacts.is_ours(each.metadata)
            }
        return OnServer(self._kept(run), 0, rows, places)

    def settle(self, opened: Open) -> bool:
        """Ask the server how far it has come; tell whether it has all that was handed on."""
        if opened.settled == opened.handed:
            return True
        run_id, now = opened.kept.id, time.monotonic()
        look_at, pause, since = self._looks.get(run_id, (now, FIRST_LOOK_S, now))
        if now < look_at:
            return False
        try:
            pending = opened.uploads.first()
        except Unavailable:
            opened.stuck = True
            raise
        found = self._asking.ask(
            _STATE, {"project": self._project, "entity": self.entity, "name": run_id}
        ).get("model")
        bucket = (found or {}).get("bucket")
        if not bucket:
            raise Unavailable("W&B", f"it does not have the run {run_id} yet")
        opened.arrived.update(reached(opened, bucket))
        for source, position in opened.arrived.items():
            # Where an artifact is on its way, nothing that came with it counts.
            if pending.get(source, position + 1) > position > opened.settled.get(source, -1):
                opened.settled[source] = position
                since, pause = now, FIRST_LOOK_S
        if opened.settled == opened.handed:
            self._looks.pop(run_id, None)
            return True
        if now - since > STUCK_S and not pending:
            self._looks.pop(run_id, None)
            opened.stuck = True
            raise Unavailable("W&B", f"it has stored nothing of run {run_id} for {STUCK_S:.0f} s")
        self._looks[run_id] = now + pause, min(LONGEST_LOOK_S, pause * 1.5), since
        return False

    # The server.

    def _wait_for_writer(self, owner: str) -> None:
        """Wait until the service of a dead process has ended, which may still send rows."""
        if is_gone(owner) is not True:
            return
        pid = str(json.loads(owner)[3])
        deadline = time.monotonic() + GONE_S
        while _serves(pid) and time.monotonic() < deadline:
            time.sleep(0.1)

    def _run(self, id: str) -> Any:
        api = self._reachable()
        with self._errors(id):
            api.flush()
            return api.run(f"{self.entity}/{self._project}/{id}")

    def _logged(self, run: Any) -> list[Any]:
        """Return what a run logged, the oldest first."""
        found = list(run.logged_artifacts(per_page=PAGE))
        return sorted(found, key=lambda each: str(each.created_at))

    def _rows(self, run: Any) -> Iterator[dict[str, Any]]:
        rows: Iterator[dict[str, Any]] = run.scan_history(page_size=ROWS, use_cache=False)
        return rows

    def _beside(self, run: Any, seen: _Seen | None = None) -> OnlyInSummary:
        """Return what the summary of a foreign run has and its history does not."""
        seen = seen or _Seen()
        for _ in seen.through(self._rows(run) if not seen.keys else ()):
            pass
        ended = layout.time_of_text(run.heartbeat_at) if run.state in STATES else None
        return only_in_summary(_plain(run.summary_metrics), seen.keys, seen.last_step, ended)

    def _kept(self, run: Any) -> Kept:
        return wandb_kept.kept_of(run.id, run.config, run.summary_metrics, run.notes or "")

    def _record(self, run: Any) -> RunRecord:
        if wandb_kept.is_ours(run.config):
            return self._kept(run).record()
        with self._errors(run.id):
            rows = self._rows(run)
            seen = _Seen()
            points = dict(layout.foreign_points(seen.through(rows)))
            beside = self._beside(run, seen)
        return layout.foreign(
            run.id,
            run.config,
            run.tags,
            {**beside.points, **points},
            beside.tags,
            name=run.name or run.id,
            experiment=self._project,
            status=STATES.get(run.state, "running"),
            group=run.group or None,
            job_type=run.job_type or None,
            notes=run.notes or "",
            started_at=layout.time_of_text(run.created_at),
            ended_at=layout.time_of_text(run.heartbeat_at) if run.state in STATES else None,
        )

    def _reachable(self) -> Any:
        """Return the public API, after making sure that its retries will not be needed."""
        self._asking.reach()
        return self.native

    @contextmanager
    def _errors(self, id: str = "") -> Iterator[None]:
        try:
            yield
        except ValueError as exc:  # Also of W&B's own class for an unknown run.
            if "ould not find" in str(exc):
                raise NotFound("run", id) from exc
            raise BackendError(f"W&B: {exc}") from exc
        except BROKEN as exc:
            if "ould not find" in str(exc):
                raise NotFound("run", id) from exc
            raise Unavailable(self._asking.name, exc) from exc
        except wandb.Error as exc:
            raise BackendError(
                f"W&B: {exc}{'' if self._asking.key() else ' Set WANDB_API_KEY.'}"
            ) from exc


def reached(opened: Open, bucket: dict[str, Any]) -> dict[str, int]:
    """Return how far the server has come, by journal: history, config and summary of one mark."""
    summary = json.loads(bucket.get("summaryMetrics") or "{}")
    config = json.loads(bucket.get("config") or "{}")
    about = config.get(layout.ABOUT) or {}
    tail = [json.loads(line) for line in json.loads(bucket.get("historyTail") or "[]")]
    step = max((int(row.get("_step", -1)) for row in tail), default=-1)
    mark = summary.get(layout.MARK)
    if mark is None:
        return {}
    return opened.reached(int(mark), step=step, revision=(about.get("value") or {}).get("revision"))


class _Seen:
    """The keys and the last step of the rows of a history that went through."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.last_step = 0

    def through(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield rows as they are."""
        for row in rows:
            self.keys.update(row)
            self.last_step = max(self.last_step, int(row.get("_step") or 0))
            yield row


def _plain(summary: Any) -> dict[str, Any]:
    return dict(summary) if isinstance(summary, dict) else {}


def _files(logged: Any) -> list[Artifact]:
    """Return the files of an artifact that mlopskit did not log."""
    name = logged.name.partition(":")[0]
    return [
        Artifact(
            name=f"{name}/{path}", size=entry.size or 0, digest="", type=logged.type, logged_as=name
        )
        for path, entry in logged.manifest.entries.items()
    ]


def _entry(logged: Any, artifact: Artifact) -> str | None:
    """Return the entry of an artifact of W&B's that is a file of ours, if it has it."""
    if wandb_artifacts.is_ours(logged.metadata):
        for each, entry in wandb_artifacts.files_of(wandb_artifacts.said_of(logged.metadata)):
            if (each.name, each.digest) == (artifact.name, artifact.digest):
                return entry
        return None
    head = logged.name.partition(":")[0] + "/"
    return artifact.name.removeprefix(head) if artifact.name.startswith(head) else None


def _serves(pid: str) -> bool:
    """Tell whether W&B's service of a process still runs."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"wandb-core" in words[0] and pid.encode() in words:
                return True
    return False

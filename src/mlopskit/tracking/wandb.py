"""Tracking with Weights & Biases: a server, or files that ``wandb sync`` uploads later.

A run of ours is one run of W&B's with our id. The project is the tracker's; the experiment is kept
in the run's config. Steps may come in any order: W&B's own step only counts rows, and
``_mk/step`` is the axis of its charts. What W&B cannot hold is kept beside what it shows: see
`wandb_layout`. Offline runs are read back from their files by `wandb_folders`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Unpack

from wandb.sdk import wandb_setup

from mlopskit.capabilities import Capabilities
from mlopskit.errors import ConfigError, Unavailable
from mlopskit.hookspecs import hookimpl
from mlopskit.tracking import wandb_layout
from mlopskit.tracking.base import Tracker, TrackerOptions
from mlopskit.tracking.entities import Experiment, MetricsLogged
from mlopskit.tracking.wandb_kept import Kept
from mlopskit.tracking.wandb_offline import OfflineStore
from mlopskit.tracking.wandb_online import OnlineStore
from mlopskit.tracking.wandb_questions import Server
from mlopskit.tracking.wandb_service import lives
from mlopskit.tracking.wandb_writer import Writer, begun, ends, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlopskit.filters import Filter, Order
    from mlopskit.tool import Context
    from mlopskit.tracking.backend import TrackerBackend
    from mlopskit.tracking.entities import Artifact, Batch, MetricHistory, RunRecord
    from mlopskit.tracking.wandb_writer import Open

TOOL = {
    "package": "wandb",
    "extra": "wandb",
    "requires": {"wandb": ">=0.31,<0.32"},
    "telemetry": (
        "W&B's service reports errors and measurements of itself to sentry.io and to the server of "
        "the run. WANDB_ERROR_REPORTING=false switches it off."
    ),
}

CAPABILITIES = {
    "artifact_inputs": "emulated: found by what artifacts say of themselves, kept in the config",
    "artifact_references": "native",
    "artifacts": "native",
    "charts": "native",
    "datasets": "emulated: kept in the run's config",
    "delete": "native",
    "exactly_once": "emulated: rows carry the place of their record, and are read once",
    "experiments": "absent: W&B has projects, and no place for the description of an experiment",
    "foreign_runs": "native",
    "groups": "native",
    "heartbeat": "emulated: kept in the run's config",
    "lost_runs": "emulated: the run's config names the owning process",
    "nested_runs": "emulated: the parent is kept in the run's config",
    "numbers": "emulated: what W&B's JSON would change is kept beside the row as text",
    "offline": "absent: the runs are on a server; with mode='offline' they are files",
    "overwrite_params": "native",
    "resume": "native",
    "step_order": "emulated: W&B's own step counts rows; charts have _mk/step as their axis",
    "typed_params": "emulated: what W&B's JSON would change is kept beside the config as text",
    "unicode_names": "emulated: what W&B nests or keeps for itself is escaped, such as mk_a_2e_b",
}
# What differs with mode="offline".
OFFLINE: Final[Mapping[str, str]] = {
    "artifact_inputs": "absent: offline W&B cannot use artifacts; 'wandb sync' uploads them first",
    "delete": "emulated: the run's folders are removed",
    "foreign_runs": "emulated: read from W&B's files",
    "offline": "native",
    "resume": "absent: offline W&B cannot take a run up again; it would begin another one",
}
MODES: Final = ("online", "offline")
PROJECT: Final = "mlopskit"


class WandbTracker(Tracker):
    """Keeps runs on a W&B server, or offline in W&B's files.

    Args:
        location: The project, or ``entity/project``. Left out, ``WANDB_PROJECT`` and
            ``WANDB_ENTITY``, and where these are silent ``mlopskit`` of the default entity.
        mode: ``"online"`` or ``"offline"``; ``WANDB_MODE`` if left out, else online.
        entity: The team or user; ``WANDB_ENTITY`` if left out.
        folder: Where W&B keeps its files; ``tracking/wandb`` in the home folder if left out.
        base_url: The server; ``WANDB_BASE_URL`` if left out.
        api_key: The key; ``WANDB_API_KEY``, or that of ``wandb login``, if left out.
        connect_timeout_s: How long to wait for the server before it counts as down.
        settings: More of what `wandb.Settings` takes.
        options: What every tracker takes; see `Tracker`.

    Raises:
        ConfigError: If the mode or the location cannot be taken.
    """

    exactly_once: ClassVar[bool] = True

    def __init__(
        self,
        location: str | None = None,
        *,
        mode: Literal["online", "offline"] | None = None,
        entity: str | None = None,
        folder: str | Path | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        connect_timeout_s: float = 5.0,
        settings: Mapping[str, Any] | None = None,
        **options: Unpack[TrackerOptions],
    ) -> None:
        super().__init__(**options)
        env = os.environ
        found = mode or env.get("WANDB_MODE") or "online"
        if found not in MODES:
            raise ConfigError(f"W&B's mode is {found!r}; it may be 'online' or 'offline'.")
        self.mode = found
        head, _, project = (location or "").rpartition("/")
        if "/" in head:
            raise ConfigError(f"{location!r} is no W&B project such as 'churn' or 'team/churn'.")
        self.project = project or env.get("WANDB_PROJECT") or PROJECT
        self.entity = entity or head or env.get("WANDB_ENTITY") or None
        self._base_url = base_url or env.get("WANDB_BASE_URL")
        self.connect_timeout_s = connect_timeout_s
        self.location = folder
        self._api_key = api_key
        self._settings = dict(settings or {})

    @property
    def base_url(self) -> str:
        """The server: W&B's own, or that of ``wandb login --host``, where nobody named one."""
        return (self._base_url or str(wandb_setup.singleton().settings.base_url)).rstrip("/")

    @property
    def folder(self) -> Path:
        """Where W&B keeps its files."""
        if self.location is not None:
            return Path(self.location).expanduser()
        return self.context.home / "tracking" / "wandb"

    @property
    def target(self) -> str:
        """The mode, the server or folder, and the project."""
        where = f"{self.entity}/{self.project}" if self.entity else self.project
        if self.mode == "offline":
            return f"wandb:offline:{self.folder.resolve()}:{where}"
        return f"wandb:{self.base_url.rpartition('@')[2]}/{where}"

    @property
    def capabilities(self) -> Capabilities:
        """What it can do, which depends on the mode."""
        table = CAPABILITIES if self.mode == "online" else {**CAPABILITIES, **OFFLINE}
        return Capabilities("tracking", "wandb", table)

    @property
    def place(self) -> Path | None:
        """The folder of the offline runs."""
        return self.folder if self.mode == "offline" else None

    def is_same_store(self, other: TrackerBackend) -> bool:
        """Compare the files of the runs; of servers ask both for the latest runs of the source."""
        if self.target == other.target:
            return True
        if not isinstance(other, WandbTracker) or self.mode != other.mode:
            return False
        one, two = self._store, other._store
        if isinstance(one, OfflineStore) and isinstance(two, OfflineStore):
            return not one.files().isdisjoint(two.files())
        if isinstance(one, OnlineStore) and isinstance(two, OnlineStore):
            return two.has_all(one.latest())
        return False

    @property
    def reuses_ids(self) -> bool:
        """Offline only: W&B's servers refuse the id of a run that was deleted."""
        return self.mode == "offline"

    @property
    def native(self) -> Any:
        """`wandb.Api` of the server; offline the module `wandb`."""
        return self._store.native

    def ping(self, timeout_s: float = 5.0) -> None:
        """Ask the server who we are; offline, look at the folder."""
        self._store.ping(timeout_s)

    def close(self) -> None:
        """Deliver what is pending, and end the runs of W&B's that are open."""
        super().close()
        self._writer.close()

    def run_url(self, id: str) -> str | None:
        """Return the run's page, once the run is there."""
        return self._store.url(id)

    @property
    def _store(self) -> OfflineStore | OnlineStore:
        store: OfflineStore | OnlineStore = self._mine("store", self._new_store)
        return store

    @property
    def _writer(self) -> Writer:
        writer: Writer = self._mine("writer", self._new_writer)
        return writer

    def _mine(self, name: str, make: Any) -> Any:
        """Return what this process has of its own: a forked child inherits no connection."""
        key = f"_{name}_{os.getpid()}"
        if key not in self.__dict__:
            self.__dict__.setdefault(key, make())
        return self.__dict__[key]

    def _new_store(self) -> OfflineStore | OnlineStore:
        if self.mode == "offline":
            return OfflineStore(self.folder, self.project, self.entity)
        server = Server(self.base_url, self._api_key, self.entity, self.project)
        return OnlineStore(server, self.connect_timeout_s, self.flush_timeout_s)

    def _new_writer(self) -> Writer:
        settings: dict[str, Any] = {"mode": self.mode, "base_url": self.base_url}
        if self.mode == "online":
            settings |= {
                "init_timeout": max(self.connect_timeout_s, 1.0),
                "finish_timeout": max(self.flush_timeout_s, 1.0),
                "x_file_stream_transmit_interval": 2.0,
            }
            if self._api_key is not None:
                settings["api_key"] = self._api_key
        else:
            settings["allow_offline_artifacts"] = False
        return Writer(
            {**settings, **self._settings},
            self.folder,
            self.project,
            self.entity,
            self.flush_timeout_s,
        )

    # Writing.

    def write(self, batch: Batch) -> None:
        """Hand records on to W&B's service."""
        if not batch.records:
            return
        opened = self._opened(batch)
        try:
            opened.write(batch)
            if ends(batch):
                opened.finish()
        except Unavailable:
            self._writer.forget(batch.run_id)
            raise

    def settled(self, run_id: str, source: str) -> int | None:
        """Return up to where W&B has stored a journal: in its file, or on its server."""
        opened = self._writer.runs.get(run_id)
        if opened is None:
            return None
        try:
            done = self._settle(opened)
        except Unavailable:
            if opened.stuck:
                self._writer.forget(run_id)
            raise
        if opened.ended and done:
            self._writer.runs.pop(run_id, None)
            if self.mode == "online":  # The server has the bytes.
                shutil.rmtree(opened.folder, ignore_errors=True)
            return None
        return opened.settled.get(wandb_layout.short(source), -1)

    def _settle(self, opened: Open) -> bool:
        opened.stuck |= not lives()
        opened.mark()
        done = self._store.settle(opened)
        if opened.stuck and not done:
            raise Unavailable("W&B's service", "it has ended")
        return done

    def _opened(self, batch: Batch) -> Open:
        opened = self._writer.runs.get(batch.run_id)
        if opened is not None and not opened.ended:
            return opened
        self._store.check()
        stored = self._store.stored(batch.run_id)
        start = begun(batch)
        if stored is not None:
            kept = stored.kept
        elif start is not None:
            kept = Kept(batch.run_id)
            for record in batch.records:
                if not isinstance(record, MetricsLogged):
                    kept.apply(record, wandb_layout.short(batch.source))
        else:
            raise unknown(batch.run_id)
        return self._writer.start(batch.run_id, kept, stored)

    # Reading.

    def read_run(self, id: str) -> RunRecord:
        """Read one run, of ours or not."""
        return self._store.read_run(id)

    def scan_runs(
        self, experiment: str | None, where: Filter | None, order: Sequence[Order] = ()
    ) -> Iterator[RunRecord]:
        """Yield runs, the latest first."""
        return self._store.scan_runs(experiment, where)

    def read_metric_history(
        self, id: str, key: str, max_points: int | None = None
    ) -> MetricHistory:
        """Read every point of a metric."""
        return self._store.history(id, key)

    def unread_keys(self, id: str) -> tuple[str, ...]:
        """Return the keys of a run's history that have texts, histograms, images and the like."""
        return self._store.unread_keys(id)

    def list_experiments(self) -> list[Experiment]:
        """Count the runs of each experiment."""
        counts: dict[str, int] = {}
        for run in self.scan_runs(None, None):
            counts[run.experiment] = counts.get(run.experiment, 0) + 1
        return [Experiment(name=name, runs=counts[name]) for name in sorted(counts)]

    def read_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run: of each name the newest."""
        return sorted(self._store.artifacts(id), key=lambda each: each.name)

    def copy_artifact(self, id: str, artifact: Artifact, destination: Path) -> None:
        """Copy the bytes of a file."""
        self._store.copy(id, artifact, destination)

    def remove_run(self, id: str) -> None:
        """Delete a run at W&B; offline, its folders."""
        self._store.remove(id)


@hookimpl
def make_tracker(location: str | None, options: Mapping[str, Any], context: Context) -> Tracker:
    """Build a tracker that writes to the W&B project `location`."""
    tracker = WandbTracker(location, **options)
    tracker.context = context
    return tracker

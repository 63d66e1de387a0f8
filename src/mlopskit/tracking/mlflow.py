"""Tracking with MLflow: a database of its own, or a tracking server.

Only `MlflowClient` with explicit run ids is used, never ``mlflow.log_*``: those act on one active
run per thread, and a second thread would silently open another run.

What MLflow cannot hold is kept beside what it can show: see `mlflow_layout`, and
`escapes` for keys and texts.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from mlflow import MlflowClient

from mlopskit.capabilities import Capabilities
from mlopskit.errors import MissingDependency, MlopskitError, NotFound
from mlopskit.hookspecs import hookimpl
from mlopskit.storage import disk_errors
from mlopskit.tracking import mlflow_filters as pushed
from mlopskit.tracking import mlflow_layout as layout
from mlopskit.tracking.backend import TrackerBackend, is_one_file
from mlopskit.tracking.base import Tracker, TrackerOptions
from mlopskit.tracking.entities import Artifact, ArtifactUse, Experiment
from mlopskit.tracking.escapes import key_to_store
from mlopskit.tracking.mlflow_artifacts import RunFiles
from mlopskit.tracking.mlflow_models import MODEL_ID, RunModels
from mlopskit.tracking.mlflow_server import (
    checked_uri,
    look_into,
    public_uri,
    reach,
    remember,
    store_lock,
    tells_the_same,
    translated,
)
from mlopskit.tracking.mlflow_writer import Writer, experiment_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from mlflow.entities import Run as MlflowRun

    from mlopskit.filters import Filter, Order
    from mlopskit.tool import Context
    from mlopskit.tracking.entities import Batch, MetricHistory, RunRecord

TOOL = {
    "package": "mlflow",
    "extra": "mlflow",
    "requires": {"mlflow": ">=3.10,<4"},
    "telemetry": (
        "MLflow sends the names and durations of the calls made to it, its version, the Python "
        "version, the platform and a random installation id to config.mlflow-telemetry.io's "
        "ingestion, at most every 10 seconds. MLFLOW_DISABLE_TELEMETRY=true or DO_NOT_TRACK=true "
        "switches it off."
    ),
}

CAPABILITIES = {
    "artifact_inputs": "emulated: found through tags of the runs",
    "artifact_references": "emulated: the address is kept in a tag of the run",
    "artifacts": "emulated: digests and types are kept in tags of the run",
    "charts": "emulated: MLflow's pages show pictures by step, tables, and pictures of charts",
    "datasets": "emulated: MLflow's pages show them; whole digests and columns are kept in tags",
    "delete": "emulated: MLflow marks the run as deleted; 'mlflow gc' removes it",
    "exactly_once": "emulated: MLflow stores an equal row once, and no two records make equal rows",
    "experiments": "emulated: a deleted one is renamed, since MLflow keeps its name taken",
    "foreign_runs": "native",
    "groups": "emulated: kept in tags; notes are MLflow's own",
    "heartbeat": "emulated: kept in a tag",
    "lost_runs": "emulated: a tag names the owning process; a lost run is KILLED, with a tag",
    "nested_runs": "native",
    "numbers": "emulated: infinities, -0.0 and large ints are kept in JSON files of the run",
    "offline": "native",
    "overwrite_params": "emulated: the new value is kept in a tag, since MLflow's params are final",
    "resume": "native",
    "step_order": "native",
    "typed_params": "emulated: as JSON text, in a file of the run if over 6,000 characters",
    "unicode_names": "emulated: what MLflow refuses is escaped, such as _mk_acc_40_1 for acc@1",
}


class MlflowTracker(Tracker):
    """Keeps runs in MLflow's database, or on an MLflow server.

    Args:
        location: A tracking URI such as ``sqlite:///mlflow.db`` or ``http://host:5000``. Left out,
            ``MLFLOW_TRACKING_URI``, and where that is silent ``sqlite:///mlflow.db``.
        connect_timeout_s: How long to wait for a server before it counts as down.
        options: What every tracker takes; see `Tracker`.

    Raises:
        ConfigError: If the location is a folder: MLflow no longer keeps runs in files.
    """

    exactly_once: ClassVar[bool] = True

    def __init__(
        self,
        location: str | None = None,
        *,
        connect_timeout_s: float = 5.0,
        **options: Unpack[TrackerOptions],
    ) -> None:
        super().__init__(**options)
        self.uri = checked_uri(location or os.environ.get("MLFLOW_TRACKING_URI"))
        self.connect_timeout_s = connect_timeout_s
        self._clients: dict[int, MlflowClient] = {}
        self._known: dict[str, str] = {}
        self._names: dict[str, str] = {}

    @property
    def target(self) -> str:
        """The tracking URI, without a password."""
        return f"mlflow:{public_uri(self.uri)}"

    @property
    def place(self) -> Path | None:
        """The file of an SQLite store."""
        head, _, path = self.uri.partition(":///")
        path = path.partition("?")[0]
        return Path(path) if head == "sqlite" and path else None

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return Capabilities("tracking", "mlflow", CAPABILITIES)

    @property
    def native(self) -> MlflowClient:
        """MLflow's client. Its first use makes or upgrades a database, under a file lock."""
        pid = os.getpid()
        if pid not in self._clients:
            with self._asking(), store_lock(self.uri):
                try:
                    look_into(self.uri)
                    remember(self._clients.setdefault(pid, MlflowClient(self.uri)))
                except ImportError as exc:  # The driver of a database is the user's choice.
                    raise MissingDependency(
                        f"MLflow at {self.target}", str(exc.name), f"pip install {exc.name}"
                    ) from exc
        return self._clients[pid]

    def ping(self, timeout_s: float = 5.0) -> None:
        """Ask a server for its health once, or a database for its first experiment."""
        reach(self.uri, self.target, timeout_s)
        if not self.uri.startswith("http"):
            with self._asking():
                self.native.search_experiments(max_results=1)

    def is_same_store(self, other: TrackerBackend) -> bool:
        """Compare files; where a server is an end, ask both for their experiments and runs."""
        if self.target == other.target or not isinstance(other, MlflowTracker):
            return self.target == other.target
        if self.place is not None and other.place is not None:
            return is_one_file(self.place, other.place)
        ends = [each for each in (self, other) if each.place is None or each.place.exists()]
        if len(ends) < 2:
            return False
        clients = [each._client() for each in ends]
        with ends[0]._asking(), ends[1]._asking():
            return tells_the_same(*clients)

    def run_url(self, id: str) -> str | None:
        """Return the run's page on the server, once the run is there and while it answers."""
        if self.uri.startswith("http") and id in self._known:
            with suppress(MlopskitError):
                info = self._run(id).info
                page = f"experiments/{info.experiment_id}/runs/{info.run_id}"
                return f"{public_uri(self.uri)}/#/{page}"
        return None

    def write(self, batch: Batch) -> None:
        """Write to MLflow. What comes again is stored once."""
        client = self._client()
        with self._asking(batch.run_id):
            made = Writer(client, self._own_id, self._experiment_id).write(batch)
        if made is not None:
            self._known[batch.run_id] = made

    # Experiments.

    def list_experiments(self) -> list[Experiment]:
        """List the active experiments. MLflow does not count runs cheaply."""
        with self._asking():
            return [
                Experiment(name=each.name, description=each.tags.get(layout.NOTES, ""))
                for each in layout.experiments(self._client())
            ]

    def write_experiment(self, name: str, description: str) -> None:
        """Write MLflow's note of an experiment, of at most 5,000 characters."""
        client = self._client()
        with self._asking():
            client.set_experiment_tag(self._experiment_id(name), layout.NOTES, description)

    def remove_experiment(self, name: str) -> None:
        """Mark an experiment as deleted under another name, so that its own is free again."""
        client = self._client()
        with self._asking():
            found = client.get_experiment_by_name(name)
            if found is None or found.lifecycle_stage != "active":
                raise NotFound("experiment", name)
            client.rename_experiment(found.experiment_id, f"{name} (deleted {found.experiment_id})")
            client.delete_experiment(found.experiment_id)
        self._known.clear()

    # Reading.

    def read_run(self, id: str) -> RunRecord:
        """Read one run, ours by our id or MLflow's by its own."""
        return self._record(self._run(id))

    def scan_runs(
        self, experiment: str | None, where: Filter | None, order: Sequence[Order] = ()
    ) -> Iterator[RunRecord]:
        """Yield runs, a page at a time; MLflow filters as far as it can."""
        client = self._client()
        with self._asking():
            ids = self._experiment_ids(experiment)
            wanted = pushed.filter_of(where, self._is_kept_apart)
        keys = pushed.order_of(order if self.sorts(order) else ())
        token = None
        while ids:
            with self._asking():
                page = client.search_runs(
                    ids, wanted, max_results=layout.PAGE, order_by=keys, page_token=token
                )
                found = [self._record(run) for run in page]
            yield from found
            token = page.token
            if not token:
                return

    def sorts(self, order: Sequence[Order]) -> bool:
        """Sort by metrics of which MLflow holds every value, and by the start."""
        with self._asking():
            return pushed.sorts(order, self._is_kept_apart)

    def read_metric_history(
        self, id: str, key: str, max_points: int | None = None
    ) -> MetricHistory:
        """Read one metric: MLflow's rows, with the odd numbers in their places."""
        run = self._run(id)
        own, tags = run.info.run_id, run.data.tags
        name = key_to_store(key) if layout.is_ours(run) else key
        with self._asking(id):
            rows = self.native.get_metric_history(own, name)
            if not layout.is_ours(run):
                if not rows:
                    raise NotFound("metric", key, self._record(run).metrics)
                return layout.history_of([(m.timestamp, m.step, m.value) for m in rows])
            children: list[layout.Point] = []
            if layout.CHILDREN_TAG in tags:
                children = layout.children_points(self.native, run, key)
                rows = [row for row in rows if not row.timestamp & 1]
            odd: list[layout.Point] = []
            if layout.own_key("odd", key) in tags:
                odd = [
                    point
                    for point in layout.odd_points(self.native, run, key)
                    if not (children and point[1] & 1)
                ]
            found = layout.together([(m.timestamp, m.step, m.value) for m in rows], odd)
        if not found and not children:
            raise NotFound("metric", key, self._record(run).metrics)
        found += [(time_ms, step, value) for step, time_ms, value in children]
        return layout.history_of(sorted(found, key=lambda each: each[:2]))

    def find_artifact(self, name: str, alias: str, experiment: str) -> ArtifactUse | None:
        """Ask MLflow for the runs that have logged something by that name."""
        client = self._client()
        tag = layout.files_key(name)
        newest: ArtifactUse | None = None
        token = None
        while True:
            with self._asking():
                ids = self._experiment_ids(experiment)
                if not ids:
                    return None
                page = client.search_runs(
                    ids, f"tags.`{tag}` IS NOT NULL", max_results=layout.PAGE, page_token=token
                )
                for run in page:
                    text = layout.text_of(client, run, run.data.tags[tag])
                    files = tuple(Artifact(**each) for each in json.loads(text))
                    known = alias == "latest" or alias in files[0].aliases
                    if known and (newest is None or _is_newer(files, newest.files)):
                        own = run.data.tags[layout.OWN + "run_id"]
                        newest = ArtifactUse(run_id=own, name=name, alias=alias, files=files)
            token = page.token
            if not token:
                return newest

    def read_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run, and of the models that MLflow keeps for it.

        What mlopskit did not write has no digests.
        """
        run = self._run(id)
        with self._asking(id):
            if layout.is_ours(run):
                found = layout.files_of(
                    run.data.tags, lambda text: layout.text_of(self.native, run, text)
                )
            else:
                found = [
                    Artifact(name=name, size=size, digest="")
                    for name, size in RunFiles(self.native, run).walk()
                ]
            taken = {each.name.partition("/")[0] for each in found}
            found += RunModels(self.native, run, taken).files()
            return sorted(found, key=lambda each: each.name)

    def copy_artifact(self, id: str, artifact: Artifact, destination: Path) -> None:
        """Download a file."""
        run = self._run(id)
        place, stored = "", artifact.name
        if MODEL_ID in artifact.metadata and not artifact.digest:
            with self._asking(id):
                place, stored = RunModels(self.native, run).where(artifact)
        elif layout.is_ours(run):
            stored = layout.stored_path(artifact)
        with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
            path = Path(folder, "file")
            with self._asking(id):
                RunFiles(self.native, run, place).fetch(stored, path)
            with disk_errors(destination):
                os.replace(path, destination)

    def remove_run(self, id: str) -> None:
        """Mark a run as deleted."""
        run = self._run(id)
        with self._asking(id):
            self.native.delete_run(run.info.run_id)
        self._known.pop(id, None)

    def _client(self) -> MlflowClient:
        """Return the client, after seeing that its own minutes of retries will not be needed."""
        reach(self.uri, self.target, self.connect_timeout_s)
        return self.native

    def _asking(self, id: str = "") -> AbstractContextManager[None]:
        return translated(self.target, id)

    def _run(self, id: str) -> MlflowRun:
        client = self._client()
        with self._asking(id):
            try:
                own = self._own_id(id)
            except NotFound:
                own = id
            run = client.get_run(own)
        if run.info.lifecycle_stage != "active":
            raise NotFound("run", id)
        return run

    def _own_id(self, id: str) -> str:
        """Return MLflow's id of a run of ours."""
        if id not in self._known:
            if not id.isalnum():
                raise NotFound("run", id)
            found = self.native.search_runs(
                self._experiment_ids(None), f"tags.`{layout.OWN}run_id` = '{id}'", max_results=1
            )
            if not found:
                raise NotFound("run", id)
            self._known[id] = found[0].info.run_id
        return self._known[id]

    def _experiment_ids(self, experiment: str | None) -> list[str]:
        if experiment is None:
            return [each.experiment_id for each in layout.experiments(self.native)]
        found = self.native.get_experiment_by_name(experiment)
        return [found.experiment_id] if found and found.lifecycle_stage == "active" else []

    def _experiment_id(self, name: str) -> str:
        return experiment_id(self.native, name)

    def _experiment_name(self, id: str) -> str:
        if id not in self._names:
            self._names[id] = str(self.native.get_experiment(id).name)
        return self._names[id]

    def _is_kept_apart(self, kind: str, key: str) -> bool:
        """Tell whether any run keeps values of a key where MLflow does not look."""
        tag = layout.own_key(kind, key)
        ids = self._experiment_ids(None)
        return bool(
            ids and self.native.search_runs(ids, f"tags.`{tag}` IS NOT NULL", max_results=1)
        )

    def _record(self, run: MlflowRun) -> RunRecord:
        name = self._experiment_name(run.info.experiment_id)
        return layout.record_of(run, name, lambda text: layout.text_of(self.native, run, text))


def _is_newer(files: Sequence[Artifact], than: Sequence[Artifact]) -> bool:
    one, other = files[0].logged_at, than[0].logged_at
    return one is not None and (other is None or one >= other)


@hookimpl
def make_tracker(location: str | None, options: Mapping[str, Any], context: Context) -> Tracker:
    """Build a tracker that writes to the tracking URI `location`."""
    tracker = MlflowTracker(location, **options)
    tracker.context = context
    return tracker

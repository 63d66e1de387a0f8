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
import time
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Unpack

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from mlopskit.capabilities import Capabilities
from mlopskit.errors import (
    BackendError,
    Conflict,
    InvalidInput,
    NotFound,
    Unavailable,
)
from mlopskit.hookspecs import hookimpl
from mlopskit.storage import disk_errors
from mlopskit.tracking import mlflow_layout as layout
from mlopskit.tracking.base import Tracker, TrackerOptions
from mlopskit.tracking.entities import (
    Artifact,
    ArtifactLogged,
    Ended,
    Experiment,
    MetricHistory,
    MetricsLogged,
    ParamsLogged,
    RunRecord,
    Started,
    TagsSet,
)
from mlopskit.tracking.escapes import (
    is_plain,
    key_to_store,
    param_to_text,
    shown,
    tag_to_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow.entities import Run as MlflowRun

    from mlopskit.tool import Context
    from mlopskit.tracking.entities import Batch, Number
    from mlopskit.tracking.filters import Filter, Order

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
    "charts": "emulated: MLflow's pages show the pictures that are kept beside the data",
    "datasets": "native",
    "delete": "emulated: MLflow marks the run as deleted; 'mlflow gc' removes it",
    "exactly_once": "emulated: MLflow stores an equal row once, and no two records make equal rows",
    "experiments": "native",
    "foreign_runs": "native",
    "groups": "emulated: kept in tags; notes are MLflow's own",
    "heartbeat": "emulated: kept in a tag",
    "lost_runs": "emulated: a tag names the owning process; a lost run is KILLED, with a tag",
    "nested_runs": "native",
    "numbers": "emulated: infinities, -0.0 and large ints are kept in a JSON file of the run",
    "offline": "native",
    "overwrite_params": "emulated: the new value is kept in a tag, since MLflow's params are final",
    "resume": "native",
    "step_order": "native",
    "typed_params": "emulated: as JSON text, in a file of the run if over 6,000 characters",
    "unicode_names": "emulated: what MLflow refuses is escaped, such as _mk_acc_40_1 for acc@1",
}

REFUSED: Final = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE")
REACHED_FOR_S: Final = 5.0


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
        self.uri = layout.checked_uri(location or os.environ.get("MLFLOW_TRACKING_URI"))
        self.connect_timeout_s = connect_timeout_s
        self._clients: dict[int, MlflowClient] = {}
        self._known: dict[str, str] = {}
        self._experiments: dict[str, str] = {}
        self._reached = -REACHED_FOR_S

    @property
    def target(self) -> str:
        """The tracking URI, without a password."""
        scheme, _, rest = self.uri.partition("://")
        where = rest if scheme == "sqlite" else rest.rpartition("@")[2]
        return f"mlflow:{scheme}://{where}"

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return Capabilities("tracking", "mlflow", CAPABILITIES)

    @property
    def native(self) -> MlflowClient:
        """MLflow's client. Its first use makes or upgrades a database, under a file lock."""
        pid = os.getpid()
        if pid not in self._clients:
            with _translated(), layout.store_lock(self.uri):
                self._clients.setdefault(pid, MlflowClient(self.uri))
        return self._clients[pid]

    def ping(self, timeout_s: float = 5.0) -> None:
        """Ask a server for its health once, or a database for its first experiment."""
        if not self.uri.startswith(("http://", "https://")):
            with _translated():
                self.native.search_experiments(max_results=1)
            return
        try:
            answer = http_request(  # type: ignore[no-untyped-call]  # MLflow has no types here
                get_default_host_creds(self.uri),  # type: ignore[no-untyped-call]  # nor here
                "/health",
                "GET",
                max_retries=0,
                timeout=timeout_s,
                raise_on_status=False,
            )
        except Exception as exc:
            raise Unavailable(self.target, exc) from exc
        if answer.status_code >= 500:
            raise Unavailable(self.target, f"it answers {answer.status_code} {answer.reason}")

    def run_url(self, id: str) -> str | None:
        """Return the run's page on the server, once the run is there."""
        if not self.uri.startswith("http") or id not in self._known:
            return None
        run = self._run(id)
        return f"{self.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"

    # Writing.

    def write(self, batch: Batch) -> None:
        """Write to MLflow. What comes again is stored once."""
        client, begun = self._client(), batch.records
        with _translated(batch.run_id):
            if begun and isinstance(begun[0], Started):
                self._start(batch.run_id, begun[0])
                begun = begun[1:]
            if not begun:
                return
            own = self._own_id(batch.run_id)
            self._log_metrics(own, batch, [r for r in begun if isinstance(r, MetricsLogged)])
            for record in begun:
                if isinstance(record, ParamsLogged):
                    self._log_params(own, record)
                elif isinstance(record, TagsSet):
                    tags = [tag for key, value in record.tags.items() for tag in _tag(key, value)]
                    self._set_tags(own, tags)
                elif isinstance(record, ArtifactLogged):
                    self._log_artifact(own, record)
                elif isinstance(record, Ended):
                    self._end(client, own, record)

    def _start(self, id: str, record: Started) -> None:
        client = self.native
        if record.resumed:
            own = self._own_id(id)
            client.update_run(own, status="RUNNING")
            client.set_tag(own, layout.OWN + "owner", record.owner)
            client.set_tag(own, layout.OWN + "status", "")
            return
        with suppress(NotFound):
            self._own_id(id)
            return
        tags = {layout.OWN + "run_id": id, layout.OWN + "owner": record.owner}
        if record.parent_id is not None:
            tags[layout.OWN + "parent"] = record.parent_id
            with suppress(NotFound):
                tags[layout.PARENT] = self._own_id(record.parent_id)
        run = client.create_run(
            self._experiment_id(record.experiment),
            start_time=record.time_ms,
            tags=tags,
            run_name=record.name,
        )
        self._known[id] = run.info.run_id

    def _experiment_id(self, name: str) -> str:
        if name not in self._experiments:
            client = self.native
            found = client.get_experiment_by_name(name)
            if found is None:
                try:
                    self._experiments[name] = client.create_experiment(name)
                except MlflowException:
                    # Another process was quicker; else the reason is the first one.
                    found = client.get_experiment_by_name(name)
                    if found is None:
                        raise
            if found is not None:
                self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _log_metrics(self, own: str, batch: Batch, records: Sequence[MetricsLogged]) -> None:
        rows: list[Metric] = []
        odd: dict[str, list[tuple[int, int, Number]]] = {}
        named: dict[str, RunTag] = {}
        for record in records:
            for key, value in record.metrics.items():
                stored = key_to_store(key)
                named.update((tag.key, tag) for tag in _names(key, stored))
                if not is_plain(record.step, value):
                    odd.setdefault(key, []).append((record.step, record.time_ms, value))
                if -(1 << 63) <= record.step < 1 << 63:
                    rows.append(Metric(stored, shown(value), record.time_ms, record.step))
        for part in layout.parts(rows, layout.METRICS):
            self.native.log_batch(own, metrics=part)
        if odd:
            place = f"{batch.source}-{records[0].position}"
            self.native.log_text(own, json.dumps(odd), f"mlopskit/odd/{place}.json")
            before = self.native.get_run(own).data.tags
            for key, points in odd.items():
                tag = layout.own_key("odd", key)
                last = max(
                    [*points, *layout.last_odd(before.get(tag))], key=lambda point: point[:2]
                )
                named[tag] = RunTag(tag, json.dumps(last))
        self._set_tags(own, list(named.values()))

    def _log_params(self, own: str, record: ParamsLogged) -> None:
        params: list[Param] = []
        tags: list[RunTag] = []
        stored = self.native.get_run(own).data.params if record.overwrite else {}
        for key, value in record.params.items():
            name = key_to_store(key)
            text = param_to_text(value)
            if len(text) > layout.LONGEST_PARAM:
                text = self._aside(own, text)
            tags += _names(key, name)
            if stored.get(name, text) != text:
                tags += [
                    RunTag(layout.own_key("param", key), text),
                    *_names(key, layout.own_key("param", key)),
                ]
            else:
                params.append(Param(name, text))
        for part in layout.parts(params, layout.PARAMS_OR_TAGS):
            self.native.log_batch(own, params=part)
        self._set_tags(own, tags)

    def _aside(self, own: str, text: str) -> str:
        """Keep a text that is too long for its row as a file, and return what names it."""
        path = f"mlopskit/long/{sha256(text.encode()).hexdigest()}.txt"
        self.native.log_text(own, text, path)
        return json.dumps({"$": "file", "v": path})

    def _set_tags(self, own: str, tags: Sequence[RunTag]) -> None:
        short = [
            tag
            if len(tag.value) <= layout.LONGEST_TAG
            else RunTag(tag.key, self._aside(own, tag.value))
            for tag in tags
        ]
        for part in layout.parts(short, layout.PARAMS_OR_TAGS):
            self.native.log_batch(own, tags=part)

    def _log_artifact(self, own: str, record: ArtifactLogged) -> None:
        for artifact, source in record.files:
            if source is not None:
                self._log_file(own, artifact, source)
        tags = [
            RunTag(
                layout.OWN + "file." + sha256(artifact.name.encode()).hexdigest()[:32],
                artifact.model_dump_json(),
            )
            for artifact, _ in record.files
        ]
        self._set_tags(own, tags)

    def _log_file(self, own: str, artifact: Artifact, source: Path) -> None:
        stored = layout.stored_path(artifact.name)
        if not source.exists():
            raise InvalidInput(f"The bytes of {artifact.name!r} are no longer there.")
        with tempfile.TemporaryDirectory(dir=source.parent) as folder:
            path = Path(folder, Path(stored).name)
            with disk_errors(path):
                os.link(source, path)
            parent = Path(stored).parent.as_posix()
            self.native.log_artifact(own, str(path), None if parent == "." else parent)

    def _end(self, client: MlflowClient, own: str, record: Ended) -> None:
        if record.status == "lost":
            run = client.get_run(own)
            mine = (
                layout.text_of(self.native, own, run.data.tags.get(layout.OWN + "owner", ""))
                == record.owner
            )
            if run.info.status != "RUNNING" or not mine:
                return
            client.set_tag(own, layout.OWN + "status", "lost")
        client.set_terminated(own, layout.TO_MLFLOW[record.status], record.time_ms)

    # Reading.

    def read_run(self, id: str) -> RunRecord:
        """Read one run, ours by our id or MLflow's by its own."""
        return self._record(self._run(id))

    def scan_runs(
        self, experiment: str | None, where: Filter | None, order: Sequence[Order] = ()
    ) -> Iterator[RunRecord]:
        """Yield runs, the latest first, a page at a time."""
        client = self._client()
        with _translated():
            ids = self._experiment_ids(experiment)
        token = None
        while ids:
            with _translated():
                page = client.search_runs(
                    ids,
                    max_results=layout.PAGE,
                    order_by=["attributes.start_time DESC"],
                    page_token=token,
                )
                yield from [self._record(run) for run in page]
            token = page.token
            if not token:
                return

    def read_metric_history(
        self, id: str, key: str, max_points: int | None = None
    ) -> MetricHistory:
        """Read one metric: MLflow's rows, with the odd numbers in their places."""
        run = self._run(id)
        own = run.info.run_id
        name = key_to_store(key) if layout.is_ours(run) else key
        with _translated(id):
            rows = self.native.get_metric_history(own, name)
            points: dict[tuple[int, int], Number] = {(m.timestamp, m.step): m.value for m in rows}
            if len(points) < len(rows):
                return layout.history_of([(m.timestamp, m.step, m.value) for m in rows])
            if layout.own_key("odd", key) in run.data.tags:
                for step, time_ms, value in layout.odd_points(self.native, own, key):
                    points[time_ms, step] = value
        if not points:
            raise NotFound("metric", key, self._record(run).metrics)
        return layout.history_of([(*place, points[place]) for place in sorted(points)])

    def list_experiments(self) -> list[Experiment]:
        """List the active experiments. MLflow does not count runs cheaply."""
        with _translated():
            found = layout.experiments(self._client())
        return [Experiment(name=name) for name in sorted(found)]

    def read_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run; of a foreign run without digests."""
        run = self._run(id)
        if not layout.is_ours(run):
            with _translated(id):
                return sorted(
                    layout.walk(self.native, run.info.run_id, ""), key=lambda each: each.name
                )
        texts = [v for k, v in run.data.tags.items() if k.startswith(layout.OWN + "file.")]
        found = [
            Artifact.model_validate_json(layout.text_of(self.native, run.info.run_id, t))
            for t in texts
        ]
        return sorted(found, key=lambda each: each.name)

    def copy_artifact(self, id: str, artifact: Artifact, destination: Path) -> None:
        """Download a file."""
        run = self._run(id)
        stored = layout.stored_path(artifact.name) if layout.is_ours(run) else artifact.name
        with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
            with _translated(id):
                path = self.native.download_artifacts(run.info.run_id, stored, folder)
            with disk_errors(destination):
                os.replace(path, destination)

    def remove_run(self, id: str) -> None:
        """Mark a run as deleted."""
        run = self._run(id)
        with _translated(id):
            self.native.delete_run(run.info.run_id)
        self._known.pop(id, None)

    def _client(self) -> MlflowClient:
        """Return the client, after making sure that its own minutes of retries will not be needed.

        MLflow's HTTP client retries for 275 s by default, and only its environment can change that.
        """
        if self.uri.startswith("http") and time.monotonic() - self._reached > REACHED_FOR_S:
            self.ping(self.connect_timeout_s)
            self._reached = time.monotonic()
        return self.native

    def _run(self, id: str) -> MlflowRun:
        client = self._client()
        with _translated(id):
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
            return list(layout.experiments(self.native).values())
        found = self.native.get_experiment_by_name(experiment)
        return [found.experiment_id] if found and found.lifecycle_stage == "active" else []

    def _experiment_name(self, experiment_id: str) -> str:
        for name, known in self._experiments.items():
            if known == experiment_id:
                return name
        name = str(self.native.get_experiment(experiment_id).name)
        self._experiments[name] = experiment_id
        return name

    def _record(self, run: MlflowRun) -> RunRecord:
        own = run.info.run_id
        name = self._experiment_name(run.info.experiment_id)
        return layout.record_of(run, name, lambda text: layout.text_of(self.native, own, text))


@contextmanager
def _translated(id: str = "") -> Iterator[None]:
    try:
        yield
    except MlflowException as exc:
        if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound("run", id) from exc
        if exc.error_code == "RESOURCE_ALREADY_EXISTS" or "Changing param values" in str(exc):
            raise Conflict(str(exc)) from exc
        if exc.error_code in REFUSED:
            raise InvalidInput(str(exc)) from exc
        raise BackendError(str(exc)) from exc


def _tag(key: str, value: str) -> list[RunTag]:
    stored = key_to_store(key, reserved=layout.RESERVED)
    return [RunTag(stored, tag_to_text(value)), *_names(key, stored)]


def _names(key: str, stored: str) -> list[RunTag]:
    return [RunTag(*pair) for pair in layout.hashed_name(key, stored).items()]


@hookimpl
def make_tracker(location: str | None, options: Mapping[str, Any], context: Context) -> Tracker:
    """Build a tracker that writes to the tracking URI `location`."""
    tracker = MlflowTracker(location, **options)
    tracker.context = context
    return tracker

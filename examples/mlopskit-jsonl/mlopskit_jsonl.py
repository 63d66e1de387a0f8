"""A tracker that keeps each run as a file of JSON lines."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit.capabilities import Capabilities
from mlopskit.errors import NotFound
from mlopskit.hookspecs import hookimpl
from mlopskit.storage import disk_errors, make_private_folder
from mlopskit.tracking import Artifact, Experiment, MetricHistory, RunRecord, Tracker
from mlopskit.tracking.entities import (
    Alive,
    ArtifactLogged,
    ArtifactUse,
    ArtifactUsed,
    Dataset,
    DatasetLogged,
    Ended,
    MetricsLogged,
    NotesSet,
    ParamsLogged,
    Started,
    TagsSet,
)
from mlopskit.tracking.values import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlopskit.filters import Filter, Order
    from mlopskit.tool import Context
    from mlopskit.tracking.entities import Batch, Record

TOOL = {"package": "mlopskit-jsonl", "requires": {}}
CAPABILITIES = {
    "artifact_inputs": "native",
    "artifact_references": "native",
    "artifacts": "native",
    "charts": "emulated: kept as data and as pictures",
    "datasets": "native",
    "delete": "native",
    "exactly_once": "native",
    "experiments": "absent: a folder of runs says nothing about their experiments",
    "foreign_runs": "absent: nobody else writes these files",
    "groups": "native",
    "heartbeat": "native",
    "lost_runs": "native",
    "nested_runs": "native",
    "numbers": "native",
    "offline": "native",
    "overwrite_params": "native",
    "resume": "native",
    "step_order": "native",
    "typed_params": "native",
    "unicode_names": "native",
}
KINDS: dict[str, type[Record]] = {
    kind.__name__: kind
    for kind in (
        *(Started, ParamsLogged, MetricsLogged, TagsSet, NotesSet, ArtifactLogged, ArtifactUsed),
        *(DatasetLogged, Alive, Ended),
    )
}


class JsonlTracker(Tracker):
    """Keeps a folder for each run, with its records as JSON lines and its files beside them.

    Args:
        location: The folder for all runs.
        more: What every tracker takes.
    """

    exactly_once = True

    def __init__(self, location: str | Path, **more: Any) -> None:
        super().__init__(**more)
        self.folder = Path(location).absolute()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("tracking", "jsonl", CAPABILITIES)

    @property
    def native(self) -> Path:
        """The folder for all runs."""
        return self.folder

    @property
    def target(self) -> str:
        return f"jsonl:{self.folder}"

    def ping(self, timeout_s: float = 5.0) -> None:
        make_private_folder(self.folder)

    def write(self, batch: Batch) -> None:
        """Append the records, each with its source: a reader knows what came twice by that."""
        run = make_private_folder(self.folder / batch.run_id)
        lines = []
        for record in batch.records:
            fields = {name: getattr(record, name) for name in record.__slots__}
            if isinstance(record, ArtifactLogged):
                for artifact, path in record.files:
                    if path is not None:
                        with disk_errors(run):
                            shutil.copyfile(path, run / _kept(artifact))
                fields["files"] = [each.model_dump(mode="json") for each, _ in record.files]
            elif isinstance(record, ParamsLogged):
                fields["params"] = pack(record.params)  # Plain JSON knows no tuples.
            elif isinstance(record, DatasetLogged):
                fields["dataset"] = record.dataset.model_dump(mode="json")
            elif isinstance(record, ArtifactUsed):
                fields["use"] = record.use.model_dump(mode="json")
            lines.append(json.dumps([type(record).__name__, batch.source, fields]) + "\n")
        with disk_errors(run), (run / "records.jsonl").open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def read_run(self, id: str) -> RunRecord:
        read = _Replay()
        for record in self._records(id):
            read.take(record)
        return read.run(id)

    def scan_runs(
        self, experiment: str | None, where: Filter | None, order: Sequence[Order] = ()
    ) -> Iterator[RunRecord]:
        found = [self.read_run(path.parent.name) for path in self.folder.glob("*/records.jsonl")]
        for run in sorted(found, key=lambda run: str(run.started_at), reverse=True):
            if experiment in (None, run.experiment):
                yield run

    def read_metric_history(
        self, id: str, key: str, max_points: int | None = None
    ) -> MetricHistory:
        points = [
            (record.step, record.metrics[key], record.time_ms)
            for record in self._records(id)
            if isinstance(record, MetricsLogged) and key in record.metrics
        ]
        if not points:
            raise NotFound("metric", key, self.read_run(id).metrics)
        return MetricHistory.of(*(list(column) for column in zip(*points, strict=True)))

    def list_experiments(self) -> list[Experiment]:
        names = [run.experiment for run in self.scan_runs(None, None)]
        return [Experiment(name=name, runs=names.count(name)) for name in sorted(set(names))]

    def read_artifacts(self, id: str) -> list[Artifact]:
        named: dict[str, Artifact] = {}
        for record in self._records(id):
            if isinstance(record, ArtifactLogged):
                # What was logged by a name before is replaced.
                named = {n: each for n, each in named.items() if each.logged_as != record.name}
                named |= {each.name: each for each, _ in record.files}
        return [named[name] for name in sorted(named)]

    def copy_artifact(self, id: str, artifact: Artifact, destination: Path) -> None:
        with disk_errors(destination):
            shutil.copyfile(self._path(id).parent / _kept(artifact), destination)

    def remove_run(self, id: str) -> None:
        self._path(id)
        with disk_errors(self.folder):
            shutil.rmtree(self.folder / id)

    def _path(self, id: str) -> Path:
        path = self.folder / id / "records.jsonl"
        if not id.isalnum() or not path.is_file():
            raise NotFound("run", id)
        return path

    def _records(self, id: str) -> Iterator[Record]:
        """Yield a run's records once each, in order; a last line cut by a crash comes again."""
        path = self._path(id)
        seen: dict[str, int] = {}
        for line in path.read_bytes().splitlines():
            try:
                kind, source, fields = json.loads(line)
            except ValueError:
                continue
            if fields["position"] <= seen.get(source, -1):
                continue
            seen[source] = fields["position"]
            if kind == "ArtifactLogged":
                fields["files"] = tuple((Artifact(**each), None) for each in fields["files"])
            elif kind == "ParamsLogged":
                fields["params"] = unpack(fields["params"])
            elif kind == "DatasetLogged":
                fields["dataset"] = Dataset(**fields["dataset"])
            elif kind == "ArtifactUsed":
                fields["use"] = ArtifactUse(**fields["use"])
            yield KINDS[kind](**fields)


class _Replay:
    """What the records of a run add up to."""

    def __init__(self) -> None:
        self.start: Started | None = None
        self.params: dict[str, Any] = {}
        self.tags: dict[str, str] = {}
        self.metrics: dict[str, int | float] = {}
        self.last_steps: dict[str, int] = {}
        self.notes = ""
        self.datasets: list[Dataset] = []
        self.inputs: list[ArtifactUse] = []
        self.began_ms = self.heard_ms = 0
        self.first: Started | None = None
        self.end: Ended | None = None

    def take(self, record: Record) -> None:
        self.heard_ms = max(self.heard_ms, record.time_ms)
        match record:
            case Started():
                if self.first is None:
                    self.first, self.began_ms, self.notes = record, record.time_ms, record.notes
                self.start, self.end = record, None
            case NotesSet():
                self.notes = record.notes
            case DatasetLogged():
                self.datasets.append(record.dataset)
            case ArtifactUsed():
                self.inputs.append(record.use)
            case ParamsLogged():
                self.params |= record.params
            case TagsSet():
                self.tags |= record.tags
            case MetricsLogged():
                for key, value in record.metrics.items():
                    if record.step >= self.last_steps.get(key, record.step):
                        self.metrics[key], self.last_steps[key] = value, record.step
            case Ended():
                self.end = record

    def run(self, id: str) -> RunRecord:
        if self.start is None or self.first is None:
            raise NotFound("run", id)
        return RunRecord(
            id=id,
            name=self.start.name,
            experiment=self.start.experiment,
            status=self.end.status if self.end else "running",
            params=self.params,
            tags=self.tags,
            metrics=self.metrics,
            last_steps=self.last_steps,
            parent_id=self.start.parent_id,
            group=self.first.group,
            job_type=self.first.job_type,
            notes=self.notes,
            datasets=tuple(self.datasets),
            inputs=tuple(self.inputs),
            heartbeat_at=_time(self.heard_ms),
            started_at=_time(self.began_ms),
            ended_at=_time(self.end.time_ms) if self.end else None,
            owner=self.start.owner,
        )


def _kept(artifact: Artifact) -> str:
    return f"{artifact.digest.partition(':')[2]}.bin"


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


@hookimpl
def make_tracker(
    location: str | None, options: Mapping[str, Any], context: Context
) -> JsonlTracker:
    """Build the tracker over a folder, by default one of the home."""
    return JsonlTracker(location or context.home / "jsonl", **options)

"""How the records of a run are written to MLflow; `mlflow_layout` says where they lie."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.rest_store import RestStore

from mlopskit.errors import BackendError, InvalidInput, NotFound
from mlopskit.storage import disk_errors
from mlopskit.tracking import mlflow_layout as layout
from mlopskit.tracking import mlflow_media as media
from mlopskit.tracking.entities import (
    Alive,
    ArtifactLogged,
    ArtifactUsed,
    DatasetLogged,
    Ended,
    MetricsLogged,
    NotesSet,
    ParamsLogged,
    Started,
    TagsSet,
)
from mlopskit.tracking.escapes import is_plain, key_to_store, param_to_text, shown, tag_to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mlflow import MlflowClient

    from mlopskit.tracking.entities import Artifact, Batch, Number, Record
    from mlopskit.tracking.mlflow_layout import Point


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment, which is made if it is not there.

    Raises:
        BackendError: If it was deleted with MLflow's own means, which keep its name taken.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # Another process was quicker; else the reason is the first one.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise BackendError(
            f"The experiment {name!r} was deleted in MLflow. Restore it with "
            f"'mlflow experiments restore -x {found.experiment_id}', and what was logged to it is "
            "delivered."
        )
    return str(found.experiment_id)


class Writer:
    """Writes records of runs.

    Args:
        client: MLflow's.
        own_id: Returns MLflow's id of a run of ours, and raises `NotFound` if it is not there.
        experiment: Returns the id of an experiment, making it if it is not there.
    """

    def __init__(
        self,
        client: MlflowClient,
        own_id: Callable[[str], str],
        experiment: Callable[[str], str],
    ) -> None:
        self._client = client
        self._own_id = own_id
        self._experiment = experiment

    def write(self, batch: Batch) -> str | None:
        """Write a batch, which may come again; return MLflow's id of a run that it begins."""
        records, made = batch.records, None
        if records and isinstance(records[0], Started):
            made = self._start(batch.run_id, records[0])
            records = records[1:]
        if records:
            own = made or self._own_id(batch.run_id)
            metrics = [each for each in records if isinstance(each, MetricsLogged)]
            if metrics:
                self._metrics(own, batch.source, metrics)
            if len(metrics) < len(records):
                for record in records:
                    self._one(own, record, batch.source)
        return made

    def _one(self, own: str, record: Record, source: str) -> None:
        if isinstance(record, ParamsLogged):
            self._params(own, record)
        elif isinstance(record, TagsSet):
            self._tags(own, [tag for pair in record.tags.items() for tag in _tag(*pair)])
        elif isinstance(record, NotesSet):
            self._tags(own, _notes(record.notes))
        elif isinstance(record, ArtifactLogged):
            self._files(own, record)
        elif isinstance(record, DatasetLogged):
            self._dataset(own, record, source)
        elif isinstance(record, ArtifactUsed):
            place = layout.placed("input", record, source)
            self._tags(own, [RunTag(place, record.use.model_dump_json())])
        elif isinstance(record, Alive):
            self._client.set_tag(own, layout.HEARTBEAT, str(record.time_ms))
        elif isinstance(record, Ended):
            self._end(own, record)

    def _start(self, id: str, record: Started) -> str:
        tags = {
            layout.OWN + "owner": record.owner,
            layout.HEARTBEAT: str(record.time_ms),
        }
        if record.resumed:
            own = self._own_id(id)
            self._client.update_run(own, status="RUNNING")
            tags[layout.OWN + "status"] = ""
            self._tags(own, [RunTag(*pair) for pair in tags.items()])
            return own
        try:
            own = self._own_id(id)
        except NotFound:
            own = self._create(record, {**tags, layout.OWN + "run_id": id})
        if record.notes:
            self._tags(own, _notes(record.notes))
        return own

    def _create(self, record: Started, tags: dict[str, str]) -> str:
        for name, value in (("group", record.group), ("job_type", record.job_type)):
            if value is not None:
                tags[layout.OWN + name] = value
        if record.parent_id is not None:
            tags[layout.OWN + "parent"] = record.parent_id
            with suppress(NotFound):
                tags[layout.PARENT] = self._own_id(record.parent_id)
        run = self._client.create_run(
            self._experiment(record.experiment),
            start_time=record.time_ms,
            tags=tags,
            run_name=record.name,
        )
        return str(run.info.run_id)

    def _metrics(self, own: str, source: str, records: Sequence[MetricsLogged]) -> None:
        # As the client's `log_batch` does it, which would look up the active model for each row.
        store = self._client._tracking_client.store
        remote = isinstance(store, RestStore)
        rows = _Rows(records)
        for part in layout.parts(rows, layout.METRICS if remote else layout.METRICS_IN_PROCESS):
            store.log_batch(own, metrics=part, params=[], tags=[])
        place = f"{source}-{records[0].position}"
        named = rows.names
        if rows.odd:
            self._client.log_text(own, json.dumps(rows.odd), f"{layout.ODD}/{place}.json")
            named |= self._last_odd(own, rows.odd)
        if rows.children:
            path = f"{layout.CHILDREN}/{place}.json"
            self._client.log_text(own, json.dumps(rows.children), path)
            named[layout.CHILDREN_TAG] = RunTag(layout.CHILDREN_TAG, "true")
        self._tags(own, list(named.values()))

    def _last_odd(self, own: str, odd: dict[str, list[Point]]) -> dict[str, RunTag]:
        """Return tags with the last point of each series that MLflow cannot hold."""
        before = self._client.get_run(own).data.tags
        found = {}
        for key, points in odd.items():
            tag = layout.own_key("odd", key)
            last = max([*points, *layout.last_odd(before.get(tag))], key=lambda point: point[:2])
            found[tag] = RunTag(tag, json.dumps(last))
        return found

    def _params(self, own: str, record: ParamsLogged) -> None:
        params: list[Param] = []
        tags: list[RunTag] = []
        stored = self._client.get_run(own).data.params if record.overwrite else {}
        for key, value in record.params.items():
            name, names = _stored(key)
            text = param_to_text(value)
            if len(text) > layout.LONGEST_PARAM:
                text = self._aside(own, text)
            tags += names
            if name in stored:  # MLflow's own are final.
                place = layout.own_key("param", key)
                tags += [RunTag(place, text), *_names(key, place)]
            else:
                params.append(Param(name, text))
        for part in layout.parts(params, layout.PARAMS_OR_TAGS):
            self._client.log_batch(own, params=part)
        self._tags(own, tags)

    def _aside(self, own: str, text: str) -> str:
        """Keep a text that is too long for its row as a file, and return what names it."""
        path = f"mlopskit/long/{sha256(text.encode()).hexdigest()}.txt"
        self._client.log_text(own, text, path)
        return json.dumps({"$": "file", "v": path})

    def _tags(self, own: str, tags: Sequence[RunTag]) -> None:
        short = [
            tag
            if len(tag.value) <= layout.LONGEST_TAG
            else RunTag(tag.key, self._aside(own, tag.value))
            for tag in tags
        ]
        for part in layout.parts(short, layout.PARAMS_OR_TAGS):
            self._client.log_batch(own, tags=part)

    def _files(self, own: str, record: ArtifactLogged) -> None:
        files = [artifact for artifact, _ in record.files]
        for artifact, source in record.files:
            if source is not None:
                self._file(own, artifact, source)
        said = [artifact.model_dump(mode="json") for artifact in files]
        tags = [RunTag(layout.files_key(record.name), json.dumps(said))]
        if any(media.image_path(artifact) for artifact in files):
            tags.append(RunTag(media.IMAGES, "True"))
        if tables := [layout.stored_path(each) for each in files if media.is_table(each)]:
            before = self._client.get_run(own).data.tags.get(media.TABLES)
            text = media.table_tag(before, tables, layout.LONGEST_TAG)
            tags.append(RunTag(media.TABLES, text))
        self._tags(own, tags)

    def _file(self, own: str, artifact: Artifact, source: Path) -> None:
        stored = layout.stored_path(artifact)
        if not source.exists():
            raise InvalidInput(f"The bytes of {artifact.name!r} are no longer there.")
        with tempfile.TemporaryDirectory(dir=source.parent) as folder:
            path = Path(folder, Path(stored).name)
            with disk_errors(path):
                os.link(source, path)
            self._upload(own, path, stored)
            if media.image_path(artifact) and (small := media.thumbnail(stored, source)):
                path = Path(folder, Path(small[0]).name)
                with disk_errors(path):
                    path.write_bytes(small[1])
                self._upload(own, path, small[0])

    def _upload(self, own: str, path: Path, stored: str) -> None:
        parent = Path(stored).parent.as_posix()
        self._client.log_artifact(own, str(path), None if parent == "." else parent)

    def _dataset(self, own: str, record: DatasetLogged, source: str) -> None:
        """Show the data on MLflow's page, and keep what is known of it in a tag."""
        data = record.dataset
        columns = [{"name": name, "type": kind} for name, kind in data.columns]
        theirs = MlflowDataset(
            name=data.name,
            # MLflow takes 36 characters, and needs some.
            digest=data.digest.removeprefix("sha256:")[:16] or "unknown",
            source_type=data.source or "unknown",
            source=json.dumps({"uri": data.uri}),
            schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
            profile=None if data.rows is None else json.dumps({"num_rows": data.rows}),
        )
        role = InputTag("mlflow.data.context", data.role)
        self._client.log_inputs(own, [DatasetInput(theirs, [role])])
        place = layout.placed("dataset", record, source)
        self._tags(own, [RunTag(place, data.model_dump_json())])

    def _end(self, own: str, record: Ended) -> None:
        if record.status == "lost":
            run = self._client.get_run(own)
            owner = layout.text_of(self._client, run, run.data.tags.get(layout.OWN + "owner", ""))
            if run.info.status != "RUNNING" or owner != record.owner:
                return
            self._client.set_tag(own, layout.OWN + "status", "lost")
        # As `set_terminated` does it, which would also print an address to the standard output.
        store = self._client._tracking_client.store
        status = RunStatus.from_string(layout.TO_MLFLOW[record.status])
        store.update_run_info(own, status, record.time_ms, None)


class _Rows:
    """MLflow's rows of metrics, made as they are taken; what they cannot hold gathers beside them.

    Attributes:
        odd: By key, the points that MLflow would change or refuse.
        children: By key, the points of forked children, each with its record.
        names: By their key, tags that name the metrics whose key is stored as a hash.
    """

    def __init__(self, records: Sequence[MetricsLogged]) -> None:
        self._records = records
        self.odd: dict[str, list[Point]] = {}
        self.children: dict[str, list[tuple[int, int, Number, int]]] = {}
        self.names: dict[str, RunTag] = {}

    def __iter__(self) -> Iterator[Metric]:
        for record in self._records:
            step, time_ms = record.step, record.time_ms
            kept = -(1 << 63) <= step < 1 << 63
            for key, value in record.metrics.items():
                stored, names = _stored(key)
                if names:
                    self.names.update((tag.key, tag) for tag in names)
                plain = is_plain(step, value)
                if not plain:
                    self.odd.setdefault(key, []).append((step, time_ms, value))
                if time_ms & 1:
                    point = (step, time_ms, value, record.position)
                    self.children.setdefault(key, []).append(point)
                if kept:
                    yield Metric(stored, value if plain else shown(value), time_ms, step)


@lru_cache(maxsize=4096)
def _stored(key: str) -> tuple[str, tuple[RunTag, ...]]:
    """Return the key to store for a key, and the tags that name it where that is its hash."""
    stored = key_to_store(key)
    return stored, tuple(_names(key, stored))


def _tag(key: str, value: str) -> list[RunTag]:
    stored = key_to_store(key, reserved=layout.RESERVED)
    return [RunTag(stored, tag_to_text(value)), *_names(key, stored)]


def _names(key: str, stored: str) -> list[RunTag]:
    return [RunTag(*pair) for pair in layout.hashed_name(key, stored).items()]


def _notes(text: str) -> list[RunTag]:
    whole = tag_to_text(text) if text else ""
    if len(whole) <= layout.LONGEST_TAG:
        return [RunTag(layout.NOTES, whole)]
    return [RunTag(layout.NOTES, layout.shortened(text)), RunTag(layout.WHOLE_NOTES, whole)]

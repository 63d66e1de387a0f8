"""How runs lie in MLflow: what its rows, tags and files mean. `mlflow` reads and writes them.

A run of ours carries the tag ``mlopskit.run_id``. Further tags ``mlopskit.*`` hold what MLflow has
no place for, and the folder ``mlopskit`` of its artifacts what is too long for a tag.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from mlopskit.tracking import mlflow_media as media
from mlopskit.tracking.entities import Artifact, ArtifactUse, Dataset, MetricHistory, RunRecord
from mlopskit.tracking.escapes import (
    HASHED,
    key_from_store,
    key_to_store,
    param_from_text,
    shown,
    tag_from_text,
)
from mlopskit.tracking.mlflow_artifacts import RunFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput
    from mlflow.entities import Experiment as MlflowExperiment
    from mlflow.entities import Run as MlflowRun

    from mlopskit.tracking.entities import ArtifactUsed, DatasetLogged, Number, Status

    Point = tuple[int, int, Number]  # step, milliseconds, value

STATUSES: Final[Mapping[str, Status]] = {
    "RUNNING": "running",
    "SCHEDULED": "running",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "killed",
}
TO_MLFLOW: Final[Mapping[Status, str]] = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
    "lost": "KILLED",
}
OWN: Final = "mlopskit."
PARENT: Final = "mlflow.parentRunId"
NOTES: Final = "mlflow.note.content"
WHOLE_NOTES: Final = OWN + "notes"
RESERVED: Final = (OWN, "mlflow.runName", PARENT, NOTES, media.IMAGES, media.TABLES)
HEARTBEAT: Final = OWN + "heartbeat"
ODD: Final = "mlopskit/odd"
CHILDREN: Final = "mlopskit/children"
CHILDREN_TAG: Final = OWN + "children"
# The tag of the experiment in which `mlopskit.registry` keeps histories of models.
REGISTRY: Final = "mlopskit.registry.index"
PAGE: Final = 500
LONGEST_PARAM: Final = 6000
LONGEST_TAG: Final = 5000
METRICS: Final = 1000
# A store in this process is quicker with fewer at a time: what SQLAlchemy makes of them is gone
# before a collection of the old generation has to look at it. On SQLite it is a tenth or so.
METRICS_IN_PROCESS: Final = 333
PARAMS_OR_TAGS: Final = 100


def is_ours(run: MlflowRun) -> bool:
    """Tell whether mlopskit wrote a run."""
    return OWN + "run_id" in run.data.tags


def record_of(run: MlflowRun, experiment: str, fetch: Callable[[str], str]) -> RunRecord:
    """Return a run as it was logged, or as MLflow has it if it is none of ours.

    Args:
        run: MLflow's.
        experiment: The name of its experiment.
        fetch: Returns a text that was too long for its row.
    """
    info, tags = run.info, run.data.tags
    points: dict[str, Point] = {
        each.key: (each.step, each.timestamp, each.value) for each in run.data.to_proto().metrics
    }
    common: dict[str, Any] = {
        "name": info.run_name or "",
        "experiment": experiment,
        "started_at": _time(info.start_time),
        "ended_at": _time(info.end_time),
        "notes": _notes(tags, fetch),
    }
    if not is_ours(run):
        return RunRecord(
            id=info.run_id,
            status=STATUSES[info.status],
            params=run.data.params,
            tags=tags,
            parent_id=tags.get(PARENT),
            datasets=tuple(map(_dataset, run.inputs.dataset_inputs if run.inputs else [])),
            **_last(points),
            **common,
        )
    hashed = {
        key.removeprefix(OWN + "key."): text
        for key, text in tags.items()
        if key.startswith(OWN + "key.")
    }
    points = {key_from_store(key, hashed): point for key, point in points.items()}
    for key, text in _own_tags(tags, "odd", hashed):
        odd = last_odd(text)
        # MLflow's row of the same place holds the finite number nearest to the odd one.
        both = [*odd, points[key]] if key in points else odd
        points[key] = max(both, key=lambda point: point[:2])
    texts = {key_from_store(key, hashed): text for key, text in run.data.params.items()}
    texts.update(_own_tags(tags, "param", hashed))
    return RunRecord(
        id=tags[OWN + "run_id"],
        status=tags.get(OWN + "status") or STATUSES[info.status],
        params={key: param_from_text(fetch(text)) for key, text in texts.items()},
        tags={
            key_from_store(key, hashed): tag_from_text(fetch(text))
            for key, text in tags.items()
            if not key.startswith(RESERVED)
        },
        parent_id=tags.get(OWN + "parent"),
        group=tags.get(OWN + "group"),
        job_type=tags.get(OWN + "job_type"),
        datasets=tuple(Dataset.model_validate_json(fetch(t)) for t in _placed(tags, "dataset")),
        inputs=tuple(ArtifactUse.model_validate_json(fetch(t)) for t in _placed(tags, "input")),
        heartbeat_at=_time(int(tags.get(HEARTBEAT, 0)) or None),
        owner=fetch(tags.get(OWN + "owner", "")),
        **_last(points),
        **common,
    )


def shortened(notes: str) -> str:
    """Return the beginning of notes that are too long for MLflow, as its page shows them."""
    begin = notes[: LONGEST_TAG - 1]
    return "".join(each if each.isprintable() or each in "\n\t" else "?" for each in begin) + "…"


def _notes(tags: Mapping[str, str], fetch: Callable[[str], str]) -> str:
    """Return the notes, whole unless somebody has changed them on MLflow's page since."""
    shown = tags.get(NOTES, "")
    if WHOLE_NOTES in tags and shown.endswith("…"):
        whole = tag_from_text(fetch(tags[WHOLE_NOTES]))
        if shortened(whole) == shown:
            return whole
    return tag_from_text(fetch(shown))


def experiments(client: MlflowClient) -> list[MlflowExperiment]:
    """Return the active experiments, by name; the registry's own is none of the user's."""
    found: list[MlflowExperiment] = []
    token = None
    while True:
        page = client.search_experiments(max_results=PAGE, page_token=token)
        found += [each for each in page if REGISTRY not in each.tags]
        token = page.token
        if not token:
            return sorted(found, key=lambda each: str(each.name))


def text_of(client: MlflowClient, run: MlflowRun, text: str) -> str:
    """Return a text, from its file where it was too long for its row."""
    if not text.startswith('{"$": "file"'):
        return text
    return RunFiles(client, run).read(json.loads(text)["v"])


def odd_points(client: MlflowClient, run: MlflowRun, key: str) -> list[Point]:
    """Return the points of a series that MLflow's rows cannot hold."""
    return [tuple(point) for _, points in _kept(client, run, ODD, key) for point in points]


def children_points(client: MlflowClient, run: MlflowRun, key: str) -> list[Point]:
    """Return the points of a series that forked children have logged.

    A batch may have been written twice, and not in the same parts: a point is known by its place.
    """
    found = {
        (journal, position): (step, time_ms, value)
        for journal, points in _kept(client, run, CHILDREN, key)
        for step, time_ms, value, position in points
    }
    return list(found.values())


def _kept(
    client: MlflowClient, run: MlflowRun, where: str, key: str
) -> Iterator[tuple[str, list[Any]]]:
    """Yield the journal, and what its records say of a key, for each file in a folder of a run."""
    for name, text in RunFiles(client, run).texts(where):
        yield PurePosixPath(name).stem.rpartition("-")[0], json.loads(text).get(key, [])


def files_of(tags: Mapping[str, str], fetch: Callable[[str], str]) -> list[Artifact]:
    """Return the files of a run of ours, by name; of two of one name the newer."""
    found: dict[str, Artifact] = {}
    for key, text in tags.items():
        if not key.startswith(OWN + "files."):
            continue
        for said in json.loads(fetch(text)):
            each = Artifact(**said)
            before = found.get(each.name)
            if before is None or _logged(each) >= _logged(before):
                found[each.name] = each
    return sorted(found.values(), key=lambda each: each.name)


def files_key(logged_as: str) -> str:
    """Return the tag that lists the files which were logged under a name."""
    return f"{OWN}files.{sha256(logged_as.encode()).hexdigest()[:32]}"


def placed(kind: str, record: DatasetLogged | ArtifactUsed, source: str) -> str:
    """Return the tag of one of several things that are kept in their order."""
    journal = sha256(source.encode()).hexdigest()[:8]
    return f"{OWN}{kind}.{record.time_ms:015}.{record.position:015}.{journal}"


def _placed(tags: Mapping[str, str], kind: str) -> list[str]:
    prefix = f"{OWN}{kind}."
    return [tags[key] for key in sorted(tags) if key.startswith(prefix)]


def _logged(artifact: Artifact) -> float:
    return artifact.logged_at.timestamp() if artifact.logged_at else 0.0


def _dataset(theirs: DatasetInput) -> Dataset:
    """Return what a run that mlopskit did not write says of its data."""
    data = theirs.dataset
    role = next((t.value for t in theirs.tags or [] if t.key == "mlflow.data.context"), "")
    schema, profile, source = map(_object, (data.schema, data.profile, data.source))
    columns, rows = schema.get("mlflow_colspec"), profile.get("num_rows")
    uri = source.get("uri") or source.get("url")
    return Dataset(
        name=data.name,
        role=role or "training",
        rows=rows if isinstance(rows, int) else None,
        columns=tuple(
            (str(each.get("name", "")), str(each.get("type", "")))
            for each in (columns if isinstance(columns, list) else [])
            if isinstance(each, dict)
        ),
        uri=uri if isinstance(uri, str) else None,
        source=data.source_type or "",
    )


def _object(text: str | None) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(text or "")
        if isinstance(found, dict):
            return found
    return {}


def together(
    rows: Iterable[tuple[int, int, Number]], odd: Iterable[Point]
) -> list[tuple[int, int, Number]]:
    """Return (milliseconds, step, value) of a series: rows, and what they cannot hold.

    Points may share time and step. Each odd one has a row of the finite number nearest to it, in
    whose stead it stands, and may have been written to several files.
    """
    kept: dict[tuple[int, int, Number], None] = dict.fromkeys(rows)
    told = {(time_ms, step, repr(value)): value for step, time_ms, value in odd}
    for (time_ms, step, _), value in told.items():
        kept.pop((time_ms, step, shown(value)), None)
    return [*kept, *((time_ms, step, value) for (time_ms, step, _), value in told.items())]


def _last(points: Mapping[str, Point]) -> dict[str, Any]:
    return {
        "metrics": {key: point[2] for key, point in points.items()},
        "last_steps": {key: point[0] for key, point in points.items()},
    }


def own_key(kind: str, key: str) -> str:
    """Return the tag in which something about a key is kept."""
    return f"{OWN}{kind}.{key_to_store(key, longest=200)}"


def _own_tags(
    tags: Mapping[str, str], kind: str, hashed: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    prefix = f"{OWN}{kind}."
    for key, text in tags.items():
        if key.startswith(prefix):
            yield key_from_store(key.removeprefix(prefix), hashed), text


def hashed_name(key: str, stored: str) -> dict[str, str]:
    """Return the tag that tells a key from the hash it is stored under, if it is."""
    name = stored.rpartition(".")[2]
    return {f"{OWN}key.{name}": key} if name.startswith(HASHED) else {}


def parts(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield rows in lists of at most `size`, each taken when it is asked for."""
    left = iter(rows)
    while part := list(islice(left, size)):
        yield part


def last_odd(text: str | None) -> list[Point]:
    """Return the last point of a series that MLflow cannot hold, from its tag."""
    return [tuple(json.loads(text))] if text else []


def stored_path(artifact: Artifact) -> str:
    """Return the path of an artifact in MLflow, whose artifact stores take few characters."""
    if (path := media.image_path(artifact)) is not None:
        return path
    name = artifact.name
    plain = name.isascii() and all(char.isalnum() or char in "_-./ " for char in name)
    if plain and not name.startswith("mlopskit/"):
        return name
    return "mlopskit/files/" + sha256(name.encode()).hexdigest()


def history_of(points: Sequence[tuple[int, int, Number]]) -> MetricHistory:
    """Return a history of (milliseconds, step, value)."""
    return MetricHistory.of([p[1] for p in points], [p[2] for p in points], [p[0] for p in points])


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)

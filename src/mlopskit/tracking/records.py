"""Records as they lie in a journal: one JSON list each, its kind first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlopskit.errors import StorageError
from mlopskit.tracking.entities import (
    Alive,
    Artifact,
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
    from collections.abc import Mapping, Sequence

    from mlopskit.storage import Blobs
    from mlopskit.tracking.entities import Record, Status

_PLAIN: dict[str, Any] = {
    "tags": TagsSet,
    "notes": NotesSet,
    "alive": Alive,
    "start": Started,
    "end": Ended,
}


def started(start: Started, time_ms: int) -> list[Any]:
    """Return a run's beginning as it is written."""
    return [
        "start",
        time_ms,
        start.name,
        start.experiment,
        start.parent_id,
        start.owner,
        start.resumed,
        start.group,
        start.job_type,
        start.notes,
    ]


def params_logged(params: Mapping[str, Any], time_ms: int, *, overwrite: bool) -> list[Any]:
    """Return params as they are written."""
    return ["params", time_ms, [[key, pack(value)] for key, value in params.items()], overwrite]


def files_logged(name: str, files: Sequence[Artifact], time_ms: int) -> list[Any]:
    """Return files that were logged together as they are written: what they share stands once."""
    first = files[0]
    each = [[file.name, file.size, file.digest, file.uri] for file in files]
    return ["files", time_ms, name, first.type, dict(first.metadata), list(first.aliases), each]


def artifact_used(use: ArtifactUse, time_ms: int) -> list[Any]:
    """Return the use of an artifact as it is written."""
    return ["use", time_ms, use.model_dump(mode="json")]


def dataset_logged(dataset: Dataset, time_ms: int) -> list[Any]:
    """Return a dataset as it is written."""
    return ["dataset", time_ms, dataset.model_dump(mode="json")]


def ended(status: Status, owner: str, time_ms: int) -> list[Any]:
    """Return a run's end as it is written."""
    return ["end", time_ms, status, owner]


def decoded(position: int, record: list[Any], files: Blobs) -> Record:
    """Return a record of a journal as backends know it.

    Raises:
        StorageError: If it is of a kind that this version does not know.
    """
    if record[0] == "metrics":  # Nearly all of them.
        return MetricsLogged(position, record[1], record[2], record[3])
    kind, time_ms, *rest = record
    if kind in _PLAIN:
        made: Record = _PLAIN[kind](position, time_ms, *rest)
        return made
    if kind == "params":
        params = {key: unpack(value) for key, value in rest[0]}
        return ParamsLogged(position, time_ms, params, rest[1])
    if kind == "files":
        return _files(position, time_ms, rest, files)
    if kind == "use":
        return ArtifactUsed(position, time_ms, ArtifactUse(**rest[0]))
    if kind == "dataset":
        return DatasetLogged(position, time_ms, Dataset(**rest[0]))
    raise StorageError(f"A newer mlopskit wrote a record {kind!r}, which only it can deliver.")


def _files(position: int, time_ms: int, rest: list[Any], files: Blobs) -> ArtifactLogged:
    name, type_, metadata, aliases, each = rest
    found = []
    for path, size, digest, uri in each:
        artifact = Artifact(
            name=path,
            size=size,
            digest=digest,
            type=type_,
            metadata=metadata,
            aliases=tuple(aliases),
            logged_as=name,
            uri=uri,
            logged_at=datetime.fromtimestamp(time_ms / 1000, UTC),
        )
        found.append((artifact, None if uri is not None else files.path(digest)))
    return ArtifactLogged(position, time_ms, name, tuple(found))

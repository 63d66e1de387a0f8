"""Records as they lie in a journal: one JSON list each, its kind first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlopskit.tracking.entities import (
    Artifact,
    ArtifactLogged,
    Ended,
    MetricsLogged,
    ParamsLogged,
    Started,
    TagsSet,
)
from mlopskit.tracking.values import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlopskit.storage import Blobs
    from mlopskit.tracking.entities import Record, Status

HEADER = "journal"
_PLAIN: dict[str, Any] = {
    "metrics": MetricsLogged,
    "tags": TagsSet,
    "start": Started,
    "end": Ended,
}


def header(run_id: str, targets: Sequence[str], owner: str) -> list[Any]:
    """Return the first record of a journal: what later processes need to deliver it."""
    return [HEADER, 1, run_id, list(targets), owner]


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
    ]


def params_logged(params: Mapping[str, Any], time_ms: int, *, overwrite: bool) -> list[Any]:
    """Return params as they are written."""
    return ["params", time_ms, [[key, pack(value)] for key, value in params.items()], overwrite]


def artifact_logged(artifact: Artifact, time_ms: int) -> list[Any]:
    """Return an artifact as it is written."""
    return ["file", time_ms, artifact.name, artifact.size, artifact.digest, artifact.type]


def ended(status: Status, owner: str, time_ms: int) -> list[Any]:
    """Return a run's end as it is written."""
    return ["end", time_ms, status, owner]


def decoded(position: int, record: list[Any], files: Blobs) -> Record | None:
    """Return a record of a journal as backends know it; None for the header."""
    kind, time_ms, *rest = record
    if kind in _PLAIN:
        made: Record = _PLAIN[kind](position, time_ms, *rest)
        return made
    if kind == "params":
        params = {key: unpack(value) for key, value in rest[0]}
        return ParamsLogged(position, time_ms, params, rest[1])
    if kind == "file":
        name, size, digest, type_ = rest
        artifact = Artifact(name=name, size=size, digest=digest, type=type_)
        return ArtifactLogged(position, time_ms, artifact, files.path(digest))
    return None

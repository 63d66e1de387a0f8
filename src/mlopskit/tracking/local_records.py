"""Runs and artifacts as they read back from the tables in `local_rows`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mlopskit.tracking.entities import Artifact, ArtifactUse, Dataset, RunRecord
from mlopskit.tracking.local_series import read_number, read_step
from mlopskit.tracking.values import from_members

if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Connection

    from mlopskit.tracking.entities import Number

# The fields of a run as they are, and the column of each.
_PLAIN: Final = {
    "id": "id",
    "name": "name",
    "experiment": "experiment",
    "status": "status",
    "parent_id": "parent_id",
    "owner": "owner",
    "group": "group_name",
    "job_type": "job_type",
    "notes": "notes",
}
_TIMES: Final = ("started_ms", "ended_ms", "heartbeat_ms")
# What else a run holds is JSON already, and reads fastest when it is joined before it is parsed.
_JOINED: Final = (
    "(select group_concat(json_quote(key) || ':' || value) from param where run = run.number)",
    "(select group_concat(json_quote(key) || ':' || value) from tag where run = run.number)",
    "(select json_group_array(json_array(place, said)) from dataset where run = run.number)",
    "(select json_group_array(json_array(place, said)) from input where run = run.number)",
)
COLUMNS: Final = ", ".join(("number", *_JOINED, *_TIMES, *_PLAIN.values()))


def run_records(connection: Connection, rows: Sequence[Sequence[Any]]) -> list[RunRecord]:
    """Return the runs in rows of `COLUMNS` of table `run`, in their order."""
    if not rows:
        return []
    metrics: dict[int, dict[str, Number]] = {row[0]: {} for row in rows}
    last_steps: dict[int, dict[str, int]] = {row[0]: {} for row in rows}
    marks = ", ".join("?" * len(metrics))
    for number, key, step, value in connection.execute(
        f"select run, key, last_step, last_value from series where run in ({marks})",  # noqa: S608 - ours
        list(metrics),
    ):
        metrics[number][key] = read_number(value)
        last_steps[number][key] = read_step(step)
    return [
        RunRecord(
            params=from_members(params) if params else {},
            tags=from_members(tags) if tags else {},
            metrics=metrics[number],
            last_steps=last_steps[number],
            datasets=tuple(Dataset.model_validate_json(said) for said in _in_place(datasets)),
            inputs=tuple(ArtifactUse.model_validate_json(said) for said in _in_place(inputs)),
            started_at=_time(started_ms),
            ended_at=_time(ended_ms),
            heartbeat_at=_time(beat_ms),
            **dict(zip(_PLAIN, plain, strict=True)),
        )
        for number, params, tags, datasets, inputs, started_ms, ended_ms, beat_ms, *plain in rows
    ]


def artifacts_of(connection: Connection, run: int) -> list[Artifact]:
    """Return the files of a run by its number, by their names."""
    rows = connection.execute(
        "select name, size, digest, type, metadata, aliases, logged_as, uri, logged_ms"
        " from artifact where run = ? order by name",
        (run,),
    )
    return [
        Artifact(
            name=name,
            size=size,
            digest=digest,
            type=type_,
            metadata=json.loads(metadata),
            aliases=tuple(json.loads(aliases)),
            logged_as=logged_as,
            uri=uri,
            logged_at=_time(logged_ms),
        )
        for name, size, digest, type_, metadata, aliases, logged_as, uri, logged_ms in rows
    ]


def _in_place(placed: str) -> list[str]:
    return [said for _, said in sorted(json.loads(placed))] if placed != "[]" else []


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)

"""The tables of the local store, and how records become their rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import Conflict, NotFound, ParamConflict
from mlopskit.tracking.entities import (
    ArtifactLogged,
    Ended,
    MetricsLogged,
    ParamsLogged,
    Started,
    TagsSet,
)
from mlopskit.tracking.values import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from sqlite3 import Connection

    from mlopskit.tracking.entities import Number, Record

# Steps, values, params and tags have no declared type, so that SQLite converts none of them.
SCHEMA: Final = """
create table run (
    number integer primary key autoincrement,
    id text not null unique,
    name text not null,
    experiment text not null,
    status text not null,
    parent_id text,
    started_ms integer not null,
    ended_ms integer,
    owner text not null
);
create index run_experiment on run (experiment, number);
create table param (
    run integer not null references run on delete cascade,
    key text not null,
    value not null,
    primary key (run, key)
) without rowid;
create table tag (
    run integer not null references run on delete cascade,
    key text not null,
    value not null,
    primary key (run, key)
) without rowid;
create table series (
    id integer primary key,
    run integer not null references run on delete cascade,
    key text not null,
    points integer not null,
    last_step not null,
    last_value,
    unique (run, key)
);
create table point (
    series integer not null references series on delete cascade,
    place integer not null,
    step not null,
    time_ms integer not null,
    value,
    primary key (series, place)
) without rowid;
create table artifact (
    run integer not null references run on delete cascade,
    name text not null,
    size integer not null,
    digest text not null,
    type text not null,
    primary key (run, name)
) without rowid;
create index artifact_digest on artifact (digest);
create table delivered (
    source text primary key,
    position integer not null
) without rowid;
"""
INT64: Final = range(-(1 << 63), 1 << 63)


class Writer:
    """Stores the records of one batch inside one transaction.

    Args:
        connection: In the midst of a writing transaction.
        run_id: The run.
        keep: Makes sure that the bytes of an artifact are stored.
    """

    def __init__(
        self, connection: Connection, run_id: str, keep: Callable[[ArtifactLogged], None]
    ) -> None:
        self._connection = connection
        self._run_id = run_id
        self._keep = keep
        self._run = -1
        self._series: dict[str, list[Any]] = {}
        self._points: list[tuple[Any, ...]] = []

    def write(self, records: Sequence[Record]) -> None:
        """Store records in their order.

        Raises:
            NotFound: If there is no such run.
            Conflict: If it is there already, or a param has another value.
        """
        for record in records:
            if isinstance(record, Started):
                self._start(record)
                continue
            if self._run < 0:
                self._find()
            if isinstance(record, MetricsLogged):
                self._metrics(record)
            elif isinstance(record, ParamsLogged):
                self._params(record)
            elif isinstance(record, TagsSet):
                self._tags(record.tags)
            elif isinstance(record, ArtifactLogged):
                self._artifact(record)
            elif isinstance(record, Ended):
                self._end(record)
        self._connection.executemany("insert into point values (?, ?, ?, ?, ?)", self._points)
        self._connection.executemany(
            "update series set points = ?, last_step = ?, last_value = ? where id = ?",
            [
                (points, _written_step(step), _written_number(value), series)
                for series, points, step, value in self._series.values()
            ],
        )

    def _find(self) -> None:
        row = self._connection.execute(
            "select number from run where id = ?", (self._run_id,)
        ).fetchone()
        if row is None:
            raise NotFound("run", self._run_id)
        self._run = row[0]

    def _start(self, record: Started) -> None:
        if record.resumed:
            self._find()
            self._connection.execute(
                "update run set status = 'running', ended_ms = null, owner = ? where number = ?",
                (record.owner, self._run),
            )
            return
        try:
            self._find()
        except NotFound:
            values = (
                self._run_id,
                record.name,
                record.experiment,
                record.parent_id,
                record.time_ms,
                record.owner,
            )
            self._connection.execute(
                "insert into run (id, name, experiment, status, parent_id, started_ms, owner)"
                " values (?, ?, ?, 'running', ?, ?, ?)",
                values,
            )
            self._find()
        else:
            raise Conflict(f"There is already a run {self._run_id}.")

    def _metrics(self, record: MetricsLogged) -> None:
        for key, value in record.metrics.items():
            series = self._series.get(key) or self._found_series(key)
            self._points.append(
                (
                    series[0],
                    series[1],
                    _written_step(record.step),
                    record.time_ms,
                    _written_number(value),
                )
            )
            if series[1] == 0 or record.step >= series[2]:
                series[2:] = record.step, value
            series[1] += 1

    def _found_series(self, key: str) -> list[Any]:
        row = self._connection.execute(
            "insert into series (run, key, points, last_step) values (?, ?, 0, 0)"
            " on conflict do update set points = points"
            " returning id, points, last_step, last_value",
            (self._run, key),
        ).fetchone()
        found = [row[0], row[1], read_step(row[2]), read_number(row[3])]
        self._series[key] = found
        return found

    def _params(self, record: ParamsLogged) -> None:
        for key, value in record.params.items():
            text = to_json(value)
            row = self._connection.execute(
                "select value from param where run = ? and key = ?", (self._run, key)
            ).fetchone()
            if row is not None and row[0] != text and not record.overwrite:
                raise ParamConflict(key, from_json(row[0]), value)
            self._connection.execute(
                "insert into param values (?, ?, ?)"
                " on conflict (run, key) do update set value = excluded.value",
                (self._run, key, text),
            )

    def _tags(self, tags: Mapping[str, str]) -> None:
        self._connection.executemany(
            "insert into tag values (?, ?, ?)"
            " on conflict (run, key) do update set value = excluded.value",
            [(self._run, key, to_json(value)) for key, value in tags.items()],
        )

    def _artifact(self, record: ArtifactLogged) -> None:
        # Another process may have deleted the last run with these bytes since they were kept.
        self._keep(record)
        for artifact, _ in record.files:
            self._connection.execute(
                "insert into artifact values (?, ?, ?, ?, ?) on conflict (run, name) do update"
                " set size = excluded.size, digest = excluded.digest, type = excluded.type",
                (self._run, artifact.name, artifact.size, artifact.digest, artifact.type),
            )

    def _end(self, record: Ended) -> None:
        only = " and status = 'running' and owner = ?" if record.status == "lost" else ""
        given = (record.owner,) if only else ()
        self._connection.execute(
            f"update run set status = ?, ended_ms = ? where number = ?{only}",  # noqa: S608 - ours
            (record.status, record.time_ms, self._run, *given),
        )


def _written_step(step: int) -> int | str:
    return step if step in INT64 else str(step)


def read_step(stored: int | str) -> int:
    """Return a step as it was logged."""
    return int(stored)


def _written_number(value: Number) -> float | str | None:
    """SQLite holds floats, but neither NaN, which is null here, nor -0.0 nor larger ints."""
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return None
    return "-0.0" if value == 0 and math.copysign(1, value) < 0 else value


def read_number(stored: float | str | None) -> Number:
    """Return a value as it was logged."""
    if stored is None:
        return math.nan
    if isinstance(stored, str):
        return -0.0 if stored == "-0.0" else int(stored)
    return float(stored)

"""The tables of the local store, and how records become their rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from mlopskit.errors import Conflict, NotFound, ParamConflict
from mlopskit.tracking.entities import (
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
from mlopskit.tracking.local_series import (
    CHUNK,
    Points,
    nearest,
    read_number,
    read_step,
    written_number,
)
from mlopskit.tracking.values import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from sqlite3 import Connection

    from mlopskit.tracking.entities import Record

VERSION: Final = 2
# Steps, values, params and tags have no declared type, so that SQLite converts none of them. What
# is named `number` is the float nearest to a value, for comparing and sorting.
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
    owner text not null,
    group_name text,
    job_type text,
    notes text not null default '',
    heartbeat_ms integer
);
create index run_experiment on run (experiment, number);
create table experiment (
    name text primary key,
    description text not null
) without rowid;
create table param (
    run integer not null references run on delete cascade,
    key text not null,
    value not null,
    number real,
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
    last_number real,
    unique (run, key)
);
create index series_number on series (key, last_number, run);
create index series_odd on series (key) where typeof(last_value) = 'text';
create table chunk (
    series integer not null references series on delete cascade,
    place integer not null,
    count integer not null,
    steps blob not null,
    times blob not null,
    numbers blob not null,
    odd text,
    primary key (series, place)
);
create table artifact (
    serial integer primary key autoincrement,
    run integer not null references run on delete cascade,
    name text not null,
    size integer not null,
    digest text not null,
    type text not null,
    metadata text not null default '{}',
    aliases text not null default '[]',
    logged_as text not null,
    uri text,
    logged_ms integer,
    unique (run, name)
);
create index artifact_digest on artifact (digest);
create index artifact_logged_as on artifact (logged_as, serial);
create table dataset (
    run integer not null references run on delete cascade,
    place integer not null,
    said text not null,
    primary key (run, place)
) without rowid;
create table input (
    run integer not null references run on delete cascade,
    place integer not null,
    said text not null,
    primary key (run, place)
) without rowid;
create table delivered (
    source text primary key,
    position integer not null
) without rowid;
"""


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
        self._series: dict[str, Points] = {}

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
            else:
                self._one(record)
        self._points()
        self._connection.execute(
            "update run set heartbeat_ms = max(ifnull(heartbeat_ms, 0), ?) where number = ?",
            (records[-1].time_ms, self._run),
        )

    def _one(self, record: Record) -> None:
        if isinstance(record, ParamsLogged):
            self._params(record)
        elif isinstance(record, TagsSet):
            self._tags(record.tags)
        elif isinstance(record, NotesSet):
            self._connection.execute(
                "update run set notes = ? where number = ?", (record.notes, self._run)
            )
        elif isinstance(record, ArtifactLogged):
            self._artifact(record)
        elif isinstance(record, DatasetLogged):
            self._append("dataset", record.dataset.model_dump_json())
        elif isinstance(record, ArtifactUsed):
            self._append("input", record.use.model_dump_json())
        elif isinstance(record, Ended):
            self._end(record)

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
            self._connection.execute(
                "insert into run (id, name, experiment, status, parent_id, started_ms, owner,"
                " group_name, job_type, notes) values (?, ?, ?, 'running', ?, ?, ?, ?, ?, ?)",
                (
                    self._run_id,
                    record.name,
                    record.experiment,
                    record.parent_id,
                    record.time_ms,
                    record.owner,
                    record.group,
                    record.job_type,
                    record.notes,
                ),
            )
            self._find()
        else:
            raise Conflict(f"There is already a run {self._run_id}.")

    def _metrics(self, record: MetricsLogged) -> None:
        step, time_ms = record.step, record.time_ms
        for key, value in record.metrics.items():
            points = self._series.get(key) or self._found_series(key)
            points.add(step, time_ms, value)

    def _found_series(self, key: str) -> Points:
        row = self._connection.execute(
            "insert into series (run, key, points, last_step) values (?, ?, 0, 0)"
            " on conflict do update set points = points"
            " returning id, points, last_step, last_value",
            (self._run, key),
        ).fetchone()
        found = Points(row[0], row[1], read_step(row[2]), read_number(row[3]))
        self._series[key] = found
        return found

    def _points(self) -> None:
        """Append the new points of each series to its last chunk, or as a chunk of their own."""
        for points in self._series.values():
            last = self._connection.execute(
                "select place, count from chunk where series = ? order by place desc limit 1",
                (points.series,),
            ).fetchone()
            if last is not None and last[1] < CHUNK:
                points.join(
                    self._connection.execute(
                        "select * from chunk where series = ? and place = ?",
                        (points.series, last[0]),
                    ).fetchone()
                )
            self._connection.execute(
                "insert into chunk values (?, ?, ?, ?, ?, ?, ?) on conflict do update set"
                " count = excluded.count, steps = excluded.steps, times = excluded.times,"
                " numbers = excluded.numbers, odd = excluded.odd",
                points.row(),
            )
            self._connection.execute(
                "update series set points = ?, last_step = ?, last_value = ?, last_number = ?"
                " where id = ?",
                points.summary(),
            )

    def _params(self, record: ParamsLogged) -> None:
        for key, value in record.params.items():
            text = to_json(value)
            row = self._connection.execute(
                "select value from param where run = ? and key = ?", (self._run, key)
            ).fetchone()
            if row is not None and row[0] != text and not record.overwrite:
                raise ParamConflict(key, from_json(row[0]), value)
            self._connection.execute(
                "insert into param values (?, ?, ?, ?)"
                " on conflict (run, key) do update"
                " set value = excluded.value, number = excluded.number",
                (self._run, key, text, nearest(value)),
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
        self._connection.execute(
            "delete from artifact where run = ? and logged_as = ?", (self._run, record.name)
        )
        self._connection.executemany(
            "insert or replace into artifact (run, name, size, digest, type, metadata, aliases,"
            " logged_as, uri, logged_ms) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    self._run,
                    each.name,
                    each.size,
                    each.digest,
                    each.type,
                    json.dumps(each.metadata),
                    json.dumps(each.aliases),
                    record.name,
                    each.uri,
                    record.time_ms,
                )
                for each, _ in record.files
            ],
        )

    def _append(self, table: str, said: str) -> None:
        self._connection.execute(
            f"insert into {table} select ?, ifnull(max(place) + 1, 0), ? from {table}"  # noqa: S608 - ours
            " where run = ?",
            (self._run, said, self._run),
        )

    def _end(self, record: Ended) -> None:
        only = " and status = 'running' and owner = ?" if record.status == "lost" else ""
        given = (record.owner,) if only else ()
        self._connection.execute(
            f"update run set status = ?, ended_ms = ? where number = ?{only}",  # noqa: S608 - ours
            (record.status, record.time_ms, self._run, *given),
        )


def upgrade(connection: Connection, stored: int) -> None:
    """Bring a store of layout 1, which had a row for each point, to this one.

    Called in a writing transaction.
    """
    if stored != 1:
        return
    tables = ("run", "param", "tag", "series", "point", "artifact", "delivered")
    connection.execute("pragma defer_foreign_keys = on")
    for index in ("run_experiment", "artifact_digest"):
        connection.execute(f"drop index {index}")
    for table in tables:
        connection.execute(f"alter table {table} rename to old_{table}")
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(
        "insert into run (number, id, name, experiment, status, parent_id, started_ms, ended_ms,"
        " owner) select number, id, name, experiment, status, parent_id, started_ms, ended_ms,"
        " owner from old_run"
    )
    connection.execute("insert into tag select run, key, value from old_tag")
    connection.execute("insert into delivered select source, position from old_delivered")
    connection.executemany(
        "insert into param values (?, ?, ?, ?)",
        [
            (run, key, text, nearest(from_json(text)))
            for run, key, text in connection.execute("select run, key, value from old_param")
        ],
    )
    connection.execute(
        "insert into artifact (run, name, size, digest, type, logged_as)"
        " select run, name, size, digest, type, name from old_artifact"
    )
    for series, run, key, last_step, last_value in connection.execute(
        "select id, run, key, last_step, last_value from old_series"
    ).fetchall():
        points = Points(series, 0, read_step(last_step), read_number(last_value))
        for step, time_ms, value in connection.execute(
            "select step, time_ms, value from old_point where series = ? order by place", (series,)
        ):
            points.add(read_step(step), time_ms, read_number(value))
        connection.execute(
            "insert into series values (?, ?, ?, ?, ?, ?, ?)",
            (
                *(series, run, key, len(points), last_step),
                written_number(points.last_value),
                nearest(points.last_value),
            ),
        )
        if len(points):
            connection.execute("insert into chunk values (?, ?, ?, ?, ?, ?, ?)", points.row())
    for table in reversed(tables):
        connection.execute(f"drop table old_{table}")

"""The embedded registry's tables, and what their rows become."""

from __future__ import annotations

import json
import time
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mlopskit.registry.entities import Decision, HistoryEntry, Lineage, ModelVersion, Signature

if TYPE_CHECKING:
    import sqlite3

    from mlopskit.registry.lines import Line

_TABLES: Final = """
create table models (
    name text primary key,
    latest integer not null,
    description text not null default '',
    tags text not null default '{}',
    created integer not null,
    updated integer not null
) without rowid;

create table versions (
    name text not null references models (name),
    version integer not null,
    digest text not null,
    flavor text not null,
    size integer not null,
    run_id text,
    metrics text not null,
    tags text not null,
    signature text,
    description text not null,
    lineage text not null,
    created integer not null,
    stage text not null,
    -- The history line that put it into its stage: the highest one is the stage's holder.
    entered integer not null,
    primary key (name, version)
) without rowid;

create index by_stage on versions (name, stage, entered);

create table aliases (
    name text not null,
    alias text not null,
    version integer not null,
    primary key (name, alias),
    foreign key (name, version) references versions (name, version)
) without rowid;

create index by_version on aliases (name, version);

-- Bytes beside a version, such as its signature, by what they are for.
create table attachments (
    name text not null,
    version integer not null,
    kind text not null,
    content blob not null,
    primary key (name, version, kind)
) without rowid;

create table history (
    id integer primary key autoincrement,
    name text not null,
    version integer,
    action text not null,
    alias text,
    before text,
    after text,
    at integer not null,
    by text not null,
    why text not null,
    decision text,
    details text
);

create index by_model on history (name, id);
"""
APPEND_ONLY: Final = (
    "create trigger history_is_{name} before {act} on history begin "
    "select raise(abort, 'history is append-only'); end"
)
KEPT: Final = APPEND_ONLY.format(name="kept", act="delete")
FINAL: Final = APPEND_ONLY.format(name="final", act="update")
SCHEMA: Final = f"{_TABLES}{KEPT};\n{FINAL};\n"
LAYOUT: Final = 2
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# One query, as the aliases of one version are few: the answer to every question about a version.
VERSION: Final = (
    "select v.name, v.version, v.digest, v.flavor, v.size, v.run_id, v.metrics, v.tags, "
    "v.signature, v.description, v.lineage, v.created, v.stage, "
    "(select json_group_array(a.alias) from aliases a where a.name = v.name and "
    "a.version = v.version) from versions v where v.name = ? "
)


def upgrade(connection: sqlite3.Connection, layout: int) -> None:  # noqa: ARG001 - only 1 was before
    """Bring tables of the layout 1 to this one: edits, deletions, lineage and attachments."""
    for statement in (
        "alter table models add column description text not null default ''",
        "alter table models add column tags text not null default '{}'",
        "alter table versions add column lineage text not null default '{}'",
        (
            "create table attachments (name text not null, version integer not null, "
            "kind text not null, content blob not null, primary key (name, version, kind)) "
            "without rowid"
        ),
        "drop trigger history_is_kept",
        "drop trigger history_is_final",
        "drop index by_model",
        "alter table history rename to earlier",
        (
            "create table history (id integer primary key autoincrement, name text not null, "
            "version integer, action text not null, alias text, before text, after text, "
            "at integer not null, by text not null, why text not null, decision text, "
            "details text)"
        ),
        "insert into history select *, null from earlier",
        "drop table earlier",
        "create index by_model on history (name, id)",
        KEPT,
        FINAL,
    ):
        connection.execute(statement)


@dataclass(frozen=True, slots=True)
class Row:
    """What a new version's row holds, before it has a number."""

    digest: str
    flavor: str
    size: int
    run_id: str | None
    metrics: str
    tags: str
    signature: str | None
    description: str
    lineage: str


def add_version(
    connection: sqlite3.Connection, name: str, number: int, row: Row, place: tuple[int, str, int]
) -> None:
    """Write a row. Its place: when it was made, its stage, and the line of the history."""
    created, stage, entered = place
    connection.execute(
        "insert into versions (name, version, digest, flavor, size, run_id, metrics, tags, "
        "signature, description, lineage, created, stage, entered) "
        "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [name, number, *astuple(row), created, stage, entered],
    )


def add_line(connection: sqlite3.Connection, line: Line, actor: str) -> int:
    """Add a line to the history, and return its place."""
    # A refusal is falsy, and is kept all the same.
    decision = None if line.decision is None else json.dumps(line.decision.model_dump())
    ((place,),) = connection.execute(
        "insert into history (name, version, action, alias, before, after, at, by, why, decision, "
        "details) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning id",
        [
            line.name,
            line.version,
            line.action,
            line.alias,
            line.before,
            line.after,
            now(connection),
            actor,
            line.why,
            decision,
            json.dumps(dict(line.details)) if line.details else None,
        ],
    ).fetchall()
    return int(place)


def now(connection: sqlite3.Connection) -> int:
    """Return the time in microseconds; never earlier than the history, whatever the clock did."""
    (last,) = connection.execute(
        "select coalesce((select at from history order by id desc limit 1), 0)"
    ).fetchone()
    return max(time.time_ns() // 1000, int(last))


def time_of(microseconds: int) -> datetime:
    """Return a time from microseconds since 1970."""
    return EPOCH + timedelta(microseconds=microseconds)


def version_of(row: tuple[Any, ...]) -> ModelVersion:
    """Return the version that a row of `VERSION` holds."""
    name, number, digest, flavor, size, run_id, metrics, tags, signature = row[:9]
    description, lineage, created, stage, aliases = row[9:]
    return ModelVersion(
        name=name,
        version=number,
        digest=digest,
        flavor=flavor,
        size=size,
        run_id=run_id,
        metrics=json.loads(metrics),
        tags=json.loads(tags),
        aliases=tuple(sorted(json.loads(aliases))),
        stage=stage,
        signature=None if signature is None else Signature.model_validate_json(signature),
        description=description,
        lineage=Lineage.model_validate_json(lineage),
        created_at=time_of(created),
    )


def entry_of(row: tuple[Any, ...]) -> HistoryEntry:
    """Return the entry that a row of the history holds."""
    place, name, version, action, alias, before, after, at, by, why, decision, details = row
    return HistoryEntry(
        id=place,
        name=name,
        version=version,
        action=action,
        alias=alias,
        before=before,
        after=after,
        at=time_of(at),
        by=by,
        why=why,
        decision=None if decision is None else Decision.model_validate(json.loads(decision)),
        details={} if details is None else json.loads(details),
    )

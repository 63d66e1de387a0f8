"""The embedded registry's tables, and what their rows become."""

from __future__ import annotations

import json
import time
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mlopskit.registry.entities import Decision, HistoryEntry, Lineage, ModelVersion, Signature
from mlopskit.registry.seals import COLUMNS, check, reseal, seal_of
from mlopskit.sqlite import statements

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from mlopskit.registry.lines import Line

_TABLES: Final = """
create table models (
    name text primary key,
    latest integer not null,
    description text not null default '',
    tags text not null default '{}',
    created integer not null,
    updated integer not null,
    seal text not null default ''
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
    seal text not null default '',
    primary key (name, version)
) without rowid;

create index by_stage on versions (name, stage, entered);

create table aliases (
    name text not null,
    alias text not null,
    version integer not null,
    seal text not null default '',
    primary key (name, alias),
    foreign key (name, version) references versions (name, version)
) without rowid;

create index by_version on aliases (name, version);
"""
# What the second layout added, or made anew.
_LATER: Final = """
-- Bytes beside a version, such as its signature, by what they are for.
create table attachments (
    name text not null,
    version integer not null,
    kind text not null,
    content blob not null,
    seal text not null,
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
    details text,
    seal text not null
);

create index by_model on history (name, id);
"""
APPEND_ONLY: Final = (
    "create trigger history_is_{name} before {act} on history begin "
    "select raise(abort, 'history is append-only'); end"
)
KEPT: Final = APPEND_ONLY.format(name="kept", act="delete")
FINAL: Final = APPEND_ONLY.format(name="final", act="update")
SCHEMA: Final = f"{_TABLES}{_LATER}{KEPT};\n{FINAL};\n"
LAYOUT: Final = 2
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MODELS: Final = f"select {', '.join(COLUMNS['models'])}, seal from models order by name"  # noqa: S608 - names of ours
# One query, as the aliases of one version are few: the answer to every question about a version.
VERSION: Final = (
    f"select v.{', v.'.join(COLUMNS['versions'])}, v.seal, "  # noqa: S608 - names of ours
    "(select json_group_array(json_array(a.alias, a.seal)) from aliases a "
    "where a.name = v.name and a.version = v.version) from versions v where v.name = ? "
)
ENTRIES: Final = (
    f"select id, {', '.join(COLUMNS['history'])}, seal from history "  # noqa: S608 - names of ours
    "where name = ? order by id"
)


def upgrade(connection: sqlite3.Connection, layout: int) -> None:  # noqa: ARG001 - only 1 was before
    """Bring tables of the layout 1 to this one: edits, deletions, lineage, attachments, seals."""
    history = connection.execute(
        "select id, name, version, action, alias, before, after, at, by, why, decision, null "
        "from history order by id"
    ).fetchall()
    for statement in (
        "drop trigger history_is_kept",
        "drop trigger history_is_final",
        "drop table history",
        *(statement for statement in statements(_LATER) if statement),
        "alter table models add column description text not null default ''",
        "alter table models add column tags text not null default '{}'",
        "alter table versions add column lineage text not null default '{}'",
        *(
            f"alter table {table} add column seal text not null default ''"
            for table in ("models", "versions", "aliases")
        ),
        KEPT,
        FINAL,
    ):
        connection.execute(statement)
    for place, *values in history:
        add_row(connection, place, values)
    for table in ("models", "versions", "aliases"):
        reseal(connection, table)


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
    columns = (*COLUMNS["versions"], "seal")
    values = [name, number, *astuple(row), *place]
    connection.execute(
        f"insert into versions ({', '.join(columns)}) "  # noqa: S608 - names of ours
        f"values ({', '.join('?' * len(columns))})",
        [*values, seal_of(values)],
    )


def add_line(connection: sqlite3.Connection, line: Line, actor: str) -> int:
    """Add a line to the history, and return its place."""
    # A refusal is falsy, and is kept all the same.
    decision = None if line.decision is None else json.dumps(line.decision.model_dump())
    values = [line.name, line.version, line.action, line.alias, line.before, line.after]
    values += [now(connection), actor, line.why, decision]
    values += [json.dumps(dict(line.details)) if line.details else None]
    return add_row(connection, None, values)


def add_row(connection: sqlite3.Connection, place: int | None, values: list[Any]) -> int:
    """Write a line of the history at a place, or at the next one, and return it."""
    row = connection.execute(
        "select seal from history where name = ? order by id desc limit 1", [values[0]]
    ).fetchone()
    columns = ("id", *COLUMNS["history"], "seal")
    ((found,),) = connection.execute(
        f"insert into history ({', '.join(columns)}) "  # noqa: S608 - names of ours
        f"values ({', '.join('?' * len(columns))}) returning id",
        [place, *values, seal_of(values, row[0] if row else "")],
    ).fetchall()
    return int(found)


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
    """Return the version that a row of `VERSION` holds.

    Raises:
        IntegrityError: If the row, or one of its aliases, is not what was written.
    """
    *values, seal, pairs = row
    name, number, digest, flavor, size, run_id, metrics, tags, signature = values[:9]
    description, lineage, created, stage, _ = values[9:]
    check(f"The row of version {number} of {name!r}", seal, values)
    aliases = json.loads(pairs)
    for alias, sealed in aliases:
        check(f"The alias {alias!r} of {name!r}", sealed, (name, alias, number))
    return ModelVersion(
        name=name,
        version=number,
        digest=digest,
        flavor=flavor,
        size=size,
        run_id=run_id,
        metrics=json.loads(metrics),
        tags=json.loads(tags),
        aliases=tuple(sorted(alias for alias, _ in aliases)),
        stage=stage,
        signature=None if signature is None else Signature.model_validate_json(signature),
        description=description,
        lineage=Lineage.model_validate_json(lineage),
        created_at=time_of(created),
    )


def entries_of(rows: Iterable[tuple[Any, ...]]) -> list[HistoryEntry]:
    """Return the entries that rows of `ENTRIES` hold.

    Raises:
        IntegrityError: If one is not what was written, or one is missing among them.
    """
    found = []
    before = ""
    for place, *values, seal in rows:
        check(f"Line {place} of the history of {values[0]!r}", seal, values, before)
        before = seal
        found.append(_entry(place, values))
    return found


def _entry(place: int, values: list[Any]) -> HistoryEntry:
    name, version, action, alias, before, after, at, by, why, decision, details = values
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

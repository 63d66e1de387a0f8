"""What the embedded store keeps in SQLite: definitions, the latest records, pushed events."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mlopskit.errors import Conflict, InvalidInput, NotFound, StorageError
from mlopskit.features import codec
from mlopskit.features.entities import (
    EPOCH,
    FeatureService,
    FeatureView,
    ViewStats,
    split_reference,
)
from mlopskit.features.values import MICROSECOND, kind_of
from mlopskit.sqlite import Database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Container, Iterable, Iterator, Sequence
    from pathlib import Path

    from mlopskit.features.rows import Events, Key

SCHEMA: Final = """
create table views (
    id integer primary key autoincrement,
    name text not null unique,
    definition text not null,
    source text,
    kinds text not null default '{}',
    revision integer not null default 0
);
create table services (name text primary key, definition text not null) without rowid;
create table online (
    view integer not null references views on delete cascade,
    key blob not null,
    event integer not null,
    created integer not null,
    data blob not null,
    primary key (view, key)
) without rowid;
create table pushed (
    view integer not null references views on delete cascade,
    key blob not null,
    event integer not null,
    created integer not null,
    data blob not null,
    primary key (view, key, event, created)
) without rowid;
create table progress (
    view integer not null references views on delete cascade,
    first integer not null,
    last integer not null,
    fingerprint text not null,
    done blob not null,
    primary key (view, first, last)
) without rowid;
create table materialized (
    view integer not null references views on delete cascade,
    first integer not null,
    last integer not null,
    finished integer not null,
    primary key (view, first, last)
) without rowid;
"""
# An event as old as the stored one replaces it: who repeats an event may correct it.
PUT_ONLINE: Final = """
insert into online values (?, ?, ?, ?, ?)
on conflict do update set event = excluded.event, created = excluded.created, data = excluded.data
where (excluded.event, excluded.created) >= (event, created)
"""
PUT_PUSHED: Final = """
insert into pushed values (?, ?, ?, ?, ?)
on conflict do update set data = excluded.data
"""
MOST_PARAMETERS: Final = 256

Definition = TypeVar("Definition", FeatureView, FeatureService)


class OnlineStore:
    """Definitions and records in one SQLite file, for many threads and processes at once."""

    def __init__(self, path: Path) -> None:
        self.db = Database(path, SCHEMA, synchronous="NORMAL")
        # Parsed definitions by their own text: another process may change what a name stands for.
        self._parsed: dict[str, Any] = {}

    # Definitions.

    def apply(
        self, views: Sequence[tuple[FeatureView, str | None]], services: Sequence[FeatureService]
    ) -> None:
        """Store definitions in one transaction; each view with the absolute path of its source."""
        with self._durable() as tx:
            for view, source in views:
                self._apply_view(tx, view, source)
            for service in services:
                tx.execute(
                    "insert into services values (?, ?) "
                    "on conflict do update set definition = excluded.definition",
                    (service.name, service.model_dump_json()),
                )
            self._check_services(tx, {service.name for service in services})

    def views(self) -> list[FeatureView]:
        """Return every view, by name."""
        rows = self._rows("select definition from views order by name")
        return [self._definition(FeatureView, text) for (text,) in rows]

    def services(self) -> list[FeatureService]:
        """Return every service, by name."""
        rows = self._rows("select definition from services order by name")
        return [self._definition(FeatureService, text) for (text,) in rows]

    def view(self, name: str) -> FeatureView:
        """Return one view."""
        row = self._rows("select definition from views where name = ?", (name,))
        if not row:
            raise NotFound("feature view", name, (view.name for view in self.views()))
        return self._definition(FeatureView, row[0][0])

    def service(self, name: str) -> FeatureService:
        """Return one service."""
        row = self._rows("select definition from services where name = ?", (name,))
        if not row:
            raise NotFound("feature service", name, (each.name for each in self.services()))
        return self._definition(FeatureService, row[0][0])

    def source(self, view: FeatureView) -> tuple[int, str | None, int]:
        """Return a view's id, the absolute path of its source, and its revision."""
        row = self._rows("select id, source, revision from views where name = ?", (view.name,))
        if not row:
            raise NotFound("feature view", view.name)
        found: tuple[int, str | None, int] = row[0]
        return found

    def delete_view(self, name: str) -> None:
        """Forget a view and all its records."""
        with self._durable() as tx:
            if not tx.execute("delete from views where name = ?", (name,)).rowcount:
                raise NotFound("feature view", name, (view.name for view in self.views()))
            self._check_services(tx)

    def delete_service(self, name: str) -> None:
        """Forget a service."""
        with self._durable() as tx:
            if not tx.execute("delete from services where name = ?", (name,)).rowcount:
                raise NotFound("feature service", name, (each.name for each in self.services()))

    # Records.

    def put(self, view: FeatureView, events: Events, *, online: bool, offline: bool) -> None:
        """Store pushed events in one transaction."""
        records = list(_records(events))
        with self.db.transaction() as tx:
            at = self._held(tx, view, events)
            rows = [(at, *record) for record in records]
            if online:
                tx.executemany(PUT_ONLINE, rows)
            if offline:
                tx.executemany(PUT_PUSHED, rows)
            if not online:
                tx.execute("update views set revision = revision + 1 where id = ?", (at,))

    def put_batch(
        self, view: FeatureView, events: Events, window: tuple[int, int], fingerprint: str
    ) -> None:
        """Store a batch of a materialize, and in the same transaction how far it has come.

        Args:
            view: The view, as it was when the batch was read.
            events: The batch, in the order of its keys.
            window: First and last event time, in microseconds.
            fingerprint: That of what is read.
        """
        records = list(_records(events))
        with self.db.transaction() as tx:
            at = self._held(tx, view, events)
            tx.executemany(PUT_ONLINE, [(at, *record) for record in records])
            done = (at, *window, fingerprint, records[-1][0])
            tx.execute("replace into progress values (?, ?, ?, ?, ?)", done)

    def progress(self, view: FeatureView, window: tuple[int, int], fingerprint: str) -> Key | None:
        """Return the last key that an interrupted materialize of the same work has done."""
        rows = self._rows(
            "select done from progress join views on view = id "
            "where name = ? and first = ? and last = ? and fingerprint = ?",
            (view.name, *window, fingerprint),
        )
        return tuple(codec.decode_key(rows[0][0])) if rows else None

    def finish(self, view: FeatureView, window: tuple[int, int]) -> None:
        """Record that a materialize is complete, and put all of it on the disk."""
        with self._durable() as tx:
            at = self._held(tx, view)
            tx.execute(
                "delete from progress where view = ? and first = ? and last = ?", (at, *window)
            )
            now = time.time_ns() // 1000
            tx.execute("replace into materialized values (?, ?, ?, ?)", (at, *window, now))

    def read(
        self, view: FeatureView, keys: Sequence[Key | None]
    ) -> list[tuple[int, dict[str, Any]] | None]:
        """Return event time and values of each key, or None."""
        coded = [None if key is None else codec.encode_key(key) for key in keys]
        wanted = list({key for key in coded if key is not None})
        found: dict[bytes, tuple[int, dict[str, Any]]] = {}
        for at in range(0, len(wanted), MOST_PARAMETERS):
            chunk = wanted[at : at + MOST_PARAMETERS]
            # Few different lengths, so that SQLite finds the prepared statement again.
            size = 1 << (len(chunk) - 1).bit_length()
            chunk += chunk[-1:] * (size - len(chunk))
            sql = (
                "select key, event, data from online "  # noqa: S608 - only question marks
                "where view = (select id from views where name = ?) "
                f"and key in ({','.join('?' * size)})"
            )
            for key, event, data in self._rows(sql, (view.name, *chunk)):
                found[key] = (event, codec.decode(data))
        return [None if key is None else found.get(key) for key in coded]

    def pushed(self, view: FeatureView, last: int | None = None) -> list[tuple[Any, ...]]:
        """Return key, event time, created and values of every pushed event up to a time."""
        rows = self._rows(
            "select key, event, created, data from pushed join views on view = id "
            "where name = ? and event <= ?",
            (view.name, 2**63 - 1 if last is None else last),
        )
        return [
            (codec.decode_key(key), event, created, codec.decode(data))
            for key, event, created, data in rows
        ]

    def stats(self, name: str) -> ViewStats:
        """Return how much of a view is held."""
        self.view(name)
        sql = """
            select (select count(*) from online where view = id),
                   (select count(*) from pushed where view = id),
                   (select max(event) from online where view = id),
                   (select max(last) from materialized where view = id)
            from views where name = ?
        """
        online, pushed, newest, until = (self._rows(sql, (name,)) or [(0, 0, None, None)])[0]
        return ViewStats(
            name=name,
            online_rows=online,
            pushed_rows=pushed,
            newest_event=None if newest is None else EPOCH + newest * MICROSECOND,
            materialized_until=None if until is None else EPOCH + until * MICROSECOND,
        )

    # Inside.

    @contextmanager
    def _durable(self) -> Iterator[sqlite3.Connection]:
        """Hold a transaction that survives power loss, and with it all that was committed."""
        connection = self.db.connection()
        connection.execute("pragma synchronous = full")
        try:
            with self.db.transaction() as tx:
                yield tx
        finally:
            connection.execute("pragma synchronous = normal")

    def _rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        with self.db.errors():
            return self.db.connection().execute(sql, parameters).fetchall()

    def _definition(self, kind: type[Definition], text: str) -> Definition:
        found: Definition | None = self._parsed.get(text)
        if found is None:
            try:
                found = kind.model_validate_json(text)
            except (TypeError, ValueError) as exc:
                raise StorageError(f"{self.db.path} holds a broken definition: {exc}.") from exc
            self._parsed[text] = found
        return found

    def _apply_view(self, tx: sqlite3.Connection, view: FeatureView, source: str | None) -> None:
        row = tx.execute("select definition from views where name = ?", (view.name,)).fetchone()
        if row and self._definition(FeatureView, row[0]).entities != view.entities:
            # Records under other keys answer no question any more.
            tx.execute("delete from views where name = ?", (view.name,))
        tx.execute(
            "insert into views (name, definition, source) values (?, ?, ?) on conflict (name) "
            "do update set definition = excluded.definition, source = excluded.source",
            (view.name, view.model_dump_json(), source),
        )

    def _check_services(self, tx: sqlite3.Connection, given: Container[str] = ()) -> None:
        texts = tx.execute("select definition from views").fetchall()
        views = {view.name: view for view in (self._definition(FeatureView, t) for (t,) in texts)}
        for (text,) in tx.execute("select definition from services").fetchall():
            service = self._definition(FeatureService, text)
            for reference in service.features:
                name, feature = split_reference(reference)
                if name in views and feature in views[name].features:
                    continue
                if service.name in given:
                    raise NotFound("feature", reference, _references(views.values()))
                raise Conflict(
                    f"The service {service.name!r} asks for {reference!r}, which would be gone. "
                    "Apply another service of that name first, or delete it; nothing was changed."
                )

    def _held(self, tx: sqlite3.Connection, view: FeatureView, events: Events | None = None) -> int:
        """Return the id of a view that still is what its events were checked against."""
        row = tx.execute(
            "select id, definition, kinds from views where name = ?", (view.name,)
        ).fetchone()
        if row is None:
            raise NotFound("feature view", view.name)
        at, text, kinds = row
        if self._definition(FeatureView, text).entities != view.entities:
            raise Conflict(f"The view {view.name!r} was applied with other keys meanwhile.")
        if events is not None:
            known = json.loads(kinds)
            if _learned(view, events, known):
                tx.execute("update views set kinds = ? where id = ?", (json.dumps(known), at))
        return int(at)


def _references(views: Iterable[FeatureView]) -> list[str]:
    return [f"{view.name}:{feature}" for view in views for feature in view.features]


def _records(events: Events) -> Iterator[tuple[bytes, int, int, bytes]]:
    encode_key, encode = codec.encode_key, codec.encode
    for key, event, created, values in zip(
        events.keys, events.times, events.created, events.values, strict=True
    ):
        yield encode_key(key), event, created, encode(values)


def _learned(view: FeatureView, events: Events, known: dict[str, str]) -> bool:
    """Hold values to the type that the view's earlier ones had; tell whether one was new."""
    news = False
    for feature in view.features:
        for kind in {kind_of(values[feature]) for values in events.values}:
            before = known.get(feature)
            if kind in (None, before) or (kind, before) == ("int", "float"):
                continue
            if before is not None and (before, kind) != ("int", "float"):
                raise InvalidInput(
                    f"The feature {feature!r} of the view {view.name!r} has held values of type "
                    f"{before}, and now comes {kind}. Keep one type; or delete the view first."
                )
            known[feature] = str(kind)
            news = True
    return news

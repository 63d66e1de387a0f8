"""How far each webhook has got with each model's history, and what it could not deliver.

The history itself is the outbox: what was not delivered is whatever comes after the cursor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlopskit.sqlite import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SCHEMA: Final = """
create table webhooks (
    id text primary key,
    delivered integer not null default 0,
    disabled text not null default ''
) without rowid;

create table cursors (
    webhook text not null,
    model text not null,
    entry integer not null,
    primary key (webhook, model)
) without rowid;

-- Entries that were tried in vain and will be tried again.
create table tried (
    webhook text not null,
    model text not null,
    entry integer not null,
    tries integer not null,
    at real not null,
    pause real not null,
    error text not null,
    primary key (webhook, model, entry)
) without rowid;

-- Entries that were tried too often.
create table dead (
    webhook text not null,
    model text not null,
    entry integer not null,
    tries integer not null,
    at real not null,
    error text not null,
    primary key (webhook, model, entry)
) without rowid;
"""


@dataclass(frozen=True, slots=True)
class Tried:
    """An entry that was tried in vain: how often, when last, and why it failed."""

    model: str
    entry: int
    tries: int
    at: float
    pause: float
    error: str

    def wait_s(self, now: float) -> float:
        """Return how long to wait from now. A clock that was set back does not make it longer."""
        return 0.0 if now < self.at else max(0.0, self.at + self.pause - now)


class Outbox:
    """The tables of the webhooks of one registry, in one file of this machine."""

    def __init__(self, path: Path) -> None:
        # After power loss a message may come twice, which it may in any case.
        self._db = Database(path, SCHEMA, synchronous="NORMAL")

    def begin(self, webhook: str, ends: Callable[[], Mapping[str, int]]) -> None:
        """Make a webhook that was never seen begin after the entries that there are now."""
        if self._rows("select 1 from webhooks where id = ?", webhook):
            return
        found = ends()
        with self._db.transaction() as connection:
            made = connection.execute("insert or ignore into webhooks (id) values (?)", [webhook])
            if made.rowcount:
                connection.executemany(
                    "insert into cursors values (?, ?, ?)",
                    [(webhook, model, entry) for model, entry in found.items()],
                )
        self._db.sync()

    def cursors(self, webhook: str) -> dict[str, int]:
        """Return the last entry of each model that is done with."""
        return dict(self._rows("select model, entry from cursors where webhook = ?", webhook))

    def tried(self, webhook: str) -> dict[tuple[str, int], Tried]:
        """Return what was tried in vain, by model and entry."""
        rows = self._rows(
            "select model, entry, tries, at, pause, error from tried where webhook = ?", webhook
        )
        return {(row[0], row[1]): Tried(*row) for row in rows}

    def dead(self, webhook: str) -> list[Tried]:
        """Return what was tried too often, the first one first."""
        rows = self._rows(
            "select model, entry, tries, at, 0.0, error from dead where webhook = ? "
            "order by at, model, entry",
            webhook,
        )
        return [Tried(*row) for row in rows]

    def delivered(self, webhook: str) -> int:
        """Return how many entries were delivered."""
        return sum(row[0] for row in self._rows(_ONE.format("delivered"), webhook))

    def disabled(self, webhook: str) -> str:
        """Return why a webhook is disabled; nothing if it is not."""
        return "".join(row[0] for row in self._rows(_ONE.format("disabled"), webhook))

    def disable(self, webhook: str, why: str) -> None:
        """Disable a webhook; with no reason, enable it."""
        with self._db.transaction() as connection:
            connection.execute("update webhooks set disabled = ? where id = ?", [why, webhook])

    def done(self, webhook: str, model: str, entry: int, *, delivered: bool) -> None:
        """Move the cursor past an entry, delivered or not meant for the webhook."""
        with self._db.transaction() as connection:
            self._pass(connection, webhook, model, entry)
            if delivered:
                connection.execute(_COUNT, [webhook])

    def failed(self, webhook: str, what: Tried) -> None:
        """Write a try in vain down."""
        with self._db.transaction() as connection:
            connection.execute(
                "insert or replace into tried values (?, ?, ?, ?, ?, ?, ?)",
                [webhook, what.model, what.entry, what.tries, what.at, what.pause, what.error],
            )

    def bury(self, webhook: str, what: Tried) -> None:
        """Set an entry aside, and move the cursor past it."""
        with self._db.transaction() as connection:
            self._pass(connection, webhook, what.model, what.entry)
            connection.execute(
                "insert or replace into dead values (?, ?, ?, ?, ?, ?)",
                [webhook, what.model, what.entry, what.tries, what.at, what.error],
            )

    def revived(self, webhook: str, model: str, entry: int) -> None:
        """Count an entry that was set aside as delivered."""
        with self._db.transaction() as connection:
            connection.execute(
                "delete from dead where webhook = ? and model = ? and entry = ?",
                [webhook, model, entry],
            )
            connection.execute(_COUNT, [webhook])

    def close(self) -> None:
        """Close the connections of this process."""
        self._db.close()

    @staticmethod
    def _pass(connection: Any, webhook: str, model: str, entry: int) -> None:
        connection.execute(
            "insert into cursors values (?, ?, ?) on conflict (webhook, model) "
            "do update set entry = max(entry, excluded.entry)",
            [webhook, model, entry],
        )
        connection.execute(
            "delete from tried where webhook = ? and model = ? and entry = ?",
            [webhook, model, entry],
        )

    def _rows(self, query: str, webhook: str) -> list[tuple[Any, ...]]:
        with self._db.errors():
            return self._db.connection().execute(query, [webhook]).fetchall()


_ONE: Final = "select {} from webhooks where id = ?"
_COUNT: Final = "update webhooks set delivered = delivered + 1 where id = ?"

"""The embedded registry's tables: versions, aliases, and a history that only grows.

Every change is one transaction that also writes its line of the history, so that the two agree.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlopskit.errors import Conflict, NotFound
from mlopskit.registry.entities import RegisteredModel
from mlopskit.registry.tables import (
    EPOCH,
    SCHEMA,
    VERSION,
    Line,
    add_line,
    add_version,
    entry_of,
    now,
    time_of,
    version_of,
)
from mlopskit.sqlite import Database

if TYPE_CHECKING:
    import sqlite3
    from datetime import datetime
    from pathlib import Path

    from mlopskit.registry.entities import Action, Decision, HistoryEntry, ModelVersion, StageGraph
    from mlopskit.registry.tables import Row


class Ledger:
    """The tables of one registry.

    Args:
        path: The SQLite file.
        actor: Who the history names.
        initial: The stage of a new version.
    """

    def __init__(self, path: Path, actor: str, initial: str) -> None:
        self.db = Database(path, SCHEMA, synchronous="FULL")
        self._actor = actor
        self._initial = initial

    # Reading.

    def models(self) -> list[RegisteredModel]:
        """Return every model, by name."""
        aliases: dict[str, dict[str, int]] = {}
        stages: dict[str, dict[str, int]] = {}
        with self.db.errors():
            connection = self.db.connection()
            connection.execute("begin")  # One moment for the three queries.
            try:
                rows = connection.execute(
                    "select m.name, m.latest, m.created, m.updated, (select count(*) from versions "
                    "v where v.name = m.name) from models m order by m.name"
                ).fetchall()
                for name, alias, version in connection.execute(
                    "select name, alias, version from aliases order by name, alias"
                ):
                    aliases.setdefault(name, {})[alias] = version
                for name, stage, version in connection.execute(
                    "select name, stage, version from versions where stage <> ? "
                    "order by name, entered",
                    [self._initial],
                ):
                    stages.setdefault(name, {})[stage] = version
            finally:
                connection.execute("commit")
        return [
            RegisteredModel(
                name=name,
                versions=count,
                latest=latest,
                aliases=aliases.get(name, {}),
                stages=stages.get(name, {}),
                created_at=time_of(created),
                updated_at=time_of(updated),
            )
            for name, latest, created, updated, count in rows
        ]

    def versions(self, name: str) -> list[ModelVersion]:
        """Return every version of a model, the first one first."""
        found = self._all("order by v.version", name)
        if not found:
            raise NotFound("model", name, self._names())
        return found

    def version(self, name: str, number: int) -> ModelVersion:
        """Return one version by its number."""
        found = self._all("and v.version = ?", name, number)
        if not found:
            numbers = (str(version.version) for version in self.versions(name))
            raise NotFound(f"version of {name!r}", number, numbers)
        return found[0]

    def latest(self, name: str) -> ModelVersion:
        """Return the version with the highest number."""
        found = self._all("order by v.version desc limit 1", name)
        if not found:
            raise NotFound("model", name, self._names())
        return found[0]

    def by_alias(self, name: str, alias: str) -> ModelVersion:
        """Return the version that an alias points to."""
        found = self._all(
            "and v.version = (select version from aliases where name = ? and alias = ?)",
            name,
            name,
            alias,
        )
        if not found:
            self.latest(name)
            raise NotFound(f"alias of {name!r}", alias, self._aliases(name))
        return found[0]

    def holder(self, name: str, stage: str) -> ModelVersion | None:
        """Return the version that entered a stage last and is still there."""
        found = self._all("and v.stage = ? order by v.entered desc limit 1", name, stage)
        if not found:
            self.latest(name)
            return None
        return found[0]

    def holder_at(self, name: str, stage: str, when: datetime) -> int | None:
        """Return the version that held a stage at a time, from the history alone."""
        inside: list[int] = []
        until = (when - EPOCH) // timedelta(microseconds=1)
        for version, _, before, after, at in self._moves(name):
            if at > until:
                break
            if before == stage:
                inside.remove(version)
            if after == stage:
                inside.append(version)
        return inside[-1] if inside else None

    def history(self, name: str) -> list[HistoryEntry]:
        """Return everything that happened to a model, the first thing first."""
        with self.db.errors():
            rows = self.db.connection().execute(
                "select id, name, version, action, alias, before, after, at, by, why, decision "
                "from history where name = ? order by id",
                [name],
            )
            found = [entry_of(row) for row in rows]
        if not found:
            raise NotFound("model", name, self._names())
        return found

    # Writing.

    def add(self, name: str, row: Row) -> ModelVersion:
        """Give the next number to a version whose bytes are stored."""
        with self.db.transaction() as connection:
            created = now(connection)
            ((number,),) = connection.execute(
                "insert into models values (?, 1, ?, ?) on conflict (name) "
                "do update set latest = latest + 1, updated = excluded.updated returning latest",
                [name, created, created],
            ).fetchall()
            line = Line(name, number, "registered", after=self._initial)
            entered = add_line(connection, line, self._actor)
            add_version(connection, name, number, row, (created, self._initial, entered))
            return self.version(name, number)

    def set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        """Point an alias to a version."""
        with self.db.transaction() as connection:
            self.version(name, version)
            row = connection.execute(
                "select version from aliases where name = ? and alias = ?", [name, alias]
            ).fetchone()
            before = None if row is None else str(row[0])
            after = str(version)
            if before != after:
                connection.execute(
                    "insert or replace into aliases values (?, ?, ?)", [name, alias, version]
                )
                line = Line(name, version, "alias_set", alias, before=before, after=after)
                add_line(connection, line, self._actor)
            return self.version(name, version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Forget an alias."""
        with self.db.transaction() as connection:
            version = self.by_alias(name, alias).version
            connection.execute("delete from aliases where name = ? and alias = ?", [name, alias])
            line = Line(name, version, "alias_deleted", alias, before=str(version))
            add_line(connection, line, self._actor)

    def decide(
        self, candidate: ModelVersion, stage: str, decision: Decision, why: str, graph: StageGraph
    ) -> ModelVersion | None:
        """Write a decision down, and move the candidate if it is approved and nothing changed."""
        name, number = candidate.name, candidate.version
        with self.db.transaction() as connection:
            holder = self.holder(name, stage)
            if (holder.version if holder else None) != decision.holder:
                return None
            if self.version(name, number).stage != candidate.stage:
                return None
            action: Action = "promoted" if decision else "refused"
            line = Line(
                name, number, action, None, candidate.stage, stage, why=why, decision=decision
            )
            if decision:
                self._make_room(connection, candidate, stage, graph)
                self._move(connection, line)
            else:
                add_line(connection, line, self._actor)
            return self.version(name, number)

    def roll_back(self, name: str, stage: str, why: str, graph: StageGraph) -> ModelVersion:
        """Put back the version that held a stage before its holder."""
        with self.db.transaction() as connection:
            holder = self.holder(name, stage)
            earlier = self._before(name, stage, holder.version if holder else None)
            if earlier is None:
                whom = f"version {holder.version}" if holder else "now"
                raise Conflict(
                    f"No version of {name!r} held {stage!r} before {whom}. "
                    "promote() puts another there."
                )
            if holder is not None:
                out = Line(name, holder.version, "displaced", None, stage, graph.retired, why=why)
                self._move(connection, out)
            before = self.version(name, earlier).stage
            self._move(connection, Line(name, earlier, "rolled_back", None, before, stage, why=why))
            return self.version(name, earlier)

    # Steps of a transaction.

    def _make_room(
        self, connection: sqlite3.Connection, candidate: ModelVersion, stage: str, graph: StageGraph
    ) -> None:
        limit = graph.limits.get(stage)
        if limit is None:
            return
        inside = self._all("and v.stage = ? order by v.entered desc", candidate.name, stage)
        why = f"Version {candidate.version} took its place."
        for one in inside[limit - 1 :]:
            line = Line(one.name, one.version, "displaced", None, stage, graph.retired, why=why)
            self._move(connection, line)

    def _move(self, connection: sqlite3.Connection, line: Line) -> None:
        entered = add_line(connection, line, self._actor)
        connection.execute(
            "update versions set stage = ?, entered = ? where name = ? and version = ?",
            [line.after, entered, line.name, line.version],
        )

    # Steps of reading.

    def _all(self, condition: str, *arguments: Any) -> list[ModelVersion]:
        with self.db.errors():
            rows = self.db.connection().execute(VERSION + condition, arguments).fetchall()
        return [version_of(row) for row in rows]

    def _moves(self, name: str) -> list[tuple[int, str, str | None, str, int]]:
        """Return each entry into a stage: the version, the action, where from, where to, when."""
        with self.db.errors():
            return (
                self.db.connection()
                .execute(
                    "select version, action, before, after, at from history where name = ? and "
                    "action in ('registered', 'promoted', 'displaced', 'rolled_back') order by id",
                    [name],
                )
                .fetchall()
            )

    def _before(self, name: str, stage: str, holder: int | None) -> int | None:
        """Return the version under the holder in the pile of those that held a stage.

        A promotion puts a version on the pile; a rollback takes all above its version away.
        """
        pile: list[int] = []
        for version, action, _, after, _ in self._moves(name):
            if after == stage and action == "promoted":
                pile.append(version)
            elif after == stage and action == "rolled_back":
                while pile and pile[-1] != version:
                    pile.pop()
        if holder in pile:
            while pile.pop() != holder:
                pass
            while pile and pile[-1] == holder:
                pile.pop()
        return pile[-1] if pile else None

    def _names(self) -> list[str]:
        with self.db.errors():
            rows = self.db.connection().execute("select name from models order by name limit 100")
            return [name for (name,) in rows]

    def _aliases(self, name: str) -> list[str]:
        with self.db.errors():
            rows = self.db.connection().execute(
                "select alias from aliases where name = ? order by alias", [name]
            )
            return [alias for (alias,) in rows]

"""The embedded registry's tables: versions, aliases, and a history that only grows.

Every change is one transaction that also writes its line of the history, so that the two agree.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import Conflict, NotFound
from mlopskit.registry import moves
from mlopskit.registry.entities import RegisteredModel
from mlopskit.registry.lines import Line
from mlopskit.registry.seals import check, reseal, seal_of
from mlopskit.registry.tables import (
    ENTRIES,
    LAYOUT,
    MODELS,
    SCHEMA,
    VERSION,
    add_line,
    add_version,
    entries_of,
    now,
    time_of,
    upgrade,
    version_of,
)
from mlopskit.sqlite import Database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from mlopskit.registry.entities import Action, Decision, HistoryEntry, ModelVersion
    from mlopskit.registry.lines import Edit
    from mlopskit.registry.stages import StageGraph
    from mlopskit.registry.tables import Row


# A larger file is not read whole when it is opened: that would take more than a moment.
CHECKED_BYTES: Final = 16 << 20


class Ledger:
    """The tables of one registry.

    Args:
        path: The SQLite file.
        actor: Who the history names.
        initial: The stage of a new version.
    """

    def __init__(self, path: Path, actor: str, initial: str) -> None:
        self.db = Database(path, SCHEMA, version=LAYOUT, upgrade=upgrade, check_up_to=CHECKED_BYTES)
        self._actor = actor
        self._initial = initial

    # Reading.

    def models(self) -> list[RegisteredModel]:
        """Return every model, by name."""
        with self.db.errors():
            connection = self.db.connection()
            connection.execute("begin")  # One moment for all queries.
            try:
                return self._models(connection)
            finally:
                connection.execute("commit")

    def names(self) -> list[str]:
        """Return the names of all models that ever were."""
        with self.db.errors():
            rows = self.db.connection().execute("select name from models order by name")
            return [name for (name,) in rows]

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

    def history(self, name: str) -> list[HistoryEntry]:
        """Return everything that happened to a model, the first thing first."""
        with self.db.errors():
            rows = self.db.connection().execute(ENTRIES, [name]).fetchall()
        found = entries_of(rows)
        if not found:
            raise NotFound("model", name, self._names())
        return found

    # Writing.

    def add(self, name: str, row: Row) -> ModelVersion:
        """Give the next number to a version whose bytes are stored."""
        with self.db.transaction() as connection:
            created = now(connection)
            ((number,),) = connection.execute(
                "insert into models (name, latest, created, updated) values (?, 1, ?, ?) "
                "on conflict (name) do update set latest = latest + 1, updated = excluded.updated "
                "returning latest",
                [name, created, created],
            ).fetchall()
            line = Line(name, number, "registered", after=self._initial)
            entered = add_line(connection, line, self._actor)
            add_version(connection, name, number, row, (created, self._initial, entered))
            reseal(connection, "models", name)
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
                    "insert or replace into aliases (name, alias, version) values (?, ?, ?)",
                    [name, alias, version],
                )
                reseal(connection, "aliases", name, alias)
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
            held = holder.version if holder else None
            earlier = moves.earlier_holder(name, self.history(name), stage, held, graph)
            if holder is not None:
                out = Line(name, holder.version, "displaced", None, stage, graph.retired, why=why)
                self._move(connection, out)
            before = self.version(name, earlier).stage
            self._move(connection, Line(name, earlier, "rolled_back", None, before, stage, why=why))
            return self.version(name, earlier)

    def edit_version(self, name: str, number: int, edit: Edit, why: str) -> ModelVersion:
        """Change the description and the tags of a version."""
        with self.db.transaction() as connection:
            found = self.version(name, number)
            description = found.description if edit.description is None else edit.description
            connection.execute(
                "update versions set description = ?, tags = ? where name = ? and version = ?",
                [description, json.dumps(edit.of(found.tags)), name, number],
            )
            reseal(connection, "versions", name, number)
            add_line(
                connection,
                Line(name, number, "edited", why=why, details=edit.details),
                self._actor,
            )
            return self.version(name, number)

    def edit_model(self, name: str, edit: Edit, why: str) -> None:
        """Change the description and the tags of a model."""
        with self.db.transaction() as connection:
            found = next((each for each in self._models(connection) if each.name == name), None)
            if found is None:
                raise NotFound("model", name, self._names())
            description = found.description if edit.description is None else edit.description
            connection.execute(
                "update models set description = ?, tags = ? where name = ?",
                [description, json.dumps(edit.of(found.tags)), name],
            )
            reseal(connection, "models", name)
            line = Line(name, None, "edited", why=why, details=edit.details)
            add_line(connection, line, self._actor)

    def delete(self, name: str, numbers: Sequence[int], free: Sequence[str], why: str) -> None:
        """Delete versions that are in a free stage and have no alias."""
        with self.db.transaction() as connection:
            for number in numbers:
                found = self.version(name, number)
                if found.stage not in free or found.aliases:
                    raise Conflict(
                        f"Version {number} of {name!r} was put to use meanwhile: it is in "
                        f"{found.stage!r} with the aliases {list(found.aliases)}. "
                        "Nothing was deleted."
                    )
                for table in ("attachments", "versions"):
                    connection.execute(
                        f"delete from {table} where name = ? and version = ?",  # noqa: S608 - two names of ours
                        [name, number],
                    )
                details = {"digest": found.digest}
                line = Line(name, number, "deleted", None, found.stage, why=why, details=details)
                add_line(connection, line, self._actor)

    def note(self, line: Line, last: int) -> HistoryEntry | None:
        """Add a line if no other was added meanwhile."""
        with self.db.transaction() as connection:
            entries = self.history(line.name)
            if entries[-1].id != last:
                return None
            add_line(connection, line, self._actor)
            return self.history(line.name)[-1]

    def attach(self, version: ModelVersion, kind: str, content: bytes, line: Line) -> None:
        """Keep bytes beside a version."""
        with self.db.transaction() as connection:
            self.version(version.name, version.version)
            connection.execute(
                "insert or replace into attachments values (?, ?, ?, ?, ?)",
                [version.name, version.version, kind, content, seal_of([content])],
            )
            add_line(connection, line, self._actor)

    def attachment(self, version: ModelVersion, kind: str) -> bytes | None:
        """Return bytes that are kept beside a version."""
        with self.db.errors():
            row = (
                self.db.connection()
                .execute(
                    "select content, seal from attachments "
                    "where name = ? and version = ? and kind = ?",
                    [version.name, version.version, kind],
                )
                .fetchone()
            )
        if row is None:
            return None
        check(f"The {kind} of version {version.version} of {version.name!r}", row[1], row[:1])
        return bytes(row[0])

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
        reseal(connection, "versions", line.name, line.version)

    # Steps of reading.

    def _models(self, connection: sqlite3.Connection) -> list[RegisteredModel]:
        rows = connection.execute(MODELS).fetchall()
        versions = {row[0]: self._all("order by v.entered", row[0]) for row in rows}
        return [_model(row, versions[row[0]], self._initial) for row in rows if versions[row[0]]]

    def _all(self, condition: str, *arguments: Any) -> list[ModelVersion]:
        with self.db.errors():
            rows = self.db.connection().execute(VERSION + condition, arguments).fetchall()
        return [version_of(row) for row in rows]

    def _names(self) -> list[str]:
        with self.db.errors():
            rows = self.db.connection().execute(
                "select distinct name from versions order by name limit 100"
            )
            return [name for (name,) in rows]

    def _aliases(self, name: str) -> list[str]:
        with self.db.errors():
            rows = self.db.connection().execute(
                "select alias from aliases where name = ? order by alias", [name]
            )
            return [alias for (alias,) in rows]


def _model(row: tuple[Any, ...], versions: list[ModelVersion], first: str) -> RegisteredModel:
    """Return a model from its row and its versions, which come as they entered their stages.

    Raises:
        IntegrityError: If the row is not what was written.
    """
    *values, seal = row
    name, _, description, tags, created, updated = values
    check(f"The row of the model {name!r}", seal, values)
    return RegisteredModel(
        name=name,
        versions=len(versions),
        latest=max(version.version for version in versions),
        aliases=dict(sorted((alias, v.version) for v in versions for alias in v.aliases)),
        stages={v.stage: v.version for v in versions if v.stage != first},
        tags=json.loads(tags),
        description=description,
        created_at=time_of(created),
        updated_at=time_of(updated),
    )

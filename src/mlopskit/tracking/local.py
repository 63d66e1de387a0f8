"""Tracking in one SQLite file, with the files of runs beside it by their digest."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Unpack

from mlopskit.capabilities import Capabilities
from mlopskit.errors import InvalidInput, NotFound
from mlopskit.hookspecs import hookimpl
from mlopskit.sqlite import Database
from mlopskit.storage import Blobs
from mlopskit.tracking.base import Tracker, TrackerOptions
from mlopskit.tracking.entities import (
    Artifact,
    ArtifactLogged,
    Experiment,
    MetricHistory,
    RunRecord,
)
from mlopskit.tracking.rows import SCHEMA, Writer, read_number, read_step
from mlopskit.tracking.values import from_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from sqlite3 import Connection

    from mlopskit.tool import Context
    from mlopskit.tracking.entities import Batch
    from mlopskit.tracking.filters import Filter, Order

TOOL = {"package": "mlopskit", "extra": "local", "requires": {}}

CAPABILITIES = {
    "artifact_inputs": "native",
    "artifact_references": "native",
    "artifacts": "native",
    "charts": "emulated: kept as data and as pictures; mlopskit ui shows them",
    "datasets": "native",
    "delete": "native",
    "exactly_once": "native",
    "experiments": "native",
    "foreign_runs": "absent: only mlopskit writes this store",
    "groups": "native",
    "heartbeat": "native",
    "lost_runs": "native",
    "nested_runs": "native",
    "numbers": "native",
    "offline": "native",
    "overwrite_params": "native",
    "resume": "native",
    "step_order": "native",
    "typed_params": "native",
    "unicode_names": "native",
}

PAGE: Final = 200


class LocalTracker(Tracker):
    """Keeps runs in a SQLite file of this machine. Any number of processes may share it.

    Args:
        location: The folder to keep them in; ``tracking`` in the home folder if left out.
        options: What every tracker takes; see `Tracker`.
    """

    exactly_once: ClassVar[bool] = True

    def __init__(
        self,
        location: str | Path | None = None,
        **options: Unpack[TrackerOptions],
    ) -> None:
        super().__init__(**options)
        self.location = location

    @property
    def folder(self) -> Path:
        """Where the store lies."""
        if self.location is not None:
            return Path(self.location).expanduser()
        return self.context.home / "tracking"

    @property
    def target(self) -> str:
        """The folder, from the root."""
        return f"local:{self.folder.resolve()}"

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return Capabilities("tracking", "local", CAPABILITIES)

    @property
    def native(self) -> Connection:
        """This thread's connection to the SQLite file."""
        return self._database.connection()

    def ping(self, timeout_s: float = 5.0) -> None:
        """Open the file, making it if it is not there yet."""
        with self._database.errors():
            self._database.connection().execute("select 1 from run limit 1").fetchone()

    def close(self) -> None:
        """Deliver what is pending and close the file."""
        super().close()
        self._database.close()

    @property
    def _database(self) -> Database:
        # The context, and with it the folder, is known only after construction.
        found: Database | None = self.__dict__.get("_opened")
        if found is None:
            new = Database(self.folder / "tracking.db", SCHEMA)
            found = self.__dict__.setdefault("_opened", new)
        return found

    @property
    def _blobs(self) -> Blobs:
        return Blobs(self.folder / "blobs")

    # Writing.

    def write(self, batch: Batch) -> None:
        """Store records in one transaction, together with how far their journal has come."""
        for record in batch.records:
            if isinstance(record, ArtifactLogged):
                self.keep(record)
        with self._database.transaction() as connection:
            row = connection.execute(
                "select position from delivered where source = ?", (batch.source,)
            ).fetchone()
            seen = row[0] if row else -1
            new = [record for record in batch.records if record.position > seen]
            if not new:
                return
            Writer(connection, batch.run_id, self.keep).write(new)
            connection.execute(
                "insert into delivered values (?, ?)"
                " on conflict (source) do update set position = excluded.position",
                (batch.source, new[-1].position),
            )

    def keep(self, record: ArtifactLogged) -> None:
        """Keep the bytes of an artifact, unless they are here already."""
        for artifact, path in record.files:
            if path is None or self._blobs.path(artifact.digest).exists():
                continue
            if not path.exists():
                raise InvalidInput(f"The bytes of {artifact.name!r} are no longer there.")
            self._blobs.put(path)

    # Reading.

    def read_run(self, id: str) -> RunRecord:
        """Read one run."""
        with self._database.errors():
            row = self.native.execute(f"{_RUNS} where id = ?", (id,)).fetchone()
            if row is None:
                raise NotFound("run", id)
            return self._records([row])[0]

    def scan_runs(
        self, experiment: str | None, where: Filter | None, order: Sequence[Order] = ()
    ) -> Iterator[RunRecord]:
        """Yield runs, the latest first, a page at a time."""
        below = (1 << 63) - 1
        while True:
            with self._database.errors():
                rows = self.native.execute(
                    f"{_RUNS} where number < ? and (? is null or experiment = ?)"
                    " order by number desc limit ?",
                    (below, experiment, experiment, PAGE),
                ).fetchall()
                found = self._records(rows)
            yield from found
            if len(rows) < PAGE:
                return
            below = rows[-1][0]

    def read_metric_history(
        self, id: str, key: str, max_points: int | None = None
    ) -> MetricHistory:
        """Read one series."""
        with self._database.errors():
            series = self.native.execute(
                "select series.id from series join run on run.number = series.run"
                " where run.id = ? and series.key = ?",
                (id, key),
            ).fetchone()
            if series is None:
                raise NotFound("metric", key, self.read_run(id).metrics)
            rows = self.native.execute(
                "select step, value, time_ms from point where series = ? order by place", series
            ).fetchall()
        return MetricHistory.of(
            [read_step(row[0]) for row in rows],
            [read_number(row[1]) for row in rows],
            [row[2] for row in rows],
        )

    def list_experiments(self) -> list[Experiment]:
        """Count the runs of each experiment."""
        with self._database.errors():
            rows = self.native.execute(
                "select experiment, count(*) from run group by experiment order by experiment"
            ).fetchall()
        return [Experiment(name=name, runs=count) for name, count in rows]

    def read_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run."""
        self.read_run(id)
        with self._database.errors():
            rows = self.native.execute(
                "select artifact.name, size, digest, type from artifact"
                " join run on run.number = artifact.run where run.id = ? order by artifact.name",
                (id,),
            ).fetchall()
        return [Artifact(name=n, size=s, digest=d, type=t) for n, s, d, t in rows]

    def copy_artifact(self, id: str, artifact: Artifact, destination: Path) -> None:
        """Copy a file, verifying its digest."""
        self._blobs.copy(artifact.digest, destination)

    def remove_run(self, id: str) -> None:
        """Delete a run, and the files that no other run has."""
        with self._database.transaction() as connection:
            row = connection.execute("select number from run where id = ?", (id,)).fetchone()
            if row is None:
                raise NotFound("run", id)
            digests = connection.execute(
                "select distinct digest from artifact where run = :run and digest not in"
                " (select digest from artifact where run <> :run)",
                {"run": row[0]},
            ).fetchall()
            connection.execute("delete from run where number = ?", row)
            for (digest,) in digests:
                with suppress(FileNotFoundError):
                    self._blobs.path(digest).unlink()

    def _records(self, rows: Sequence[Sequence[Any]]) -> list[RunRecord]:
        numbers = [row[0] for row in rows]
        params = self._by_run("param", "value", numbers)
        tags = self._by_run("tag", "value", numbers)
        steps = self._by_run("series", "last_step", numbers)
        values = self._by_run("series", "last_value", numbers)
        return [
            RunRecord(
                id=run_id,
                name=name,
                experiment=experiment,
                status=status,
                params={key: from_json(text) for key, text in params[number].items()},
                tags={key: from_json(text) for key, text in tags[number].items()},
                metrics={key: read_number(value) for key, value in values[number].items()},
                last_steps={key: read_step(step) for key, step in steps[number].items()},
                parent_id=parent_id,
                started_at=_time(started_ms),
                ended_at=_time(ended_ms),
                owner=owner,
            )
            for (
                number,
                run_id,
                name,
                experiment,
                status,
                parent_id,
                started_ms,
                ended_ms,
                owner,
            ) in rows
        ]

    def _by_run(self, table: str, column: str, runs: list[int]) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {run: {} for run in runs}
        marks = ", ".join("?" * len(runs))
        query = f"select run, key, {column} from {table} where run in ({marks}) order by key"  # noqa: S608 - names of ours
        for run, key, value in self.native.execute(query, runs):
            found[run][key] = value
        return found


_RUNS: Final = (
    "select number, id, name, experiment, status, parent_id, started_ms, ended_ms, owner from run"
)


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


@hookimpl
def make_tracker(location: str | None, options: Mapping[str, Any], context: Context) -> Tracker:
    """Build a tracker that keeps its runs in the folder `location`."""
    tracker = LocalTracker(location, **options)
    tracker.context = context
    return tracker

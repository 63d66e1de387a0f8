"""Tracking in one SQLite file, with the files of runs beside it by their digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Unpack

from mlopskit.addresses import BlobStore, blobs_at
from mlopskit.capabilities import Capabilities
from mlopskit.errors import InvalidInput, NotFound
from mlopskit.hookspecs import hookimpl
from mlopskit.sqlite import Database
from mlopskit.storage import Blobs
from mlopskit.tracking import local_questions as questions
from mlopskit.tracking.base import Tracker, TrackerOptions
from mlopskit.tracking.entities import (
    Artifact,
    ArtifactLogged,
    ArtifactUse,
    Experiment,
    MetricHistory,
    RunRecord,
)
from mlopskit.tracking.local_records import COLUMNS, artifacts_of, run_records
from mlopskit.tracking.local_rows import SCHEMA, VERSION, Writer, upgrade
from mlopskit.tracking.local_series import history_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from sqlite3 import Connection

    from mlopskit.filters import Filter, Order
    from mlopskit.tool import Context
    from mlopskit.tracking.entities import Batch

TOOL = {"package": "mlopskit", "extra": "local", "requires": {}}

CAPABILITIES = {
    "artifact_inputs": "native",
    "artifact_references": "native",
    "artifacts": "native",
    "charts": "emulated: kept as data and as pictures, for whoever shows them",
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

FIRST_PAGE: Final = 25
LARGEST_PAGE: Final = 800


class LocalTracker(Tracker):
    """Keeps runs in a SQLite file of this machine. Any number of processes may share it.

    Args:
        location: The folder to keep them in; ``tracking`` in the home folder if left out.
        artifacts: The address where the bytes of artifacts lie, such as ``s3://bucket/prefix``; the
            folder ``blobs`` of the location if left out.
        artifacts_options: What the file system of fsspec takes for that address.
        options: What every tracker takes; see `Tracker`.

    Raises:
        InvalidInput: If the address is none that fsspec knows.
        MissingDependency: If the extra for such addresses is not installed.
    """

    exactly_once: ClassVar[bool] = True

    def __init__(
        self,
        location: str | Path | None = None,
        *,
        artifacts: str | Path | None = None,
        artifacts_options: Mapping[str, Any] | None = None,
        **options: Unpack[TrackerOptions],
    ) -> None:
        super().__init__(**options)
        self.location = location
        if artifacts_options and artifacts is None:
            raise InvalidInput("artifacts_options are for the address that artifacts names.")
        # An address that cannot be used is said when the tracker is opened, not mid-run.
        self._elsewhere = None
        if artifacts is not None:
            self._elsewhere = blobs_at(artifacts, **dict(artifacts_options or {}))

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
    def place(self) -> Path:
        """The SQLite file."""
        return self.folder / "tracking.db"

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
            new = Database(self.place, SCHEMA, version=VERSION, upgrade=upgrade)
            found = self.__dict__.setdefault("_opened", new)
        return found

    @property
    def _blobs(self) -> BlobStore:
        return self._elsewhere or Blobs(self.folder / "blobs")

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
            if path is not None and path.exists():
                # The journal's own blob is a link away on one disk; it is verified when it is read.
                self._blobs.put(path, digest=artifact.digest, link=True)
            elif path is not None and not self._blobs.has(artifact.digest):
                raise InvalidInput(f"The bytes of {artifact.name!r} are no longer there.")

    # Reading.

    def read_run(self, id: str) -> RunRecord:
        """Read one run."""
        with self._database.errors():
            query = f"select {COLUMNS} from run where id = ?"  # noqa: S608 - names of ours
            row = self.native.execute(query, (id,)).fetchone()
            if row is None:
                raise NotFound("run", id)
            return run_records(self.native, [row])[0]

    def scan_runs(
        self, experiment: str | None, where: Filter | None, order: Sequence[Order] = ()
    ) -> Iterator[RunRecord]:
        """Yield the runs that match, in their order, a growing page at a time."""
        wanted = questions.condition(where)
        connection = self.native
        size = FIRST_PAGE
        for plan in questions.plans(order if self.sorts(order) else ()):
            with self._database.errors():
                cursor = connection.execute(
                    # The inner one sorts numbers only; a limit keeps SQLite from joining the two.
                    f"select {COLUMNS} from (select run.number as found from {plan.source}"  # noqa: S608 - ours
                    f" where {plan.where} and (? is null or run.experiment = ?)"
                    f" and ({wanted.text}) order by {plan.keys} limit -1)"
                    " cross join run on run.number = found",
                    (*plan.given, experiment, experiment, *wanted.given),
                )
            while True:
                with self._database.errors():
                    found = run_records(connection, cursor.fetchmany(size))
                yield from found
                if len(found) < size:
                    break
                size = min(size * 2, LARGEST_PAGE)

    def sorts(self, order: Sequence[Order]) -> bool:
        """Sort by metrics and attributes."""
        with self._database.errors():
            return questions.sorts(order, self.native)

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
            return history_of(
                self.native.execute(
                    "select count, steps, times, numbers, odd from chunk where series = ?"
                    " order by place",
                    series,
                )
            )

    def list_experiments(self) -> list[Experiment]:
        """Count the runs of each experiment; one that was only described has none."""
        with self._database.errors():
            rows = self.native.execute(
                "select name, sum(runs), max(description) from ("
                " select experiment as name, count(*) as runs, '' as description from run"
                " group by experiment union all select name, 0, description from experiment)"
                " group by name order by name"
            ).fetchall()
        return [Experiment(name=name, runs=runs, description=text) for name, runs, text in rows]

    def write_experiment(self, name: str, description: str) -> None:
        """Describe an experiment."""
        with self._database.transaction() as connection:
            connection.execute(
                "insert or replace into experiment values (?, ?)", (name, description)
            )

    def remove_experiment(self, name: str) -> None:
        """Delete an experiment with its runs, and the files that no other run has."""
        with self._database.transaction() as connection:
            runs = connection.execute("select number from run where experiment = ?", (name,))
            numbers = [row[0] for row in runs.fetchall()]
            told = connection.execute("delete from experiment where name = ?", (name,)).rowcount
            if not numbers and not told:
                raise NotFound("experiment", name)
            for number in numbers:
                self._remove(connection, number)

    def find_artifact(self, name: str, alias: str, experiment: str) -> ArtifactUse | None:
        """Find the newest artifact of a name that has an alias, by an index."""
        with self._database.errors():
            rows = self.native.execute(
                "select run.id, run.number, artifact.aliases from artifact"
                " join run on run.number = artifact.run"
                " where artifact.logged_as = ? and run.experiment = ?"
                " order by artifact.serial desc",
                (name, experiment),
            )
            for run_id, number, aliases in rows:
                if alias == "latest" or alias in json.loads(aliases):
                    files = tuple(
                        each for each in artifacts_of(self.native, number) if each.logged_as == name
                    )
                    return ArtifactUse(run_id=run_id, name=name, alias=alias, files=files)
        return None

    def read_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run."""
        with self._database.errors():
            row = self.native.execute("select number from run where id = ?", (id,)).fetchone()
            if row is None:
                raise NotFound("run", id)
            return artifacts_of(self.native, row[0])

    def copy_artifact(self, id: str, artifact: Artifact, destination: Path) -> None:
        """Copy a file, verifying its digest."""
        self._blobs.copy(artifact.digest, destination)

    def remove_run(self, id: str) -> None:
        """Delete a run, and the files that no other run has."""
        with self._database.transaction() as connection:
            row = connection.execute("select number from run where id = ?", (id,)).fetchone()
            if row is None:
                raise NotFound("run", id)
            self._remove(connection, row[0])

    def _remove(self, connection: Connection, run: int) -> None:
        digests = connection.execute(
            "select distinct digest from artifact where run = :run and uri is null"
            " and digest not in (select digest from artifact where run <> :run and uri is null)",
            {"run": run},
        ).fetchall()
        connection.execute("delete from run where number = ?", (run,))
        # Still in the transaction: a run that is given these bytes now is stored after it.
        for (digest,) in digests:
            self._blobs.remove(digest)


@hookimpl
def make_tracker(location: str | None, options: Mapping[str, Any], context: Context) -> Tracker:
    """Build a tracker that keeps its runs in the folder `location`."""
    tracker = LocalTracker(location, **options)
    tracker.context = context
    return tracker

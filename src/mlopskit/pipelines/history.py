"""What the local runner remembers: runs, their steps, and the values of steps by their keys."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import NotFound
from mlopskit.pipelines.entities import NoValue, PipelineRun, StepRun
from mlopskit.sqlite import Database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from mlopskit.pipelines.entities import RunStatus

SCHEMA: Final = """
create table runs (
    number integer primary key,
    id text not null unique,
    pipeline text not null,
    status text not null,
    params text not null,
    output text,
    output_reason text not null default '',
    started text not null,
    ended text,
    owner text not null,
    cancelled integer not null default 0
);
create index runs_by_pipeline on runs (pipeline, number);
create table steps (
    run_id text not null references runs (id),
    position integer not null,
    record text not null,
    primary key (run_id, position)
) without rowid;
create table step_values (
    key text primary key,
    document text not null,
    run_id text not null,
    made text not null
) without rowid;
"""
COLUMNS: Final = "id, pipeline, status, params, output, output_reason, started, ended, owner"


class History:
    """The runner's database. A lost power supply may cost its last moments, never its order."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, SCHEMA, synchronous="NORMAL")

    def begin(self, run: PipelineRun) -> None:
        """Note a new run, with all its steps."""
        with self.database.transaction() as connection:
            connection.execute(
                "insert into runs (id, pipeline, status, params, started, owner) "
                "values (?, ?, ?, ?, ?, ?)",
                (
                    run.id,
                    run.pipeline,
                    run.status,
                    json.dumps(run.params),
                    _text(run.started_at),
                    _this_process(),
                ),
            )
            connection.executemany(
                "insert into steps values (?, ?, ?)",
                [
                    (run.id, position, step.model_dump_json())
                    for position, step in enumerate(run.steps.values())
                ],
            )

    def save_step(
        self, run_id: str, position: int, step: StepRun, document: str | None = None
    ) -> None:
        """Note what became of a step, and its value's document where it has a key."""
        with self.database.transaction() as connection:
            connection.execute(
                "update steps set record = ? where run_id = ? and position = ?",
                (step.model_dump_json(), run_id, position),
            )
            if step.key is not None and document is not None:
                connection.execute(
                    "insert or replace into step_values values (?, ?, ?, ?)",
                    (step.key, document, run_id, _text(datetime.now(UTC))),
                )

    def end(self, run: PipelineRun, document: str | None, reason: str) -> None:
        """Note the end of a run, and its output's document or the reason why there is none."""
        with self.database.transaction() as connection:
            connection.execute(
                "update runs set status = ?, ended = ?, output = ?, output_reason = ? where id = ?",
                (
                    run.status,
                    _text(run.ended_at or datetime.now(UTC)),
                    document,
                    reason,
                    run.id,
                ),
            )
            connection.executemany(
                "update steps set record = ? where run_id = ? and position = ?",
                [
                    (step.model_dump_json(), run.id, position)
                    for position, step in enumerate(run.steps.values())
                    if step.status in ("killed", "skipped")
                ],
            )

    def value(self, key: str) -> tuple[Any, str] | None:
        """Return the document kept for a key, and the id of the run that made it."""
        row = self._one("select document, run_id from step_values where key = ?", key)
        return None if row is None else (json.loads(row[0]), row[1])

    def forget(self, key: str) -> None:
        """Drop the value of a key."""
        with self.database.transaction() as connection:
            connection.execute("delete from step_values where key = ?", (key,))

    def cancel(self, run_id: str) -> None:
        """Note that a run should stop.

        Raises:
            NotFound: If there is no such run.
        """
        with self.database.transaction() as connection:
            found = connection.execute(
                "update runs set cancelled = 1 where id = ?", (run_id,)
            ).rowcount
        if not found:
            raise self._no_run(run_id)

    def is_cancelled(self, run_id: str) -> bool:
        """Tell whether a run should stop."""
        row = self._one("select cancelled from runs where id = ?", run_id)
        return row is not None and bool(row[0])

    def may_write(self, run_id: str) -> bool:
        """Tell whether the process of a run lives, whatever became of the run."""
        row = self._one("select owner from runs where id = ?", run_id)
        return row is not None and _is_alive(row[0])

    def run(self, run_id: str) -> tuple[PipelineRun, str | None]:
        """Return a run, and the document of its output where that is kept.

        Raises:
            NotFound: If there is no such run.
        """
        row = self._one(f"select {COLUMNS} from runs where id = ?", run_id)  # noqa: S608 - a constant
        if row is None:
            raise self._no_run(run_id)
        return self._record(row), row[4]

    def runs(self, pipeline: str | None, status: RunStatus | None, limit: int) -> list[PipelineRun]:
        """Return the latest runs, without their outputs."""
        found: list[PipelineRun] = []
        for row in self._rows(pipeline, status):
            if len(found) >= limit:
                break
            if status is None or _status(row) == status:
                found.append(self._record(row))
        return found

    def _rows(self, pipeline: str | None, status: RunStatus | None) -> Iterator[tuple[Any, ...]]:
        stored = "running" if status == "lost" else status
        with self.database.errors():
            yield from self.database.connection().execute(
                f"select {COLUMNS} from runs where (? is null or pipeline = ?) "  # noqa: S608 - a constant
                "and (? is null or status = ?) order by number desc",
                (pipeline, pipeline, stored, stored),
            )

    def _record(self, row: tuple[Any, ...]) -> PipelineRun:
        run_id, pipeline, _, params, output, reason, started, ended, _ = row
        status = _status(row)
        there = "get_run reads it" if output is not None else reason or f"the run is {status}"
        return PipelineRun(
            id=run_id,
            pipeline=pipeline,
            status=status,
            params=json.loads(params),
            output=NoValue(reason=there),
            steps=self._steps(run_id, lost=status == "lost"),
            started_at=datetime.fromisoformat(started),
            ended_at=None if ended is None else datetime.fromisoformat(ended),
        )

    def _steps(self, run_id: str, *, lost: bool) -> dict[str, StepRun]:
        with self.database.errors():
            rows = self.database.connection().execute(
                "select record from steps where run_id = ? order by position", (run_id,)
            )
            steps = [StepRun.model_validate_json(record) for (record,) in rows]
        if lost:
            steps = [
                step.model_copy(update={"status": "lost"}) if step.status == "running" else step
                for step in steps
            ]
        return {step.name: step for step in steps}

    def _one(self, query: str, argument: str) -> tuple[Any, ...] | None:
        with self.database.errors():
            cursor: sqlite3.Cursor = self.database.connection().execute(query, (argument,))
            row: tuple[Any, ...] | None = cursor.fetchone()
        return row

    def _no_run(self, run_id: str) -> NotFound:
        return NotFound("pipeline run", run_id, [run.id for run in self.runs(None, None, 5)])


def _text(when: datetime) -> str:
    return when.isoformat(timespec="microseconds")


def _status(row: tuple[Any, ...]) -> RunStatus:
    """Return a run's status: one that is running is lost if its process is gone."""
    status: RunStatus = row[2]
    return "lost" if status == "running" and not _is_alive(row[8]) else status


def _this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()} {_birth(os.getpid())}"


def _is_alive(owner: str) -> bool:
    """Tell whether a process lives; one on another machine is taken to."""
    host, pid, birth = owner.rsplit(" ", 2)
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return birth == _birth(int(pid))


def _birth(pid: int) -> str:
    """Return when a process began, so that a pid used again is not taken for it; "?" if unknown."""
    with suppress(OSError):
        # The command's name may hold blanks and parentheses; what follows the last one does not.
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = status.rpartition(")")[2].split()
        # A zombie has ended; nobody has asked for its status yet.
        return "ended" if fields[0] in ("Z", "X") else fields[19]
    return "?"

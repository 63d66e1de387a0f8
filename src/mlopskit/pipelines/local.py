"""Pipelines without a server: steps run in this process, their values are kept in a folder."""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from mlopskit.capabilities import Capabilities
from mlopskit.errors import InvalidInput, StorageError
from mlopskit.hookspecs import hookimpl
from mlopskit.pipelines.base import Runner
from mlopskit.pipelines.entities import NoValue, PipelineRun, StepRun
from mlopskit.pipelines.execution import Execution
from mlopskit.pipelines.fingerprint import CodeReader
from mlopskit.pipelines.graph import not_tracing
from mlopskit.pipelines.keys import Keys
from mlopskit.pipelines.store import Store

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from mlopskit.pipelines.entities import RunStatus
    from mlopskit.pipelines.graph import Graph, Pipeline

P = ParamSpec("P")

logger = logging.getLogger(__name__)

TOOL: Final = {
    "package": "mlopskit",
    "extra": "local",
    "requires": {},
}
CAPABILITIES: Final = {
    "cache": "native",
    "cancel": "emulated: steps that have begun are finished, and no other one begins",
    "compile": "absent: it runs pipelines itself and has no file format of its own",
    "detached": "absent: steps run in the process that called run, and end with it",
    "distributed": "absent: steps run in this process only",
    "history": "native",
    "isolation": "absent: steps share this process, its memory and its packages",
    "parallel": "emulated: steps run in threads, so pure Python code takes turns",
    "resume": "native",
    "retries": "native",
    "schedule": "absent: nothing runs when your process has ended; call run from cron or a timer",
    "values": "native",
}
LONGEST_PARAM: Final = 200  # characters of a param that is only shown


class LocalRunner(Runner):
    """Runs steps in this process, and keeps their values so that nothing is done twice.

    Args:
        location: The folder for values and history; ``<home>/pipelines`` by default.
        workers: How many steps may run at the same time. With 1 they run in the calling thread,
            one by one.

    Raises:
        InvalidInput: If `workers` is no whole number of at least 1.
    """

    def __init__(self, location: str | Path | None = None, workers: int = 1) -> None:
        if type(workers) is not int or workers < 1:
            raise InvalidInput(f"workers={workers!r} must be a whole number of at least 1.")
        self.workers = workers
        self._location = None if location is None else Path(location)
        self._opened: Store | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._reader = CodeReader()
        self._noted: set[tuple[str, str]] = set()

    @property
    def location(self) -> Path:
        """The folder for values and history."""
        return self._location or self.context.home / self.domain

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return Capabilities(self.domain, "local", CAPABILITIES)

    @property
    def native(self) -> sqlite3.Connection:
        """This thread's connection to the history's database."""
        return self._store.history.database.connection()

    def ping(self, timeout_s: float = 5.0) -> None:
        """Read the history, and see that the folder can be written."""
        self.native.execute("select 1 from runs limit 1")
        if not os.access(self.location, os.W_OK):
            raise StorageError(f"The folder {self.location} cannot be written.")

    def close(self) -> None:
        """Close the history of this process; a run that is still running will fail."""
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.history.database.close()

    def run(self, pipeline: Pipeline[P, Any], /, *args: P.args, **params: P.kwargs) -> PipelineRun:
        """Run a pipeline in this process; with one worker, in this very thread."""
        graph = pipeline.trace(*args, **params)
        store = self._store
        run = PipelineRun(
            id=uuid.uuid4().hex,
            status="running",
            pipeline=graph.pipeline,
            params=self._shown(graph.params),
            steps=_waiting(graph),
            output=NoValue(reason="the run is running"),
            started_at=datetime.now(UTC),
        )
        store.history.begin(run)
        execution = Execution(
            graph,
            run,
            store=store,
            keys=Keys(self._reader, cache=pipeline.cache),
            workers=self.workers,
            redactor=self.context.redactor,
            note=self._note,
        )
        with not_tracing():
            return execution.run()

    def get_run(self, id: str) -> PipelineRun:
        """Read a run back; files in its output are laid out and verified."""
        run, document = self._store.history.run(id)
        if document is None:
            return run
        try:
            output = self._store.decoder.value(json.loads(document))
        except StorageError as exc:
            output = NoValue(reason=f"the output cannot be read back: {exc}")
        return run.model_copy(update={"output": output})

    def list_runs(
        self,
        pipeline: str | None = None,
        *,
        status: RunStatus | None = None,
        limit: int = 100,
    ) -> list[PipelineRun]:
        """List runs, of every process that used this folder."""
        return self._store.history.runs(pipeline, status, limit)

    def cancel(self, id: str) -> None:
        """Let no further step of a run begin; its `run` then raises `RunCancelled`."""
        self._store.history.cancel(id)

    @property
    def _store(self) -> Store:
        with self._lock:
            if self._closed:
                raise StorageError(f"The runner at {self.location} has been closed.")
            if self._opened is None:
                self._opened = Store(self.location)
            return self._opened

    def _note(self, step: str, reason: str) -> None:
        """Log once that a step's value cannot be kept."""
        if (step, reason) not in self._noted:
            self._noted.add((step, reason))
            logger.warning("Step %r runs every time: its value cannot be stored: %s.", step, reason)

    def _shown(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return params for reading: without secrets, and short."""
        return {
            key: self.context.redactor.value(_short(value), key) for key, value in params.items()
        }


def _waiting(graph: Graph) -> dict[str, StepRun]:
    return {
        node.name: StepRun(name=node.name, step=node.step.name, parents=node.parents)
        for node in graph.nodes
    }


def _short(value: Any) -> Any:
    """Return a plain value as it is, anything else as a short text."""
    if value is None or type(value) in (bool, int, float):
        return value
    text = value if type(value) is str else repr(value)
    return text if len(text) <= LONGEST_PARAM else text[: LONGEST_PARAM - 3] + "..."


@hookimpl
def make_runner(location: str | None, options: Mapping[str, Any]) -> Runner:
    """Build the embedded runner."""
    return LocalRunner(location, **options)

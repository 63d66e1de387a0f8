"""The pipelines interface: what every runner does, and nothing else."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec

from mlopskit.errors import Unavailable, Unsupported
from mlopskit.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.pipelines.entities import PipelineRun, RunStatus
    from mlopskit.pipelines.graph import Pipeline

P = ParamSpec("P")

CAPABILITIES: Final[Mapping[str, str]] = {
    "cache": "A step whose code, inputs and environment have not changed is not run again.",
    "cancel": "A running pipeline can be stopped from outside.",
    "compile": "A pipeline can be written as a file that another system runs.",
    "detached": "A run goes on when the process that started it ends.",
    "distributed": "Steps run on several machines.",
    "history": "Runs can be listed and read back by later processes.",
    "isolation": "Each step runs in a process or container of its own.",
    "parallel": "Steps that do not need each other run at the same time.",
    "resume": "After a kill, the same run again begins at the step that had not finished.",
    "retries": "A step that fails is tried again as often as it asks for.",
    "schedule": "A pipeline can be run at set times.",
    "values": "Arrays, tables, models of pydantic, files and folders pass between steps.",
}


class Runner(Tool):
    """Runs pipelines, and remembers their runs."""

    domain: ClassVar[str] = "pipelines"

    @abstractmethod
    def run(self, pipeline: Pipeline[P, Any], /, *args: P.args, **params: P.kwargs) -> PipelineRun:
        """Run a pipeline to its end and return the finished run.

        Steps that do not depend on a failed step still finish before the failure is raised.

        Args:
            pipeline: A function decorated with ``@pipeline``.
            args: Its params by position.
            params: Its params by name.

        Raises:
            StepFailed: If a step raised; the step's own exception is the cause.
            RunCancelled: If somebody cancelled the run.
            InvalidInput: If the params are not those the pipeline takes, or the pipeline uses the
                value of a step where only a step may.
        """

    @abstractmethod
    def get_run(self, id: str) -> PipelineRun:
        """Read a run back, with its output.

        Raises:
            NotFound: If there is no such run.
        """

    @abstractmethod
    def list_runs(
        self,
        pipeline: str | None = None,
        *,
        status: RunStatus | None = None,
        limit: int = 100,
    ) -> list[PipelineRun]:
        """List runs, the latest first, with their steps but without their outputs.

        Args:
            pipeline: Only runs of the pipeline of this name.
            status: Only runs that have this status now.
            limit: At most so many.
        """

    def cancel(self, id: str) -> None:  # noqa: ARG002 - used where it is supported
        """Ask a run to stop. One that has ended stays as it is.

        Raises:
            NotFound: If there is no such run.
            Unsupported: If the backend cannot do this.
        """
        raise self._unsupported("cancel")

    def wait(self, id: str, timeout_s: float | None = None) -> PipelineRun:
        """Return a run when it has ended, however it ended.

        Raises:
            NotFound: If there is no such run.
            Unavailable: If it has not ended within the time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause = 0.01
        while (run := self.get_run(id)).status == "running":
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise Unavailable(f"The end of run {id!r}", f"it still runs after {timeout_s} s")
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 1.0)
        return run

    def schedule(
        self,
        pipeline: Pipeline[P, Any],  # noqa: ARG002 - used where it is supported
        cron: str,  # noqa: ARG002 - used where it is supported
        /,
        *args: P.args,  # noqa: ARG002 - used where it is supported
        **params: P.kwargs,  # noqa: ARG002 - used where it is supported
    ) -> str:
        """Run a pipeline at the times of a cron line, and return the schedule's id.

        Raises:
            Unsupported: If the backend cannot do this.
        """
        raise self._unsupported("schedule")

    def compile(
        self,
        pipeline: Pipeline[..., Any],  # noqa: ARG002 - used where it is supported
        path: str | Path,  # noqa: ARG002 - used where it is supported
    ) -> Path:
        """Write a pipeline as a file that another system runs, and return the file's path.

        Raises:
            Unsupported: If the backend cannot do this.
        """
        raise self._unsupported("compile")

    def _unsupported(self, capability: str) -> Unsupported:
        table = self.capabilities
        return Unsupported(self.domain, table.backend, capability, table[capability].note)

"""The records of pipelines: a run, its steps, and the reason where a value is not there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

RunStatus = Literal["running", "finished", "failed", "killed", "lost"]
StepStatus = Literal["waiting", "running", "finished", "failed", "skipped", "killed", "lost"]


class NoValue(BaseModel):
    """Stands where an output is not there, with the reason. It is falsy."""

    model_config = ConfigDict(frozen=True)

    reason: str

    def __bool__(self) -> bool:
        """Tell that there is no value."""
        return False


class StepRun(BaseModel):
    """What became of one call of a step in one run of a pipeline.

    Attributes:
        name: The call's name in the run: the step's own, with ``-2``, ``-3`` for later calls.
        step: The step's own name.
        status: ``waiting``, ``running``, ``finished``, ``failed``, ``skipped`` (a step before it
            failed), ``killed`` (interrupted) or ``lost`` (its process died).
        cached: Whether its value came from an earlier call, so that the step did not run.
        cached_from: The id of the run that made the cached value.
        seconds: How long it took, storing its value included; None if it did not end.
        key: The digest of its code, inputs and environment; None where it cannot be cached.
        uncached_reason: Why it has no key, or why its value was not kept; empty otherwise.
        error: The exception in one line, with secrets removed; None if there was none.
        traceback: The step's own traceback, beginning in the step, with secrets removed.
        attempts: How often it was tried in this run.
        parents: The calls whose values it was given.
        started_at: When it began.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    step: str
    status: StepStatus = "waiting"
    cached: bool = False
    cached_from: str | None = None
    seconds: float | None = None
    key: str | None = None
    uncached_reason: str = ""
    error: str | None = None
    traceback: str | None = None
    attempts: int = 0
    parents: tuple[str, ...] = ()
    started_at: datetime | None = None


class PipelineRun(BaseModel):
    """One run of a pipeline.

    Attributes:
        id: The run's id, unique among all runs.
        status: ``running``, ``finished``, ``failed``, ``killed`` (interrupted or cancelled) or
            ``lost`` (its process died without a word).
        output: What the pipeline function returned, with every step's value in its place; a
            `NoValue` with the reason where that is not there.
        steps: Every step's call by its name, in the order in which the pipeline calls them.
        pipeline: The name of the pipeline.
        params: What the run was given: plain values as they are, others shortened for reading,
            secrets removed.
        started_at: When it began.
        ended_at: When it ended; None while it is running, and if it is lost.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    status: RunStatus
    output: Any = None
    steps: Mapping[str, StepRun] = Field(default_factory=dict)
    pipeline: str
    params: Mapping[str, Any] = Field(default_factory=dict)
    started_at: datetime
    ended_at: datetime | None = None

    @property
    def seconds(self) -> float | None:
        """How long the run took; None until it has ended."""
        return (self.ended_at - self.started_at).total_seconds() if self.ended_at else None

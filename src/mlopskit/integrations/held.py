"""The run that a trainer logs to: the caller's, or one that is opened here and ended here."""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, cast

from mlopskit.errors import Conflict, InvalidInput, MissingDependency
from mlopskit.integrations.plain import one_value, plain
from mlopskit.kit import open_tracker
from mlopskit.tracking.base import Tracker
from mlopskit.tracking.run import Run

if TYPE_CHECKING:
    from mlopskit.tracking.entities import Status

# Command lines that are made of signatures, such as Lightning's, read these types.
Destination = Tracker | Run | str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None

logger = logging.getLogger(__name__)

OTHERS = "logged.jsonl"

_opening = threading.RLock()
_forks = 0


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - the system says it once, to nobody in particular
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_count_fork)


class StartOptions(TypedDict, total=False):
    """How a run that is opened here begins; `Tracker.start_run` says what each means."""

    experiment: str | None
    name: str | None
    params: Mapping[str, object] | None
    tags: Mapping[str, str] | None
    parent: Run | str | None
    run_id: str | None
    resume: bool
    group: str | None
    job_type: str | None
    notes: str


def missing(
    error: ModuleNotFoundError, module: str, extra: str, *, package: str | None = None
) -> Exception:
    """Return the error to raise where an import failed: a bug inside the package stays one."""
    if (error.name or "").partition(".")[0] != module:
        return error
    return MissingDependency(
        f"mlopskit.integrations.{extra}", package or module, f"pip install 'mlopskit[{extra}]'"
    )


class HeldRun:
    """A run that is opened at its first use, and taken up again at the next use after its end.

    Copies of it in other processes, forked or started with a pickled one, open the same run.

    Args:
        to: An open run, which is left open; a tracker; a config line, or None for the configured
            tracker, which is then opened and closed here.
        start: How the run begins.

    Raises:
        InvalidInput: If an open run is to begin in another way.
    """

    def __init__(self, to: Destination, start: StartOptions) -> None:
        if isinstance(to, Run) and start:
            raise InvalidInput(
                f"Run {to.id} has begun already, so {', '.join(sorted(start))} cannot be chosen. "
                "Pass its tracker instead to begin another run."
            )
        self._to = to
        self._start = start
        self._tracker: Tracker | None = None
        self._run: Run | None = None
        self._others: list[str] = []
        self._chosen = start.get("run_id") or uuid.uuid4().hex
        self._made_at = (os.getpid(), _forks)
        self._pickled = False
        self._id: str | None = to.id if isinstance(to, Run) else None
        self.experiment = to.experiment if isinstance(to, Run) else start.get("experiment")

    @property
    def id(self) -> str | None:
        """The id of the run; None while it is not known: nothing has opened it."""
        return self._id or (self._chosen if self._shared else None)

    @property
    def run(self) -> Run | None:
        """The run; None while none is open."""
        return self._run

    def open(self, **defaults: Any) -> Run:
        """Return the run. One that is opened here begins with `defaults` where nothing was chosen.

        Raises:
            ConfigError: If the tracker cannot be opened.
            StorageError: If the journal cannot be written.
        """
        with _opening:
            if self._run is None:
                self._run = self._opened(defaults)
                self._id, self.experiment = self._run.id, self._run.experiment
            return self._run

    def log_metrics(self, values: Mapping[Any, Any], step: int | None = None) -> None:
        """Log numbers as metrics. What is none is kept for the artifact `OTHERS`, with its step."""
        numbers: dict[str, Any] = {}
        for key, value in values.items():
            single = one_value(value)
            if isinstance(single, int | float):
                numbers[str(key)] = single
            else:
                said = {"step": step, "key": str(key), "value": plain(single)}
                self._others.append(json.dumps(said, default=str))
        if numbers:
            self.open().log_metrics(numbers, step)

    def log_params(self, values: Any) -> None:
        """Log params, nested as they are; what no param can be is kept as `plain` writes it."""
        params = plain(values)
        if isinstance(params, dict):
            self.open().log_params({str(key): value for key, value in params.items()})

    def pause(self, status: Status) -> None:
        """End the run, knowing that it may be taken up again; where that cannot be, flush it.

        A tracker without the capability ``resume`` ends a run that went well with the program.
        """
        if self._run is None or isinstance(self._to, Run):
            self._keep_others()
        elif status == "finished" and not self._resumes():
            self._keep_others()
            self._run.flush()
        else:
            self.end(status)

    def end(self, status: Status) -> None:
        """End the run, and close the tracker, where they were opened here."""
        try:
            self._keep_others()
        finally:
            with _opening:
                run, self._run = self._run, None
                tracker, self._tracker = self._tracker, None
            try:
                if run is not None and not isinstance(self._to, Run):
                    run.finish(status)
            finally:
                if tracker is not None:
                    tracker.close()

    def again(self) -> None:
        """Let the next use open a new run, rather than take up the one that ended."""
        if not isinstance(self._to, Run):
            self._id, self._chosen = None, uuid.uuid4().hex
            self._others.clear()

    def __getstate__(self) -> dict[str, Any]:
        self._pickled = True
        return {**self.__dict__, "_run": None, "_tracker": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._made_at[0] == os.getpid():  # A copy here is another one.
            self._chosen = self._start.get("run_id") or uuid.uuid4().hex
            self._made_at, self._pickled = (os.getpid(), _forks), False

    @property
    def _shared(self) -> bool:
        """Whether other processes, such as those that a trainer starts, may have opened the run."""
        return self._pickled or self._made_at != (os.getpid(), _forks)

    def _opened(self, defaults: dict[str, Any]) -> Run:
        if isinstance(self._to, Run):
            return self._to
        tracker = self._to if isinstance(self._to, Tracker) else open_tracker(self._to)
        options: dict[str, Any] = {**defaults, **self._start}
        if self._id is not None:
            options = {"run_id": self._id, "resume": True}
        elif self._shared:
            options["run_id"] = self._chosen
        try:
            run = self._started(tracker, options)
        except BaseException:
            if tracker is not self._to:
                tracker.close()
            raise
        self._tracker = None if tracker is self._to else tracker
        return run

    def _started(self, tracker: Tracker, options: dict[str, Any]) -> Run:
        try:
            return tracker.start_run(**options)
        except Conflict:
            if self._id is not None or not self._shared or "run_id" in self._start:
                raise
        if "resume" in tracker.capabilities:
            return tracker.start_run(run_id=self._chosen, resume=True)
        return tracker.start_run(**{**options, "run_id": None})

    def _resumes(self) -> bool:
        tracker = self._tracker or cast("Tracker", self._to)
        return "resume" in tracker.capabilities

    def _keep_others(self) -> None:
        if self._others and self._run is not None:
            self._run.log_text("\n".join(self._others) + "\n", OTHERS)

"""One trial of a sweep: what the objective holds, how it ends, and how its run reads back.

The tracker is the truth. What a search needs to go on is kept in the tags of the trial's run, so
that no other file has to survive.
"""

from __future__ import annotations

import json
import logging
import math
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from mlopskit.endings import came_through, exit_code, handlers
from mlopskit.errors import InvalidInput, NotFound
from mlopskit.tracking.values import check_step, number
from mlopskit.tracking.within import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import RunRecord, Status
    from mlopskit.tracking.run import Run
    from mlopskit.tracking.sweep_space import Point, Space

logger = logging.getLogger(__name__)

State = Literal["complete", "pruned", "failed"]
STATES: Final = ("complete", "pruned", "failed")
NAME: Final = "sweep.name"
TRIAL: Final = "sweep.trial"
POINT: Final = "sweep.point"
STATE: Final = "sweep.state"
ATTRS: Final = "sweep.attrs"
ERROR: Final = "sweep.error"
LONGEST_ERROR: Final = 500


class TrialPruned(Exception):
    """An objective raises this to stop a trial that `Trial.should_prune` has given up."""


class TrialFailed(Exception):
    """An objective raises this to fail its trial with a reason, which is logged as one line."""


class Judge(Protocol):
    """What knows how the other trials have done."""

    def report(self, value: float, step: int) -> None:
        """Hear of a value on the way."""

    def should_prune(self) -> bool:
        """Tell whether the others were better at this point."""


class Trial:
    """One trial: what the objective is given.

    Attributes:
        number: From 0.
        params: What to try, by name. They are params of the run already.
        run: The trial's own run, to log to. The sweep ends it, whether the objective does or not.
    """

    def __init__(
        self, number: int, params: Mapping[str, Any], run: Run, judge: Judge, metric: str
    ) -> None:
        self.number = number
        self.params: Mapping[str, Any] = MappingProxyType(dict(params))
        self.run = run
        self._judge = judge
        self._metric = metric
        self._steps: set[int] = set()
        self.given_up = False

    def report(self, value: Any, step: int) -> None:
        """Log a value on the way, and let it be held against those of other trials.

        It becomes the metric ``<metric>/reported``. Of two reports of one step the first counts.

        Raises:
            InvalidInput: If the value is no real number, or the step none of 0, 1, 2 and so on.
        """
        checked = number(self._metric, _single(value))
        if (step := check_step(step)) < 0:
            raise InvalidInput(f"The step is {step}; the steps of a trial begin at 0.")
        self.run.log_metric(reported(self._metric), checked, step=step)
        if step not in self._steps:
            self._steps.add(step)
            self._judge.report(_float(checked), step)

    def should_prune(self) -> bool:
        """Tell whether to give this trial up. Without pruning, or reports, the answer is no.

        The objective then raises `TrialPruned`, or returns None.
        """
        self.given_up = bool(self._steps) and self._judge.should_prune()
        return self.given_up

    def __repr__(self) -> str:
        return f"<Trial {self.number} {dict(self.params)!r}>"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an objective ended.

    Attributes:
        state: What counts.
        value: What it returned; of a pruned trial, None.
        error: What it raised, as text.
    """

    state: State
    value: float | None = None
    error: str = ""

    @property
    def status(self) -> Status:
        """How the run ends."""
        return "failed" if self.state == "failed" else "finished"


def attempt(
    objective: Callable[[Trial], Any],
    trial: Trial,
    pruned: type[BaseException] | tuple[type[BaseException], ...],
) -> Outcome:
    """Call an objective. What it raises is an outcome, ``sys.exit`` too, unless a signal ends it.

    Args:
        objective: The user's.
        trial: What it is given.
        pruned: The exceptions that say that the trial was given up.

    Raises:
        KeyboardInterrupt: If the user ends the program.
        SystemExit: If a signal handler does: one that was there before.
    """
    endings = handlers()
    try:
        with (
            _kept_open(trial.run),
            within(trial.run),
        ):  # What logs by itself, such as autologging, logs there.
            returned = objective(trial)
    except pruned:
        return Outcome("pruned")
    except TrialFailed as exc:
        logger.warning("Trial %d failed: %s.", trial.number, exc)
        return Outcome("failed", error=str(exc)[:LONGEST_ERROR])
    except SystemExit as exc:
        if came_through(exc, endings):
            raise
        logger.warning("Trial %d tried to end the program.", trial.number, exc_info=True)
        error = f"The objective tried to end the program with the exit code {exit_code(exc)}"
        return Outcome("failed", error=error)
    except Exception as exc:
        logger.warning("Trial %d failed.", trial.number, exc_info=True)
        return Outcome("failed", error=f"{type(exc).__name__}: {exc}"[:LONGEST_ERROR])
    return _worth(trial, returned)


def _worth(trial: Trial, returned: Any) -> Outcome:
    """Return the outcome of a trial by what its objective returned."""
    if returned is None and trial.given_up:
        return Outcome("pruned")
    try:
        value = _float(number("value", _single(returned)))
    except InvalidInput:
        value = math.nan
    if not math.isnan(value):
        return Outcome("complete", value)
    said = repr(returned)[:LONGEST_ERROR]
    logger.warning("Trial %d returned %s, which is no number.", trial.number, said)
    return Outcome("failed", error=f"The objective returned {said}"[:LONGEST_ERROR])


@contextmanager
def _kept_open(run: Run) -> Iterator[None]:
    """Let an objective end its run in name only: what the trial was worth has still to be kept."""

    def finish(status: Status = "finished", *, timeout_s: float | None = None) -> None:  # noqa: ARG001 - as of a run
        run.flush(timeout_s)

    run.finish = finish  # type: ignore[method-assign]
    try:
        yield
    finally:
        del run.finish


def _single(value: Any) -> Any:
    """Return what an array or tensor of one element holds, and anything else as it is."""
    if isinstance(value, int | float) or not callable(item := getattr(value, "item", None)):
        return value
    try:
        return item()
    except (TypeError, ValueError, RuntimeError):  # It has several.
        return value


def trial_tags(number: int, point: Point) -> dict[str, str]:
    """Return the tags that a trial's run begins with."""
    return {TRIAL: str(number), POINT: json.dumps(point)}


def write_value(run: Run, metric: str, outcome: Outcome) -> None:
    """Log the value, as the last of its name; where the objective ran, since steps count there."""
    if outcome.value is not None:
        run.log_metric(metric, outcome.value)


def write_state(run: Run, outcome: Outcome, attrs: Mapping[str, Any]) -> None:
    """Write the tags that make the trial count, all at once."""
    tags: dict[str, str] = {STATE: outcome.state}
    if attrs:
        tags[ATTRS] = json.dumps(attrs)
    if outcome.error:
        tags[ERROR] = outcome.error
    run.set_tags(tags)


@dataclass(frozen=True, slots=True)
class Done:
    """A trial that has ended.

    Attributes:
        number: From 0.
        run_id: Its run.
        state: ``complete``, ``pruned`` or ``failed``.
        params: What it was given.
        value: What the objective returned; None unless it is complete.
        error: What the objective raised.
        point: The coordinates of its params.
        reported: The values on the way, by step.
        attrs: What the search keeps of it.
    """

    number: int
    run_id: str
    state: State
    params: Mapping[str, Any]
    value: float | None = None
    error: str = ""
    point: Point = field(default_factory=dict)
    reported: Mapping[int, float] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)


def read_trials(
    tracker: Tracker, experiment: str, parent_id: str, space: Space, metric: str
) -> list[Done]:
    """Read the trials of a sweep that count, by number; one that was cut off does not."""
    found: dict[int, Done] = {}
    runs = tracker.search_runs(f"parent_id = '{parent_id}'", experiment, limit=None)
    for record in sorted(runs, key=lambda each: str(each.started_at)):
        if (done := _read(tracker, record, space, metric)) is not None:
            found.setdefault(done.number, done)
    return [found[each] for each in sorted(found)]


def _read(tracker: Tracker, record: RunRecord, space: Space, metric: str) -> Done | None:
    tags = record.tags
    state = tags.get(STATE)
    if state not in STATES or TRIAL not in tags or POINT not in tags:
        return None
    value = record.metrics.get(metric)
    if state == "complete" and value is None:
        return None
    try:
        point, attrs = json.loads(tags[POINT]), json.loads(tags.get(ATTRS, "{}"))
        trial = int(tags[TRIAL])
    except ValueError:
        return None
    if not space.takes(point):
        return None
    has_steps = reported(metric) in record.metrics
    return Done(
        number=trial,
        run_id=record.id,
        state=state,  # type: ignore[arg-type]
        params=space.params(point),  # The run may have params of the objective's own, too.
        value=_float(value) if state == "complete" and value is not None else None,
        error=tags.get(ERROR, ""),
        point=point,
        reported=dict(_steps(tracker, record.id, metric)) if has_steps else {},
        attrs=attrs,
    )


def _steps(tracker: Tracker, run_id: str, metric: str) -> Iterator[tuple[int, float]]:
    with suppress(NotFound):
        history = tracker.get_metric_history(run_id, reported(metric))
        seen: set[int] = set()
        for step, value in zip(history.steps, history.values, strict=True):
            if int(step) not in seen:
                seen.add(int(step))
                yield int(step), _float(value)


def reported(metric: str) -> str:
    """Return the name of the metric that has the values on the way."""
    return f"{metric}/reported"


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf

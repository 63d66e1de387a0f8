"""A callback of an Optuna study that logs its trials to any tracker."""

from __future__ import annotations

import functools
import logging
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack

from mlopskit.errors import InvalidInput
from mlopskit.integrations.held import StartOptions, missing
from mlopskit.integrations.plain import plain
from mlopskit.kit import open_tracker
from mlopskit.tracking.base import Tracker
from mlopskit.tracking.ranks import this_rank
from mlopskit.tracking.run import Run, status_of

try:
    from optuna.exceptions import TrialPruned
    from optuna.trial import TrialState
except ModuleNotFoundError as exc:
    raise missing(exc, "optuna", "optuna") from exc

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from mlopskit.integrations.held import Destination
    from mlopskit.tracking.entities import Status

__all__ = ["MlopskitCallback"]

logger = logging.getLogger(__name__)

STATE: Final = "optuna.state"
REPORTED: Final = "intermediate_value"
R = TypeVar("R")


class MlopskitCallback:
    """Logs each trial of a study as a run, once the trial has ended.

    ``study.optimize(objective, n_trials=9, callbacks=[MlopskitCallback()])``. A trial's run has
    its params, its user attributes as the param ``user_attrs``, its values, what it reported on the
    way as the metric ``intermediate_value`` by step, and its state as the tag ``optuna.state``. It
    is called ``trial-<number>``, in an experiment and a group called as the study. A failed trial
    leaves a ``failed`` run; after an exception that ``catch`` does not name, Optuna calls nobody,
    and only an objective that is `watched` leaves one. Trials may run in threads. Ranks other than
    0 log nothing and open nothing.

    Args:
        to: A `Tracker`, an open `Run`, or a config line; the configured tracker if left out. An
            open run becomes the parent of the trials' runs, and has their values by number.
        start: What `Tracker.start_run` takes, for each trial.

    Raises:
        InvalidInput: If the id of one run is given, since there are many.
    """

    def __init__(self, to: Destination = None, **start: Unpack[StartOptions]) -> None:
        if "run_id" in start or "resume" in start:
            raise InvalidInput("Each trial is a run of its own, so run_id and resume cannot be.")
        self._to = to
        self._start = start
        self._parent = to if isinstance(to, Run) else None
        self._opened: Tracker | None = None
        self._lock = threading.Lock()
        self._logged: set[tuple[str, int]] = set()

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Log one trial that has ended."""
        if this_rank():
            return
        if (study.study_name, trial.number) in self._logged:
            return
        self._log(study, trial, "failed" if trial.state is TrialState.FAIL else "finished")

    def watched(self, objective: Callable[[Trial], R]) -> Callable[[Trial], R]:
        """Return an objective whose trials leave a run also where they raise.

        ``study.optimize(callback.watched(objective), callbacks=[callback])``. The run of a trial
        that raises is logged at once, ``failed``, or ``killed`` after Ctrl-C, and the exception
        goes on to Optuna. An error of logging is told as a warning then, so as not to hide it.
        """

        @functools.wraps(objective)
        def watching(trial: Trial) -> R:
            try:
                return objective(trial)
            except TrialPruned:
                raise
            except (Exception, KeyboardInterrupt) as exc:  # These fail a trial, and no others do.
                self._log_raised(trial, status_of(exc))
                raise

        return watching

    def _log_raised(self, trial: Trial, status: Status) -> None:
        if this_rank():
            return
        study = trial.study
        try:
            found = next(each for each in study.get_trials() if each.number == trial.number)
            found.state = TrialState.FAIL  # As Optuna will say in a moment.
            found.datetime_complete = datetime.now()  # noqa: DTZ005 - as Optuna's other times
            self._logged.add((study.study_name, trial.number))
            self._log(study, found, status)
        except Exception as exc:  # noqa: BLE001 - what the objective raised is what matters
            logger.warning("Trial %s has failed, and has no run: %s", trial.number, exc)

    def _log(self, study: Study, trial: FrozenTrial, status: Status) -> None:
        values = _values(study, trial)
        options: dict[str, Any] = {
            "experiment": study.study_name if self._parent is None else self._parent.experiment,
            "group": study.study_name,
            "name": f"trial-{trial.number}",
            "parent": self._parent,
            **self._start,
        }
        run = self._tracker().start_run(**options)
        try:
            _log(run, trial, values)
        except BaseException:
            run.finish("failed")
            raise
        run.finish(status)
        if self._parent is not None and values:
            self._parent.log_metrics(values, trial.number)

    def close(self) -> None:
        """Close the tracker, if it was opened here. Closing twice is fine."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tracker(self) -> Tracker:
        if isinstance(self._to, Tracker):
            return self._to
        if isinstance(self._to, Run):
            return self._to.tracker
        with self._lock:
            if self._opened is None:
                self._opened = open_tracker(self._to)
            return self._opened


def _log(run: Run, trial: FrozenTrial, values: dict[str, float]) -> None:
    run.log_params({key: plain(value) for key, value in trial.params.items()})
    if trial.user_attrs:
        run.log_params({"user_attrs": plain(trial.user_attrs)})
    run.set_tags({STATE: trial.state.name})
    for step, value in sorted(trial.intermediate_values.items()):
        run.log_metric(REPORTED, value, step)
    if trial.duration is not None:
        values = {**values, "duration_s": trial.duration.total_seconds()}
    run.log_metrics(values, trial.number)


def _values(study: Study, trial: FrozenTrial) -> dict[str, float]:
    """Return the values of a trial by the study's names for them, else ``value``, ``value_1``."""
    found = trial.values or []
    names = study.metric_names
    if names is None:
        names = ["value"] if len(found) == 1 else [f"value_{i}" for i in range(len(found))]
    return dict(zip(names, found, strict=True)) if found else {}

"""The search itself, by Optuna's ask-and-tell. Imported when a sweep runs, and not before.

TPE: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011; its multivariate form:
Falkner et al., BOHB, ICML 2018. Hyperband: Li et al., Hyperband, JMLR 2018. Median pruning: Golovin
et al., Google Vizier, KDD 2017. Importances: fANOVA (Hutter et al., ICML 2014), and where there is
no scikit-learn PED-ANOVA (Watanabe et al., IJCAI 2023).
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from mlopskit.tracking.sweep_methods import Hyperband, MedianPruning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlopskit.tracking.sweep_methods import Direction, Pruning, Sampler
    from mlopskit.tracking.sweep_space import Point, Space
    from mlopskit.tracking.sweep_trials import Done, Outcome

PRUNED: Final = optuna.TrialPruned
# Where successive halving notes how far a trial came.
RUNG: Final = "completed_rung_"
LARGEST_WEIGHED: Final = 1e30
_TOLD: Final = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class _Hyperband(optuna.pruners.HyperbandPruner):
    """Optuna's, which chooses a trial's bracket by its number: here by the sweep's number of it.

    Optuna counts the trials that a study holds, and the judge of a trial elsewhere, or of a sweep
    with gaps that is taken up again, does not hold them all.

    Attributes:
        numbers: The sweep's number of each trial that the study holds.
    """

    def __init__(self, numbers: list[int], **options: Any) -> None:
        super().__init__(**options)
        self.numbers = numbers

    def _get_bracket_id(self, study: Any, trial: Any) -> int:
        ours: Any = SimpleNamespace(number=self.numbers[trial.number])
        return super()._get_bracket_id(study, ours)


class Asked:
    """A trial that the search has asked for, and the judge of its reports."""

    def __init__(self, trial: optuna.Trial, number: int, point: Point) -> None:
        self.trial = trial
        self.number = number
        self.point = point
        self.reported: dict[int, float] = {}

    def report(self, value: float, step: int) -> None:
        """Hear of a value on the way."""
        self.reported[step] = value
        self.trial.report(value, step)

    def should_prune(self) -> bool:
        """Tell whether the others were better at this point."""
        return bool(self.trial.should_prune())


class Study:
    """A search over a space.

    What a trial is given depends on the seed, its number and the trials before it, not on how the
    process got there: a search that is taken up again goes on as if it had never stopped.

    Args:
        space: What may be tried.
        sampler: How to choose.
        pruning: When to give up.
        direction: ``"minimize"`` or ``"maximize"``.
        seed: Of all random choices.
        several: Whether trials run side by side: then none is asked for where another one is.
    """

    def __init__(
        self,
        space: Space,
        *,
        sampler: Sampler,
        pruning: Pruning | None,
        direction: Direction,
        seed: int,
        several: bool = False,
    ) -> None:
        self._space = space
        self._kind = sampler
        self._seed = seed
        self._several = several
        self._grid = space.grid() if sampler == "grid" else None
        self._numbers: list[int] = []
        with _quiet():
            self._study = optuna.create_study(
                study_name="sweep",
                sampler=optuna.samplers.RandomSampler(seed=seed),
                pruner=_pruner(pruning, self._numbers),
                direction=direction,
            )

    def add(self, done: Done) -> None:
        """Take in a trial that ended earlier."""
        # Optuna takes the last report of a trial that was given up as its value.
        last = done.reported[max(done.reported)] if done.reported else None
        self._numbers.append(done.number)
        self._study.add_trial(
            create_trial(
                state=_TOLD[done.state],
                value=last if done.state == "pruned" else done.value,
                params=dict(done.point),
                distributions=_distributions(self._space, done.point),
                intermediate_values=dict(done.reported),
                system_attrs=dict(done.attrs),
            )
        )

    def ask(self, number: int) -> Asked:
        """Choose what trial `number` tries."""
        self._numbers.append(number)
        if self._grid is not None:
            self._study.enqueue_trial(self._grid[number])
        self._study.sampler = self._sampler(number)
        trial = self._study.ask()
        return Asked(trial, number, self._space.draw(trial))

    def ask_for(self, number: int, point: Point) -> Asked:
        """Begin a trial whose point is known."""
        self._numbers.append(number)
        self._study.enqueue_trial(dict(point))
        self._study.sampler = self._sampler(number)
        trial = self._study.ask()
        return Asked(trial, number, self._space.draw(trial))

    def catch_up(self, asked: Asked, done: Done) -> None:
        """Hear what a trial reported elsewhere, so that others are judged by it."""
        for step, value in sorted(done.reported.items()):
            asked.report(value, step)
            asked.should_prune()

    def tell(self, asked: Asked, outcome: Outcome) -> dict[str, Any]:
        """Take in how a trial ended; return what has to be kept of it."""
        frozen = self._study.tell(asked.trial, outcome.value, state=_TOLD[outcome.state])
        attrs = frozen.system_attrs.items()
        return {key: value for key, value in attrs if key.startswith(RUNG)}

    def importances(self, *, quick: bool) -> dict[str, float]:
        """Weigh the parameters by the trials that were added; if `quick`, without a forest."""
        if len({each.value for each in self._study.trials}) < 2:
            return {}
        evaluator: optuna.importance.BaseImportanceEvaluator
        with _quiet():
            if not quick and find_spec("sklearn") is not None:
                evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self._seed % 2**32)
            else:
                evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {name: float(share) for name, share in found.items()}

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        digest = hashlib.sha256(f"{self._seed}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        if self._kind != "tpe":
            return optuna.samplers.RandomSampler(seed=seed)
        with _quiet():
            return optuna.samplers.TPESampler(
                seed=seed,
                multivariate=True,
                group=self._space.conditional,
                constant_liar=self._several,
            )


def importances(
    space: Space, trials: Sequence[Done], direction: Direction, seed: int, *, quick: bool
) -> dict[str, float]:
    """Say how much of what the trials differ in is due to each parameter; they sum to 1.

    Only parameters that every complete trial has can be weighed, and only values that the forests
    of scikit-learn, which hold singles, can take.
    """
    study = Study(space, sampler="random", pruning=None, direction=direction, seed=seed)
    for each in trials:
        if each.value is not None and abs(each.value) < LARGEST_WEIGHED:
            study.add(each)
    return study.importances(quick=quick)


def _distributions(space: Space, point: Point) -> dict[str, optuna.distributions.BaseDistribution]:
    """Describe the range of each coordinate of a point, as asking for it would."""
    recorder = _Recorder(point)
    space.draw(recorder)
    return recorder.found


class _Recorder:
    """Answers a drawing with a point that is known, and notes what was asked."""

    def __init__(self, point: Point) -> None:
        self._point = point
        self.found: dict[str, optuna.distributions.BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.found[name] = optuna.distributions.FloatDistribution(low, high, log=log, step=step)
        return float(self._point[name])

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        self.found[name] = optuna.distributions.IntDistribution(low, high, log=log, step=step)
        return int(self._point[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.found[name] = CategoricalDistribution(choices)
        return self._point[name]


def _pruner(pruning: Pruning | None, numbers: list[int]) -> optuna.pruners.BasePruner:
    if isinstance(pruning, MedianPruning):
        return optuna.pruners.MedianPruner(
            n_startup_trials=pruning.startup_trials,
            n_warmup_steps=pruning.warmup_steps,
            interval_steps=pruning.interval,
        )
    if isinstance(pruning, Hyperband):
        return _Hyperband(
            numbers,
            min_resource=pruning.min_steps,
            max_resource=pruning.max_steps,
            reduction_factor=pruning.factor,
        )
    return optuna.pruners.NopPruner()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from announcing a study, and from warning of what is chosen here on purpose.

    Level and filters are the process's own, so threads take turns.
    """
    log = logging.getLogger("optuna")
    with _turn.lock:
        before = log.level
        log.setLevel(logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                warnings.simplefilter("ignore", UserWarning)  # That few trials tell little.
                yield
        finally:
            log.setLevel(before)


class _Turn:
    """Whose turn it is to be quiet; in a forked child nobody's."""

    def __init__(self) -> None:
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Forget who holds it."""
        self.lock = threading.RLock()


_turn = _Turn()

"""What a sweep found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit.storage import write_page
from mlopskit.tracking.sweep_trials import STATES, Done

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.tracking.sweep_methods import Direction
    from mlopskit.tracking.sweep_space import Space


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep found, once all of its trials have ended.

    Attributes:
        name: The sweep's.
        experiment: That of its runs.
        run_id: The parent of its trials' runs.
        metric: The name of the value.
        direction: ``minimize`` or ``maximize``.
        seed: Of all random choices; with it the sweep can be done again.
        trials: By number.
        space: What was searched.
    """

    name: str
    experiment: str
    run_id: str
    metric: str
    direction: Direction
    seed: int
    trials: tuple[Done, ...]
    space: Space

    @property
    def best(self) -> Done | None:
        """The complete trial of the best value, the first of equals; None if none is complete."""
        complete = [each for each in self.trials if each.value is not None]
        if not complete:
            return None
        sign = 1 if self.direction == "minimize" else -1
        return min(complete, key=lambda each: sign * (each.value or 0.0))

    @property
    def counts(self) -> Mapping[str, int]:
        """How many trials are ``complete``, ``pruned`` and ``failed``."""
        found = Counter(each.state for each in self.trials)
        return {state: found[state] for state in STATES}

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each trial: its number, state, value, params and run."""
        return [
            {
                "trial": each.number,
                "state": each.state,
                self.metric: each.value,
                **{name: each.params.get(name) for name in self.space.domains},
                "run_id": each.run_id,
            }
            for each in self.trials
        ]

    def importances(self, *, quick: bool = False) -> dict[str, float]:
        """Say how much of the differences in value is due to each parameter, the most first.

        The shares sum to 1. Only parameters that every complete trial has can be weighed; fewer
        than two different values have nothing to tell. By fANOVA (Hutter et al., ICML 2014) where
        scikit-learn is installed, else, or if `quick`, by PED-ANOVA (Watanabe et al., IJCAI 2023).

        Raises:
            MissingDependency: If Optuna is not installed.
        """
        from mlopskit.tracking.sweep_search import importances  # noqa: PLC0415 - loads Optuna

        return importances(self.space, self.trials, self.direction, self.seed, quick=quick)

    def to_html(self, path: str | Path) -> Path:
        """Write a page with the history, the parallel coordinates, the importances and the trials.

        It is one file that opens offline.
        """
        from mlopskit.tracking.sweep_report import page  # noqa: PLC0415 - few ask for it

        target = Path(path)
        write_page(target, page(self))
        return target

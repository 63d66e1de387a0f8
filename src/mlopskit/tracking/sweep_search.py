"""The door to the search engine, which is loaded when a sweep runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlopskit.errors import MissingDependency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.tracking.sweep_methods import Direction
    from mlopskit.tracking.sweep_space import Space
    from mlopskit.tracking.sweep_study import Study
    from mlopskit.tracking.sweep_trials import Done


def load() -> Any:
    """Return the module of the search.

    Raises:
        MissingDependency: If Optuna is not installed.
    """
    try:
        from mlopskit.tracking import sweep_study  # noqa: PLC0415 - only a sweep pays for Optuna
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] != "optuna":
            raise
        raise MissingDependency("A sweep", "optuna", "pip install 'mlopskit[sweeps]'") from exc
    return sweep_study


def study(space: Space, **options: Any) -> Study:
    """Begin a search; see `sweep_study.Study`."""
    begun: Study = load().Study(space, **options)
    return begun


def importances(
    space: Space, trials: Sequence[Done], direction: Direction, seed: int, *, quick: bool = False
) -> dict[str, float]:
    """Weigh the parameters; see `sweep_study.importances`."""
    found: dict[str, float] = load().importances(space, trials, direction, seed, quick=quick)
    return found

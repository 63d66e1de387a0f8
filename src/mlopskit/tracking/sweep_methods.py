"""How a sweep chooses its trials, and when it gives one up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from mlopskit.errors import InvalidInput

Sampler = Literal["tpe", "random", "grid"]
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True, slots=True)
class MedianPruning:
    """Give a trial up whose best report is worse than the median of the others at that step.

    Golovin et al., Google Vizier, KDD 2017.

    Attributes:
        startup_trials: So many trials run to their end before any is given up.
        warmup_steps: No trial is given up before this step.
        interval: Look only every so many steps.
    """

    startup_trials: int = 5
    warmup_steps: int = 0
    interval: int = 1

    def __post_init__(self) -> None:
        _at_least("startup_trials", self.startup_trials, 0)
        _at_least("warmup_steps", self.warmup_steps, 0)
        _at_least("interval", self.interval, 1)


@dataclass(frozen=True, slots=True)
class Hyperband:
    """Give most trials up early, and a few ever later: Li et al., JMLR 2018.

    Attributes:
        min_steps: The least that a trial is given.
        max_steps: The most that a trial reports.
        factor: One of so many goes on from rung to rung.
    """

    min_steps: int = 1
    max_steps: int = 100
    factor: int = 3

    def __post_init__(self) -> None:
        _at_least("min_steps", self.min_steps, 1)
        _at_least("max_steps", self.max_steps, self.min_steps)
        _at_least("factor", self.factor, 2)


Pruning = MedianPruning | Hyperband
PRUNINGS: Final[dict[str, type[MedianPruning | Hyperband]]] = {
    "median": MedianPruning,
    "hyperband": Hyperband,
}


def check_sampler(sampler: str) -> Sampler:
    """Return the name of a sampler.

    Raises:
        InvalidInput: If there is none of that name.
    """
    if sampler not in get_args(Sampler):
        raise InvalidInput(f"The sampler is {sampler!r}; it may be {_or(get_args(Sampler))}.")
    return sampler  # type: ignore[return-value]


def check_direction(direction: str) -> Direction:
    """Return a direction.

    Raises:
        InvalidInput: If it is none.
    """
    if direction not in get_args(Direction):
        raise InvalidInput(f"The direction is {direction!r}; it may be {_or(get_args(Direction))}.")
    return direction  # type: ignore[return-value]


def check_pruning(pruning: Pruning | str | None) -> Pruning | None:
    """Return a way of pruning, also by its name alone.

    Raises:
        InvalidInput: If there is none of that name.
    """
    if pruning is None or isinstance(pruning, Pruning):
        return pruning
    if pruning not in PRUNINGS:
        raise InvalidInput(
            f"The pruning is {pruning!r}; it may be {_or(tuple(PRUNINGS))}, a MedianPruning, a "
            "Hyperband, or None."
        )
    return PRUNINGS[pruning]()


def _at_least(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        raise InvalidInput(
            f"{name} of the pruning is {value!r}; it must be an int from {least} on."
        )


def _or(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:-1])) + f" or {names[-1]!r}"

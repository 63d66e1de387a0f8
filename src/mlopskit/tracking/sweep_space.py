"""What a sweep may try: the values of each parameter, as typed, frozen descriptions.

A value that is drawn is a *coordinate* first, the plain number that the search engine knows, and
then what the objective is given: the choice itself, or a number on another scale. The coordinates
are kept with the run, so that a search can be taken up again exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from itertools import islice
from statistics import NormalDist
from typing import Any, Final, Protocol

from mlopskit.errors import InvalidInput
from mlopskit.tracking.values import check_params, same

Point = dict[str, int | float]
LARGEST: Final = 2**53
MOST_OF_A_GRID: Final = 1_000_000


class Draws(Protocol):
    """What gives the coordinates: a trial of Optuna."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a float of a range, both ends included."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Return an int of a range, both ends included."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""


@dataclass(frozen=True, slots=True)
class Uniform:
    """A float between two ends, every one as likely; with a step, one of a ladder from `low`."""

    low: float
    high: float
    step: float | None = None

    def check(self, name: str) -> None:
        """Refuse a range with nothing in it."""
        _check_range(name, self.low, self.high)
        _check_step(name, self.step)
        if self.step is not None and self._top() == float(self.low):
            raise _bad(
                name,
                f"the step {self.step!r} is wider than the range from {self.low!r} to "
                f"{self.high!r}, which leaves {self.low!r} only; take a smaller one, or Fixed",
            )

    def draw(self, name: str, draws: Draws) -> int | float:
        """Return a coordinate, which is the value but for the last digits of a rung."""
        return draws.suggest_float(name, float(self.low), self._top(), step=self.step)

    def value(self, coordinate: float) -> Any:
        """Return what the objective is given."""
        if self.step is None:
            return coordinate
        rung = round((coordinate - self.low) / self.step)
        return float(Decimal(str(self.low)) + rung * Decimal(str(self.step)))

    def coordinates(self) -> list[Any] | None:
        """List the coordinates, if they can be counted."""
        if self.step is None:
            return None
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        count = int((Decimal(str(self._top())) - low) / step) + 1
        return [float(low + number * step) for number in range(min(count, MOST_OF_A_GRID + 1))]

    def _top(self) -> float:
        """Return the last rung of the ladder, in decimals as they were written."""
        if self.step is None:
            return float(self.high)
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        return float(low + (Decimal(str(self.high)) - low) // step * step)


@dataclass(frozen=True, slots=True)
class LogUniform:
    """A float between two positive ends, every factor as likely.

    With a step, the multiple of it that is nearest, of those between the ends.
    """

    low: float
    high: float
    step: float | None = None

    def check(self, name: str) -> None:
        """Refuse a range with nothing in it, or one that reaches zero."""
        _check_range(name, self.low, self.high)
        _check_step(name, self.step)
        if self.low <= 0:
            raise _bad(name, f"a logarithm needs a range above 0, and it begins at {self.low!r}")
        if self.step is not None:
            first, last = self._multiples(self.step)
            if first > last:
                raise _bad(
                    name,
                    f"no multiple of the step {self.step!r} is between {self.low!r} and "
                    f"{self.high!r}; take a smaller one",
                )

    def draw(self, name: str, draws: Draws) -> int | float:
        """Return a coordinate, which is the value before it is rounded."""
        return draws.suggest_float(name, float(self.low), float(self.high), log=True)

    def value(self, coordinate: float) -> Any:
        """Return what the objective is given."""
        if self.step is None:
            return coordinate
        first, last = self._multiples(self.step)
        return float(min(max(round(coordinate / self.step), first), last) * Decimal(str(self.step)))

    def _multiples(self, step: float) -> tuple[int, int]:
        """Return the first and the last multiple of the step between the ends, in steps."""
        low, high, width = (Decimal(str(each)) for each in (self.low, self.high, step))
        return math.ceil(low / width), math.floor(high / width)

    def coordinates(self) -> list[Any] | None:
        """Return None: they cannot be counted."""
        return None


@dataclass(frozen=True, slots=True)
class Normal:
    """A float of a normal distribution; with `log`, one whose logarithm is normal.

    The engine searches its quantiles, between 0.0001 and 0.9999.
    """

    mu: float = 0.0
    sigma: float = 1.0
    step: float | None = None
    log: bool = False

    def check(self, name: str) -> None:
        """Refuse what is no distribution."""
        _check_number(name, "mu", self.mu)
        _check_number(name, "sigma", self.sigma)
        _check_step(name, self.step)
        if self.sigma <= 0:
            raise _bad(name, f"sigma is {self.sigma!r}; it must be above 0")

    def draw(self, name: str, draws: Draws) -> int | float:
        """Return a quantile."""
        return draws.suggest_float(name, 0.0001, 0.9999)

    def value(self, coordinate: float) -> Any:
        """Return what the objective is given."""
        found = NormalDist(self.mu, self.sigma).inv_cdf(coordinate)
        return _rounded(math.exp(found) if self.log else found, self.step)

    def coordinates(self) -> list[Any] | None:
        """Return None: they cannot be counted."""
        return None


@dataclass(frozen=True, slots=True)
class Integer:
    """An int between two ends, both included; with `log`, small ones are as likely as large."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def check(self, name: str) -> None:
        """Refuse a range with nothing in it."""
        for what, end in (("low", self.low), ("high", self.high), ("step", self.step)):
            if type(end) is not int:
                raise _bad(name, f"{what} is {end!r}; it must be an int")
            if abs(end) > LARGEST:
                raise _bad(name, f"{what} is {end!r}; the search is exact up to 2**53 only")
        if self.low > self.high:
            raise _bad(name, f"the range from {self.low} to {self.high} has nothing in it")
        if self.step < 1:
            raise _bad(name, f"the step is {self.step}; it must be 1 or more")
        if self.log and self.step != 1:
            raise _bad(name, f"a logarithmic range has the step 1, and this one {self.step}")
        if self.log and self.low < 1:
            raise _bad(name, f"a logarithm needs a range above 0, and it begins at {self.low}")

    def draw(self, name: str, draws: Draws) -> int | float:
        """Return a coordinate, which is the value."""
        top = self.low + (self.high - self.low) // self.step * self.step
        return draws.suggest_int(name, self.low, top, step=self.step, log=self.log)

    def value(self, coordinate: float) -> Any:
        """Return what the objective is given."""
        return int(coordinate)

    def coordinates(self) -> list[Any] | None:
        """List the coordinates."""
        return list(range(self.low, self.high + 1, self.step)[: MOST_OF_A_GRID + 1])


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of several values, of whatever types a param may have; their order means nothing."""

    choices: Sequence[Any]

    def check(self, name: str) -> None:
        """Refuse no choice at all, and one that is there twice."""
        _check_values(name, "the choices", self.choices)

    def draw(self, name: str, draws: Draws) -> int | float:
        """Return the number of a choice."""
        chosen: int = draws.suggest_categorical(name, range(len(self.choices)))
        return chosen

    def value(self, coordinate: float) -> Any:
        """Return what the objective is given."""
        return self.choices[int(coordinate)]

    def coordinates(self) -> list[Any] | None:
        """List the coordinates."""
        return list(range(len(self.choices)))


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same value in every trial."""

    constant: Any

    def check(self, name: str) -> None:
        """Refuse what no run could keep."""
        check_params({name: self.constant})

    def draw(self, name: str, draws: Draws) -> int | float:  # noqa: ARG002 - nothing is drawn
        """Return 0."""
        return 0

    def value(self, coordinate: float) -> Any:  # noqa: ARG002 - there is only one
        """Return what the objective is given."""
        return self.constant

    def coordinates(self) -> list[Any] | None:
        """List the only coordinate."""
        return [0]


Plain = Uniform | LogUniform | Normal | Integer | Categorical | Fixed


@dataclass(frozen=True, slots=True)
class When:
    """A parameter that is there only where another one has one of some values.

    ``When("kernel", ["rbf"], LogUniform(1e-3, 1))``
    """

    parameter: str
    among: Sequence[Any]
    space: Plain


Domain = Plain | When


class Space:
    """A checked search space. A parameter that depends on another one comes after it.

    Args:
        domains: What each parameter may be.

    Raises:
        InvalidInput: If a range is empty, a condition can never hold, or a value could not be kept;
            the message names the parameter.
        InvalidName: If a name cannot be kept.
    """

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        if not domains or not isinstance(domains, Mapping):
            raise InvalidInput(
                "A search space is a mapping of one parameter or more, such as "
                "{'lr': LogUniform(1e-4, 1e-1)}."
            )
        check_params(dict.fromkeys(domains))
        for name, domain in domains.items():
            _plain(name, domain).check(name)
        for name, domain in domains.items():
            if isinstance(domain, When):
                _check_condition(name, domain, domains)
        self.domains: dict[str, Domain] = {name: domains[name] for name in _ordered(domains)}

    @property
    def conditional(self) -> bool:
        """Whether a parameter depends on another."""
        return any(isinstance(each, When) for each in self.domains.values())

    def draw(self, draws: Draws) -> Point:
        """Ask for a coordinate of every parameter that is there."""
        point: Point = {}
        for name, domain in self.domains.items():
            if self._holds(domain, point):
                plain = _plain(name, domain)
                coordinate = plain.draw(name, draws)
                if not isinstance(plain, Fixed):
                    point[name] = coordinate
        return point

    def params(self, point: Mapping[str, int | float]) -> dict[str, Any]:
        """Return what the objective is given at a point."""
        return {
            name: _plain(name, domain).value(point.get(name, 0))
            for name, domain in self.domains.items()
            if self._holds(domain, point)
        }

    def takes(self, point: Mapping[str, Any]) -> bool:
        """Tell whether a point has a coordinate for each parameter that is there, and no other."""
        there = {
            name
            for name, domain in self.domains.items()
            if not isinstance(_plain(name, domain), Fixed) and self._holds(domain, point)
        }
        return there == set(point)

    def grid(self) -> list[Point]:
        """List every point, each once, the last parameter changing first.

        Raises:
            InvalidInput: If the values of a parameter cannot be counted, or there are too many.
        """
        axes: dict[str, list[Any]] = {}
        for name, domain in self.domains.items():
            found = _plain(name, domain).coordinates()
            if found is None:
                raise _bad(name, "a grid needs values that can be counted: give it a step, or list")
            axes[name] = found
        points: list[Point] = [{}]
        for name, domain in self.domains.items():
            if isinstance(_plain(name, domain), Fixed):
                continue
            points = list(islice(self._longer(points, name, axes[name]), MOST_OF_A_GRID + 1))
            if len(points) > MOST_OF_A_GRID:
                raise InvalidInput(
                    f"This grid has more than {MOST_OF_A_GRID:,} points. Take larger steps, or let "
                    "sampler='tpe' search it."
                )
        return points

    def _longer(self, points: list[Point], name: str, axis: Sequence[Any]) -> Iterator[Point]:
        """Yield each point with each coordinate of one more parameter, where that is there."""
        for point in points:
            if self._holds(self.domains[name], point):
                yield from ({**point, name: coordinate} for coordinate in axis)
            else:
                yield point

    def constants(self) -> dict[str, list[Any]]:
        """Return the values that were written out, for each parameter that has any."""
        found: dict[str, list[Any]] = {}
        for name, domain in self.domains.items():
            plain = _plain(name, domain)
            if isinstance(plain, Categorical):
                found[name] = list(plain.choices)
            found.setdefault(name, [plain.constant] if isinstance(plain, Fixed) else [])
        return found

    def describe(self) -> dict[str, Any]:
        """Return the space as plain values, which a run can keep as a param."""
        return {name: _described(domain) for name, domain in self.domains.items()}

    def _holds(self, domain: Domain, point: Mapping[str, Any]) -> bool:
        if not isinstance(domain, When):
            return True
        other = self.domains[domain.parameter]
        if not self._holds(other, point):
            return False
        plain = _plain(domain.parameter, other)
        if not isinstance(plain, Fixed) and domain.parameter not in point:
            return False
        value = plain.value(point.get(domain.parameter, 0))
        return any(same(value, each) for each in domain.among)


def _plain(name: str, domain: object) -> Plain:
    found = domain.space if isinstance(domain, When) else domain
    if not isinstance(found, Plain):
        raise _bad(
            name,
            f"{found!r} is no space; there are Uniform, LogUniform, Normal, Integer, Categorical, "
            "Fixed, and When around one of them",
        )
    return found


def _described(domain: Domain) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": type(domain).__name__}
    for field in fields(domain):
        value = getattr(domain, field.name)
        if isinstance(value, Plain):
            value = _described(value)
        said[field.name] = list(value) if field.name in ("choices", "among") else value
    return said


def _ordered(domains: Mapping[str, Domain]) -> Iterator[str]:
    """Yield the names as they were given, but each after the one that it depends on."""
    done: set[str] = set()
    for first in domains:
        chain: list[str] = []
        name = first
        while name not in done:
            if name in chain:
                raise _bad(name, f"it depends on itself, through {' -> '.join([*chain, name])}")
            chain.append(name)
            domain = domains[name]
            if not isinstance(domain, When):
                break
            name = domain.parameter
        for each in reversed(chain):
            done.add(each)
            yield each


def _check_condition(name: str, when: When, domains: Mapping[str, Domain]) -> None:
    if when.parameter not in domains:
        raise _bad(name, f"it depends on {when.parameter!r}, which the space does not have")
    _check_values(name, "the values that it depends on", when.among)
    other = _plain(when.parameter, domains[when.parameter])
    if not isinstance(other, Categorical | Integer | Fixed):
        raise _bad(
            name,
            f"it depends on {when.parameter!r}, which is a {type(other).__name__}; only a "
            "Categorical, an Integer or a Fixed can be depended on",
        )
    for value in when.among:
        if not _has(other, value):
            raise _bad(name, f"it waits for {when.parameter!r} to be {value!r}, which it never is")


def _has(domain: Categorical | Integer | Fixed, value: object) -> bool:
    if isinstance(domain, Integer):
        return type(value) is int and value in range(domain.low, domain.high + 1, domain.step)
    choices = domain.choices if isinstance(domain, Categorical) else [domain.constant]
    return any(same(value, each) for each in choices)


def _check_values(name: str, what: str, values: object) -> None:
    if not isinstance(values, list | tuple):
        raise _bad(name, f"{what} are {values!r}; they must be a list or a tuple")
    if not values:
        raise _bad(name, f"{what} are empty")
    check_params({name: values})
    for at, one in enumerate(values):
        if any(same(one, other) for other in values[:at]):
            raise _bad(name, f"{what} have {one!r} twice")


def _check_range(name: str, low: object, high: object) -> None:
    _check_number(name, "low", low)
    _check_number(name, "high", high)
    if not low < high:  # type: ignore[operator]
        raise _bad(
            name,
            f"the range from {low!r} to {high!r} has nothing in it; write the lower end first, "
            "or Fixed for one value",
        )
    if not math.isfinite(high - low):  # type: ignore[operator]
        raise _bad(name, f"the range from {low!r} to {high!r} is wider than a float can tell")


def _check_step(name: str, step: object) -> None:
    if step is None:
        return
    _check_number(name, "the step", step)
    if step <= 0:  # type: ignore[operator]
        raise _bad(name, f"the step is {step!r}; it must be above 0")


def _check_number(name: str, what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _bad(name, f"{what} is {value!r}; it must be a finite number")


def _rounded(value: float, step: float | None) -> float:
    if step is None:
        return value
    return float(round(value / step) * Decimal(str(step)))


def _bad(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"The parameter {name!r} of the sweep cannot be searched: {why}.")

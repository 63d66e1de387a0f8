"""What is logged to every tool, and how what reads back is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from mlopskit.testing import hard_values as hard
from mlopskit.tracking.values import same

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Kind = Literal["param", "metric", "tag", "file"]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is hard to keep.

    Attributes:
        kind: What it is logged as.
        what: What is hard about it, in a few words.
        key: Its name.
        value: A param or tag's value; a metric's points, as (step, value); a file's bytes.
        before: A param's value until it is changed.
    """

    kind: Kind
    what: str
    key: str
    value: Any
    before: Any = None


@dataclass(frozen=True, slots=True)
class Opening:
    """What a driver is opened with.

    Attributes:
        folder: A private folder.
        location: Where the line says, with its secrets; None where the private folder is to be it.
        options: Of the line, likewise.
        name: Of the experiment or project to make there; a private one may have any.
        outage: Whether the server is to be one that is not there, whatever the line says.
    """

    folder: Path
    location: str | None
    options: Mapping[str, Any]
    name: str
    outage: bool = False

    @property
    def private(self) -> bool:
        """Whether the private folder is the place."""
        return self.outage or (self.location is None and not self.options)


class Driver(Protocol):
    """A tool's client, as far as the workload needs it. It is opened with a new run.

    Attributes:
        alone: Whether each case needs a run of its own, since what is logged changes what can be.
        id: Of the run.
    """

    alone: bool
    id: str

    def log_param(self, key: str, value: Any) -> None:
        """Log one param."""

    def change_param(self, key: str, value: Any) -> None:
        """Give a param that was logged another value, on purpose."""

    def log_metric(self, key: str, value: float, step: int) -> None:
        """Log one value."""

    def set_tag(self, key: str, value: str) -> None:
        """Set one tag."""

    def log_file(self, name: str, content: bytes) -> None:
        """Keep one file."""

    def finish(self) -> None:
        """End the run, and wait until all of it is stored."""

    def end(self) -> None:
        """End the run as programs do, which say nothing of how long to wait."""

    def params(self) -> Mapping[str, Any]:
        """Read the params."""

    def points(self, key: str) -> list[tuple[int, Any]]:
        """Read every (step, value) of a metric, in the order kept."""

    def tags(self) -> Mapping[str, str]:
        """Read the tags."""

    def file(self, name: str) -> bytes:
        """Read one file."""

    @staticmethod
    def left(folder: Path) -> int:
        """Count the values of "loss" that a program left in a folder, to be sent later."""


CLOSED: Final = "http://127.0.0.1:9"  # Nothing listens at the port for discarding.
SENT: Final = 100  # Values that a program logs in an outage.
BEFORE: Final = 40  # How many of them it logs until its server dies.
PACE_S: Final = 0.02  # Between two of them.
SETTLED_S: Final = 3.0  # Between the beginning of the run and the first of them.
CASES: Final = (
    *(Case("param", what, key, value) for what, key, value in hard.PARAMS),
    Case("param", hard.CHANGED[0], hard.CHANGED[1], hard.CHANGED[3], before=hard.CHANGED[2]),
    *(Case("metric", w, f"value-{at}", [(at, v)]) for at, (w, v) in enumerate(hard.VALUES)),
    *(Case("metric", w, f"points-{at}", points) for at, (w, points) in enumerate(hard.POINTS)),
    *(Case("metric", w, name, [(at, 0.5)]) for at, (w, name) in enumerate(hard.METRIC_NAMES)),
    *(Case("tag", what, key, value) for what, key, value in hard.TAGS),
    *(Case("file", what, name, content) for what, name, content in hard.FILES),
)


def log(driver: Driver, case: Case) -> None:
    """Log one case."""
    if case.kind == "param" and case.before is not None:
        driver.log_param(case.key, case.before)
        driver.change_param(case.key, case.value)
    elif case.kind == "param":
        driver.log_param(case.key, case.value)
    elif case.kind == "tag":
        driver.set_tag(case.key, case.value)
    elif case.kind == "file":
        driver.log_file(case.key, case.value)
    else:
        for step, value in case.value:
            driver.log_metric(case.key, value, step)


def read(driver: Driver, case: Case) -> Any:
    """Read one case back.

    Raises:
        LookupError: If nothing of it is there.
    """
    if case.kind == "param":
        return driver.params()[case.key]
    if case.kind == "tag":
        return driver.tags()[case.key]
    if case.kind == "file":
        return driver.file(case.key)
    points = driver.points(case.key)
    if not points:
        raise LookupError(case.key)
    return points


def is_kept(case: Case, found: Any) -> bool:
    """Tell whether what reads back is what was logged, in its type.

    Points may come in any order of steps; those of one step, in the order logged.
    """
    if case.kind == "metric":
        return len(found) == len(case.value) and all(
            step == other_step and _number(value) == _number(other)
            for (step, value), (other_step, other) in zip(
                sorted(case.value, key=_step), sorted(found, key=_step), strict=True
            )
        )
    if case.kind == "param":
        return same(case.value, found)
    return bool(found == case.value)


def plain(value: Any) -> Any:
    """Return what a scalar of NumPy holds."""
    return value.item() if hasattr(value, "item") else value


def _step(point: tuple[int, Any]) -> int:
    return point[0]


def _number(value: Any) -> str:
    # An int is the same as the float that equals it: metrics are numbers.
    if isinstance(value, int):
        return f"{int(value)}"
    if not isinstance(value, float) or not math.isfinite(value):
        return repr(value)
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    return str(int(value)) if value.is_integer() else repr(value)

"""What is logged to every tool, and how what reads back is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

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


class Driver(Protocol):
    """A tool's client, as far as the workload needs it. It is opened with a new run.

    Attributes:
        alone: Whether each case needs a run of its own, since what is logged changes what can be.
    """

    alone: bool

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

    def params(self) -> Mapping[str, Any]:
        """Read the params."""

    def points(self, key: str) -> list[tuple[int, float]]:
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
CASES: Final = (
    Case("param", "an int", "one", 1),
    Case("param", "a float that is whole", "whole", 1.0),
    Case("param", "a bool", "flag", True),
    Case("param", "None", "none", None),
    Case("param", "a text that looks like a number", "text", "1"),
    Case("param", "an infinity", "infinity", math.inf),
    Case("param", "a nested mapping", "nested", {"layers": [64, {"act": None}]}),
    Case("param", "a tuple", "tuple", (1, 2.0)),
    Case("param", "10,000 characters", "long", "ü" * 10_000),
    Case("param", "a name with odd characters", "größe@1", 0.5),
    Case("param", "another value, on purpose", "changed", "after", before="before"),
    Case("metric", "a plain value", "plain", [(0, 0.1)]),
    Case("metric", "NaN", "nan", [(0, math.nan)]),
    Case("metric", "infinities", "inf", [(0, math.inf), (1, -math.inf)]),
    Case("metric", "minus zero", "zero", [(0, -0.0)]),
    Case("metric", "an int beyond 2**53", "big", [(0, 2**53 + 1)]),
    Case("metric", "the smallest float", "tiny", [(0, 5e-324)]),
    Case("metric", "steps that go back", "back", [(5, 0.5), (3, 0.25), (4, 0.75)]),
    Case("metric", "one step twice", "twice", [(1, 0.5), (1, 0.25)]),
    Case("metric", "a step below zero", "below", [(-7, 0.5)]),
    Case("metric", "a name with an @", "acc@1", [(0, 0.5)]),
    Case("metric", "a name of 250 characters", "k" * 250, [(0, 0.5)]),
    Case("tag", "a text of 10,000 characters", "note", "é" * 10_000),
    Case("file", "no bytes", "empty.bin", b""),
    Case("file", "a name in other letters", "größe/ü.txt", "ü".encode()),
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


def _step(point: tuple[int, float]) -> int:
    return point[0]


def _number(value: float) -> str:
    # An int is the same as the float that equals it: metrics are numbers.
    if not math.isfinite(value):
        return repr(value)
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    return str(int(value)) if value == int(value) else repr(value)

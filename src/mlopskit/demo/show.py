"""What a demo run shows while it happens, whatever it is shown on."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.demo.result import DemoResult, Month


@dataclass
class Step:
    """A step that is being shown; its note appears when it has ended."""

    title: str
    note: str = ""
    cached: bool = False


class Show(ABC):
    """Where a demo run is seen while it happens."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show that a step runs, and when it has ended how long it took."""
        step = Step(title)
        begun = time.monotonic()
        self.working(step)
        yield step
        self.done(step, time.monotonic() - begun)

    @abstractmethod
    def begin(self, first: int, last: int, tools: dict[str, str]) -> None:
        """Show what is about to happen, and with which tools."""

    @abstractmethod
    def working(self, step: Step) -> None:
        """Show that a step has begun."""

    @abstractmethod
    def done(self, step: Step, seconds: float) -> None:
        """Show that a step has ended."""

    @abstractmethod
    def month_begins(self, month: int, version: int, hours: int) -> None:
        """Show that the replay of a month has begun."""

    @abstractmethod
    def hours_passed(self, count: int, flights: int) -> None:
        """Show how far the month has come."""

    @abstractmethod
    def month_ends(self, month: Month) -> None:
        """Show a month with its drift, its performance and its decision with the reasons."""

    @abstractmethod
    def end(self, result: DemoResult) -> None:
        """Show the table of all months, where the report is, and how to look further."""

    @abstractmethod
    def close(self) -> None:
        """Leave the terminal as it was."""

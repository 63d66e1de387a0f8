"""Numbers that options take. A wrong one is told with what would be right."""

from __future__ import annotations

from typing import Any

import click


class Whole(click.ParamType[int]):
    """A whole number that is not too small.

    Args:
        least: The smallest one.
    """

    name = "integer"

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read one."""
        try:
            number = int(value)
        except ValueError:
            number = self.least - 1
        if number < self.least:
            self.fail(f"{value!r} is no whole number from {self.least} on.", param, ctx)
        return number

"""The few phrases that the terminal and the report share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlopskit.demo.result import YEAR, month_name

if TYPE_CHECKING:
    from mlopskit.demo.result import Month

MINUTE = 60


def headline(first: int, last: int) -> str:
    """Return what is replayed, in a line."""
    months = month_name(first) if first == last else f"{month_name(first)} to {month_name(last)}"
    return f"Late arrivals from New York, {months} {YEAR}, hour by hour"


def decision_line(month: Month) -> str:
    """Return a decision with the numbers it rests on."""
    decision = month.decision
    if decision.outcome == "kept":
        return "no trigger, no retraining"
    numbers = f"{score(decision.challenger_auc)} against {score(decision.champion_auc)}"
    if decision.outcome == "promoted":
        return f"version {decision.version} promoted: {numbers}"
    return f"version {decision.version} refused: {numbers}"


def score(value: float | None) -> str:
    """Return an AUC with three digits; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Return a length of time in words."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    return f"{int(seconds // MINUTE)} min {seconds % MINUTE:.0f} s"


def visible(text: str) -> str:
    """Return a text in which nothing can command a terminal: control characters are written out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )

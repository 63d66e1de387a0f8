"""The few phrases that the terminal and the report share."""

from __future__ import annotations

import html
import math
from datetime import date
from typing import TYPE_CHECKING

from mlopskit.demo.result import YEAR, month_name

if TYPE_CHECKING:
    from mlopskit.demo.result import DemoResult, Month

# Up to here a length of time reads best in seconds.
SECONDS = 120


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


def days(span: tuple[str, str]) -> str:
    """Return a span of days, given as ISO dates, for reading."""
    first, last = (date.fromisoformat(day) for day in span)
    return f"{first.day} {first:%b} – {last.day} {last:%b}"


def duration(seconds: float) -> str:
    """Return a length of time in words."""
    return f"{seconds:.0f} s" if seconds < SECONDS else f"{seconds / 60:.1f} min"


def escape(text: str) -> str:
    """Return a text for HTML: it can neither become markup nor turn the lines around it."""
    return html.escape(visible(text))


def visible(text: str) -> str:
    """Return a text in which nothing can command a terminal: control characters are written out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def summary(result: DemoResult) -> list[str]:
    """Return what the whole run comes to, in sentences."""
    gains = [month.auc_live - month.auc_first for month in result.months]
    retrained = [gain for month, gain in zip(result.months, gains, strict=True) if month.retrained]
    outcomes = [month.decision.outcome for month in result.months]
    differing = sum(month.differing for month in result.months)
    compared = sum(month.compared for month in result.months)
    promoted, refused, kept = (outcomes.count(each) for each in ("promoted", "refused", "kept"))
    lost = result.requests - result.answered
    lines = [
        (
            f"Challengers: {promoted} promoted, {refused} refused by the gate; "
            f"{kept} {'month' if kept == 1 else 'months'} without retraining."
        ),
        f"{result.answered:,} of {result.requests:,} requests answered over HTTP, {lost:,} lost.",
        f"{compared:,} values served online, {differing:,} of them unlike history.",
        (
            f"Steps: {result.cached_steps} from the cache, {result.ran_steps} ran; "
            f"{duration(result.seconds)} in all."
        ),
    ]
    if retrained:
        mean = sum(retrained) / len(retrained)
        lines.insert(
            1, f"Where a retrained model served, its AUC was {mean:+.3f} against the first's."
        )
    return lines

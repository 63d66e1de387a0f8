"""When to train again: pure functions of evidence and a clock, which say why.

A trigger looks at an `Evidence` and answers with a `TriggerDecision`, whose reasons are sentences
with numbers, whether it fires or not. It reads no clock, no file and no tool, so a decision can be
made again later, and tested without any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from numbers import Real
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from mlopskit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Drift(BaseModel):
    """What is known of drift.

    Attributes:
        share_drifted: The share of columns that drifted, from 0 to 1.
        columns: The names of the columns that drifted.
    """

    model_config = ConfigDict(frozen=True)

    share_drifted: float = Field(ge=0, le=1)
    columns: tuple[str, ...] = ()


class Performance(BaseModel):
    """What a metric is now, and what it was when the model was accepted (None if unknown)."""

    model_config = ConfigDict(frozen=True)

    current: Finite
    baseline: Finite | None = None


class Evidence(BaseModel):
    """What a trigger may look at. What is not known is left out, and is never a reason to fire.

    Attributes:
        now: The time of the decision. Times carry their zone.
        last_trained_at: When the model in use was trained.
        last_fired_at: When a trigger last started a training.
        drift: A `Drift`, or a drift report of any drift detector.
        performance: For each metric a `Performance`, a plain number for the current value alone,
            or a pair of current and baseline.
        new_rows: How many rows have come in since the last training.
    """

    model_config = ConfigDict(frozen=True)

    now: AwareDatetime
    last_trained_at: AwareDatetime | None = None
    last_fired_at: AwareDatetime | None = None
    drift: Drift | None = None
    performance: Mapping[str, Performance] = Field(default_factory=dict)
    new_rows: int | None = Field(default=None, ge=0)

    @field_validator("drift", mode="before")
    @classmethod
    def _from_report(cls, value: Any) -> Any:
        columns = getattr(value, "columns", None)
        if isinstance(value, Drift) or not isinstance(columns, Mapping):
            return value
        drifted = tuple(name for name, column in columns.items() if column.drifted)
        return Drift(share_drifted=value.share_drifted, columns=drifted)

    @field_validator("performance", mode="before")
    @classmethod
    def _from_numbers(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: _performance(given) for name, given in value.items()}


class TriggerDecision(BaseModel):
    """Whether to train again, and why or why not. It is truthy if so.

    Attributes:
        fire: Whether to train again.
        reasons: Sentences with numbers, one for each trigger that was asked.
        evidence: What the decision was made of.
    """

    model_config = ConfigDict(frozen=True)

    fire: bool
    reasons: tuple[str, ...]
    evidence: Evidence

    def __bool__(self) -> bool:
        """Tell whether to train again."""
        return self.fire


class Trigger:
    """A rule that turns evidence into a decision: ``trigger(evidence)``.

    Args:
        text: The rule in a few words, for people.
        judge: The rule: a function of evidence that returns whether it fires, and the reasons.
    """

    def __init__(
        self, text: str, judge: Callable[[Evidence], tuple[bool, tuple[str, ...]]]
    ) -> None:
        self._text = text
        self._judge = judge

    def __call__(self, evidence: Evidence) -> TriggerDecision:
        """Decide, and say why."""
        fire, reasons = self._judge(evidence)
        return TriggerDecision(fire=fire, reasons=reasons, evidence=evidence)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<Trigger {self._text}>"


def on_drift(*, share: float, columns: Iterable[str] | None = None) -> Trigger:
    """Fire when at least this share of the columns drifted.

    Args:
        share: From above 0 to 1. With 0.3, three of ten columns are enough.
        columns: Look only at these, and take the share of them.

    Raises:
        InvalidInput: If `share` is out of range, or `columns` is empty or one text.
    """
    if not 0 < share <= 1:
        raise InvalidInput(f"share={share!r} must be above 0 and at most 1.")
    if isinstance(columns, str):
        raise InvalidInput(f"columns={columns!r} is one text; write columns=[{columns!r}].")
    watched = None if columns is None else tuple(dict.fromkeys(columns))
    if watched == ():
        raise InvalidInput("columns=() watches nothing; leave it out to watch all of them.")

    def judge(evidence: Evidence) -> tuple[bool, tuple[str, ...]]:
        if evidence.drift is None:
            return False, ("Nothing is known about drift.",)
        found = evidence.drift.share_drifted
        names = evidence.drift.columns
        kind = "of the columns"
        if watched is not None:
            names = tuple(name for name in names if name in watched)
            found = len(names) / len(watched)
            kind = f"of the {len(watched)} watched columns"
        fire = found >= share
        shown = f" ({_some(names)})" if names else ""
        side = "at or above" if fire else "below"
        return fire, (f"{found:.1%} {kind} drifted{shown}, {side} the limit of {share:.1%}.",)

    return Trigger(f"on drift of {share:.1%} of the columns", judge)


def on_performance(
    metric: str,
    *,
    floor: float | None = None,
    drop: float | None = None,
    ceiling: float | None = None,
    rise: float | None = None,
) -> Trigger:
    """Fire when a metric is worse than it may be. Any one of the limits is enough.

    Args:
        metric: The name of the metric in `Evidence.performance`.
        floor: Fire below this value, for metrics of which more is better.
        drop: Fire when it fell by at least this much from its baseline.
        ceiling: Fire above this value, for metrics of which less is better.
        rise: Fire when it rose by at least this much from its baseline.

    Raises:
        InvalidInput: If no limit is given, or `drop` or `rise` is not positive.
    """
    if floor is drop is ceiling is rise is None:
        raise InvalidInput(f"on_performance({metric!r}) needs a floor, drop, ceiling or rise.")
    for name, change in {"drop": drop, "rise": rise}.items():
        if change is not None and not change > 0:
            raise InvalidInput(f"{name}={change!r} must be positive: it is a distance.")

    def judge(evidence: Evidence) -> tuple[bool, tuple[str, ...]]:
        found = evidence.performance.get(metric)
        if found is None:
            return False, (f"Nothing is known about {metric}.",)
        verdicts = [
            _level(metric, found.current, floor, below=True),
            _level(metric, found.current, ceiling, below=False),
            _change(metric, found, drop, down=True),
            _change(metric, found, rise, down=False),
        ]
        given = [verdict for verdict in verdicts if verdict is not None]
        return any(fire for fire, _ in given), tuple(reason for _, reason in given)

    return Trigger(f"on the performance of {metric}", judge)


def on_schedule(every: timedelta) -> Trigger:
    """Fire when the model is at least this old, or none was ever trained.

    Raises:
        InvalidInput: If `every` is not positive.
    """
    _check_span("every", every)

    def judge(evidence: Evidence) -> tuple[bool, tuple[str, ...]]:
        if evidence.last_trained_at is None:
            return True, ("No model has been trained yet.",)
        age = evidence.now - evidence.last_trained_at
        fire = age >= every
        side = "due every" if fire else "not yet due: every"
        return fire, (f"The model is {_span(age)} old, {side} {_span(every)}.",)

    return Trigger(f"every {_span(every)}", judge)


def on_volume(rows: int) -> Trigger:
    """Fire when at least so many rows have come in since the last training.

    Raises:
        InvalidInput: If `rows` is not positive.
    """
    if rows < 1:
        raise InvalidInput(f"rows={rows!r} must be at least 1.")

    def judge(evidence: Evidence) -> tuple[bool, tuple[str, ...]]:
        if evidence.new_rows is None:
            return False, ("Nothing is known about new rows.",)
        fire = evidence.new_rows >= rows
        side = "at or above" if fire else "below"
        return fire, (f"{evidence.new_rows:,} new rows, {side} the limit of {rows:,}.",)

    return Trigger(f"on {rows:,} new rows", judge)


def any_of(*triggers: Trigger) -> Trigger:
    """Fire when at least one of the triggers fires. The reasons of all of them are kept.

    Raises:
        InvalidInput: If there is none.
    """
    return _combined("any of", any, triggers)


def all_of(*triggers: Trigger) -> Trigger:
    """Fire when every one of the triggers fires. The reasons of all of them are kept.

    Raises:
        InvalidInput: If there is none.
    """
    return _combined("all of", all, triggers)


def cool_down(trigger: Trigger, every: timedelta) -> Trigger:
    """Fire when the trigger does, but never sooner than this after a trigger last fired.

    Raises:
        InvalidInput: If `every` is not positive.
    """
    _check_span("every", every)

    def judge(evidence: Evidence) -> tuple[bool, tuple[str, ...]]:
        decision = trigger(evidence)
        if not decision.fire or evidence.last_fired_at is None:
            return decision.fire, decision.reasons
        since = evidence.now - evidence.last_fired_at
        # A clock that was set back makes the time since negative, which is no reason to fire.
        fire = since >= every
        side = "is over after" if fire else "holds it back for"
        reason = f"It last fired {_span(since)} ago; the cool-down {side} {_span(every)}."
        return fire, (*decision.reasons, reason)

    return Trigger(f"{trigger} at most every {_span(every)}", judge)


def _combined(
    words: str, together: Callable[[list[bool]], bool], triggers: tuple[Trigger, ...]
) -> Trigger:
    if not triggers:
        raise InvalidInput(f"'{words}' no trigger means nothing; give at least one.")

    def judge(evidence: Evidence) -> tuple[bool, tuple[str, ...]]:
        decisions = [trigger(evidence) for trigger in triggers]
        reasons = tuple(reason for decision in decisions for reason in decision.reasons)
        return together([decision.fire for decision in decisions]), reasons

    return Trigger(f"{words} ({', '.join(map(str, triggers))})", judge)


def _level(
    metric: str, current: float, limit: float | None, *, below: bool
) -> tuple[bool, str] | None:
    if limit is None:
        return None
    fire = current < limit if below else current > limit
    name = "floor" if below else "ceiling"
    side = ("below" if below else "above") if fire else ("not below" if below else "not above")
    return fire, f"{metric} is {current:.6g}, {side} the {name} of {limit:.6g}."


def _change(
    metric: str, found: Performance, limit: float | None, *, down: bool
) -> tuple[bool, str] | None:
    if limit is None:
        return None
    word, other, noun = ("fell", "rose", "fall") if down else ("rose", "fell", "rise")
    if found.baseline is None:
        return False, f"{metric} is {found.current:.6g}; without a baseline no change is known."
    change = found.baseline - found.current if down else found.current - found.baseline
    if change <= 0:
        how = f"{other} from {found.baseline:.6g} to" if change else "stayed at"
        return False, f"{metric} {how} {found.current:.6g}; a {noun} by {limit:.6g} would count."
    # 0.9 - 0.85 is a little more than 0.05 and 0.8 - 0.75 a little less: both are 0.05 here.
    fire = change >= limit or abs(change - limit) <= 1e-9 * max(abs(limit), abs(found.baseline))
    side = "at least" if fire else "less than"
    return fire, (
        f"{metric} {word} by {change:.6g}, from {found.baseline:.6g} to {found.current:.6g}, "
        f"{side} the limit of {limit:.6g}."
    )


def _performance(given: Any) -> Any:
    if isinstance(given, Real) and not isinstance(given, bool):
        return Performance(current=float(given))
    if isinstance(given, tuple) and len(given) == 2:
        return Performance(current=given[0], baseline=given[1])
    return given


def _check_span(name: str, span: object) -> None:
    if not isinstance(span, timedelta) or span <= timedelta(0):
        raise InvalidInput(f"{name}={span!r} must be a positive timedelta.")


def _span(span: timedelta) -> str:
    """Return a span of time in the two largest units that say something."""
    seconds = abs(span.total_seconds())
    parts: list[str] = []
    for unit, size in [("d", 86_400), ("h", 3_600), ("min", 60)]:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count:.0f} {unit}")
    if seconds:
        parts.append(f"{seconds:.3g} s")
    sign = "-" if span < timedelta(0) else ""
    return sign + (" ".join(parts[:2]) or "0 s")


def _some(names: tuple[str, ...], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

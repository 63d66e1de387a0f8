"""Gates that ask for metrics: those that were registered, or measured on both models anew."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, NotFound
from mlopskit.registry.entities import GateContext, GateResult
from mlopskit.registry.gates.asking import holder_of, named
from mlopskit.registry.slices import rows_of, slices_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.registry.entities import ModelVersion
    from mlopskit.registry.gates.asking import Gate

_MOST_NAMED: Final = 12
# By how many units in the last place a gain may be short of what was asked.
_ULPS: Final = 4


def at_least(metric: str, value: float) -> Gate:
    """Return a gate: the candidate's registered metric must be `value` or more.

    Raises:
        InvalidInput: If `metric` is no name, or `value` no number.
    """
    _check_bound("at_least", metric, value)

    def gate(context: GateContext) -> GateResult:
        found = _registered(context.candidate, metric)
        if found is None:
            return _unmeasured(context.candidate, metric)
        return _bound(metric, found, found >= value, value, "at least")

    return named(gate, f"at_least({metric})")


def at_most(metric: str, value: float) -> Gate:
    """Return a gate: the candidate's registered metric must be `value` or less.

    Raises:
        InvalidInput: If `metric` is no name, or `value` no number.
    """
    _check_bound("at_most", metric, value)

    def gate(context: GateContext) -> GateResult:
        found = _registered(context.candidate, metric)
        if found is None:
            return _unmeasured(context.candidate, metric)
        return _bound(metric, found, found <= value, value, "at most")

    return named(gate, f"at_most({metric})")


def better_than(stage: str, metric: str, by: float = 0.0, *, higher_is_better: bool = True) -> Gate:
    """Return a gate: the candidate's registered metric must beat that of a stage's holder.

    An empty stage has no metric to beat, and lets any candidate pass whose own is a number. The
    two metrics may have been measured on different data; `compare_on` measures both on the same.

    Args:
        stage: Whose holder is to be beaten.
        metric: The registered metric.
        by: By how much at least; 0 asks only that it is not worse. A gain that is short of `by` by
            no more than floats are rounded, 4 units in the last place, is enough.
        higher_is_better: False for a loss.

    Raises:
        InvalidInput: If `metric` is no name, or `by` no number.
    """
    _check_bound("better_than", metric, by)

    def gate(context: GateContext) -> GateResult:
        ours = _registered(context.candidate, metric)
        if ours is None:
            return _unmeasured(context.candidate, metric)
        holder = _holder(context, stage)
        if holder is None:
            return unopposed(metric, ours, stage)
        theirs = _registered(holder, metric)
        if theirs is None:
            return _unmeasured(holder, metric)
        return _compared(metric, ours, theirs, holder, by, higher_is_better=higher_is_better)

    return named(gate, f"better_than({stage}, {metric})")


def compare_on(
    evaluate: Callable[[Any], Mapping[str, float]],
    metric: str,
    by: float = 0.0,
    *,
    higher_is_better: bool = True,
    trusted: bool = False,
) -> Gate:
    """Return a gate: on the same data, the candidate must beat the stage's holder.

    Both are loaded through the registry, the very bytes that would serve. `paired_bootstrap` also
    asks whether the difference could be chance.

    Args:
        evaluate: Returns a model's metrics on data of the caller's, as a mapping from name to
            number.
        metric: The metric that decides.
        by: By how much at least; 0 asks only that it is not worse.
        higher_is_better: False for a loss.
        trusted: Whether to run code that the models' files may hold.

    Raises:
        InvalidInput: If `metric` is no name, or `by` no number.
    """
    _check_bound("compare_on", metric, by)

    def measured(context: GateContext, version: ModelVersion) -> float:
        metrics = evaluate(context.load(version, trusted=trusted))
        if metric not in metrics:
            raise NotFound("metric", metric, metrics)
        return float(metrics[metric])

    def gate(context: GateContext) -> GateResult:
        ours = measured(context, context.candidate)
        if context.holder is None:
            return unopposed(metric, ours, context.stage)
        theirs = measured(context, context.holder)
        return _compared(
            metric, ours, theirs, context.holder, by, higher_is_better=higher_is_better
        )

    return named(gate, f"compare_on({metric})")


def slice_floors(
    metric: str,
    floors: float | Mapping[str, float],
    *,
    least_rows: int = 0,
    higher_is_better: bool = True,
) -> Gate:
    """Return a gate: a registered metric must hold in every slice of the data, not on average.

    The metrics of slices are registered under the names that `by_slice` gives them.

    Args:
        metric: The metric, such as ``"auc"``.
        floors: One floor for every slice that was registered; or a floor for each slice by name,
            each of which has to be there.
        least_rows: Slices of fewer rows are told and do not decide. A slice decides if nobody
            registered how many rows it has. One that has a floor of its own and was not
            registered refuses, however many rows it has.
        higher_is_better: False for a loss, whose floors are ceilings.

    Raises:
        InvalidInput: If there is no floor, or one is no number.
    """
    wanted = dict(floors) if isinstance(floors, Mapping) else None
    limits = [floors] if not isinstance(floors, Mapping) else list(floors.values())
    if not limits or not all(_is_number(each) for each in limits):
        raise InvalidInput(f"slice_floors({metric!r}, {floors!r}) has no floor that is a number.")

    def gate(context: GateContext) -> GateResult:
        found = slices_of(context.metrics, metric)
        rows = rows_of(context.metrics)
        if wanted is None and not found:
            return GateResult(
                passed=False,
                reason=f"No slice of {metric} was registered: register by_slice({metric!r}, ...).",
                evidence={"metric": metric, "slices": {}},
            )
        lines = _floor_of(floors, found)
        small = {
            name
            for name, (value, _) in lines.items()
            if value is not None and rows.get(name, math.inf) < least_rows
        }
        bad = {
            name: value
            for name, (value, limit) in lines.items()
            if name not in small and not _holds(value, limit, higher_is_better=higher_is_better)
        }
        return GateResult(
            passed=not bad and len(small) < len(lines),
            reason=_floors_said(metric, lines, bad, small, higher_is_better=higher_is_better),
            evidence={
                "metric": metric,
                "slices": {
                    name: {"value": value, "floor": limit, "rows": rows.get(name)}
                    for name, (value, limit) in lines.items()
                },
                "failed": sorted(bad),
                "too_small": sorted(small),
                "least_rows": least_rows,
                "higher_is_better": higher_is_better,
            },
        )

    return named(gate, f"slice_floors({metric})")


def reaches(gain: float, by: float, *operands: float) -> bool:
    """Tell whether a gain is `by` or more, but for the rounding of what it was computed from.

    0.8002 - 0.8 is a little less than 0.0002. The sign of a difference is always right, so that a
    gain of 0 is asked for exactly.
    """
    wanted = float(by)
    if not wanted or not math.isfinite(gain):
        return gain >= wanted
    return gain >= wanted - _ULPS * max(math.ulp(each) for each in (wanted, *operands))


def unopposed(metric: str, ours: float, stage: str) -> GateResult:
    """Return what is said of a candidate that has nobody to beat: its metric has to be a number."""
    if math.isnan(ours):
        return GateResult(
            passed=False, reason=f"{metric} is no number.", evidence={"candidate": ours}
        )
    return GateResult(
        passed=True,
        reason=f"{metric} is {ours:g}, and no version is in {stage!r} to be compared with.",
        evidence={"metric": metric, "candidate": ours, "holder": None},
    )


def _floor_of(
    floors: float | Mapping[str, float], found: Mapping[str, float]
) -> dict[str, tuple[float | None, float]]:
    if isinstance(floors, Mapping):
        return {name: (found.get(name), limit) for name, limit in floors.items()}
    return {name: (value, floors) for name, value in found.items()}


def _holds(value: float | None, limit: float, *, higher_is_better: bool) -> bool:
    if value is None:
        return False
    return value >= limit if higher_is_better else value <= limit


def _floors_said(
    metric: str,
    lines: Mapping[str, tuple[float | None, float]],
    bad: Mapping[str, float | None],
    small: set[str],
    *,
    higher_is_better: bool,
) -> str:
    too_few = f" {len(small)} slices have too few rows to decide." if small else ""
    if len(small) == len(lines):
        return f"No slice of {metric} has enough rows to decide."
    if not bad:
        return f"{metric} holds in {len(lines) - len(small)} slices.{too_few}"
    side = "below" if higher_is_better else "above"
    told = [
        f"{name} was not registered"
        if value is None
        else f"{name} is {value:g}, not on the right side of {lines[name][1]:g}"
        if math.isnan(value)
        else f"{name} is {value:g}, {side} {lines[name][1]:g}"
        for name, value in bad.items()
    ]
    return f"{metric} fails in {len(bad)} of {len(lines)} slices: {'; '.join(told)}.{too_few}"


def _check_bound(maker: str, metric: object, value: object) -> None:
    if not (isinstance(metric, str) and metric):
        raise InvalidInput(
            f"{maker}() got {metric!r} as its metric. Pass the name of a registered metric, such "
            "as 'auc'."
        )
    if not _is_number(value):
        raise InvalidInput(f"{maker}() got {value!r} for {metric!r}. Pass a number.")


def _is_number(value: object) -> bool:
    # NumPy's numbers are Real as well. With NaN every comparison fails.
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return not math.isnan(value)


def _registered(version: ModelVersion, metric: str) -> float | None:
    return version.metrics.get(metric)


def _unmeasured(version: ModelVersion, metric: str) -> GateResult:
    known = sorted(version.metrics)
    more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    there = f"there is: {', '.join(known[:_MOST_NAMED])}{more}" if known else "no metric was"
    return GateResult(
        passed=False,
        reason=f"{metric} was not measured for version {version.version}; {there}.",
        evidence={"metric": metric, "version": version.version, "registered": known},
    )


def _holder(context: GateContext, stage: str) -> ModelVersion | None:
    if stage == context.stage:
        return context.holder
    return holder_of(context.registry, context.candidate.name, stage)


def _bound(metric: str, found: float, passed: bool, value: float, words: str) -> GateResult:
    return GateResult(
        passed=bool(passed),
        reason=f"{metric} is {found:g}, {words if passed else 'not ' + words} {value:g}.",
        evidence={"metric": metric, "candidate": found, "limit": value},
    )


def _compared(
    metric: str,
    ours: float,
    theirs: float,
    holder: ModelVersion,
    by: float,
    *,
    higher_is_better: bool,
) -> GateResult:
    gain = ours - theirs if higher_is_better else theirs - ours
    equal = math.isnan(gain) and by == 0 and ours == theirs  # Both are infinite.
    passed = equal or reaches(gain, by, ours, theirs)
    needed = (
        f"{'at least' if passed else 'not'} {by:g} better"
        if by
        else ("not worse" if passed else "worse")
    )
    return GateResult(
        passed=bool(passed),
        reason=f"{metric} is {ours:g}, {needed} than the {theirs:g} of version {holder.version}.",
        evidence={
            "metric": metric,
            "candidate": ours,
            "holder": theirs,
            "holder_version": holder.version,
            "by": by,
            "higher_is_better": higher_is_better,
        },
    )

"""Gates: functions that say whether a version may enter a stage.

A gate takes a `GateContext` and returns a bool or a `GateResult`. Any function will do::

    def small(context):
        return context.candidate.size < 10_000_000

    registry.promote("churn", 3, "production", gates=[small, at_least("auc", 0.8)])
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidInput, NotFound
from mlopskit.registry.entities import Decision, GateContext, GateResult

if TYPE_CHECKING:
    from mlopskit.registry.base import Registry
    from mlopskit.registry.entities import ModelVersion

__all__ = [
    "Gate",
    "GateContext",
    "GateResult",
    "all_of",
    "any_of",
    "at_least",
    "at_most",
    "better_than",
    "compare_on",
]

logger = logging.getLogger(__name__)

Gate = Callable[[GateContext], bool | GateResult]


def at_least(metric: str, value: float) -> Gate:
    """Return a gate: the candidate's registered metric must be `value` or more."""

    def gate(context: GateContext) -> GateResult:
        found = _registered(context.candidate, metric)
        return _bound(metric, found, found >= value, value, "at least")

    return _named(gate, f"at_least({metric})")


def at_most(metric: str, value: float) -> Gate:
    """Return a gate: the candidate's registered metric must be `value` or less."""

    def gate(context: GateContext) -> GateResult:
        found = _registered(context.candidate, metric)
        return _bound(metric, found, found <= value, value, "at most")

    return _named(gate, f"at_most({metric})")


def better_than(stage: str, metric: str, by: float = 0.0, *, higher_is_better: bool = True) -> Gate:
    """Return a gate: the candidate's registered metric must beat that of a stage's holder.

    An empty stage has no metric to beat, and lets any candidate pass whose own is a number. The
    two metrics may have been measured on different data; `compare_on` measures both on the same.

    Args:
        stage: Whose holder is to be beaten.
        metric: The registered metric.
        by: By how much at least; 0 asks only that it is not worse.
        higher_is_better: False for a loss.
    """

    def gate(context: GateContext) -> GateResult:
        ours = _registered(context.candidate, metric)
        holder = _holder(context, stage)
        if holder is None:
            return _unopposed(metric, ours, stage)
        theirs = _registered(holder, metric)
        return _compared(metric, ours, theirs, holder, by, higher_is_better=higher_is_better)

    return _named(gate, f"better_than({stage}, {metric})")


def compare_on(
    evaluate: Callable[[Any], Mapping[str, float]],
    metric: str,
    by: float = 0.0,
    *,
    higher_is_better: bool = True,
    trusted: bool = False,
) -> Gate:
    """Return a gate: on the same data, the candidate must beat the stage's holder.

    Both are loaded through the registry, the very bytes that would serve.

    Args:
        evaluate: Returns a model's metrics on data of the caller's.
        metric: The metric that decides.
        by: By how much at least; 0 asks only that it is not worse.
        higher_is_better: False for a loss.
        trusted: Whether to run code that the models' files may hold.
    """

    def measured(context: GateContext, version: ModelVersion) -> float:
        model = context.registry.load(version.name, version.version, trusted=trusted)
        metrics = evaluate(model)
        if metric not in metrics:
            raise NotFound("metric", metric, metrics)
        return float(metrics[metric])

    def gate(context: GateContext) -> GateResult:
        ours = measured(context, context.candidate)
        if context.holder is None:
            return _unopposed(metric, ours, context.stage)
        theirs = measured(context, context.holder)
        return _compared(
            metric, ours, theirs, context.holder, by, higher_is_better=higher_is_better
        )

    return _named(gate, f"compare_on({metric})")


def all_of(*gates: Gate) -> Gate:
    """Return a gate that passes when all of these pass. All are asked, so that all reasons show."""
    _check_some(gates)

    def gate(context: GateContext) -> GateResult:
        results = [asked(each, context) for each in gates]
        return _joined(gates, results, passed=all(results))

    return _named(gate, "all_of")


def any_of(*gates: Gate) -> Gate:
    """Return a gate that passes when one of these passes. All are asked; one may even raise."""
    _check_some(gates)

    def gate(context: GateContext) -> GateResult:
        results = [asked(each, context) for each in gates]
        return _joined(gates, results, passed=any(results))

    return _named(gate, "any_of")


def asked(gate: Gate, context: GateContext) -> GateResult:
    """Return what a gate says. One that raises, or answers with anything else, refuses."""
    name = name_of(gate)
    try:
        answer: object = gate(context)
    except Exception as exc:
        logger.warning("The gate %s raised.", name, exc_info=True)
        return GateResult(passed=False, reason=f"{name} raised {type(exc).__name__}: {exc}")
    if isinstance(answer, GateResult):
        return answer
    if type(answer).__name__ in ("bool", "bool_"):  # NumPy's comparisons return its own bool.
        word = "passed" if answer else "did not pass"
        return GateResult(passed=bool(answer), reason=f"{name} {word}.")
    return GateResult(
        passed=False,
        reason=f"{name} returned {answer!r}. A gate returns a bool or a GateResult.",
    )


def decide(
    registry: Registry,
    candidate: ModelVersion,
    stage: str,
    holder: ModelVersion | None,
    gates: tuple[Gate, ...],
) -> Decision:
    """Ask every gate, and return what they say together. Secrets are taken out of it."""
    context = GateContext(registry, candidate, stage, holder)
    results = [asked(gate, context) for gate in gates]
    redactor = registry.context.redactor
    reasons = [redactor.text(result.reason) for result in results] or ["No gate was asked."]
    return Decision(
        approved=all(results),
        reasons=tuple(reasons),
        evidence=redactor.value(_by_name(gates, results)),
        holder=holder.version if holder else None,
    )


def name_of(gate: Gate) -> str:
    """Return the name by which a gate's reasons and evidence go."""
    return str(getattr(gate, "__name__", type(gate).__name__))


def _named(gate: Gate, name: str) -> Gate:
    gate.__name__ = name
    return gate


def _by_name(gates: tuple[Gate, ...], results: list[GateResult]) -> dict[str, Any]:
    """Return the evidence of gates by name; the second of a name gets ``#2``."""
    found: dict[str, Any] = {}
    count: dict[str, int] = {}
    for gate, result in zip(gates, results, strict=True):
        name = name_of(gate)
        count[name] = count.get(name, 0) + 1
        found[name if count[name] == 1 else f"{name}#{count[name]}"] = dict(result.evidence)
    return found


def _registered(version: ModelVersion, metric: str) -> float:
    if metric not in version.metrics:
        raise NotFound("metric", metric, version.metrics)
    return version.metrics[metric]


def _holder(context: GateContext, stage: str) -> ModelVersion | None:
    if stage == context.stage:
        return context.holder
    try:
        return context.registry.get_version(context.candidate.name, stage)
    except NotFound:
        return None


def _bound(metric: str, found: float, passed: bool, value: float, words: str) -> GateResult:
    return GateResult(
        passed=bool(passed),
        reason=f"{metric} is {found:g}, {words if passed else 'not ' + words} {value:g}.",
        evidence={"metric": metric, "candidate": found, "limit": value},
    )


def _unopposed(metric: str, ours: float, stage: str) -> GateResult:
    if math.isnan(ours):
        return GateResult(
            passed=False, reason=f"{metric} is no number.", evidence={"candidate": ours}
        )
    return GateResult(
        passed=True,
        reason=f"{metric} is {ours:g}, and no version is in {stage!r} to be compared with.",
        evidence={"metric": metric, "candidate": ours, "holder": None},
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
    passed = ours == theirs if gain != gain and by == 0 else gain >= by  # noqa: PLR0124 - inf - inf
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


def _joined(gates: tuple[Gate, ...], results: list[GateResult], *, passed: bool) -> GateResult:
    return GateResult(
        passed=passed,
        reason=" ".join(result.reason for result in results),
        evidence=_by_name(gates, results),
    )


def _check_some(gates: tuple[Gate, ...]) -> None:
    if not gates:
        raise InvalidInput("all_of() and any_of() need at least one gate.")

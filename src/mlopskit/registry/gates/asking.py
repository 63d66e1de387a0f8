"""What a gate is, how it is asked, and how several become one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mlopskit.errors import InvalidInput, MlopskitError, NotFound
from mlopskit.registry.entities import Decision, GateContext, GateResult

if TYPE_CHECKING:
    from mlopskit.registry.base import Registry
    from mlopskit.registry.entities import ModelVersion
    from mlopskit.registry.references import Ref

logger = logging.getLogger(__name__)

Gate = Callable[[GateContext], bool | GateResult]


def all_of(*gates: Gate) -> Gate:
    """Return a gate that passes when all of these pass. All are asked, so that all reasons show."""
    _check_some(gates)

    def gate(context: GateContext) -> GateResult:
        results = [asked(each, context) for each in gates]
        return _joined(gates, results, passed=all(results))

    return named(gate, "all_of")


def any_of(*gates: Gate) -> Gate:
    """Return a gate that passes when one of these passes. All are asked; one may even raise."""
    _check_some(gates)

    def gate(context: GateContext) -> GateResult:
        results = [asked(each, context) for each in gates]
        return _joined(gates, results, passed=any(results))

    return named(gate, "any_of")


def asked(gate: Gate, context: GateContext) -> GateResult:
    """Return what a gate says. One that raises, or answers with anything else, refuses."""
    name = name_of(gate)
    try:
        answer: object = gate(context)
    except MlopskitError as exc:  # It says what is missing or not allowed: no trace is needed.
        return GateResult(passed=False, reason=f"{name}: {exc}")
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
    names = names_of(gates)
    evidence = {name: dict(each.evidence) for name, each in zip(names, results, strict=True)}
    return Decision(
        approved=all(results),
        reasons=tuple(reasons),
        evidence=redactor.value(evidence),
        failed=tuple(name for name, each in zip(names, results, strict=True) if not each),
        holder=holder.version if holder else None,
    )


def rehearse(
    registry: Registry, name: str, ref: Ref, stage: str, gates: Iterable[Gate] | Gate
) -> Decision:
    """Return the decision that `Registry.promote` would take now. Nothing moves, or is written.

    One gate may be passed as it is.

    Raises:
        NotFound: If there is no such model, version or stage.
        Conflict: If the stages do not allow the move.
    """
    candidate = registry.get_version(name, ref)
    registry._check_move(candidate, stage)
    several = tuple((gates,) if callable(gates) else gates)
    return decide(registry, candidate, stage, holder_of(registry, name, stage), several)


def holder_of(registry: Registry, name: str, stage: str) -> ModelVersion | None:
    """Return the version that holds a stage; None where it is empty."""
    try:
        return registry.get_version(name, stage)
    except NotFound:
        return None


def name_of(gate: Gate) -> str:
    """Return the name by which a gate's reasons and evidence go."""
    return str(getattr(gate, "__name__", type(gate).__name__))


def names_of(gates: tuple[Gate, ...]) -> list[str]:
    """Return the names of gates; the second of a name gets ``#2``."""
    names: list[str] = []
    count: dict[str, int] = {}
    for gate in gates:
        name = name_of(gate)
        count[name] = count.get(name, 0) + 1
        names.append(name if count[name] == 1 else f"{name}#{count[name]}")
    return names


def named(gate: Gate, name: str) -> Gate:
    """Return a gate that goes by a name."""
    gate.__name__ = name
    return gate


def _joined(gates: tuple[Gate, ...], results: list[GateResult], *, passed: bool) -> GateResult:
    names = names_of(gates)
    return GateResult(
        passed=passed,
        reason=" ".join(result.reason for result in results),
        evidence={
            name: {"passed": each.passed, **each.evidence}
            for name, each in zip(names, results, strict=True)
        },
    )


def _check_some(gates: tuple[Gate, ...]) -> None:
    if not gates:
        raise InvalidInput("all_of() and any_of() need at least one gate.")

"""What a gate is, how it is asked, and how several become one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mlopskit.endings import came_through, exit_code, handlers
from mlopskit.errors import InvalidInput, MlopskitError, NotFound
from mlopskit.registry.entities import Decision, GateContext, GateResult

if TYPE_CHECKING:
    from mlopskit.registry.base import Registry
    from mlopskit.registry.entities import ModelVersion
    from mlopskit.registry.references import Ref

logger = logging.getLogger(__name__)

Gate = Callable[[GateContext], bool | GateResult]

# What an exception says may be a whole table.
_LONGEST: Final = 2000
# Evidence that is nested deeper, or holds larger integers, cannot be written as JSON everywhere.
_DEEPEST: Final = 100
_LARGEST_BITS: Final = 8192


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
    """Return what a gate says. One that raises, exits, or answers with anything else, refuses.

    What comes back can be kept by every store, whatever was in the gate's texts.

    Raises:
        SystemExit: If a signal handler ends the program: one that was there before the gate was
            asked. What a gate raises itself, as ``sys.exit`` does, is a refusal.
        KeyboardInterrupt: Likewise.
    """
    name = name_of(gate)
    ours = handlers()
    try:
        said = _said(gate(context), name)
        # A gate may have built its result without the checks of the class.
        evidence = _storable(said.evidence, 0)
        return GateResult(passed=said.passed, reason=_plain(said.reason), evidence=evidence)
    except MlopskitError as exc:  # It says what is missing or not allowed: no trace is needed.
        return GateResult(passed=False, reason=f"{name}: {_message(exc)}")
    except SystemExit as exc:
        if came_through(exc, ours):
            raise
        logger.warning("The gate %s tried to end the program.", name, exc_info=True)
        return _exited(name, exc)
    except Exception as exc:
        logger.warning("The gate %s raised.", name, exc_info=True)
        reason = f"{name} raised {type(exc).__name__}: {_message(exc)}"
        return GateResult(passed=False, reason=reason)


def _exited(name: str, error: SystemExit) -> GateResult:
    """Return the refusal of a gate that exits, with the code that the program would have had."""
    code = exit_code(error)
    text = "" if isinstance(error.code, int | None) else f" ({_message(error)})"
    return GateResult(
        passed=False,
        reason=f"{name} tried to end the program with the exit code {code}{text}, and did not "
        "answer. A gate returns a bool or a GateResult.",
        evidence={"exit_code": code},
    )


def _said(answer: object, name: str) -> GateResult:
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
        numbered = name if count[name] == 1 else f"{name}#{count[name]}"
        while numbered in names:  # Another gate is called so.
            numbered += "'"
        names.append(numbered)
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
            name: {**each.evidence, "passed": each.passed}
            for name, each in zip(names, results, strict=True)
        },
    )


def _message(error: Exception | SystemExit) -> str:
    """Return what an exception says, shortened."""
    try:
        text = _plain(str(error))
    except (Exception, SystemExit):  # noqa: BLE001 - what cannot even be shown is still a refusal
        return "what it says cannot be shown"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _plain(text: str) -> str:
    """Return a text with lone surrogates and NUL characters escaped, which no store can keep."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _storable(value: Any, depth: int) -> Any:
    """Return evidence with every text as it can be kept.

    Raises:
        InvalidInput: If it is nested too deeply, or holds an integer of too many digits.
    """
    if depth > _DEEPEST:
        raise InvalidInput(f"Evidence is nested more than {_DEEPEST} deep. Keep it flat.")
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, int) and value.bit_length() > _LARGEST_BITS:
        raise InvalidInput(
            f"Evidence holds an integer of {value.bit_length()} bits. Keep it as a float or a text."
        )
    if isinstance(value, Mapping):
        return {_plain(str(key)): _storable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item, depth + 1) for item in value]
    return value


def _check_some(gates: tuple[Gate, ...]) -> None:
    if not gates:
        raise InvalidInput("all_of() and any_of() need at least one gate.")

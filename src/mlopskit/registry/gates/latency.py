"""A gate that asks the candidate, again and again, and looks at the clock."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput
from mlopskit.registry.entities import GateContext, GateResult
from mlopskit.registry.gates.answering import Example, natural, way_of
from mlopskit.registry.gates.asking import named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlopskit.registry.gates.asking import Gate

FEWEST: Final = 100


def latency_budget(
    *,
    p50_ms: float | None = None,
    p99_ms: float | None = None,
    inputs: Any = None,
    predict: Callable[[Any, Any], Any] | None = None,
    warmup: int = 20,
    n: int = 500,
    trusted: bool = False,
) -> Gate:
    """Return a gate: the candidate must answer within a budget, asked once after the other.

    The model is asked in this process, without a server and the network. What it takes depends on
    the machine, so a budget belongs to the machine that the gate runs on.

    Args:
        p50_ms: Half of the answers must not take longer.
        p99_ms: Nor must 99 of 100.
        inputs: What the model is asked with: an array, a mapping from name to array, or a frame.
            Left out, its registered input example.
        predict: Asks a model, and is given it and the inputs: those of an example as an array of
            one input, a frame of pandas of columns, else a mapping. Left out, a model is asked as
            its library has it; see `answering.way_of`.
        warmup: How many answers come before the clock is looked at.
        n: How many are timed.
        trusted: Whether to run code that the model's files may hold.

    Raises:
        InvalidInput: If there is no budget, it is no time, or `n` is too small to tell.
    """
    budgets = {
        name: limit for name, limit in (("p50", p50_ms), ("p99", p99_ms)) if limit is not None
    }
    _check(budgets, warmup, n)

    def gate(context: GateContext) -> GateResult:
        model = context.load(trusted=trusted)
        asked = _example(context) if inputs is None else inputs
        ask = way_of(model, asked) if predict is None else partial(predict, model, natural(asked))
        for _ in range(warmup):
            ask()
        taken: list[float] = []
        for _ in range(n):
            start = time.perf_counter_ns()
            ask()
            taken.append((time.perf_counter_ns() - start) / 1e6)
        return judged(taken, budgets, warmup)

    return named(gate, "latency_budget")


def judged(taken: list[float], budgets: Mapping[str, float], warmup: int) -> GateResult:
    """Return what times in milliseconds say of budgets for ``p50`` and ``p99``."""
    found = {"p50": _quantile(taken, 0.5), "p99": _quantile(taken, 0.99)}
    over = [name for name, limit in budgets.items() if not found[name] <= limit]
    told = ", ".join(
        f"{name} is {found[name]:.3g} ms, {'over' if name in over else 'within'} {limit:g} ms"
        for name, limit in budgets.items()
    )
    return GateResult(
        passed=not over,
        reason=f"Of {len(taken)} answers {told}.",
        evidence={
            **{f"{name}_ms": value for name, value in found.items()},
            "max_ms": max(taken),
            "budgets_ms": dict(budgets),
            "n": len(taken),
            "warmup": warmup,
        },
    )


def _quantile(taken: list[float], share: float) -> float:
    """Return the smallest time that so large a share of all does not exceed."""
    return sorted(taken)[math.ceil(share * len(taken)) - 1]


def _example(context: GateContext) -> Any:
    candidate = context.candidate
    arrays, _ = context.registry.example(candidate.name, candidate.version)
    return Example(arrays)


def _check(budgets: Mapping[str, float], warmup: int, n: int) -> None:
    if not budgets:
        raise InvalidInput("latency_budget() has no budget: pass p50_ms, p99_ms, or both.")
    for name, limit in budgets.items():
        if not 0 < limit < math.inf:
            raise InvalidInput(f"{name}_ms is {limit}; a budget is a time above 0.")
    if warmup < 0:
        raise InvalidInput(f"warmup is {warmup}; it must not be negative.")
    if n < FEWEST:
        raise InvalidInput(f"n is {n}; the slowest of 100 takes {FEWEST} answers or more to see.")

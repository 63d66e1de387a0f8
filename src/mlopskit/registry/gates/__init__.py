"""Gates: functions that say whether a version may enter a stage.

A gate takes a `GateContext` and returns a bool or a `GateResult`. Any function will do::

    def small(context):
        return context.candidate.size < 10_000_000

    registry.promote("churn", 3, "production", gates=[small, at_least("auc", 0.8)])
"""

from __future__ import annotations

from mlopskit.registry.entities import GateContext, GateResult
from mlopskit.registry.gates.asking import Gate, all_of, any_of, asked, decide, name_of, rehearse
from mlopskit.registry.gates.bootstrap import paired_bootstrap
from mlopskit.registry.gates.checks import (
    approved,
    card_complete,
    digest_verified,
    environment_known,
    fresh,
    signature_compatible,
    smaller_than,
)
from mlopskit.registry.gates.latency import latency_budget
from mlopskit.registry.gates.metrics import (
    at_least,
    at_most,
    better_than,
    compare_on,
    slice_floors,
)

__all__ = [
    "Gate",
    "GateContext",
    "GateResult",
    "all_of",
    "any_of",
    "approved",
    "asked",
    "at_least",
    "at_most",
    "better_than",
    "card_complete",
    "compare_on",
    "decide",
    "digest_verified",
    "environment_known",
    "fresh",
    "latency_budget",
    "name_of",
    "paired_bootstrap",
    "rehearse",
    "signature_compatible",
    "slice_floors",
    "smaller_than",
]

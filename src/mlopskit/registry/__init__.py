"""Models by name and number: registered whole, promoted through gates, loaded without surprise."""

from __future__ import annotations

from mlopskit.registry.base import CAPABILITIES, Registry
from mlopskit.registry.entities import (
    Decision,
    GateContext,
    GateResult,
    HistoryEntry,
    ModelVersion,
    RegisteredModel,
    Signature,
    StageGraph,
    TensorSpec,
)
from mlopskit.registry.gates import (
    Gate,
    all_of,
    any_of,
    at_least,
    at_most,
    better_than,
    compare_on,
)
from mlopskit.registry.signatures import infer_signature

__all__ = [
    "CAPABILITIES",
    "Decision",
    "Gate",
    "GateContext",
    "GateResult",
    "HistoryEntry",
    "ModelVersion",
    "RegisteredModel",
    "Registry",
    "Signature",
    "StageGraph",
    "TensorSpec",
    "all_of",
    "any_of",
    "at_least",
    "at_most",
    "better_than",
    "compare_on",
    "infer_signature",
]

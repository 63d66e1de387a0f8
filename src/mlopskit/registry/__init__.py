"""Models by name and number: registered whole, promoted through gates, loaded without surprise."""

from __future__ import annotations

from mlopskit.registry.base import CAPABILITIES, Registry
from mlopskit.registry.entities import (
    ApprovalRequest,
    Collection,
    Decision,
    GateContext,
    GateResult,
    HistoryEntry,
    Lineage,
    ModelVersion,
    RegisteredModel,
    Signature,
    SignatureChange,
    StageGraph,
    TensorSpec,
    VersionComparison,
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
from mlopskit.registry.signatures import compare_signatures, infer_signature

__all__ = [
    "CAPABILITIES",
    "ApprovalRequest",
    "Collection",
    "Decision",
    "Gate",
    "GateContext",
    "GateResult",
    "HistoryEntry",
    "Lineage",
    "ModelVersion",
    "RegisteredModel",
    "Registry",
    "Signature",
    "SignatureChange",
    "StageGraph",
    "TensorSpec",
    "VersionComparison",
    "all_of",
    "any_of",
    "at_least",
    "at_most",
    "better_than",
    "compare_on",
    "compare_signatures",
    "infer_signature",
]

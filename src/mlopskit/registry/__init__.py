"""Models by name and number: registered whole, promoted through gates, loaded without surprise."""

from __future__ import annotations

from mlopskit.registry.base import CAPABILITIES, Registry
from mlopskit.registry.cards import ModelCard, read_card, write_card
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
    TensorSpec,
    VersionComparison,
)
from mlopskit.registry.gates import (
    Gate,
    all_of,
    any_of,
    approved,
    at_least,
    at_most,
    better_than,
    card_complete,
    compare_on,
    digest_verified,
    environment_known,
    fresh,
    latency_budget,
    paired_bootstrap,
    signature_compatible,
    slice_floors,
    smaller_than,
)
from mlopskit.registry.labels import VersionLabel, propose_label, write_label
from mlopskit.registry.signatures import compare_signatures, infer_signature
from mlopskit.registry.signing import Verified
from mlopskit.registry.slices import by_slice
from mlopskit.registry.stages import StageGraph
from mlopskit.registry.webhooks import DeadLetter, WebhookStatus

__all__ = [
    "CAPABILITIES",
    "ApprovalRequest",
    "Collection",
    "DeadLetter",
    "Decision",
    "Gate",
    "GateContext",
    "GateResult",
    "HistoryEntry",
    "Lineage",
    "ModelCard",
    "ModelVersion",
    "RegisteredModel",
    "Registry",
    "Signature",
    "SignatureChange",
    "StageGraph",
    "TensorSpec",
    "Verified",
    "VersionComparison",
    "VersionLabel",
    "WebhookStatus",
    "all_of",
    "any_of",
    "approved",
    "at_least",
    "at_most",
    "better_than",
    "by_slice",
    "card_complete",
    "compare_on",
    "compare_signatures",
    "digest_verified",
    "environment_known",
    "fresh",
    "infer_signature",
    "latency_budget",
    "paired_bootstrap",
    "propose_label",
    "read_card",
    "signature_compatible",
    "slice_floors",
    "smaller_than",
    "write_card",
    "write_label",
]

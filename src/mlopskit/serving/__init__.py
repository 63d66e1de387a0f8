"""Serving: one model class behind the Open Inference Protocol, swapped without losing a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlopskit.serving.base import Server
from mlopskit.serving.entities import (
    Deployment,
    ModelMetadata,
    ServerStats,
    TensorSpec,
    VersionStats,
)
from mlopskit.serving.predictor import ArrayPredictor, Predictor, text

if TYPE_CHECKING:
    from mlopskit.serving.client import Answer, InferenceClient

__all__ = [
    "Answer",
    "ArrayPredictor",
    "Deployment",
    "InferenceClient",
    "ModelMetadata",
    "Predictor",
    "Server",
    "ServerStats",
    "TensorSpec",
    "VersionStats",
    "text",
]


def __getattr__(name: str) -> Any:
    if name in (
        "Answer",
        "InferenceClient",
    ):  # They need numpy and msgspec; the interface does not.
        from mlopskit.serving import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(f"module 'mlopskit.serving' has no attribute {name!r}")

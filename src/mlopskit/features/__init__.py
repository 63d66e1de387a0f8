"""Features: defined once, joined to the past without leaking the future, served fresh."""

from __future__ import annotations

from mlopskit.features.base import CAPABILITIES, FeatureStore
from mlopskit.features.entities import (
    FeatureService,
    FeatureStatus,
    FeatureValue,
    FeatureView,
    OnlineFeatures,
    ViewStats,
)

__all__ = [
    "CAPABILITIES",
    "FeatureService",
    "FeatureStatus",
    "FeatureStore",
    "FeatureValue",
    "FeatureView",
    "OnlineFeatures",
    "ViewStats",
]

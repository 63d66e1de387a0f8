"""Tracking: what happened in a run, recorded without loss and without making training wait."""

from __future__ import annotations

from mlopskit.tracking.base import CAPABILITIES, Tracker
from mlopskit.tracking.entities import (
    Artifact,
    DeliveryStatus,
    Experiment,
    MetricHistory,
    RunList,
    RunRecord,
    SyncReport,
)
from mlopskit.tracking.run import Run

__all__ = [
    "CAPABILITIES",
    "Artifact",
    "DeliveryStatus",
    "Experiment",
    "MetricHistory",
    "Run",
    "RunList",
    "RunRecord",
    "SyncReport",
    "Tracker",
]

"""Monitoring: whether new data still looks like the data that a model was trained on."""

from mlopskit.monitoring.base import CAPABILITIES, DriftDetector
from mlopskit.monitoring.entities import ColumnDrift, DriftReport, Finding, Histogram
from mlopskit.monitoring.profile import CategoricalColumn, NumericColumn, OtherColumn, Profile
from mlopskit.monitoring.report import page

__all__ = [
    "CAPABILITIES",
    "CategoricalColumn",
    "ColumnDrift",
    "DriftDetector",
    "DriftReport",
    "Finding",
    "Histogram",
    "NumericColumn",
    "OtherColumn",
    "Profile",
    "page",
]

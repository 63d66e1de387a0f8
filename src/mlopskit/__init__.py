"""Thin, swappable interfaces for the tools around a model.

One config line picks the tool behind each interface; code that uses the interface does not change::

    import mlopskit as mk

    kit = mk.load()
    with kit.tracker.start_run(experiment="churn", params={"lr": 0.1}) as run:
        run.log_metrics({"loss": 0.42}, step=0)

Everything is imported when it is first used: importing mlopskit imports no backend.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlopskit._version import __version__

if TYPE_CHECKING:
    from mlopskit.comparison.measure import compare
    from mlopskit.features.entities import FeatureService, FeatureView
    from mlopskit.integrations.autolog import autolog
    from mlopskit.kit import (
        Kit,
        load,
        open_drift_detector,
        open_feature_store,
        open_registry,
        open_runner,
        open_server,
        open_tracker,
        sweep,
        transfer,
    )
    from mlopskit.monitoring.profile import Profile
    from mlopskit.pipelines.graph import pipeline, step
    from mlopskit.plugins import BackendInfo, backends
    from mlopskit.registry.signatures import infer_signature
    from mlopskit.serving.predictor import Predictor

_HOMES = {
    "BackendInfo": "plugins",
    "FeatureService": "features.entities",
    "FeatureView": "features.entities",
    "Kit": "kit",
    "Predictor": "serving.predictor",
    "Profile": "monitoring.profile",
    "autolog": "integrations.autolog",
    "backends": "plugins",
    "compare": "comparison.measure",
    "infer_signature": "registry.signatures",
    "load": "kit",
    "open_drift_detector": "kit",
    "open_feature_store": "kit",
    "open_registry": "kit",
    "open_runner": "kit",
    "open_server": "kit",
    "open_tracker": "kit",
    "pipeline": "pipelines.graph",
    "step": "pipelines.graph",
    "sweep": "kit",
    "transfer": "kit",
}
_PACKAGES = frozenset(
    [
        "errors",
        "features",
        "lifecycle",
        "monitoring",
        "pipelines",
        "registry",
        "serving",
        "testing",
        "tracking",
    ]
)

__all__ = [
    "BackendInfo",
    "FeatureService",
    "FeatureView",
    "Kit",
    "Predictor",
    "Profile",
    "__version__",
    "autolog",
    "backends",
    "compare",
    "infer_signature",
    "load",
    "open_drift_detector",
    "open_feature_store",
    "open_registry",
    "open_runner",
    "open_server",
    "open_tracker",
    "pipeline",
    "step",
    "sweep",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"mlopskit.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _PACKAGES:
        return import_module(f"mlopskit.{name}")
    raise AttributeError(f"module 'mlopskit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])

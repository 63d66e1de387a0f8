"""Contracts that every backend keeps, for our tests and for yours.

Subclass the contract of your domain, give it the one fixture that it asks for, and pytest does the
rest. Needs pytest. `WandbServer` is a server of Weights & Biases for tests, and needs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlopskit.testing.features import FeatureStoreContract
    from mlopskit.testing.monitoring import DriftDetectorContract
    from mlopskit.testing.pipelines import RunnerContract
    from mlopskit.testing.registry import RegistryContract
    from mlopskit.testing.serving import ServerContract
    from mlopskit.testing.tool import ToolContract
    from mlopskit.testing.tracking import TrackerContract
    from mlopskit.testing.wandb_server import WandbServer

_HOMES = {
    "DriftDetectorContract": "monitoring",
    "FeatureStoreContract": "features",
    "RegistryContract": "registry",
    "RunnerContract": "pipelines",
    "ServerContract": "serving",
    "ToolContract": "tool",
    "TrackerContract": "tracking",
    "WandbServer": "wandb_server",
}

__all__ = [
    "DriftDetectorContract",
    "FeatureStoreContract",
    "RegistryContract",
    "RunnerContract",
    "ServerContract",
    "ToolContract",
    "TrackerContract",
    "WandbServer",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"mlopskit.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mlopskit.testing' has no attribute {name!r}")

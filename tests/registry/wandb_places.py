"""How tests open the registry in W&B."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.testing.wandb_registry_answers import ORG_ENTITY
from mlopskit.testing.wandb_server import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.registry import Registry
    from mlopskit.testing.wandb_server import WandbServer


def opened(server: WandbServer, project: str = "team/models", **options: Any) -> Any:
    """Open the registry on a server."""
    backend: Any = importlib.import_module("mlopskit.registry.wandb")
    return backend.WandbRegistry(project, base_url=server.url, api_key=KEY, **options)


def links_of(server: WandbServer, name: str = "churn") -> dict[str, Any]:
    """Return the collection of a model, with its links and aliases."""
    found: dict[str, Any] = server.collections[f"{ORG_ENTITY}/wandb-registry-model/{name}"]
    return found


def history_of(server: WandbServer, name: str = "churn") -> dict[str, Any]:
    """Return the collection of a model's history."""
    found: dict[str, Any] = server.collections[f"team/models/mlopskit-history.{name}"]
    return found


@pytest.fixture
def registry(server: WandbServer) -> Iterator[Registry]:
    """Open the registry on a server of its own."""
    with opened(server) as made:
        yield made

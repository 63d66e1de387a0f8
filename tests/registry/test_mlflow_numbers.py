"""MLflow gives a number again: nothing that was said of the first version is said of the second."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import mlflow_places
from tests.registry.mlflow_places import MARKS

from mlopskit.errors import Conflict, NotFound
from mlopskit.registry.gates import approved

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry import Registry

pytest.importorskip("mlflow")
pytestmark = MARKS
registry, client = mlflow_places.registry, mlflow_places.client


def test_nothing_of_a_deleted_model_is_said_of_its_successor(
    registry: Registry, client: Any, tmp_path: Path
) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"first")
    registry.register("churn", path)
    waiting = registry.request_approval("churn", 1, "staging", why="w", by="ada")
    asked = registry.request_approval("churn", 1, "production", why="w", by="ada")
    registry.approve("churn", asked.id, by="grace")
    registry.promote("churn", 1, "archived")
    then = datetime.now(UTC)
    time.sleep(0.01)
    client.delete_registered_model("churn")
    path.write_bytes(b"second")

    assert registry.register("churn", path).version == 1

    with pytest.raises(NotFound):
        registry.at("churn", "archived", then)
    assert [each.status for each in registry.requests("churn")] == ["outdated", "outdated"]
    assert not registry.promote("churn", 1, "production", approved())
    with pytest.raises(Conflict, match="no longer there"):
        registry.approve("churn", waiting.id, by="grace")
    assert registry.at("churn", "none", datetime.now(UTC)).version == 1

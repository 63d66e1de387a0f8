"""Graphs of stages: what is refused, what is taken for granted, and a graph that was changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import ConfigError, Conflict, InvalidInput
from mlopskit.registry.local import LocalRegistry
from mlopskit.registry.stages import StageGraph

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.core


@pytest.mark.parametrize("stage", ["latest", "Latest", "3", "v1", "V12"])
def test_a_stage_that_reads_as_a_version_is_refused(stage: str) -> None:
    with pytest.raises(ConfigError, match="taken for a version"):
        StageGraph.of(["none", stage, "production"])


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ({"limits": {"none": 1}}, "versions begin in 'none'"),
        ({"limits": {"archived": 1}, "displaced_to": "archived"}, "takes the displaced versions"),
        ({"limits": {"prodution": 1}}, "'prodution' is not in the order"),
        ({"limits": {"staging": 0}}, "below 1"),
        (["none", "Production", "production"], "each named once"),
        (["none"], "at least two"),
    ],
)
def test_a_graph_that_contradicts_itself_is_refused(graph: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        StageGraph.of(graph)


@pytest.mark.parametrize(
    "graph",
    [
        ["none", "a", "b"],
        {"order": ["none", "a", "b"], "transitions": {"none": ["a"], "a": ["b"]}},
        {"order": ("production", "b")},
    ],
)
def test_a_graph_needs_no_stage_called_production(graph: Any) -> None:
    assert StageGraph.of(graph).limits == {}


@pytest.mark.parametrize(
    "graph",
    [
        ["none", "staging", "production"],
        {"order": ["none", "staging", "production"], "transitions": {"none": ["production"]}},
    ],
)
def test_without_a_stage_for_old_versions_they_go_back_to_the_first_one(
    tmp_path: Path, source: Path, graph: Any
) -> None:
    with LocalRegistry(tmp_path / "registry", stages=graph) as registry:
        for number in (1, 2):
            registry.register("churn", source)
            registry.promote("churn", number, "production")

        assert [each.stage for each in registry.list_versions("churn")] == ["none", "production"]
        assert registry.rollback("churn", "production").version == 1


def test_versions_leave_a_stage_that_there_is_no_longer(tmp_path: Path, source: Path) -> None:
    """Also where the moves are narrowed, which say nothing of it."""
    with LocalRegistry(tmp_path / "registry", stages=["none", "canary", "production"]) as before:
        before.register("churn", source)
        before.promote("churn", 1, "canary")
    moves = {"none": ["staging"], "staging": ["production"]}
    with LocalRegistry(tmp_path / "registry", stages={"transitions": moves}) as registry:
        with pytest.raises(Conflict, match="cannot be deleted"):
            registry.delete_version("churn", 1, consent=True)

        assert registry.promote("churn", 1, "archived")
        registry.delete_version("churn", 1, consent=True)


def test_what_is_no_gate_and_no_reason_is_refused(tmp_path: Path, source: Path) -> None:
    nothing: Any = None
    with LocalRegistry(tmp_path / "registry") as registry:
        registry.register("churn", source)
        registry.promote("churn", 1, "production")
        registry.register("churn", source)
        with pytest.raises(InvalidInput, match="gates is None"):
            registry.promote("churn", 2, "production", gates=nothing)
        registry.promote("churn", 2, "production")
        with pytest.raises(InvalidInput):
            registry.rollback("churn", "production", why=nothing)

"""What others linked into W&B's registry is read and promoted, and nothing of it is verified."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import wandb_places
from tests.registry.wandb_places import links_of

from mlopskit.errors import InvalidModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlopskit.registry import Registry
    from mlopskit.testing.wandb_server import WandbServer

wandb = pytest.importorskip("wandb")
backend = pytest.importorskip("mlopskit.registry.wandb")
registry = wandb_places.registry


@pytest.fixture
def theirs(registry: Any, server: WandbServer) -> Callable[[str, bytes], int]:
    """Return what links an artifact as W&B's users do, and tells its index."""
    artifacts, content = registry._artifacts, backend.Content

    def link(name: str, data: bytes) -> int:
        where = backend.Collection("team", "theirs", name)
        made = artifacts.put(
            where, "model", "run", [content.of("m.pt", data)], {"epochs": 3}, description="made"
        )
        linked: int = artifacts.link(made["id"], registry._linked(name))
        return linked

    return link


def test_what_others_linked_is_read_promoted_and_edited(
    theirs: Callable[[str, bytes], int], registry: Registry, source: Path, tmp_path: Path
) -> None:
    theirs("churn", b"1")
    theirs("churn", b"2")
    first, second = registry.list_versions("churn")
    assert (first.version, first.tags, first.description) == (1, {"epochs": "3"}, "made")
    assert (second.flavor, second.digest) == ("wandb", "")
    assert registry.get_version("churn", "latest") == second
    out = registry.download("churn", 2, tmp_path / "out")
    assert (out / "m.pt").read_bytes() == b"2"
    assert [file.path for file in registry.manifest("churn", 1).files] == ["m.pt"]
    with pytest.raises(InvalidModel):
        registry.load("churn", 1, trusted=True)

    registry.promote("churn", 1, "production")
    registry.update_version("churn", 1, tags={"epochs": None, "team": "a"})
    assert registry.register("churn", source).version == 3
    assert registry.get_version("churn", "production").tags == {"team": "a"}
    actions = [entry.action for entry in registry.history("churn")]
    assert actions == ["registered", "registered", "promoted", "edited", "registered"]
    assert registry.gc(window=timedelta(0), dry_run=False).removed == ()


THEIRS = """
import pathlib, wandb
pathlib.Path("m.pt").write_bytes(b"theirs")
with wandb.init(project="theirs", entity="team") as run:
    artifact = wandb.Artifact("net", type="model", metadata={"epochs": 3}, description="made")
    artifact.add_file("m.pt")
    run.log_artifact(artifact).wait()
    run.link_artifact(artifact, "wandb-registry-model/churn", aliases=["champion"])
"""


def test_what_wandbs_own_client_linked_is_read(
    registry: Registry, server: WandbServer, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", THEIRS],
        env={**os.environ, **server.environment(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (version,) = registry.list_versions("churn")
    assert (version.aliases, version.tags) == (("champion",), {"epochs": "3"})
    out = registry.download("churn", "@champion", tmp_path / "out")
    assert (out / "m.pt").read_bytes() == b"theirs"


def test_artifacts_of_others_in_the_source_project_are_not_collected(
    registry: Any, server: WandbServer, source: Path
) -> None:
    registry.register("churn", source)
    where = backend.Collection("team", "models", "churn")
    content = [backend.Content.of("m.pt", b"1")]
    made = registry._artifacts.put(where, "model", "run", content, {"epochs": 3})
    server.artifacts[made["id"]]["created"] = "2020-01-01T00:00:00Z"
    assert registry.gc(window=timedelta(0), dry_run=False).removed == ()
    assert made["id"] in server.artifacts


def test_an_alias_that_others_set_is_read(
    theirs: Callable[[str, bytes], int], registry: Registry, server: WandbServer
) -> None:
    theirs("churn", b"1")
    theirs("churn", b"2")
    linked = links_of(server)
    linked["aliases"] |= {"champion": 0, "production": 1}

    assert registry.get_version("churn", "@champion").version == 1
    assert registry.get_version("churn", "production").version == 2
    registry.set_alias("churn", "shadow", 2)
    linked["aliases"]["champion"] = 1
    assert registry.get_version("churn", "@champion").version == 2

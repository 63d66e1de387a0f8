"""W&B keeps the registry's contract, on a loopback server, and W&B's own clients see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import wandb_places
from tests.registry.wandb_places import links_of, opened

from mlopskit.errors import (
    BackendError,
    ConfigError,
    InvalidModel,
    InvalidName,
    NotFound,
    Unsupported,
)
from mlopskit.kit import Kit
from mlopskit.testing import RegistryContract
from mlopskit.testing.wandb_registry_answers import ORG_ENTITY
from mlopskit.testing.wandb_server import KEY, WandbServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.registry import Registry

wandb = pytest.importorskip("wandb")
backend = pytest.importorskip("mlopskit.registry.wandb")
registry = wandb_places.registry


class TestWandbRegistry(RegistryContract):
    @pytest.fixture
    def registry(self, server: WandbServer) -> Iterator[Registry]:
        with opened(server) as made:
            yield made


# Where it is.


def test_it_comes_from_the_configuration(server: WandbServer, tmp_path: Path, source: Path) -> None:
    options = {"base_url": server.url, "api_key": KEY, "stages": ["dev", "live"], "actor": "ci"}
    line = {"backend": "wandb", "location": "team/models", **options}
    with Kit(home=str(tmp_path / "home"), registry=line) as kit:
        assert kit.registry.register("churn", source).stage == "dev"
        assert kit.registry.promote("churn", 1, "live")
        assert {entry.by for entry in kit.registry.history("churn")} == {"ci"}


def test_the_entity_and_the_key_come_from_the_environment(
    server: WandbServer, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("BASE_URL", server.url), ("API_KEY", KEY), ("ENTITY", "team")):
        monkeypatch.setenv(f"WANDB_{name}", text)
    with backend.WandbRegistry() as registry:
        registry.register("churn", source)
        assert registry.target == f"wandb:{server.url}/team/mlopskit-registry:wandb-registry-model"
    assert {each["project"] for each in server.artifacts.values()} == {"mlopskit-registry"}


def test_the_default_entity_is_asked_for(server: WandbServer, source: Path) -> None:
    with opened(server, "models") as registry:
        assert registry.register("churn", source).version == 1
    assert f"{ORG_ENTITY}/wandb-registry-model/churn" in server.collections


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_working_offline_is_refused_when_it_is_opened(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unsupported, match="offline"):
        backend.WandbRegistry("team/models", mode=mode)
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(Unsupported, match="offline"):
        backend.WandbRegistry("team/models")
    backend.WandbRegistry("team/models", mode="online").close()


def test_a_location_of_three_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match="team/models"):
        backend.WandbRegistry("a/b/c")


def test_a_registry_that_is_not_there_is_said_before_anything_is_sent(
    server: WandbServer, source: Path
) -> None:
    with opened(server, registry="wandb-registry-churn") as registry:
        with pytest.raises(NotFound, match="churn"):
            registry.register("churn", source)
        assert registry.list_models() == []
    assert server.artifacts == {}


def test_an_organization_that_is_not_there_is_said(server: WandbServer) -> None:
    with (
        opened(server, organization="ogr") as registry,
        pytest.raises(NotFound, match=r"ogr.*org"),
    ):
        registry.list_models()
    with opened(server, "nobody/models") as registry, pytest.raises(ConfigError, match="nobody"):
        registry.list_models()


def test_a_project_has_the_histories_of_one_registry_alone(
    server: WandbServer, source: Path
) -> None:
    """Else two models of one name would be taken for one."""
    server.registries.add("wandb-registry-prod")
    with opened(server) as registry, opened(server, registry="prod") as other:
        registry.register("churn", source)
        registry.promote("churn", 1, "production")
        before = registry.history("churn")
        kept = set(server.artifacts)
        for act in (
            lambda: other.register("churn", source),
            lambda: other.register("fraud", source),
            other.list_models,
            lambda: other.gc(window=timedelta(0), dry_run=False),
        ):
            with pytest.raises(ConfigError, match=r"team/models .*-model.*-prod.*another project"):
                act()
        assert set(server.artifacts) == kept
        assert registry.history("churn") == before
    with opened(server, "team/prod-models", registry="prod") as other:
        assert other.register("churn", source).version == 1
        assert len(other.history("churn")) == 1


def test_a_registry_that_was_renamed_keeps_its_histories(server: WandbServer, source: Path) -> None:
    with opened(server) as registry:
        registry.register("churn", source)
        registry.promote("churn", 1, "production")
    server.registries = {"wandb-registry-renamed"}
    moved = server.collections.pop(f"{ORG_ENTITY}/wandb-registry-model/churn")
    moved["project"] = "wandb-registry-renamed"
    server.collections[f"{ORG_ENTITY}/wandb-registry-renamed/churn"] = moved

    with opened(server, registry="renamed") as registry:
        assert registry.get_version("churn", "production").version == 1
        assert registry.register("churn", source).version == 2
        assert [entry.action for entry in registry.history("churn")] == [
            "registered",
            "promoted",
            "registered",
        ]


def test_names_of_the_registrys_own_collections_are_refused(
    registry: Registry, server: WandbServer, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidName):
        registry.register("mlopskit-history.churn", source)
    given = tmp_path / "given"
    (given / "_mlopskit").mkdir(parents=True)
    (given / "_mlopskit" / "manifest.json").write_text("{}")
    with pytest.raises(InvalidModel, match="_mlopskit"):
        registry.register("churn", given)
    assert server.artifacts == {}


def test_a_name_may_be_as_long_as_everywhere(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    names = ["m" * 127 + letter for letter in "ab"]
    for name in names:
        registry.register(name, source)
        registry.promote(name, 1, "production")
    assert [each.name for each in registry.list_models()] == names
    assert all(len(each["name"]) <= 128 for each in server.collections.values())
    assert [len(registry.history(name)) for name in names] == [2, 2]


def test_another_process_reads_what_was_registered(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    made = registry.register("churn", source, metrics={"auc": 0.5})
    registry.promote("churn", 1, "production")
    with opened(server) as other:
        assert other.get_version("churn", "production").model_dump() == {
            **made.model_dump(),
            "stage": "production",
        }


# W&B's own clients.

NATIVE = """
import json, sys
import wandb
api = wandb.Api()
path = "org-entity/wandb-registry-model/churn"
print(json.dumps({
    "versions": {
        each.version: [sorted(each.aliases), each.description, each.metadata["digest"]]
        for each in api.artifacts("model", path)
    },
    "collections": [each.name for each in
                    api.artifact_collections("org-entity/wandb-registry-model", "model")],
    "description": api.artifact_collection("model", path).description,
    "out": api.artifact(path + ":production").download(sys.argv[1]),
}))
"""


def test_wandbs_own_client_finds_the_versions_the_aliases_and_the_files(
    registry: Registry, server: WandbServer, source: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        registry.register("churn", source, description="first")
        registry.promote("churn", number, "production")
    registry.register("churn", source)
    registry.set_alias("churn", "champion", 1)
    registry.update_version("churn", 1, description="second")
    registry.update_model("churn", description="who leaves")
    registry.delete_version("churn", 3, consent=True)
    registry.register("churn", source)
    registry.list_versions("churn")

    done = subprocess.run(
        [sys.executable, "-c", NATIVE, str(tmp_path / "out")],
        env={**os.environ, **server.environment(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    digest = registry.get_version("churn", 1).digest
    assert said["versions"] == {
        "v0": [["champion"], "second", digest],
        "v1": [["production"], "first", digest],
        "v3": [["latest"], None, digest],
    }
    assert (said["collections"], said["description"]) == (["churn"], "who leaves")
    found = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found == ["manifest.json", "version.json", "weights.bin"]
    assert (tmp_path / "out" / "weights.bin").read_bytes() == b"weights"


def test_the_native_client_is_of_this_server(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    registry.register("churn", source)
    registry.set_alias("churn", "champion", 1)
    found = registry.native.artifact(f"{ORG_ENTITY}/wandb-registry-model/churn:champion")
    assert "champion" in found.aliases


def test_wandb_forgets_what_no_longer_holds(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    registry.register("churn", source)
    registry.promote("churn", 1, "production")
    registry.set_alias("churn", "champion", 1)
    linked = links_of(server)
    assert linked["aliases"] == {"latest": 0, "production": 0, "champion": 0}
    registry.promote("churn", 1, "archived")
    registry.delete_alias("churn", "champion")
    assert linked["aliases"] == {"latest": 0}


def test_equal_bytes_are_stored_once(registry: Registry, server: WandbServer, source: Path) -> None:
    for _ in range(3):
        registry.register("churn", source)
    assert len(registry.list_versions("churn")) == 3
    sent = [path for path, content in server.files.items() if content == b"weights"]
    assert len(sent) == 2  # The file as it was sent, and the server's own copy.


def test_the_manifest_names_the_artifact_that_bytes_came_with(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    """The server refuses to commit what claims another one."""
    for _ in range(2):
        registry.register("churn", source)
    first, second = (each["id"] for each in server.artifacts.values() if each["type"] == "model")
    births = [
        json.loads(server.files[f"/storage/manifest/{made}"])["contents"]["weights.bin"][
            "birthArtifactID"
        ]
        for made in (first, second)
    ]
    assert births == [first, first]


def test_artifacts_are_made_as_wandbs_sdk_makes_them(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    create, manifest = server.on_CreateArtifact, server.on_CreateArtifactManifest
    made: list[Any] = []
    manifests: list[Any] = []

    def watched(given: Any) -> Any:
        made.append(given["input"])
        return create(given)

    def watched_too(given: Any) -> Any:
        manifests.append((bool(given["digest"]), given["includeUpload"]))
        return manifest(given)

    server.on_CreateArtifact = watched  # type: ignore[method-assign]
    server.on_CreateArtifactManifest = watched_too  # type: ignore[method-assign]
    registry.register("churn", source)
    assert [each["artifactCollectionName"] for each in made] == ["churn", "mlopskit-entries.churn"]
    assert {each["digestAlgorithm"] for each in made} == {"MANIFEST_MD5"}
    ids = {each[key] for each in made for key in ("clientID", "sequenceClientID")}
    assert (len(ids), {len(each) for each in ids}) == (4, {128})
    assert manifests == [(False, False), (True, True)] * 2
    assert "UpdateArtifactManifest" not in server.asked


def test_no_rule_of_a_team_makes_artifacts_expire(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    registry.register("churn", source)
    kept = {each["type"]: each["ttl"] for each in server.artifacts.values()}
    assert kept == {"model": -2, "mlopskit-history": -2}


def test_the_last_link_stays_so_that_no_number_is_given_again(
    registry: Any, server: WandbServer, source: Path
) -> None:
    for _ in range(3):
        registry.register("churn", source)
    registry.promote("churn", 3, "production")
    registry.promote("churn", 3, "archived")
    linked = links_of(server)
    linked["aliases"]["two words"] = 2  # This interface cannot name it.
    registry.delete_model("churn", consent=True)
    assert [each is None for each in linked["members"]] == [True, True, False]
    assert linked["aliases"] == {"latest": 2}
    assert registry.list_models() == []

    collected = registry.gc(window=timedelta(0), dry_run=False)
    assert linked["members"][2] in server.artifacts
    assert len(collected.removed) == 4  # Of two versions: a file and the manifest.

    assert registry.register("churn", source).version == 4
    assert [each.version for each in registry.list_versions("churn")] == [4]
    assert [each is None for each in linked["members"]] == [True, True, True, False]


def test_the_name_of_a_run_that_was_deleted_is_given_up(server: WandbServer, source: Path) -> None:
    server.gone |= {"mlopskit-registry", "mlopskit-registry-2"}
    with opened(server) as registry:
        registry.register("churn", source)
    assert set(server.runs) == {"mlopskit-registry-3"}
    assert {each["by"] for each in server.artifacts.values()} == {"mlopskit-registry-3"}
    server.gone |= {f"mlopskit-registry-{number}" for number in range(3, 100)}
    with opened(server) as registry, pytest.raises(BackendError, match="another project"):
        registry.register("churn", source)


def test_what_is_too_long_for_the_metadata_is_whole(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    long = "ä" * 30_000
    registry.register("churn", source, tags={"long": long}, description=long)
    registry.update_version("churn", 1, tags={"later": long})
    reason = "y" * 30_000
    registry.promote("churn", 1, "staging", why=reason)
    with opened(server) as other:
        found = other.get_version("churn", 1)
        assert (found.tags, found.description) == ({"long": long, "later": long}, long)
        assert other.history("churn")[-1].why == reason
        assert other.list_versions("churn") == [found]
    assert all(len(each["metadata"]) < 30_000 for each in server.artifacts.values())


@pytest.mark.parametrize("name", ["späti.txt", "a#b.txt", "a%2eb", "q?x=1.txt", "a~b;c&d.txt"])
def test_any_name_of_a_file_comes_back(registry: Registry, tmp_path: Path, name: str) -> None:
    given = tmp_path / "given"
    (given / "deep er").mkdir(parents=True)
    (given / "deep er" / name).write_text(name)
    registry.register("churn", given)
    out = registry.download("churn", 1, tmp_path / "out")
    assert (out / "deep er" / name).read_text() == name


def test_a_model_of_many_files_and_a_long_history_are_read_page_by_page(
    registry: Registry, server: WandbServer, tmp_path: Path, source: Path
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for number in range(250):
        (given / f"{number:03}").write_text(str(number))
    registry.register("churn", given)
    for number in range(1, 120):
        registry.set_alias("churn", f"a{number}", 1)
    with opened(server) as other:
        assert len(other.history("churn")) == 120
        assert len(other.get_version("churn", 1).aliases) == 119
        out = other.download("churn", 1, tmp_path / "out")
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        f"{number:03}": str(number) for number in range(250)
    }

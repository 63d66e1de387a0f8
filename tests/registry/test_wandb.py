"""W&B keeps the registry's contract, on a loopback server, and what only it can get wrong."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import (
    BackendError,
    ConfigError,
    IntegrityError,
    InvalidModel,
    InvalidName,
    NotFound,
    StorageError,
    Unavailable,
    Unsupported,
)
from mlopskit.kit import Kit
from mlopskit.testing import RegistryContract
from mlopskit.testing.wandb_registry_answers import ORG_ENTITY
from mlopskit.testing.wandb_server import KEY, Fault, WandbServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry import Registry
    from mlopskit.testing.wandb_server import Kind

wandb = pytest.importorskip("wandb")
backend = pytest.importorskip("mlopskit.registry.wandb")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B's service from reporting anywhere, and the user's settings out."""
    for name in ("WANDB_MODE", "WANDB_ENTITY", "WANDB_BASE_URL", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as running:
        yield running
        assert running.unknown == []


@pytest.fixture
def registry(server: WandbServer) -> Iterator[Registry]:
    with backend.WandbRegistry("team/models", base_url=server.url, api_key=KEY) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    return path


class TestWandbRegistry(RegistryContract):
    @pytest.fixture
    def registry(self, server: WandbServer) -> Iterator[Registry]:
        with backend.WandbRegistry("team/models", base_url=server.url, api_key=KEY) as opened:
            yield opened


def opened(server: WandbServer, project: str = "team/models", **options: Any) -> Any:
    return backend.WandbRegistry(project, base_url=server.url, api_key=KEY, **options)


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
    linked = server.collections[f"{ORG_ENTITY}/wandb-registry-model/churn"]
    assert linked["aliases"] == {"latest": 0, "production": 0, "champion": 0}
    registry.promote("churn", 1, "archived")
    registry.delete_alias("churn", "champion")
    assert linked["aliases"] == {"latest": 0}


def test_equal_bytes_are_stored_once(registry: Registry, server: WandbServer, source: Path) -> None:
    for _ in range(3):
        registry.register("churn", source)
    assert len(registry.list_versions("churn")) == 3
    assert len([path for path, content in server.files.items() if content == b"weights"]) == 4
    digests = {path for path in server.files if path.startswith("md5:")}
    assert [server.files[each] for each in digests].count(b"weights") == 1


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


# What others linked.


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
    linked = server.collections[f"{ORG_ENTITY}/wandb-registry-model/churn"]
    linked["aliases"] |= {"champion": 0, "production": 1}

    assert registry.get_version("churn", "@champion").version == 1
    assert registry.get_version("churn", "production").version == 2
    registry.set_alias("churn", "shadow", 2)
    linked["aliases"]["champion"] = 1
    assert registry.get_version("churn", "@champion").version == 2


# Bytes.


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
@pytest.mark.parametrize("what", ["weights.bin", "_mlopskit/manifest.json"])
def test_damaged_bytes_are_never_handed_out(
    registry: Registry, server: WandbServer, source: Path, tmp_path: Path, damage: str, what: str
) -> None:
    made = registry.register("churn", source)
    content = b"weights" if what == "weights.bin" else registry._manifest(made)
    (key,) = (k for k, v in server.files.items() if v == content and k.startswith("md5:"))
    if damage == "missing":
        del server.files[key]
    else:
        server.files[key] = content[:-1] + (b"S" if damage == "changed" else b"")

    with pytest.raises((IntegrityError, InvalidModel)):
        registry.download("churn", 1, tmp_path / "out")
    with pytest.raises((IntegrityError, InvalidModel)):
        registry.load("churn", 1, trusted=True)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize("change", [b"WEIGHTS", b"weight", b"weights and more", b""])
def test_a_file_that_changes_while_it_is_stored_makes_no_version(
    registry: Any, source: Path, change: bytes
) -> None:
    ask = registry._api.ask

    def meanwhile(query: str, *given: Any, **named: Any) -> Any:
        if "mutation CreateArtifactFiles" in query:
            source.write_bytes(change)
        return ask(query, *given, **named)

    registry._api.ask = meanwhile
    with pytest.raises(StorageError, match="changed while it was stored"):
        registry.register("churn", source)
    registry._api.ask = ask
    assert registry.list_models() == []


def test_what_a_killed_registration_left_is_collected_after_a_day(
    registry: Any, server: WandbServer, source: Path, tmp_path: Path
) -> None:
    registry.register("churn", source)
    server.fail("error", match="LinkArtifact")
    server.fail("error", match="FetchLinkedArtifacts")
    with pytest.raises(Unavailable):
        registry.register("churn", source)
    server.mend()
    (left,) = (e for e in server.artifacts.values() if (e["type"], e["index"]) == ("model", 1))
    assert registry.gc(window=timedelta(0)).removed == ()
    left["created"] = "2020-01-01T00:00:00Z"

    planned = registry.gc(window=timedelta(0))
    assert planned.removed[0].size == 7
    assert registry.gc(window=timedelta(0), dry_run=False).removed == planned.removed
    assert left["id"] not in server.artifacts
    registry.download("churn", 1, tmp_path / "out")


# A server that is away.


@pytest.mark.parametrize("kind", ["error", "down", "refuse", "hang"])
def test_a_server_that_is_away_is_said_at_once(
    server: WandbServer, source: Path, kind: Kind
) -> None:
    with opened(server, connect_timeout_s=0.3) as registry:
        registry.register("churn", source)
        server.fail(kind, math.inf, seconds=1.0)
        acts: list[Callable[[], object]] = [
            lambda: registry.register("churn", source),
            lambda: registry.promote("churn", 1, "production"),
            lambda: registry.get_version("churn", 1),
            lambda: registry.history("churn"),
            lambda: registry.ping(0.3),
            lambda: registry.native if not registry._clients else registry.ping(0.3),
        ]
        for act in acts:
            with pytest.raises(Unavailable, match="127"):
                act()
        server.mend()
        assert len(registry.list_versions("churn")) == 1
        assert len(registry.history("churn")) == 1


def test_a_wrong_key_is_said(server: WandbServer) -> None:
    with (
        backend.WandbRegistry("team/models", base_url=server.url, api_key="b" * 40) as registry,
        pytest.raises(Unavailable, match="WANDB_API_KEY"),
    ):
        registry.list_models()


def test_a_busy_server_is_waited_for(registry: Registry, server: WandbServer, source: Path) -> None:
    server.fail("busy", 2, match="LinkArtifact")
    registry.register("churn", source)
    assert len(registry.history("churn")) == 1


def test_an_alias_that_may_not_be_set_hinders_nothing_else(
    registry: Any, server: WandbServer, source: Path
) -> None:
    registry.register("churn", source)
    real = server.on_AddAliases

    def guarded(given: Any) -> Any:
        if given["input"]["aliases"][0]["alias"] == "champion":
            raise LookupError("alias is protected")
        return real(given)

    server.on_AddAliases = guarded  # type: ignore[method-assign]
    registry.set_alias("churn", "champion", 1)
    registry.promote("churn", 1, "production")
    assert registry.get_version("churn", "production").aliases == ("champion",)
    linked = server.collections[f"{ORG_ENTITY}/wandb-registry-model/churn"]
    assert linked["aliases"] == {"latest": 0, "production": 0}


def test_a_link_whose_answer_is_lost_is_looked_up(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    server.fail("drop", match="LinkArtifact")
    assert registry.register("churn", source).version == 1
    server.fail("drop", match="LinkArtifact")
    assert registry.promote("churn", 1, "production")
    assert len(registry.history("churn")) == 2
    assert len(registry.list_versions("churn")) == 1


def test_a_version_is_linked_when_the_server_has_committed_it(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    """It takes W&B a moment to check the files of a large artifact."""
    commit, link = server.on_CommitArtifact, server.on_LinkArtifact

    def slowly(given: Any) -> Any:
        answer = commit(given)
        artifact = server.artifacts[given["artifactID"]]
        artifact["state"] = answer["commitArtifact"]["artifact"]["state"] = "PENDING"
        threading.Timer(0.3, artifact.update, [{"state": "COMMITTED"}]).start()
        return answer

    def watched(given: Any) -> Any:
        assert server.artifacts[given["input"]["artifactID"]]["state"] == "COMMITTED"
        return link(given)

    server.on_CommitArtifact = slowly  # type: ignore[method-assign]
    server.on_LinkArtifact = watched  # type: ignore[method-assign]
    assert registry.register("churn", source).version == 1
    assert len(registry.history("churn")) == 1


def test_an_address_that_is_none_of_a_server_is_refused(registry: Any, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="file"):
        backend.WandbRegistry("team/models", base_url="file:///etc", api_key=KEY).ping()
    secret = tmp_path / "secret"
    secret.write_bytes(b"weights")
    with pytest.raises(BackendError, match="file"):
        next(registry._api.fetch(f"file://{secret}", "a file"))


def test_the_key_is_not_sent_where_the_server_leads_to(
    registry: Any, server: WandbServer, source: Path, tmp_path: Path
) -> None:
    """Object stores refuse what bears two keys, and are none of the key's business."""
    asked: list[str | None] = []
    seen: list[str | None] = []

    class Store(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            content = server.files["md5:" + self.path.strip("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Gate(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization"))
            self.send_response(307)
            self.send_header("Location", f"http://127.0.0.1:{store.server_port}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    registry.register("churn", source)
    with HTTPServer(("127.0.0.1", 0), Store) as store, HTTPServer(("127.0.0.1", 0), Gate) as gate:
        for each in (store, gate):
            threading.Thread(target=each.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{gate.server_port}"
        digest = hashlib.md5(b"weights").hexdigest()
        api = backend.Api(url, KEY, 5.0)
        assert b"".join(api.fetch(f"{url}/{digest}", "a file")) == b"weights"
        assert b"".join(registry._api.fetch(f"{url}/{digest}", "a file")) == b"weights"
        for each in (store, gate):
            each.shutdown()
    assert seen == [None, None]
    assert [key is None for key in asked] == [False, True]


class Counting(WandbServer):
    """Spoils one request, by its number."""

    seen = 0
    spoilt = 0
    kind: Kind = "drop"

    def fault(self, *names: str) -> Fault | None:
        with self.lock:
            self.seen += 1
            return Fault(self.kind) if self.seen == self.spoilt else None


@pytest.mark.parametrize("kind", ["drop", "error", "refuse"])
@pytest.mark.parametrize("what", ["register", "promote"])
def test_a_request_that_fails_leaves_nothing_half_written(
    source: Path, tmp_path: Path, kind: Kind, what: str
) -> None:
    """Wherever it fails; with ``drop`` it was done, and only the answer is lost."""
    with Counting() as server:
        server.kind = kind
        for spoilt in range(1, 60):
            name = f"churn{spoilt}"
            with opened(server) as registry:
                registry.register(name, source)
                server.spoilt = server.seen + spoilt
                failed = False
                try:
                    if what == "register":
                        assert registry.register(name, source).version == 2
                    else:
                        assert registry.promote(name, 1, "production")
                except BackendError:
                    failed = True
                came = server.seen >= server.spoilt
                server.spoilt = 0
            with opened(server) as other:
                entries, versions = other.history(name), other.list_versions(name)
                assert [e.id for e in entries] == list(range(1, len(entries) + 1))
                assert len(entries) in ((1, 2) if failed else (2,))
                if what == "register":
                    assert [e.version for e in versions] == [1, 2][: len(entries)]
                    for each in versions:
                        other.download(name, each.version, tmp_path / f"{name}-{each.version}")
                else:
                    stage = "production" if len(entries) == 2 else "none"
                    assert [e.stage for e in versions] == [stage]
                linked = server.collections[f"{ORG_ENTITY}/wandb-registry-model/{name}"]
                assert len(linked["members"]) == len(versions)
            if not came:
                break
    assert not came
    assert spoilt > 12


# Many at once.


def forked(work: Callable[[int], object], count: int) -> list[int]:
    """Run a function in forked children that begin at once; return their exit codes."""
    ready, begin = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(begin)
                os.read(ready, 1)  # The end of the pipe.
                work(number)
                code = 0
            except BaseException:  # noqa: BLE001 - a child must not go on as pytest
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    os.close(ready)
    os.close(begin)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@FORKS
def test_processes_number_versions_without_gaps(server: WandbServer, source: Path) -> None:
    def work(number: int) -> None:
        with opened(server, actor=f"worker {number}") as mine:
            for _ in range(4):
                mine.register("churn", source)

    assert forked(work, 4) == [0] * 4
    with opened(server) as registry:
        versions = [each.version for each in registry.list_versions("churn")]
        assert versions == list(range(1, 17))
        entries = registry.history("churn")
        assert [entry.id for entry in entries] == list(range(1, 17))
        assert sorted(entry.version or 0 for entry in entries) == versions
        assert len({entry.by for entry in entries}) == 4


@FORKS
def test_of_processes_that_promote_one_wins(server: WandbServer, source: Path) -> None:
    with opened(server) as registry:
        for _ in range(4):
            registry.register("churn", source)

    def work(number: int) -> None:
        with opened(server, actor=f"worker {number}") as mine:
            mine.promote("churn", number + 1, "production", [lambda c: c.holder is None])

    assert forked(work, 4) == [0] * 4
    with opened(server) as registry:
        actions = [entry.action for entry in registry.history("churn")]
        assert (actions.count("promoted"), actions.count("refused")) == (1, 3)
        holder = registry.get_version("churn", "production").version
        linked = server.collections[f"{ORG_ENTITY}/wandb-registry-model/churn"]
        assert linked["aliases"]["production"] == holder - 1


@FORKS
def test_nothing_that_processes_write_at_once_is_lost(server: WandbServer, source: Path) -> None:
    """Each counts up a tag that it must have read."""
    with opened(server) as registry:
        registry.register("churn", source)

    def work(number: int) -> None:
        with opened(server, actor=f"worker {number}") as mine:
            for turn in range(5):
                mine.set_alias("churn", f"a{number}.{turn}", 1)

    assert forked(work, 4) == [0] * 4
    with opened(server) as registry:
        wanted = sorted(f"a{number}.{turn}" for number in range(4) for turn in range(5))
        assert list(registry.get_version("churn", 1).aliases) == wanted
        entries = registry.history("churn")
        assert sorted(e.alias or "" for e in entries if e.action == "alias_set") == wanted
        history = server.collections["team/models/mlopskit-history.churn"]["members"]
        assert len(history) > len(entries)  # Some were too late, and do not count.


def test_threads_share_a_registry(registry: Registry, source: Path) -> None:
    registry.register("churn", source)

    def work(number: int) -> None:
        registry.set_alias("churn", f"a{number}", 1)
        registry.register("churn", source)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert len(registry.get_version("churn", 1).aliases) == 8
    assert [each.version for each in registry.list_versions("churn")] == list(range(1, 10))
    assert [e.id for e in registry.history("churn")] == list(range(1, 18))


@FORKS
def test_a_registry_is_used_on_both_sides_of_a_fork(server: WandbServer, source: Path) -> None:
    with opened(server) as registry:
        registry.register("churn", source)

        def work(number: int) -> None:
            for _ in range(5):
                assert registry.get_version("churn", 1).version == 1
            registry.register("churn", source)

        assert forked(work, 3) == [0] * 3
        assert registry.get_version("churn", 1).version == 1
        assert registry.register("churn", source).version == 5


def test_a_lost_link_of_a_history_is_said(
    registry: Registry, server: WandbServer, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlopskit.registry.wandb_chronicle.LOOKS", 2)
    registry.register("churn", source)
    registry.promote("churn", 1, "production")
    server.collections["team/models/mlopskit-history.churn"]["members"][0] = None
    with opened(server) as other, pytest.raises(BackendError, match="lost links"):
        other.list_versions("churn")


def test_a_link_that_shows_late_is_waited_for(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    """Who did not wait would take a text for one that does not count."""
    registry.register("churn", source)
    for alias in ("a", "b"):
        registry.set_alias("churn", alias, 1)
    linked = server.collections["team/models/mlopskit-history.churn"]
    late, linked["members"][1] = linked["members"][1], None
    look = server.on_ProjectArtifacts
    looks: list[str] = []

    def lagging(given: Any) -> Any:
        answer = look(given)
        looks.append(given["collection"])
        if looks.count("mlopskit-history.churn") == 2:
            linked["members"][1] = late
        return answer

    server.on_ProjectArtifacts = lagging  # type: ignore[method-assign]
    with opened(server) as other:
        assert [entry.id for entry in other.history("churn")] == [1, 2, 3]
        assert other.get_version("churn", 1).aliases == ("a", "b")


# Kills.


def killed(server: WandbServer, act: Callable[[Any], object], after: int) -> bool:
    """Act in a child that is killed before or after a request; tell whether it came so far."""

    def work(number: int) -> None:
        seen = 0

        def step() -> None:
            nonlocal seen
            seen += 1
            if seen == after:
                os.kill(os.getpid(), signal.SIGKILL)

        def wrapped(real: Any) -> Any:
            def call(*given: Any, **named: Any) -> Any:
                step()
                answer = real(*given, **named)
                step()
                return answer

            return call

        mine = opened(server, actor="killed")
        for name in ("ask", "send"):
            setattr(mine._api, name, wrapped(getattr(mine._api, name)))
        act(mine)

    (code,) = forked(work, 1)
    assert code in (0, -signal.SIGKILL)
    return code != 0


@FORKS
def test_a_killed_registration_leaves_a_whole_version_or_none(
    server: WandbServer, tmp_path: Path, source: Path
) -> None:

    def register(name: str, mine: Any) -> None:
        mine.register(name, source, tags={"a": "b"})

    seen = []
    for after in range(1, 120):
        name = f"churn{after}"
        was_killed = killed(server, partial(register, name), after)
        with opened(server) as registry:
            count = sum(model.versions for model in registry.list_models() if model.name == name)
            seen.append(count)
            if count:
                (version,) = registry.list_versions(name)
                assert (version.tags, version.size) == ({"a": "b"}, 7)
                registry.download(name, 1, tmp_path / f"out{after}")
                (entry,) = registry.history(name)
                assert (entry.action, entry.by) == ("registered", "killed")
            else:
                with pytest.raises(NotFound):
                    registry.history(name)
            assert registry.register(name, source).version == count + 1
            assert len(registry.history(name)) == count + 1
            registry.delete_model(name, consent=True)
        if not was_killed:
            break

    assert not was_killed
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1)
    assert len(seen) > 30


@FORKS
@pytest.mark.parametrize("what", ["promote", "delete", "long"])
def test_a_killed_change_is_made_whole_or_not_at_all(
    server: WandbServer, source: Path, what: str
) -> None:
    """And whoever comes next shows it in W&B."""
    acts: dict[str, Callable[[str, Any], object]] = {
        "promote": lambda n, r: r.promote(n, 2, "production"),
        "delete": lambda n, r: r.delete_model(n, consent=True),
        "long": lambda n, r: r.update_version(n, 1, tags={"a": "b" * 30_000}, description="d"),
    }
    seen = []
    for after in range(1, 100):
        name = f"churn{after}"
        with opened(server) as registry:
            registry.register(name, source)
            registry.register(name, source)
            if what == "promote":
                registry.promote(name, 1, "production")
            before = len(registry.history(name))
        was_killed = killed(server, partial(acts[what], name), after)
        with opened(server) as registry:
            added = registry.history(name)[before:]
            seen.append(len(added))
            linked = server.collections[f"{ORG_ENTITY}/wandb-registry-model/{name}"]
            if what == "promote":
                stages = [each.stage for each in registry.list_versions(name)]
                assert stages == (["archived", "production"] if added else ["production", "none"])
                assert linked["aliases"]["production"] == (1 if added else 0)
            elif what == "delete":
                assert [e for e in linked["members"] if e] == ([] if added else linked["members"])
                assert registry.register(name, source).version == 3
            else:
                found = registry.get_version(name, 1)
                assert found.tags == ({"a": "b" * 30_000} if added else {})
                shown = server.artifacts[linked["members"][0]]["description"]
                assert shown == ("d" if added else None)
        if not was_killed:
            break

    assert not was_killed
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1 if what == "long" else 2)

"""W&B's registry keeps its word when requests fail and bytes are damaged."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import wandb_places
from tests.registry.wandb_places import links_of, opened

from mlopskit.errors import (
    BackendError,
    ConfigError,
    IntegrityError,
    InvalidModel,
    StorageError,
    Unavailable,
)
from mlopskit.testing.wandb_server import KEY, Fault, WandbServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlopskit.registry import Registry
    from mlopskit.testing.wandb_server import Kind

wandb = pytest.importorskip("wandb")
backend = pytest.importorskip("mlopskit.registry.wandb")
registry = wandb_places.registry


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


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"{}", b""])
def test_a_damaged_text_of_a_history_is_never_taken_for_one(
    registry: Registry, server: WandbServer, source: Path, damage: bytes
) -> None:
    """One that is too long for the metadata is a file."""
    registry.register("churn", source)
    registry.promote("churn", 1, "staging", why="y" * 30_000)
    (key,) = (k for k, v in server.files.items() if k.startswith("md5:") and b"y" * 9 in v)
    whole, server.files[key] = server.files[key], damage
    with opened(server) as other:
        with pytest.raises(IntegrityError, match=r"text 2 .*'churn'"):
            other.get_version("churn", 1)
        server.files[key] = whole
        assert other.get_version("churn", 1).stage == "staging"


@pytest.mark.parametrize("change", ["signature", "size", "lineage", "by"])
def test_what_was_changed_in_wandb_is_said(
    registry: Registry, server: WandbServer, source: Path, change: str
) -> None:
    registry.register("churn", source)
    (artifact,) = (each for each in server.artifacts.values() if each["type"] == "model")
    metadata = json.loads(artifact["metadata"])
    said = json.loads(metadata["mlopskit_registry"])
    if change in ("signature", "by"):
        del said[change]
    else:
        said[change] = "x"
    metadata["mlopskit_registry"] = json.dumps(said)
    artifact["metadata"] = json.dumps(metadata)

    for act in (lambda: registry.get_version("churn", 1), lambda: registry.list_versions("churn")):
        with pytest.raises(BackendError, match="were changed in W&B"):
            act()


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


def test_a_server_that_knows_nobody_is_said(server: WandbServer, source: Path) -> None:
    """It does not always answer 401 to a request without a key."""
    server.on_Viewer = lambda given: {"viewer": None}  # type: ignore[method-assign]
    with opened(server, "models") as registry:
        for act in (registry.ping, registry.list_models, lambda: registry.native):
            with pytest.raises(Unavailable, match="WANDB_API_KEY"):
                act()


def test_a_user_without_a_default_entity_is_asked_for_one(
    server: WandbServer, source: Path
) -> None:
    server.on_Viewer = lambda given: {  # type: ignore[method-assign]
        "viewer": {"id": "u", "entity": None, "username": "ada"}
    }
    with opened(server, "models") as registry:
        with pytest.raises(ConfigError, match=r"'ada' has no default entity.*team/models"):
            registry.register("churn", source)
        registry.ping()
    assert server.artifacts == {}


def test_an_organization_without_an_entity_is_passed_over(
    server: WandbServer, source: Path
) -> None:
    found = server.on_FetchOrgInfoFromEntity({"entity": "team"})["entity"]["organization"]
    without = {"name": "other", "orgEntity": None}
    server.on_FetchOrgInfoFromEntity = lambda given: {  # type: ignore[method-assign]
        "entity": {"organization": None, "user": {"organizations": [without, found]}}
    }
    with opened(server) as registry:
        assert registry.register("churn", source).version == 1


@pytest.mark.parametrize("answer", ["[]", '"no"', "null", '{"data": null}', "{}", "<html>"])
def test_an_answer_that_is_none_of_wandbs_is_said(answer: str) -> None:
    """Something in between may answer."""

    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}"
        with backend.WandbRegistry("team/models", base_url=url, api_key=KEY) as registry:
            for act in (registry.ping, registry.list_models):
                with pytest.raises(Unavailable, match="its answer to"):
                    act()
        other.shutdown()


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
    linked = links_of(server)
    assert linked["aliases"] == {"latest": 0, "production": 0}


def test_a_link_whose_answer_is_lost_is_looked_up(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    server.fail("drop", match="LinkArtifact")
    assert registry.register("churn", source).version == 1
    server.fail("drop", match="LinkArtifact")
    assert registry.promote("churn", 1, "production")
    assert server.asked["LinkArtifact"] == 3  # A version, its line, and that of the promotion.
    assert len(registry.history("churn")) == 2
    assert len(registry.list_versions("churn")) == 1


def test_a_commit_whose_answer_is_lost_is_looked_up(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    server.fail("drop", match="CommitArtifact")
    assert registry.register("churn", source).version == 1
    assert server.asked["CommitArtifact"] == 2  # A version and its line.
    assert len(registry.list_versions("churn")) == 1


@pytest.mark.parametrize("question", ["CommitArtifact", "LinkArtifact"])
@pytest.mark.parametrize("kind", ["conflict", "error", "drop", "refuse"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_the_server_failed_to_do_is_asked_for_again(
    registry: Registry, server: WandbServer, source: Path, question: str, kind: Kind, times: int
) -> None:
    """Of writers that store at once only one is given a number, and the others an error."""
    server.fail(kind, times, match=question)
    assert registry.register("churn", source).version == 1
    assert server._faults.pop().times < times  # It has happened.
    server.fail(kind, times, match=question)
    assert registry.promote("churn", 1, "production")
    assert server._faults.pop().times < times
    with opened(server) as other:
        assert [each.stage for each in other.list_versions("churn")] == ["production"]
        assert [each.action for each in other.history("churn")] == ["registered", "promoted"]


@pytest.mark.parametrize("question", ["CommitArtifact", "LinkArtifact"])
@pytest.mark.parametrize("kind", ["conflict", "error"])
def test_what_never_succeeds_is_given_up(
    registry: Registry,
    server: WandbServer,
    source: Path,
    question: str,
    kind: Kind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlopskit.registry.wandb_artifacts.TRIES", 2)
    server.fail(kind, math.inf, match=question)
    with pytest.raises(BackendError, match="409" if kind == "conflict" else "500"):
        registry.register("churn", source)
    assert server.asked.get(question) is None
    server.mend()
    assert registry.list_models() == []


def test_an_upload_has_the_headers_that_the_server_gave_and_no_other(
    registry: Any, server: WandbServer, source: Path
) -> None:
    """A signed address is signed for its headers: the server here refuses what differs."""
    seen: list[dict[str, str]] = []

    class Store(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(dict(self.headers.items()))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Store) as store:
        threading.Thread(target=store.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{store.server_port}/signed"
        registry._api.send(url, ["Content-MD5:YQ==", "X-Own: b:c"], iter([b"1"]), 1)
        registry._api.send(url, ["Content-Type:text/plain"], iter([b"1"]), 1)
        store.shutdown()
    transport = {"accept-encoding", "connection", "host", "user-agent", "content-length"}
    found = [{k.lower(): v for k, v in each.items()} for each in seen]
    assert [{k: v for k, v in each.items() if k not in transport} for each in found] == [
        {"content-md5": "YQ==", "x-own": "b:c"},
        {"content-type": "text/plain"},
    ]
    registry.register("churn", source)


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
                linked = links_of(server, name)
                assert len(linked["members"]) == len(versions)
            if not came:
                break
    assert not came
    assert spoilt > 12

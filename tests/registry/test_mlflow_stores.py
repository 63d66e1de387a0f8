"""MLflow keeps the registry's contract on PostgreSQL and behind its server, whatever happens."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry.mlflow_places import MARKS, emptied, emptied_server
from tests.registry.processes import FORKS, forked, killed, left_whole
from tests.tracking.servers import Proxy, postgres, postgres_folder

from mlopskit.errors import BackendError, Unavailable
from mlopskit.testing import RegistryContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.registry.processes import Steps

    from mlopskit.registry import Registry

mlflow = pytest.importorskip("mlflow")
backend = pytest.importorskip("mlopskit.registry.mlflow")
pytestmark = MARKS


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Run PostgreSQL."""
    if postgres_folder() is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with postgres() as uri:
        mlflow.MlflowClient(uri)
        yield uri


@pytest.mark.network
@pytest.mark.skipif(postgres_folder() is None, reason="PostgreSQL is not installed")
class TestMlflowRegistryOnPostgres(RegistryContract):
    @pytest.fixture
    def registry(self, database: str) -> Iterator[Registry]:
        with backend.MlflowRegistry(emptied(database)) as opened:
            yield opened


@pytest.mark.network
class TestMlflowRegistryBehindAServer(RegistryContract):
    @pytest.fixture
    def registry(self, served: int) -> Iterator[Registry]:
        with backend.MlflowRegistry(emptied_server(served)) as opened:
            yield opened


# Many at once.


@pytest.fixture(params=["sqlite", "postgres", "server"])
def anywhere(request: pytest.FixtureRequest) -> str:
    """Return each kind of store, empty."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("uri"))
    if request.param == "postgres":
        return emptied(request.getfixturevalue("database"))
    return emptied_server(request.getfixturevalue("served"))


@FORKS
def test_processes_number_versions_without_gaps(anywhere: str, source: Path) -> None:
    def work(number: int) -> None:
        with backend.MlflowRegistry(anywhere, actor=f"worker {number}") as mine:
            for _ in range(3):
                mine.register("churn", source)

    assert forked(work, 16) == [0] * 16  # On a store that has no chronicle yet.
    with backend.MlflowRegistry(anywhere) as registry:
        versions = [each.version for each in registry.list_versions("churn")]
        assert versions == list(range(1, 49))
        entries = registry.history("churn")
        assert [entry.id for entry in entries] == list(range(1, 49))
        assert sorted(entry.version or 0 for entry in entries) == versions
        assert len({entry.by for entry in entries}) == 16
        client = registry.native
        (experiment,) = client.search_experiments(filter_string="name LIKE 'mlopskit.registry%'")
        assert len(client.search_runs([experiment.experiment_id])) == 2  # With the index.


@FORKS
def test_of_processes_that_promote_one_wins(anywhere: str, source: Path) -> None:
    with backend.MlflowRegistry(anywhere) as registry:
        for _ in range(8):
            registry.register("churn", source)

    def work(number: int) -> None:
        with backend.MlflowRegistry(anywhere, actor=f"worker {number}") as mine:
            mine.promote("churn", number + 1, "production", [lambda c: c.holder is None])

    assert forked(work, 8) == [0] * 8
    with backend.MlflowRegistry(anywhere) as registry:
        entries = registry.history("churn")
        actions = [entry.action for entry in entries]
        assert (actions.count("promoted"), actions.count("refused")) == (1, 7)
        holder = registry.get_version("churn", "production").version
        shown = registry.native.get_registered_model("churn").aliases
        assert int(shown["production"]) == holder


@FORKS
def test_a_registry_is_used_on_both_sides_of_a_fork(anywhere: str, source: Path) -> None:
    with backend.MlflowRegistry(anywhere) as registry:
        registry.register("churn", source)

        def work(number: int) -> None:
            for _ in range(5):
                assert registry.get_version("churn", 1).version == 1
            registry.register("churn", source)

        assert forked(work, 3) == [0] * 3
        for _ in range(5):
            assert registry.get_version("churn", 1).version == 1
        assert registry.register("churn", source).version == 5


# Kills.

STEPS = (
    *("log_param", "log_batch", "create_experiment", "set_experiment_tag", "rename_experiment"),
    *("create_run", "update_run", "create_registered_model", "create_model_version"),
    *("set_registered_model_alias", "delete_registered_model_alias", "set_model_version_tag"),
    *("delete_model_version",),
)


def killed_there(uri: str, act: Callable[[Any], object], after: int) -> bool:
    """Act in a child that is killed before or after a step; tell whether it came so far."""

    def work(steps: Steps) -> None:
        mine = backend.MlflowRegistry(uri, actor="killed")
        for name in STEPS:
            setattr(mine.native, name, steps(getattr(mine.native, name)))
        backend.Files._put_one = steps(backend.Files._put_one)
        backend.Files.put_manifest = steps(backend.Files.put_manifest)
        act(mine)

    return killed(work, after)


@FORKS
def test_a_killed_registration_leaves_a_whole_version_or_none(
    tmp_path: Path, empty_store: Path, source: Path
) -> None:
    seen = []
    for after in range(1, 100):
        folder = tmp_path / str(after)
        folder.mkdir()
        shutil.copy(empty_store, folder / "m.db")
        uri = f"sqlite:///{folder}/m.db"
        was_killed = killed_there(
            uri, lambda r: r.register("churn", source, tags={"a": "b"}), after
        )
        with backend.MlflowRegistry(uri) as registry:
            seen.append(left_whole(registry, "churn", source, folder / "out"))
        if not was_killed:
            break

    assert not was_killed
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1)
    assert len(seen) > 20


@FORKS
@pytest.mark.parametrize("what", ["promote", "delete", "long"])
def test_a_killed_change_is_made_whole_or_not_at_all(
    tmp_path: Path, empty_store: Path, source: Path, what: str
) -> None:
    """And whoever comes next shows it in MLflow."""
    acts: dict[str, Callable[[Any], object]] = {
        "promote": lambda r: r.promote("churn", 2, "production"),
        "delete": lambda r: r.delete_model("churn", consent=True),
        "long": lambda r: r.update_version("churn", 1, tags={"a": "b" * 20_000}, description="d"),
    }
    template = tmp_path / "m.db"
    shutil.copy(empty_store, template)
    with backend.MlflowRegistry(f"sqlite:///{template}") as registry:
        registry.register("churn", source)
        registry.register("churn", source)
        if what == "promote":
            registry.promote("churn", 1, "production")
    before = len(registry.history("churn"))
    seen = []
    for after in range(1, 100):
        path = tmp_path / f"{after}.db"
        shutil.copy(template, path)
        uri = f"sqlite:///{path}"
        was_killed = killed_there(uri, acts[what], after)
        with backend.MlflowRegistry(uri) as registry:
            added = registry.history("churn")[before:]
            seen.append(len(added))
            client = registry.native
            shown = client.get_registered_model("churn").aliases
            there = len(client.search_model_versions("name = 'churn'"))
            if what == "promote":
                stages = [each.stage for each in registry.list_versions("churn")]
                assert stages == (["archived", "production"] if added else ["production", "none"])
                assert int(shown["production"]) == (2 if added else 1)
                tag = client.get_model_version("churn", "2").tags.get("mlopskit.stage")
                assert tag == ("production" if added else None)
            elif what == "delete":
                assert there == (0 if added else 2)
                assert registry.register("churn", source).version == 3
            else:
                version = client.get_model_version("churn", "1")
                assert len(version.tags.get("a", "")) == (5000 if added else 0)
                assert registry.get_version("churn", 1).tags == (
                    {"a": "b" * 20_000} if added else {}
                )
        if not was_killed:
            break

    assert not was_killed
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1 if what == "long" else 2)


# A server that is away.


@pytest.mark.network
@pytest.mark.parametrize("mode", ["refuse", "hang", "error"])
def test_a_server_that_is_away_is_said_at_once(served: int, source: Path, mode: str) -> None:
    with Proxy(served) as proxy:
        emptied_server(served)
        uri = f"http://127.0.0.1:{proxy.port}"
        with backend.MlflowRegistry(uri, connect_timeout_s=0.5) as registry:
            registry.register("churn", source)
            proxy.mode = mode
            proxy.cut()
            time.sleep(backend.FRESH_S)
            acts: list[Callable[[], object]] = [
                lambda: registry.register("churn", source),
                lambda: registry.promote("churn", 1, "production"),
                lambda: registry.get_version("churn", 1),
                lambda: registry.history("churn"),
                lambda: registry.ping(0.5),
            ]
            for act in acts:
                with pytest.raises(Unavailable, match="127"):
                    act()
            proxy.mode = "pass"
            assert len(registry.list_versions("churn")) == 1
            assert len(registry.history("churn")) == 1


class Lossy(Proxy):
    """Passes everything on, and loses the answer to one request."""

    lost = 0

    @property
    def mode(self) -> str:
        return "drop" if self.seen == self.lost else "pass"

    @mode.setter
    def mode(self, mode: str) -> None:
        pass


@pytest.mark.network
@pytest.mark.parametrize(("what", "retries"), [("register", 0), ("register", 1), ("promote", 1)])
def test_an_answer_that_is_lost_makes_nothing_twice(
    served: int, source: Path, monkeypatch: pytest.MonkeyPatch, what: str, retries: int
) -> None:
    """Wherever it is lost; MLflow's client sends every request again whose answer does not come."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(retries))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0.1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    for lost in range(1, 40):
        emptied_server(served)
        with Lossy(served) as proxy:
            with backend.MlflowRegistry(f"http://127.0.0.1:{proxy.port}") as registry:
                registry.register("churn", source)
                proxy.lost = proxy.seen + lost
                failed = False
                try:
                    if what == "register":
                        assert registry.register("churn", source).version == 2
                    else:
                        registry.promote("churn", 1, "production")
                except (Unavailable, BackendError):
                    failed = True
                came = proxy.seen >= proxy.lost
            with backend.MlflowRegistry(f"http://127.0.0.1:{served}") as registry:
                entries = registry.history("churn")
                versions = registry.list_versions("churn")
                assert len(entries) in ((1, 2) if failed else (2,))
                if what == "register":
                    assert [e.version for e in versions] == [1, 2][: len(entries)]
                shown = registry.native.search_model_versions("name = 'churn'")
                assert len(shown) == len(versions)
        if not came:
            break
    assert not came
    assert lost > 5


@pytest.mark.network
def test_an_answer_that_is_lost_at_the_very_first_leaves_a_registry_that_works(
    served: int, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of the registry's own place in MLflow was made by then."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for lost in range(1, 40):
        emptied_server(served)
        with Lossy(served) as proxy:
            proxy.lost = lost
            with (
                backend.MlflowRegistry(f"http://127.0.0.1:{proxy.port}") as registry,
                suppress(BackendError),
            ):
                registry.register("churn", source)
            came = proxy.seen >= lost
        with backend.MlflowRegistry(f"http://127.0.0.1:{served}") as registry:
            made = registry.register("churn", source).version
            assert [each.version for each in registry.list_versions("churn")][-1] == made
            assert len(registry.history("churn")) == made
        if not came:
            break
    assert not came
    assert lost > 10

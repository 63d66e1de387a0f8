"""MLflow keeps the registry's contract, and what only it can get wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import mlflow_places
from tests.registry.mlflow_places import MARKS, emptied_server

from mlopskit.errors import (
    BackendError,
    ConfigError,
    Conflict,
    IntegrityError,
    InvalidModel,
    NotFound,
    StorageError,
)
from mlopskit.kit import Kit
from mlopskit.testing import RegistryContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.registry import Registry

mlflow = pytest.importorskip("mlflow")
backend = pytest.importorskip("mlopskit.registry.mlflow")
pytestmark = MARKS
registry, client = mlflow_places.registry, mlflow_places.client


class TestMlflowRegistry(RegistryContract):
    @pytest.fixture
    def registry(self, uri: str) -> Iterator[Registry]:
        with backend.MlflowRegistry(uri) as opened:
            yield opened


# Where it is.


@pytest.mark.parametrize("location", ["./mlruns", "file:///tmp/x", "C:\\models"])
def test_a_folder_is_refused(location: str) -> None:
    with pytest.raises(ConfigError, match=r"folders.*sqlite:///mlflow\.db"):
        backend.MlflowRegistry(location)


def test_nothing_global_is_set(registry: Registry, source: Path) -> None:
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    registry.register("churn", source)
    registry.promote("churn", 1, "production")

    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before


def test_it_comes_from_the_configuration(uri: str, tmp_path: Path, source: Path) -> None:
    line = {"backend": "mlflow", "location": uri, "stages": ["dev", "live"], "actor": "ci"}
    with Kit(home=str(tmp_path / "home"), registry=line) as kit:
        assert kit.registry.register("churn", source).stage == "dev"
        assert kit.registry.promote("churn", 1, "live")
        assert {entry.by for entry in kit.registry.history("churn")} == {"ci"}


def test_the_files_are_where_they_shall_be(uri: str, source: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    with backend.MlflowRegistry(uri, artifact_location=place.as_uri()) as registry:
        registry.register("churn", source)
    with backend.MlflowRegistry(uri) as other:
        other.register("churn", source)
        other.download("churn", 1, tmp_path / "out")

    assert len(list(place.rglob("weights.bin"))) == 2
    assert not Path("mlruns").exists()


def test_another_process_reads_what_was_registered(
    uri: str, registry: Registry, source: Path
) -> None:
    made = registry.register("churn", source, metrics={"auc": 0.5})
    with backend.MlflowRegistry(uri) as other:
        assert other.get_version("churn", 1) == made


# MLflow's own clients.


def test_mlflows_own_clients_find_the_holder_the_alias_and_the_files(
    registry: Registry, client: Any, source: Path, uri: str, tmp_path: Path
) -> None:
    for number in (1, 2):
        registry.register("churn", source, tags={"team": "a", "acc@1": "x"}, description="first")
        registry.promote("churn", number, "production")
    registry.set_alias("churn", "champion", 1)
    registry.update_version("churn", 1, tags={"team": None, "owner": "ada"}, description="second")
    registry.update_model("churn", description="who leaves", tags={"domain": "crm"})

    model = client.get_registered_model("churn")
    assert {alias: int(number) for alias, number in model.aliases.items()} == {
        "production": 2,
        "champion": 1,
    }
    assert (model.description, model.tags["domain"]) == ("who leaves", "crm")
    first, second = (client.get_model_version("churn", str(number)) for number in (1, 2))
    assert (first.tags["mlopskit.stage"], second.tags["mlopskit.stage"]) == (
        "archived",
        "production",
    )
    assert (first.tags["owner"], first.description) == ("ada", "second")
    assert "team" not in first.tags
    assert second.tags["team"] == "a"
    assert second.tags["mlopskit.digest"] == registry.get_version("churn", 2).digest
    program = (
        "import mlflow, sys\n"
        "print(mlflow.artifacts.download_artifacts(sys.argv[1], dst_path=sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", program, "models:/churn@production", str(tmp_path / "out")],
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        check=True,
        capture_output=True,
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["weights.bin"]
    assert (tmp_path / "out" / "weights.bin").read_bytes() == b"weights"


def test_mlflow_forgets_what_no_longer_holds(registry: Registry, client: Any, source: Path) -> None:
    registry.register("churn", source)
    registry.promote("churn", 1, "production")
    registry.set_alias("churn", "champion", 1)
    registry.promote("churn", 1, "archived")
    registry.delete_alias("churn", "champion")
    assert client.get_registered_model("churn").aliases == {}

    registry.delete_version("churn", 1, consent=True)
    assert client.search_model_versions("name = 'churn'") == []


def test_what_mlflow_has_no_room_for_is_whole_here(
    registry: Registry, client: Any, source: Path
) -> None:
    """MLflow would cut it without a word, or refuse it."""
    long = "ä" * 30_000
    tags = {"long": long, "acc@1": "x", "mlflow.prompt.is_prompt": "true", "n": ""}
    registry.register("churn", source, tags=tags, description=long)
    registry.update_version("churn", 1, tags={"later@2": long, "later": long})
    registry.update_model("churn", description=long, tags={"long": long})
    registry.set_alias("churn", "a.b", 1)
    reason = "y" * 20_000
    registry.promote("churn", 1, "staging", why=reason)

    found = registry.get_version("churn", "@a.b")
    assert found.tags == {**tags, "later@2": long, "later": long}
    assert found.description == long
    assert registry.get_model("churn").description == long
    assert registry.history("churn")[-1].why == reason
    shown = client.get_model_version("churn", "1")
    assert len(shown.description) == len(shown.tags["long"]) == len(shown.tags["later"]) == 5000
    assert len(client.get_registered_model("churn").description) == 5000


@pytest.mark.parametrize("name", ["späti.txt", "a#b.txt", "a%2eb", "q?x=1.txt", "a~b;c&d.txt"])
def test_any_name_of_a_file_comes_back(
    registry: Registry, tmp_path: Path, name: str, served: int
) -> None:
    given = tmp_path / "given"
    (given / "deep er").mkdir(parents=True)
    (given / "deep er" / name).write_text(name)
    with backend.MlflowRegistry(emptied_server(served)) as remote:
        for each, out in ((registry, "a"), (remote, "b")):
            each.register("churn", given)
            assert (
                each.download("churn", 1, tmp_path / out) / "deep er" / name
            ).read_text() == name


# Bytes.


def folders(client: Any) -> list[Path]:
    found = client.get_experiment_by_name("mlopskit.registry")
    return sorted(
        Path(found.artifact_location.removeprefix("file://")).glob("*/artifacts/models/*")
    )


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
@pytest.mark.parametrize("what", ["files/weights.bin", "manifest.json"])
def test_damaged_bytes_are_never_handed_out(
    registry: Registry, client: Any, source: Path, tmp_path: Path, damage: str, what: str
) -> None:
    registry.register("churn", source)
    (folder,) = folders(client)
    path = folder / what
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (b"S" if damage == "changed" else b""))

    with pytest.raises((IntegrityError, InvalidModel)):
        registry.download("churn", 1, tmp_path / "out")
    with pytest.raises((IntegrityError, InvalidModel)):
        registry.load("churn", 1, trusted=True)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_a_file_that_changes_while_it_is_stored_makes_no_version(
    registry: Registry, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = backend.stored_name.__globals__["digest_of"]

    def slowly(path: Path) -> Any:
        found = digest(path)
        path.write_bytes(b"other weights")
        return found

    monkeypatch.setattr("mlopskit.registry.mlflow_files.digest_of", slowly)
    with pytest.raises(StorageError, match="changed while it was stored"):
        registry.register("churn", source)
    assert registry.list_models() == []


def test_what_a_killed_registration_left_is_collected_after_a_day(
    registry: Registry, client: Any, source: Path, tmp_path: Path
) -> None:
    registry.register("churn", source)
    (kept,) = folders(client)
    old = kept.with_name("20200101T000000-0000000000000000")
    young = kept.with_name(f"{datetime.now(UTC):%Y%m%dT%H%M%S}-0000000000000000")
    foreign = kept.with_name("somebody-elses")
    for folder in (old, young, foreign):
        shutil.copytree(kept / "files", folder / "files")

    planned = registry.gc(window=timedelta(0))
    assert [each.size for each in planned.removed] == [7]
    assert registry.gc(window=timedelta(0), dry_run=False).removed == planned.removed
    assert folders(client) == sorted([kept, young, foreign])
    registry.download("churn", 1, tmp_path / "out")


# What mlopskit needs of MLflow.


def test_a_prompt_is_no_model(registry: Registry, client: Any, source: Path) -> None:
    client.register_prompt("greeting", "Hello {{name}}")
    assert registry.list_models() == []
    with pytest.raises(NotFound):
        registry.get_version("greeting", 1)
    with pytest.raises(Conflict, match="prompt"):
        registry.register("greeting", source)


def test_a_deleted_chronicle_is_read_and_asked_for(
    registry: Registry, client: Any, source: Path
) -> None:
    registry.register("churn", source)
    registry.promote("churn", 1, "production")
    (run,) = client.search_runs(
        [client.get_experiment_by_name("mlopskit.registry").experiment_id],
        "tags.`mlopskit.registry.model` = 'churn'",
    )
    client.delete_run(run.info.run_id)

    assert registry.get_version("churn", "production").version == 1
    with pytest.raises(BackendError, match="mlflow runs restore"):
        registry.promote("churn", 1, "archived")
    client.restore_run(run.info.run_id)
    registry.promote("churn", 1, "archived")


def test_an_experiment_of_that_name_that_others_made_is_left_alone(
    registry: Registry, client: Any, source: Path
) -> None:
    made = client.create_experiment("mlopskit.registry")
    with pytest.raises(BackendError, match="Rename it"):
        registry.register("churn", source)
    assert client.search_runs([made]) == []
    client.rename_experiment(made, "mine")
    assert registry.register("churn", source).version == 1
    client.delete_experiment(client.get_experiment_by_name("mlopskit.registry").experiment_id)
    with (
        backend.MlflowRegistry(registry.uri) as other,  # type: ignore[attr-defined]
        pytest.raises(BackendError, match="experiments restore"),
    ):
        other.list_versions("churn")


def test_the_tracker_shows_no_runs_of_the_registry(tmp_path: Path) -> None:
    """Histories are runs of MLflow, and none of the user's."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    source = tmp_path / "weights.bin"
    source.write_bytes(b"w")
    with Kit(tracking=f"mlflow:{uri}", registry=f"mlflow:{uri}", home=tmp_path / "home") as kit:
        kit.registry.register("churn", source)
        kit.registry.promote("churn", 1, "production")
        with kit.tracker.start_run("e") as run:
            pass

        assert [each.id for each in kit.tracker.search_runs()] == [run.id]
        assert [each.name for each in kit.tracker.list_experiments()] == ["Default", "e"]


def test_a_name_without_versions_hinders_no_collection(tmp_path: Path) -> None:
    source = tmp_path / "weights.bin"
    source.write_bytes(b"w")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with Kit(registry=f"mlflow:{uri}", home=tmp_path / "home") as kit:
        kit.registry.register("churn", source)
        kit.registry.native.create_registered_model("empty")

        assert kit.registry.gc(window=timedelta(0), dry_run=False).removed == ()
        assert [model.name for model in kit.registry.list_models()] == ["churn"]

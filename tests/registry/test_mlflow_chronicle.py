"""What mlopskit keeps in MLflow, and what happens if somebody changes it or others are busy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import mlflow_places
from tests.registry.mlflow_places import MARKS

from mlopskit.errors import BackendError

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry import Registry

mlflow = pytest.importorskip("mlflow")
backend = pytest.importorskip("mlopskit.registry.mlflow")
pytestmark = MARKS
registry, client = mlflow_places.registry, mlflow_places.client


def run_of(client: Any, name: str) -> str:
    """Return the run that has a model's history, or the one that lists them."""
    experiment = client.get_experiment_by_name("mlopskit.registry")
    index: str = experiment.tags["mlopskit.registry.index"]
    return index if name == "index" else str(client.get_run(index).data.params[name])


def test_a_deleted_list_of_histories_is_read_and_asked_for(
    registry: Registry, client: Any, source: Path
) -> None:
    registry.register("churn", source)
    client.delete_run(run_of(client, "index"))

    with backend.MlflowRegistry(registry.uri) as other:  # type: ignore[attr-defined]
        assert other.register("churn", source).version == 2
        with pytest.raises(BackendError, match=f"restore --run-id {run_of(client, 'index')}"):
            other.register("fraud", source)
        client.restore_run(run_of(client, "index"))
        assert other.register("fraud", source).version == 1


def test_a_long_text_does_not_go_into_a_deleted_history_either(
    registry: Registry, client: Any, source: Path
) -> None:
    registry.register("churn", source)
    client.delete_run(run_of(client, "churn"))
    with pytest.raises(BackendError, match="mlflow runs restore"):
        registry.update_version("churn", 1, description="d" * 20_000)


@pytest.mark.parametrize("which", ["index", "churn"])
def test_a_history_that_is_gone_is_never_taken_for_none(
    registry: Registry, client: Any, source: Path, which: str
) -> None:
    """As by 'mlflow gc': the stages that MLflow shows are not those that mlopskit has decided."""
    registry.register("churn", source)
    registry.register("fraud", source)
    registry.promote("churn", 1, "production")
    run = run_of(client, which)
    client.delete_run(run)
    client._tracking_client.store._hard_delete_run(run)

    with backend.MlflowRegistry(registry.uri) as other:  # type: ignore[attr-defined]
        for act in (
            lambda: other.get_version("churn", 1),
            lambda: other.register("churn", source),
            other.list_models,
            other.gc,
        ):
            with pytest.raises(BackendError, match=f"{run} .* is gone.*Restore"):
                act()


@pytest.mark.parametrize(
    "step", ["create_experiment", "create_run", "update_run", "set_experiment_tag"]
)
def test_a_database_that_others_write_to_is_asked_again(
    registry: Any, source: Path, step: str
) -> None:
    """From the first thing on that the registry makes there; SQLite may say so at once."""
    client = registry.native
    ask = getattr(client, step)
    said = ["(sqlite3.OperationalError) database is locked"]

    def busy(*given: Any, **named: Any) -> Any:
        if said:
            raise mlflow.exceptions.MlflowException(said.pop())
        return ask(*given, **named)

    setattr(client, step, busy)
    assert registry.register("churn", source).version == 1
    assert len(registry.history("churn")) == 1
    assert not said


def test_versions_on_many_pages_are_all_seen_whatever_changes_meanwhile(
    registry: Any, client: Any, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own order has the one first that was changed last."""
    for number in range(1, 6):
        registry.register("churn", source, tags={"n": str(number)})
    monkeypatch.setattr("mlopskit.registry.mlflow.PAGE", 2)
    search = registry.native.search_model_versions
    waiting = [1]

    def meanwhile(*given: Any, **named: Any) -> Any:
        page = search(*given, **named)
        if waiting:
            client.update_model_version("churn", str(waiting.pop()), "changed")
        return page

    registry.native.search_model_versions = meanwhile
    versions = registry.list_versions("churn")
    assert [(each.version, each.tags["n"]) for each in versions] == [
        (number, str(number)) for number in range(1, 6)
    ]
    assert not waiting


@pytest.mark.parametrize("key", ["a//b", "a/", "a/../b", "a/.", "a/./b", "x/.."])
def test_a_tag_that_mlflow_takes_for_a_path_is_kept_here(
    registry: Registry, client: Any, source: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    registry.register("churn", source, tags={key: "1"})
    registry.update_version("churn", 1, tags={key: "2", "z": "shown"})
    registry.update_model("churn", tags={key: "3", "z": "shown"})

    assert registry.get_version("churn", 1).tags == {key: "2", "z": "shown"}
    assert registry.get_model("churn").tags == {key: "3", "z": "shown"}
    assert client.get_model_version("churn", "1").tags["z"] == "shown"
    assert client.get_registered_model("churn").tags["z"] == "shown"
    assert not [each for each in caplog.messages if "is not shown" in each]


@pytest.mark.parametrize("change", ["signature", "size", "lineage", "folder", "text"])
def test_tags_of_ours_that_were_changed_in_mlflow_are_said(
    registry: Registry, client: Any, source: Path, change: str
) -> None:
    registry.register("churn", source)
    key = "mlopskit.version.0"
    said = json.loads(client.get_model_version("churn", "1").tags[key])
    if change == "folder":
        client.delete_model_version_tag("churn", "1", "mlopskit.folder")
    elif change == "text":
        client.set_model_version_tag("churn", "1", key, "[]")
    elif change == "signature":
        del said["signature"]
        client.set_model_version_tag("churn", "1", key, json.dumps(said))
    else:
        client.set_model_version_tag("churn", "1", key, json.dumps({**said, change: "x"}))

    for act in (lambda: registry.get_version("churn", 1), lambda: registry.list_versions("churn")):
        with pytest.raises(BackendError, match="version 1 of 'churn' were changed in MLflow"):
            act()

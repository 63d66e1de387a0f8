"""What others registered in MLflow is read, promoted and loaded, and nothing of it is verified."""

from __future__ import annotations

import gc
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import mlflow_places
from tests.registry.mlflow_places import MARKS, emptied_server

from mlopskit.errors import InvalidModel, InvalidSignature, UntrustedModel

if TYPE_CHECKING:
    from mlopskit.registry import Registry

mlflow = pytest.importorskip("mlflow")
backend = pytest.importorskip("mlopskit.registry.mlflow")
pytestmark = MARKS
registry, client = mlflow_places.registry, mlflow_places.client


@pytest.fixture
def theirs(client: Any, tmp_path: Path) -> Any:
    """Register a model with two versions as MLflow's users do."""
    folder = tmp_path / "theirs"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "data" / "w.txt").write_text("w")
    client.create_registered_model("churn", tags={"domain": "crm"}, description="theirs")
    for number in (1, 2):
        client.create_model_version(
            "churn", str(folder), run_id="ab" * 16, tags={"n": str(number)}, description="made"
        )
    return client


def test_what_others_registered_is_read(theirs: Any, registry: Registry, tmp_path: Path) -> None:
    first, second = registry.list_versions("churn")
    assert (first.version, first.tags, first.description) == (1, {"n": "1"}, "made")
    assert (second.run_id, second.flavor, second.digest) == ("ab" * 16, "mlflow", "")
    assert registry.get_version("churn", "latest") == second
    model = registry.get_model("churn")
    assert (model.tags, model.description, model.versions) == ({"domain": "crm"}, "theirs", 2)
    assert theirs.get_experiment_by_name("mlopskit.registry") is None

    out = registry.download("churn", 2, tmp_path / "out")
    assert (out / "data" / "w.txt").read_text() == "w"
    assert sorted(file.path for file in registry.manifest("churn", 1).files) == [
        "MLmodel",
        "data/w.txt",
    ]
    for trusted in (False, 1, "no"):
        with pytest.raises(UntrustedModel, match="trusted=True"):
            registry.load("churn", 1, trusted=trusted)  # type: ignore[arg-type]


def test_what_others_registered_is_promoted_and_edited(
    theirs: Any, registry: Registry, source: Path
) -> None:
    registry.promote("churn", 1, "production")
    registry.update_version("churn", 1, tags={"n": None, "team": "a"})
    registry.register("churn", source)

    assert registry.get_version("churn", "production").tags == {"team": "a"}
    assert theirs.get_model_version("churn", "1").tags["team"] == "a"
    assert int(theirs.get_registered_model("churn").aliases["production"]) == 1
    assert [entry.action for entry in registry.history("churn")] == [
        "registered",
        "registered",
        "promoted",
        "edited",
        "registered",
    ]


@pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")
def test_mlflows_old_stages_are_read_and_kept_by_the_first_move(
    theirs: Any, registry: Registry
) -> None:
    theirs.transition_model_version_stage("churn", "1", "Archived")
    theirs.transition_model_version_stage("churn", "2", "Production")
    assert [each.stage for each in registry.list_versions("churn")] == ["archived", "production"]
    assert registry.get_version("churn", "production").version == 2
    theirs.create_model_version("churn", "s3://nowhere/m")

    registry.promote("churn", 3, "production")
    theirs.transition_model_version_stage("churn", "1", "Production")
    assert [each.stage for each in registry.list_versions("churn")] == [
        "archived",
        "archived",
        "production",
    ]
    assert registry.rollback("churn", "production").version == 2


def test_an_alias_that_others_set_is_read(theirs: Any, registry: Registry) -> None:
    theirs.set_registered_model_alias("churn", "champion", "1")
    theirs.set_registered_model_alias("churn", "production", "2")

    assert registry.get_version("churn", "@champion").version == 1
    assert registry.get_version("churn", "production").version == 2
    assert registry.get_model("churn").aliases == {"champion": 1}
    registry.set_alias("churn", "shadow", 2)
    theirs.set_registered_model_alias("churn", "champion", "2")
    assert registry.get_version("churn", "@champion").version == 2


def test_a_file_that_is_no_folder_has_nothing_to_read(
    client: Any, registry: Registry, source: Path, tmp_path: Path
) -> None:
    client.create_registered_model("churn")
    client.create_model_version("churn", str(source))
    with pytest.raises(InvalidModel, match="no files of version 1 of 'churn'"):
        registry.download("churn", 1, tmp_path / "out")
    with pytest.raises(InvalidModel, match="no files of version 1 of 'churn'"):
        registry.manifest("churn", 1)


@pytest.mark.filterwarnings("ignore")  # MLflow's, as it is imported.
def test_a_model_that_mlflow_cannot_load_is_said(
    theirs: Any, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with pytest.raises(InvalidModel, match="version 1 of 'churn'") as raised:
        registry.load("churn", 1, trusted=True)
    assert isinstance(raised.value.__cause__, mlflow.exceptions.MlflowException)
    assert list(scratch.iterdir()) == []


@pytest.mark.filterwarnings("ignore")  # MLflow's and pandas', as it is imported and saves.
def test_a_pyfunc_model_has_its_files_as_long_as_it_lives(
    registry: Registry,
    client: Any,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Reads(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return Path(context.artifacts["weights"]).read_bytes()

    mlflow.pyfunc.save_model(
        tmp_path / "m",
        python_model=Reads(),
        artifacts={"weights": str(source)},
        pip_requirements=["mlflow"],
    )
    client.create_registered_model("reads")
    client.create_model_version("reads", str(tmp_path / "m"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))

    model = registry.load("reads", 1, trusted=True)
    assert model.predict([1]) == b"weights"
    del model
    gc.collect()
    assert list(scratch.iterdir()) == []


@pytest.mark.filterwarnings("ignore")  # MLflow's and pandas', as it is imported and saves.
def test_a_pyfunc_model_loads_when_it_is_trusted(
    registry: Registry, client: Any, tmp_path: Path
) -> None:
    class Twice(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input * 2

    pandas = pytest.importorskip("pandas")
    mlflow.pyfunc.save_model(
        tmp_path / "m", python_model=Twice(), pip_requirements=["mlflow"], conda_env=None
    )
    client.create_registered_model("twice")
    client.create_model_version("twice", str(tmp_path / "m"))

    model = registry.load("twice", 1, trusted=True)
    assert model.predict(pandas.DataFrame({"x": [2]}))["x"].tolist() == [4]


def test_where_signatures_are_required_what_others_registered_is_refused(
    theirs: Any, uri: str, source: Path, tmp_path: Path
) -> None:
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    forms = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    path = tmp_path / "key.pem"
    pem = key.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(pem)

    with backend.MlflowRegistry(uri, require_signature=path) as registry:
        registry.register("churn", source)
        for number in (1, 3):
            with pytest.raises(InvalidSignature):
                registry.load("churn", number, trusted=True)
            with pytest.raises(InvalidSignature):
                registry.download("churn", number, tmp_path / "out")


def test_a_model_without_files_of_its_own_is_passed_over(
    theirs: Any, registry: Registry, served: int
) -> None:
    registry.promote("churn", 1, "production")
    assert registry.gc(window=timedelta(0)).removed == ()
    with backend.MlflowRegistry(emptied_server(served)) as remote:
        remote.native.create_registered_model("churn")
        remote.native.create_model_version("churn", "s3://nowhere/m")
        remote.promote("churn", 1, "production")
        assert remote.gc(window=timedelta(0)).removed == ()

"""What the libraries' own loggers for MLflow lose of one training, and ours keep, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.integrations.trainings import (
    AS_NUMBERS,
    PARAMS,
    SCALARS,
    fit_with_lightning,
    fit_with_transformers,
    the_run,
)

from mlopskit.kit import open_tracker

mlflow = pytest.importorskip("mlflow")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    # Lightning asks torch in a way that torch is about to drop, and wants more workers.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches"),
    # It says that it renames metrics: the test is about that.
    pytest.mark.filterwarnings("ignore:MLFlow only allows:RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def _address_for_one_test() -> Iterator[None]:
    yield
    mlflow.set_tracking_uri(None)  # MLflow keeps it for the process.


def runs(uri: str) -> list[Any]:
    """Read all runs of a database of MLflow with MLflow's own client, the latest first."""
    client = mlflow.MlflowClient(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments))


def theirs(uri: str) -> tuple[dict[str, str], dict[str, float]]:
    """Read the only run of a database of MLflow."""
    (run,) = runs(uri)
    return dict(run.data.params), dict(run.data.metrics)


def ours(line: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the only run that our tracker holds."""
    with open_tracker(line) as tracker:
        record = the_run(tracker)
    return dict(record.params), dict(record.metrics)


def test_of_one_lightning_training(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from lightning.pytorch.loggers import MLFlowLogger

    from mlopskit.integrations.lightning import MlopskitLogger

    uri = f"sqlite:///{tmp_path}/theirs.db"
    line = f"mlflow:sqlite:///{tmp_path}/ours.db"
    own = MLFlowLogger("e", tracking_uri=uri, artifact_location=str(tmp_path / "artifacts"))
    fit_with_lightning(tmp_path, [own, MlopskitLogger(line, experiment="e")], PARAMS)

    params, metrics = theirs(uri)
    assert set(metrics) == {"acc1", "f1macro", "epoch"}  # Renamed.
    assert {len(params["a thousand"]), len(params["very long"])} == {250}  # Cut.
    assert (params["layers"], params["nothing"]) == ("(64, 32)", "None")  # Made texts.
    assert "nested" not in params  # Flattened.

    params, metrics = ours(line)
    assert params == PARAMS
    assert metrics == {"acc@1": 0.5, "f1(macro)": 0.25, "epoch": 0}


def test_of_one_accelerate_training(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from accelerate import Accelerator

    from mlopskit.integrations.accelerate import MlopskitTracker

    uri = f"sqlite:///{tmp_path}/theirs.db"
    line = f"mlflow:sqlite:///{tmp_path}/ours.db"
    mlflow.set_tracking_uri(uri)
    accelerator = Accelerator(cpu=True, log_with=["mlflow", MlopskitTracker(line)])
    accelerator.init_trackers("e", PARAMS)
    named = {"acc/1": 0.5, **{key: SCALARS[key] for key in SCALARS if key.isidentifier()}}
    accelerator.log(named, step=0)
    accelerator.end_training()

    params, metrics = theirs(uri)
    assert set(metrics) == {"acc/1", "np64"}  # NumPy's ints and float32, and torch's, are dropped.
    assert "very long" not in params  # Dropped.
    assert params["layers"] == "(64, 32)"  # Made a text.

    params, metrics = ours(line)
    assert params == PARAMS
    assert metrics == {"acc/1": 0.5, **{key: AS_NUMBERS[key] for key in named if key in AS_NUMBERS}}


def test_accelerate_with_a_name_that_mlflow_refuses(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from accelerate import Accelerator

    from mlopskit.integrations.accelerate import MlopskitTracker

    uri = f"sqlite:///{tmp_path}/theirs.db"
    line = f"mlflow:sqlite:///{tmp_path}/ours.db"
    mlflow.set_tracking_uri(uri)
    accelerator = Accelerator(cpu=True, log_with=[MlopskitTracker(line), "mlflow"])
    accelerator.init_trackers("e")
    with pytest.raises(mlflow.exceptions.MlflowException, match="acc@1"):
        accelerator.log({"acc@1": 0.5}, step=0)  # It ends the training.
    accelerator.end_training()

    assert theirs(uri) == ({}, {})
    assert ours(line) == ({}, {"acc@1": 0.5})


def test_of_one_transformers_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from mlopskit.integrations.transformers import MlopskitCallback

    uri = f"sqlite:///{tmp_path}/theirs.db"
    line = f"mlflow:sqlite:///{tmp_path}/ours.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with MlopskitCallback(line, experiment="e") as callback:
        fit_with_transformers(tmp_path, "mlflow", callback)

    evaluated, trained = runs(uri)
    params, metrics = dict(trained.data.params), dict(trained.data.metrics)
    assert {"acc_1", "np64", "torch", "torch_of_one"} <= metrics.keys()
    assert not {"acc@1", "f1(macro)", "f1_macro_", "np_int"} & metrics.keys()  # Renamed, dropped.
    assert "eval_loss" not in metrics
    assert evaluated.data.metrics["eval_loss"] > 0  # In a run of its own, without params.
    assert evaluated.data.params == {}
    assert "long" not in params  # Dropped.
    assert params["weight_decay"] == "0.0"  # Made a text.
    assert params["seed"] == "42"  # That of the arguments hides that of the model.

    params, metrics = ours(line)
    assert metrics["eval_loss"] == evaluated.data.metrics["eval_loss"]
    assert {key: metrics[key] for key in AS_NUMBERS} == AS_NUMBERS
    assert params["model_config"]["long"] == PARAMS["very long"]
    assert params["weight_decay"] == 0.0
    assert (params["seed"], params["model_config"]["seed"]) == (42, 7)

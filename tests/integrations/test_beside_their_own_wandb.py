"""What the libraries' own loggers for W&B change of one training, and ours keep, side by side."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
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

pytest.importorskip("wandb")

import wandb

from mlopskit.tracking.wandb_folders import find_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.entities import RunRecord
    from mlopskit.tracking.wandb_offline_run import OfflineRun

pytestmark = [
    # Lightning asks torch in a way that torch is about to drop, and wants more workers.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches"),
]

# W&B takes what is in PARAMS as it is, but for the tuple. These it changes.
CHANGED: dict[str, Any] = {"by number": {1: "a"}, "many": np.arange(2000.0), "_wandb": 3}
ARRAY_AS_TEXT = "[0.000e+00 1.000e+00 2.000e+00 ... 1.997e+03 1.998e+03 1.999e+03]"


@pytest.fixture(autouse=True)
def _service_for_one_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let W&B read its environment again, and leave neither a run nor its service behind."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    wandb.teardown()
    yield
    wandb.teardown()


def theirs(tmp_path: Path) -> OfflineRun:
    """Read the only run that another logger wrote, from W&B's file."""
    wandb.finish()
    wandb.teardown()  # It returns from `finish` before the file is complete.
    (run,) = (each for each in find_runs(tmp_path) if tmp_path / "ours" not in each.path.parents)
    run.read()
    return run


def points(run: OfflineRun, key: str) -> list[tuple[int, float]]:
    history = run.history(key)
    return list(zip(map(int, history.steps), map(float, history.values), strict=True))


def line(tmp_path: Path) -> Any:
    return {
        "backend": "wandb",
        "location": "team/ours",
        "mode": "offline",
        "folder": str(tmp_path / "ours"),
    }


def ours(tmp_path: Path, *keys: str) -> tuple[RunRecord, dict[str, list[tuple[int, float]]]]:
    """Read the only run of ours, and the histories of some of its metrics."""
    with open_tracker(line(tmp_path)) as tracker:
        record = the_run(tracker)
        found = {}
        for key in keys:
            history = tracker.get_metric_history(record.id, key)
            steps, values = map(int, history.steps), map(float, history.values)
            found[key] = list(zip(steps, values, strict=True))
    return record, found


def assert_theirs_has_other_params(config: dict[str, Any]) -> None:
    """Assert what W&B makes of `PARAMS` and `CHANGED`."""
    assert {key: config[key] for key in PARAMS} == {**PARAMS, "layers": [64, 32]}
    assert config["by number"] == {"1": "a"}
    assert config["many"] == ARRAY_AS_TEXT  # 1,994 numbers are lost.
    assert "_wandb" not in config  # Dropped.


def assert_ours_has_the_params(record: RunRecord) -> None:
    assert record.params == {**PARAMS, **CHANGED, "many": [float(i) for i in range(2000)]}


def test_of_one_lightning_training(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from lightning.pytorch.loggers import WandbLogger

    from mlopskit.integrations.lightning import MlopskitLogger

    with open_tracker(line(tmp_path)) as tracker:
        own = WandbLogger(project="e", offline=True, save_dir=str(tmp_path))
        trainer = fit_with_lightning(
            tmp_path, [own, MlopskitLogger(tracker, experiment="e")], PARAMS
        )
        for logger in trainer.loggers:
            logger.log_hyperparams(CHANGED)
            logger.log_metrics({"late": 1.0}, step=10)
            logger.log_metrics({"late": 2.0}, step=5)
            logger.experiment.finish()

    run = theirs(tmp_path)
    assert_theirs_has_other_params(run.config)
    assert points(run, "acc@1") == [(0, 0.5), (1, 0.5)]  # Equal.
    assert points(run, "f1(macro)") == [(0, 0.25), (1, 0.25)]
    assert points(run, "late") == [(2, 1.0), (3, 2.0)]  # The step counts calls,
    assert points(run, "trainer/global_step")[2:] == [(2, 10.0), (3, 5.0)]  # and is a metric.

    record, histories = ours(tmp_path, "acc@1", "f1(macro)", "late")
    assert_ours_has_the_params(record)
    assert record.metrics.keys() == {"acc@1", "f1(macro)", "late", "epoch"}
    assert histories == {
        "acc@1": [(0, 0.5), (1, 0.5)],
        "f1(macro)": [(0, 0.25), (1, 0.25)],
        "late": [(10, 1.0), (5, 2.0)],
    }


def test_of_one_accelerate_training(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from accelerate import Accelerator

    from mlopskit.integrations.accelerate import MlopskitTracker

    accelerator = Accelerator(cpu=True, log_with=["wandb", MlopskitTracker(line(tmp_path))])
    accelerator.init_trackers("e", {**PARAMS, **CHANGED})
    accelerator.log(SCALARS, step=0)
    accelerator.log({"late": 1.0}, step=10)
    accelerator.log({"late": 2.0, "acc@1": 0.75}, step=5)
    accelerator.log({"late": math.inf, "whole": 2**70 + 1}, step=11)
    accelerator.end_training()

    run = theirs(tmp_path)
    assert_theirs_has_other_params(run.config)
    assert {key: points(run, key) for key in AS_NUMBERS} == {  # Equal.
        key: [(0, value)] for key, value in AS_NUMBERS.items()
    }
    assert points(run, "late") == [(10, 1.0), (11, math.inf)]  # What came out of order is dropped.

    record, histories = ours(tmp_path, *AS_NUMBERS, "late")
    assert_ours_has_the_params(record)
    assert histories == {
        **{key: [(0, value)] for key, value in AS_NUMBERS.items()},
        "acc@1": [(0, 0.5), (5, 0.75)],
        "late": [(10, 1.0), (5, 2.0), (11, math.inf)],
    }


def test_of_one_transformers_training(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from mlopskit.integrations.transformers import MlopskitCallback

    with MlopskitCallback(line(tmp_path), experiment="e") as callback:
        fit_with_transformers(tmp_path, "wandb", callback)

    run = theirs(tmp_path)
    assert {key: points(run, f"train/{key}")[0] for key in AS_NUMBERS} == {  # Renamed.
        key: (0, value) for key, value in AS_NUMBERS.items()
    }
    assert not set(AS_NUMBERS) & set(run.metrics())
    assert points(run, "train/global_step") == [(0, 1), (1, 2), (2, 2), (3, 2)]  # No step.
    assert "train_loss" not in run.metrics()  # In the summary only.
    assert run.summary["train_loss"] > 0
    assert run.config["long"] == PARAMS["very long"]  # Equal.
    assert run.config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}  # Numbers are made texts.
    assert run.config["seed"] == 42  # That of the arguments hides that of the model.

    record, histories = ours(tmp_path, *AS_NUMBERS)
    assert histories == {
        key: [(step, value) for step in (1, 2, 2, 2)] for key, value in AS_NUMBERS.items()
    }
    assert record.metrics["train_loss"] == run.summary["train_loss"]
    assert record.metrics["eval_loss"] == points(run, "eval/loss")[0][1]
    config = record.params["model_config"]
    assert config["long"] == PARAMS["very long"]
    assert config["id2label"] == {0: "LABEL_0", 1: "LABEL_1"}
    assert (record.params["seed"], config["seed"]) == (42, 7)


@pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_the_callbacks_for_keras_need_tensorflow() -> None:
    """Also where Keras runs on another backend; ours need Keras only."""
    with pytest.raises(ModuleNotFoundError, match="tensorflow"):
        import wandb.integration.keras  # noqa: F401

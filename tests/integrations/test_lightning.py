"""A real Lightning training logs to any tracker, and loses nothing."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.integrations.trainings import AS_NUMBERS, LINES, PARAMS, SCALARS, the_run, trackers

from mlopskit.errors import InvalidInput
from mlopskit.kit import open_tracker

pytest.importorskip("lightning")

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mlopskit.integrations.lightning import MlopskitLogger

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    # Lightning asks torch in a way that torch is about to drop.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    # Lightning is told that two workers would be quicker than none; the data is eight rows.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches"),
]


class Net(LightningModule):
    def __init__(self, fails: BaseException | None = None, **hparams: Any) -> None:
        super().__init__()
        self.save_hyperparameters(hparams)
        self.fails = fails
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        if self.fails is not None and index == 1:
            raise self.fails
        loss: torch.Tensor = self.layer(batch[0]).square().mean()
        self.log("loss", loss)
        self.log("acc@1", 0.5)
        if index == 0:
            self.logger.log_metrics(SCALARS, step=self.global_step)  # type: ignore[union-attr]
        return loss

    def test_step(self, batch: list[torch.Tensor], index: int) -> None:
        self.log("test loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data() -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 2)), 2)


def trainer(logger: Any, folder: Path, **options: Any) -> Trainer:
    options = {"enable_checkpointing": False, **options}
    return Trainer(
        logger=logger,
        max_epochs=2,
        accelerator="cpu",
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


@pytest.mark.parametrize("kind", LINES)
def test_a_training_arrives_unchanged(kind: str, tmp_path: Path) -> None:
    with trackers(kind, tmp_path) as (tracker, sinks):
        logger = MlopskitLogger(tracker, experiment="e/1", name="fit")
        trainer(logger, tmp_path).fit(Net(**PARAMS), data())

        for sink in sinks:
            record = the_run(sink)
            assert (record.id, record.name, record.experiment) == (logger.version, "fit", "e/1")
            assert record.status == "finished"
            assert record.params == PARAMS
            assert {key: record.metrics[key] for key in AS_NUMBERS} == AS_NUMBERS
            history = sink.get_metric_history(record.id, "loss")
            assert list(history.steps) == list(range(8))
        assert logger.name == "e/1"


def test_a_test_after_the_fit_belongs_to_its_run(tmp_path: Path) -> None:
    with trackers("fan-out", tmp_path) as (tracker, _):
        ours = trainer(MlopskitLogger(tracker), tmp_path)
        net = Net(lr=0.1)
        ours.fit(net, data())
        ours.test(net, data(), verbose=False)

        record = the_run(tracker)
        assert record.status == "finished"
        assert {"loss", "test loss"} <= set(record.metrics)


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no"), "failed"), (KeyboardInterrupt(), "killed")]
)
def test_a_fit_that_raises_ends_the_run(error: BaseException, status: str, tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        with pytest.raises((ValueError, SystemExit)):
            trainer(MlopskitLogger(tracker), tmp_path).fit(Net(error), data())

        assert the_run(tracker).status == status


def test_an_open_run_is_left_open(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        run = tracker.start_run("mine")
        logger = MlopskitLogger(run)
        trainer(logger, tmp_path).fit(Net(lr=0.1), data())
        run.log_metric("after", 1)
        run.finish()

        assert logger.experiment is run
        assert {"after", "loss"} <= set(the_run(tracker).metrics)


def test_an_open_run_cannot_begin_in_another_way(tmp_path: Path) -> None:
    with (
        trackers("local", tmp_path) as (tracker, _),
        tracker.start_run() as run,
        pytest.raises(InvalidInput, match="experiment"),
    ):
        MlopskitLogger(run, experiment="e")


def test_a_config_line_is_opened_and_closed(tmp_path: Path) -> None:
    where = f"local:{tmp_path}/there"
    logger = MlopskitLogger(where, experiment="e")
    copy = pickle.loads(pickle.dumps(logger))
    for each in (logger, copy):
        trainer(each, tmp_path).fit(Net(lr=0.1), data())

    with open_tracker(where) as tracker:
        records = tracker.search_runs(experiment="e")
    assert [record.status for record in records] == ["finished", "finished"]
    assert {record.id for record in records} == {logger.version, copy.version}


def test_with_nothing_given_the_configured_tracker_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPSKIT_TRACKING", f"local:{tmp_path}/configured")
    trainer(MlopskitLogger(), tmp_path).fit(Net(lr=0.1), data())

    with open_tracker() as tracker:
        assert the_run(tracker).params == {"lr": 0.1}


def test_checkpoints_are_kept_on_request(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        keep = ModelCheckpoint(monitor="loss", save_last=True, save_top_k=2)
        logger = MlopskitLogger(tracker, checkpoints=True)
        ours = trainer(logger, tmp_path, callbacks=[keep], enable_checkpointing=True)
        ours.fit(Net(lr=0.1), data())

        found = {each.name: each for each in tracker.list_artifacts(the_run(tracker).id)}
        assert set(found) == {
            "checkpoints/last.ckpt",
            "checkpoints/epoch=0-step=4.ckpt",
            "checkpoints/epoch=1-step=8.ckpt",
        }
        best = found["checkpoints/epoch=1-step=8.ckpt"]
        assert list(best.aliases) == ["best"]
        assert best.metadata["score"] == pytest.approx(float(keep.best_model_score or 0))


def test_what_lightning_writes_itself_may_have_a_folder(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        ours = trainer(MlopskitLogger(tracker, save_dir=str(tmp_path / "its")), tmp_path)
        assert ours.log_dir == str(tmp_path / "its")
        assert trainer(MlopskitLogger(tracker), tmp_path).log_dir is None


def test_what_is_no_number_is_kept_beside_the_metrics(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        logger = MlopskitLogger(tracker)
        logger.log_metrics({"loss": 1, "note": "warm", "each": torch.tensor([1, 2])}, step=4)
        logger.finalize("success")

        record = the_run(tracker)
        path = tracker.download_artifact(record.id, "logged.jsonl", tmp_path)
        assert record.metrics == {"loss": 1}
        assert [json.loads(row) for row in path.read_text().splitlines()] == [
            {"step": 4, "key": "note", "value": "warm"},
            {"step": 4, "key": "each", "value": [1, 2]},
        ]


RANKS = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from lightning.pytorch import LightningModule, Trainer
from mlopskit.integrations.lightning import MlopskitLogger

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"lr": 0.1})
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, index):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss)
        self.logger.experiment.log_metric("rank", self.global_rank)
        return loss
    def test_step(self, batch, index):
        self.log("tested", 1.0, sync_dist=True)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

if __name__ == "__main__":
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 2)), 2)
    trainer = Trainer(logger=MlopskitLogger(sys.argv[1]), max_epochs=1, accelerator="cpu",
                      devices=2, strategy=sys.argv[3], log_every_n_steps=1,
                      default_root_dir=sys.argv[2],
                      enable_progress_bar=False, enable_checkpointing=False)
    net = Net()
    trainer.fit(net, data)
    trainer.test(net, data, verbose=False)
    if not trainer.global_rank:
        print(trainer.logger.version)
"""


@pytest.mark.network
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "ddp_fork"])
def test_of_two_ranks_only_the_first_logs(tmp_path: Path, strategy: str) -> None:
    """Also where Lightning starts them itself, and the program's own process trains nothing."""
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    where = f"local:{tmp_path}/there"
    command = [sys.executable, str(script), where, str(tmp_path), strategy]
    done = subprocess.run(command, check=True, timeout=250, text=True, stdout=subprocess.PIPE)

    with open_tracker(where) as tracker:
        record = the_run(tracker)
        history = tracker.get_metric_history(record.id, "rank")
    assert (record.status, record.params) == ("finished", {"lr": 0.1})
    assert list(history.values) == [0, 0]
    assert record.metrics["tested"] == 1.0
    assert done.stdout.splitlines()[-1] == record.id

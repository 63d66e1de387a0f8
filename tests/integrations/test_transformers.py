"""A real training of a tiny Transformers model logs to any tracker, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from tests.integrations.trainings import AS_NUMBERS, SCALARS, the_run, trackers

from mlopskit.kit import open_tracker

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from mlopskit.integrations.transformers import MlopskitCallback

if TYPE_CHECKING:
    from pathlib import Path

LONG = "x" * 100_000


class More(TrainerCallback):
    """Adds to the logs, as a user's trainer does, or fails."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if self.error is not None:
            raise self.error

    def on_log(self, *args: Any, logs: Any = None, **kwargs: Any) -> None:
        logs.update(SCALARS)


def trainer(
    callback: MlopskitCallback,
    folder: Path,
    *,
    fails: BaseException | None = None,
    save: bool = False,
    run_name: str | None = None,
) -> Trainer:
    config = GPT2Config(
        vocab_size=11, n_positions=8, n_embd=4, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
    )
    config.long = LONG
    rows = [{"input_ids": torch.arange(4), "labels": torch.arange(4)} for _ in range(4)]
    args = TrainingArguments(
        output_dir=str(folder / "out"),
        num_train_epochs=2,
        per_device_train_batch_size=2,
        logging_steps=1,
        save_strategy="epoch" if save else "no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        run_name=run_name,
    )
    data = cast("Any", rows)
    made = Trainer(GPT2LMHeadModel(config), args, train_dataset=data, eval_dataset=data)
    made.add_callback(More(fails))
    made.add_callback(callback)
    return made


@pytest.mark.parametrize("kind", ["local", "fan-out"])
def test_a_training_arrives_unchanged(kind: str, tmp_path: Path) -> None:
    with trackers(kind, tmp_path) as (tracker, sinks):
        ours = trainer(MlopskitCallback(tracker, experiment="e"), tmp_path, run_name="fit")
        ours.train()
        ours.evaluate()

        for sink in sinks:
            record = the_run(sink)
            assert (record.name, record.experiment, record.status) == ("fit", "e", "finished")
            assert record.params["num_train_epochs"] == 2
            assert record.params["model_config"]["n_embd"] == 4
            assert record.params["model_config"]["long"] == LONG
            assert {key: record.metrics[key] for key in AS_NUMBERS} == AS_NUMBERS
            assert {"eval_loss", "train_runtime"} <= set(record.metrics)
            assert list(sink.get_metric_history(record.id, "loss").steps) == [1, 2, 3, 4]


def test_each_training_is_a_run_and_what_was_predicted_belongs_to_the_last(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        callback = MlopskitCallback(tracker)
        ours = trainer(callback, tmp_path)
        ours.train()
        ours.train()
        ours.predict(ours.eval_dataset)  # type: ignore[arg-type]  # it may be several

        last, first = tracker.search_runs()
        assert callback.run is None
        assert (first.status, last.status) == ("finished", "finished")
        assert ["test_loss" in each.metrics for each in (first, last)] == [False, True]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no"), "failed"), (KeyboardInterrupt(), "killed")]
)
def test_a_block_that_raises_ends_the_run(
    error: BaseException, status: str, tmp_path: Path
) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        with pytest.raises(type(error)), MlopskitCallback(tracker) as callback:
            trainer(callback, tmp_path, fails=error).train()

        assert the_run(tracker).status == status


def test_a_training_after_one_that_raised_ends_it(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        callback = MlopskitCallback(tracker)
        with pytest.raises(ValueError, match="no"):
            trainer(callback, tmp_path, fails=ValueError("no")).train()
        trainer(callback, tmp_path).train()

        assert [each.status for each in tracker.search_runs()] == ["finished", "failed"]


def test_an_open_run_is_left_open(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _), tracker.start_run("mine") as run:
        trainer(MlopskitCallback(run), tmp_path).train()
        run.log_metric("after", 1)

        record = the_run(tracker)
        assert record.status == "running"
        assert {"after", "loss"} <= set(record.metrics)


def test_checkpoints_are_kept_on_request(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        trainer(MlopskitCallback(tracker, checkpoints=True), tmp_path, save=True).train()

        found = {each.logged_as for each in tracker.list_artifacts(the_run(tracker).id)}
        assert found == {"checkpoint-2", "checkpoint-4"}


RANKS = """
import sys
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
from mlopskit.integrations.transformers import MlopskitCallback

sizes = {"vocab_size": 11, "n_positions": 8, "n_embd": 4, "n_layer": 1, "n_head": 1}
rows = [{"input_ids": torch.arange(4), "labels": torch.arange(4)} for _ in range(8)]
args = TrainingArguments(sys.argv[2], num_train_epochs=1, per_device_train_batch_size=2,
                         logging_steps=1, save_strategy="no", report_to="none", use_cpu=True)
callback = MlopskitCallback(sys.argv[1])
trainer = Trainer(GPT2LMHeadModel(GPT2Config(**sizes)), args, train_dataset=rows,
                  callbacks=[callback])
assert args.world_size == 2
trainer.train()
"""


@pytest.mark.network
def test_of_two_ranks_only_the_first_logs(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    where = f"local:{tmp_path}/there"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(script), where, str(tmp_path / "out")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    with open_tracker(where) as tracker:
        record = the_run(tracker)
        history = tracker.get_metric_history(record.id, "loss")
    assert record.status == "finished"
    assert list(history.steps) == [1, 2]


def test_another_rank_opens_nothing(tmp_path: Path) -> None:
    where = f"local:{tmp_path}/there"
    callback = MlopskitCallback(where)
    args = cast("TrainingArguments", SimpleNamespace(run_name=None, output_dir=None))
    state = TrainerState(is_world_process_zero=False)
    control = TrainerControl()
    callback.on_train_begin(args, state, control)
    callback.on_log(args, state, control, {"loss": 1.0})
    callback.on_save(args, state, control)
    callback.on_predict(args, state, control, {"test_loss": 1.0})
    callback.on_train_end(args, state, control)

    assert callback.run is None
    assert not (tmp_path / "there").exists()
    with open_tracker(where) as tracker:
        assert tracker.search_runs() == []

"""A real training under Accelerate logs to any tracker, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.integrations.trainings import AS_NUMBERS, LINES, PARAMS, SCALARS, the_run, trackers

from mlopskit.errors import ParamConflict
from mlopskit.kit import open_tracker

pytest.importorskip("accelerate")

from accelerate import Accelerator

from mlopskit.integrations.accelerate import MlopskitTracker

if TYPE_CHECKING:
    from pathlib import Path


def train(tracker: MlopskitTracker, config: dict[str, Any], fails: bool = False) -> None:
    accelerator = Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("project", config)
    model = torch.nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 2)), 2)
    model, sgd, rows = accelerator.prepare(model, sgd, rows)
    for step, (batch,) in enumerate(rows):
        loss = model(batch).square().mean()
        accelerator.backward(loss)
        sgd.step()
        sgd.zero_grad()
        accelerator.log({"loss": loss, **SCALARS}, step=step)
        if fails:
            raise ValueError("no")
    accelerator.end_training()


@pytest.mark.parametrize("kind", LINES)
def test_a_training_arrives_unchanged(kind: str, tmp_path: Path) -> None:
    with trackers(kind, tmp_path) as (tracker, sinks):
        train(MlopskitTracker(tracker, experiment="e", name="fit"), PARAMS)

        for sink in sinks:
            record = the_run(sink)
            assert (record.name, record.experiment, record.status) == ("fit", "e", "finished")
            assert record.params == PARAMS
            assert {key: record.metrics[key] for key in AS_NUMBERS} == AS_NUMBERS
            assert list(sink.get_metric_history(record.id, "loss").steps) == [0, 1, 2, 3]


def test_a_block_that_raises_ends_the_run(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        with pytest.raises(ValueError, match="no"), MlopskitTracker(tracker) as ours:
            train(ours, {}, fails=True)

        assert the_run(tracker).status == "failed"


def test_an_open_run_is_left_open(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        with tracker.start_run("mine") as run:
            ours = MlopskitTracker(run)
            train(ours, {"lr": 0.1})
            run.log_metric("after", 1)
            with pytest.raises(ParamConflict):
                ours.store_init_configuration({"lr": 0.2})

        assert the_run(tracker).metrics["after"] == 1


def test_the_accelerator_hands_out_the_run(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        accelerator = Accelerator(cpu=True, log_with=MlopskitTracker(tracker))
        accelerator.init_trackers("project")
        run = accelerator.get_tracker("mlopskit", unwrap=True)
        run.log_text("by hand", "note.txt")
        accelerator.end_training()

        assert [each.name for each in tracker.list_artifacts(the_run(tracker).id)] == ["note.txt"]


RANKS = """
import sys
from accelerate import Accelerator
from mlopskit.integrations.accelerate import MlopskitTracker

ours = MlopskitTracker(sys.argv[1])
accelerator = Accelerator(cpu=True, log_with=ours)
accelerator.init_trackers("project", {"lr": 0.1})
assert accelerator.num_processes == 2
assert (ours.tracker is None) == (accelerator.process_index == 1)
accelerator.log({"rank": accelerator.process_index}, step=0)
accelerator.wait_for_everyone()
accelerator.end_training()
"""


@pytest.mark.network
def test_of_two_ranks_only_the_first_logs(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    where = f"local:{tmp_path}/there"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(script), where],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        timeout=200,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    with open_tracker(where) as tracker:
        record = the_run(tracker)
        history = tracker.get_metric_history(record.id, "rank")
    assert (record.status, record.params) == ("finished", {"lr": 0.1})
    assert list(history.values) == [0]

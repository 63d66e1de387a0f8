"""Trials run side by side, in processes that are forked."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.tracking.sweeps_alike import SPACE, slow, slow_bowl

from mlopskit.kit import Kit
from mlopskit.tracking.sweeps import MedianPruning, Trial, Uniform, run_sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker

pytest.importorskip("optuna")


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    with Kit(tracking="local", home=tmp_path / "home") as kit:
        yield kit.tracker


@pytest.fixture
def hooks_that_dawdle() -> Iterator[None]:
    """What runs before a fork lets other threads go on, as hooks that take a lock do."""
    dawdling = True
    os.register_at_fork(before=lambda: time.sleep(0.003) if dawdling else None)
    yield
    dawdling = False


def await_(happened: Callable[[], bool]) -> None:
    """Wait for what another process does; fail where it does not."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_workers_run_trials_at_the_same_time(tracker: Tracker, tmp_path: Path) -> None:
    """Four of them wait for each other."""
    (tmp_path / "begun").mkdir()

    def objective(trial: Trial) -> float:
        (tmp_path / "begun" / str(trial.number)).touch()
        await_(lambda: len(list((tmp_path / "begun").iterdir())) >= 4)
        trial.run.log_metric("pid", os.getpid(), step=9)
        trial.run.log_text(str(trial.number), "note.txt")
        return slow_bowl(trial)

    result = run_sweep(tracker, objective, SPACE, 8, workers=4, seed=1, pruning="median")

    assert [each.number for each in result.trials] == list(range(8))
    assert result.counts["failed"] == 0
    pids = set()
    for each in result.trials:
        run = tracker.get_run(each.run_id)
        pids.add(run.metrics["pid"])
        assert (run.status, run.params) == ("finished", each.params)
        assert run.metrics.get("value") == each.value
        steps = tracker.get_metric_history(run.id, "value/reported")
        assert dict(zip(steps.steps, steps.values, strict=True)) == each.reported
        assert [each.name for each in tracker.list_artifacts(run.id)] == ["note.txt"]
    assert len(pids) == 8
    assert os.getpid() not in pids


def test_workers_prune_and_fail_as_one_does(tracker: Tracker) -> None:
    def objective(trial: Trial) -> float:
        if trial.number == 4:
            raise ValueError("no")
        if trial.number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return slow(trial)

    pruning = MedianPruning(startup_trials=2)
    space = {"x": Uniform(-3, 3)}
    result = run_sweep(tracker, objective, space, 30, workers=2, seed=4, pruning=pruning)

    assert result.counts["failed"] == 2
    assert result.counts["pruned"] >= 5
    assert result.trials[4].error == "ValueError: no"
    assert result.trials[5].error == "The process of the trial ended with -9"
    assert tracker.get_run(result.trials[5].run_id).status == "failed"


@pytest.mark.parametrize("tool", ["mlflow", "wandb"])
def test_workers_log_to_other_tools_too(
    tmp_path: Path, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pytest.importorskip(tool)
    line: Any = f"mlflow:sqlite:///{tmp_path}/m.db"
    if tool == "wandb":
        line = {"backend": "wandb", "mode": "offline"}
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        result = run_sweep(kit.tracker, slow_bowl, SPACE, 6, workers=2, seed=1)
        for each in result.trials:
            run = kit.tracker.get_run(each.run_id)
            assert run.metrics["value"] == each.value
            assert run.metrics["value/reported"] == each.reported[3]


def test_workers_keep_no_program_of_another_thread_waiting(
    tracker: Tracker, tmp_path: Path, hooks_that_dawdle: None
) -> None:
    """A child that had inherited the pipe of one would hold it until its trial ends."""
    ended = tmp_path / "ended"
    ended.touch()
    over = threading.Event()

    def start_programs() -> None:
        while not over.is_set():
            subprocess.run(["true"], capture_output=True, check=True)
            with ended.open("a") as file:
                file.write(".")

    def objective(trial: Trial) -> float:
        before = ended.stat().st_size
        await_(lambda: ended.stat().st_size >= before + 3)
        return 0.0

    thread = threading.Thread(target=start_programs)
    thread.start()
    try:
        result = run_sweep(tracker, objective, SPACE, 12, workers=3)
    finally:
        over.set()
        thread.join()
    assert result.counts["failed"] == 0


def test_pytorch_computes_in_a_child(tracker: Tracker) -> None:
    torch = pytest.importorskip("torch")
    torch.randn(500, 500) @ torch.randn(500, 500)  # Its threads stay in this process.

    def objective(trial: Trial) -> float:
        return float((torch.randn(500, 500) @ torch.randn(500, 500)).sum() * 0)

    assert run_sweep(tracker, objective, SPACE, 2, workers=2).counts["complete"] == 2

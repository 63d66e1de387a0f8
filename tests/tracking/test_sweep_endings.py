"""What an objective may do to its run and to the program, and what its trial then counts as."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.kit import Kit
from mlopskit.tracking.sweeps import Trial, Uniform, run_sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from mlopskit.tracking.base import Tracker

pytest.importorskip("optuna")

SPACE = {"x": Uniform(0, 1)}


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    with Kit(tracking="local", home=tmp_path / "home") as kit:
        yield kit.tracker


def ends_its_run_by_a_block(trial: Trial) -> float:
    with trial.run as run:
        run.log_metric("loss", 2.0)
    return float(trial.params["x"])


def ends_its_run_by_name(trial: Trial) -> float:
    trial.run.finish("failed")
    trial.run.log_metric("loss", 2.0)
    return float(trial.params["x"])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("objective", [ends_its_run_by_a_block, ends_its_run_by_name])
def test_an_objective_that_ends_its_run_counts_as_what_it_returns(
    tracker: Tracker, objective: Any, workers: int
) -> None:
    result = run_sweep(tracker, objective, SPACE, 3, workers=workers)

    assert result.counts == {"complete": 3, "pruned": 0, "failed": 0}
    for each in result.trials:
        run = tracker.get_run(each.run_id)
        assert run.status == "finished"
        assert run.metrics == {"loss": 2.0, "value": each.params["x"]}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_objective_that_exits_fails_its_trial_and_no_other(
    tracker: Tracker, workers: int
) -> None:
    def objective(trial: Trial) -> float:
        if trial.number == 1:
            sys.exit(3)
        return 0.0

    result = run_sweep(tracker, objective, SPACE, 4, workers=workers)

    assert result.counts == {"complete": 3, "pruned": 0, "failed": 1}
    said = "The objective tried to end the program with the exit code 3"
    assert result.trials[1].error == said
    assert tracker.get_run(result.trials[1].run_id).status == "failed"
    assert tracker.get_run(result.run_id).status == "finished"


def test_a_signal_that_ends_the_program_ends_the_sweep(tracker: Tracker) -> None:
    def objective(trial: Trial) -> float:
        if trial.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return 0.0

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(7)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit) as caught:
            run_sweep(tracker, objective, SPACE, 4, name="s")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 7
    assert {each.name: each.status for each in tracker.search_runs()} == {
        "s": "failed",
        "s-0": "finished",
        "s-1": "failed",
    }
    again = run_sweep(tracker, lambda trial: 0.0, SPACE, 4, name="s")
    assert again.counts["complete"] == 4


def test_an_array_of_one_element_is_a_value(tracker: Tracker) -> None:
    numpy = pytest.importorskip("numpy")
    values = [numpy.array([0.5]), numpy.array([[0.25]]), numpy.array([1.0, 2.0]), numpy.array([])]

    def objective(trial: Trial) -> Any:
        trial.report(numpy.array([0.125]), 0)
        return values[trial.number]

    result = run_sweep(tracker, objective, SPACE, 4)
    assert [each.value for each in result.trials] == [0.5, 0.25, None, None]
    assert [each.reported for each in result.trials] == [{0: 0.125}] * 4


def test_a_tensor_of_one_element_is_a_value(tracker: Tracker) -> None:
    torch = pytest.importorskip("torch")
    values = [torch.tensor([0.5], requires_grad=True), torch.tensor([1.0, 2.0])]
    result = run_sweep(tracker, lambda trial: values[trial.number], SPACE, 2)
    assert [each.value for each in result.trials] == [0.5, None]

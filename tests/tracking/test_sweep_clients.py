"""A client runs trials elsewhere: Dask's, or an executor of Python's own."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput
from mlopskit.kit import Kit, open_tracker, sweep
from mlopskit.tracking.sweeps import Categorical, LogUniform, MedianPruning, Uniform, When

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.tracking.sweeps import SweepResult, Trial

pytest.importorskip("optuna")

SPACE: dict[str, Any] = {
    "x": Uniform(-3, 3),
    "kind": Categorical(["a", ("b", 2)]),
    "rate": When("kind", ["a"], LogUniform(1e-3, 1.0)),
}


def objective(trial: Trial) -> float | None:
    """Fail, die or be given up, by number; else return x squared."""
    trial.run.log_metric("pid", os.getpid())
    if trial.number == 2:
        raise ValueError("no")
    for step in range(10):
        trial.report(trial.params["x"] ** 2 + 1 / (step + 1), step)
        if trial.should_prune():
            return None
    time.sleep(0.05)
    return float(trial.params["x"] ** 2)


def check(result: SweepResult, line: str) -> None:
    assert [each.number for each in result.trials] == list(range(16))
    assert result.counts["failed"] == 1
    assert result.counts["pruned"] >= 1
    with open_tracker(line) as tracker:
        pids = set()
        for each in result.trials:
            run = tracker.get_run(each.run_id)
            pids.add(run.metrics["pid"])
            assert run.parent_id == result.run_id
            assert run.params == each.params
            assert run.tags["sweep.state"] == each.state
            assert run.metrics.get("value") == each.value
            assert run.status == ("failed" if each.state == "failed" else "finished")
    assert os.getpid() not in pids


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLOPSKIT_HOME", str(tmp_path / "home"))
    return "local"


def test_an_executor_of_other_processes_runs_the_trials(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "code"
    source.mkdir()
    with open(__file__) as own:
        (source / "sweep_objectives_here.py").write_text(own.read())
    monkeypatch.syspath_prepend(str(source))
    monkeypatch.setenv("PYTHONPATH", str(source))
    from sweep_objectives_here import objective as elsewhere  # type: ignore[import-not-found]

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        options = {"name": "s", "client": pool, "seed": 1, "pruning": MedianPruning(2)}
        sweep(elsewhere, SPACE, 9, tracker=line, **options)
        result = sweep(elsewhere, SPACE, 16, tracker=line, **options)
    check(result, line)


def test_a_dask_client_runs_the_trials(line: str) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        def here(trial: Trial) -> float | None:  # Dask pickles what is not importable.
            trial.run.log_metric("pid", os.getpid())
            if trial.number == 2:
                raise ValueError("no")
            for step in range(10):
                trial.report(trial.params["x"] ** 2 + 1 / (step + 1), step)
                if trial.should_prune():
                    return None
            return float(trial.params["x"] ** 2)

        result = sweep(
            here, SPACE, 16, tracker=line, client=client, seed=1, pruning=MedianPruning(2)
        )
    check(result, line)


def test_a_client_needs_a_line(tmp_path: Path) -> None:
    with (
        Kit(tracking="local", home=tmp_path) as kit,
        ProcessPoolExecutor(1) as pool,
        pytest.raises(InvalidInput, match="line"),
    ):
        sweep(objective, SPACE, 1, tracker=kit.tracker, client=pool)

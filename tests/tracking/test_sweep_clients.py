"""A client runs trials elsewhere: Dask's, or an executor of Python's own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import BackendError, InvalidInput
from mlopskit.kit import Kit, open_tracker, sweep
from mlopskit.tracking.sweep_space import Space
from mlopskit.tracking.sweeps import (
    Categorical,
    Hyperband,
    LogUniform,
    MedianPruning,
    Uniform,
    When,
)

if TYPE_CHECKING:
    from collections.abc import Callable
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


def mortal(trial: Trial) -> float:
    """End the process of trial 3, while there is a file that says so."""
    if trial.number == 3 and os.path.exists(os.environ["MORTAL"]):
        os._exit(9)
    return float(trial.params["x"])


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


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return what finds an objective of this file where other processes find it, too."""
    source = tmp_path / "code"
    source.mkdir()
    with open(__file__) as own:
        (source / "sweep_objectives_here.py").write_text(own.read())
    monkeypatch.syspath_prepend(str(source))
    monkeypatch.setenv("PYTHONPATH", str(source))
    import sweep_objectives_here  # type: ignore[import-not-found]

    return lambda name: getattr(sweep_objectives_here, name)


def test_an_executor_of_other_processes_runs_the_trials(
    line: str, importable: Callable[[str], Any]
) -> None:
    elsewhere = importable("objective")
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


def test_an_executor_whose_process_died_ends_the_sweep_which_goes_on_with_another(
    line: str,
    importable: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dies = tmp_path / "dies"
    dies.touch()
    monkeypatch.setenv("MORTAL", str(dies))
    objective, context = importable("mortal"), multiprocessing.get_context("spawn")
    space, options = {"x": Uniform(0, 1)}, {"name": "s", "seed": 1, "sampler": "random"}
    with (
        ProcessPoolExecutor(1, mp_context=context) as pool,
        pytest.raises(BackendError, match=r"4 of this call had ended.* 's' again"),
    ):
        sweep(objective, space, 6, tracker=line, client=pool, **options)
    with open_tracker(line) as tracker:
        assert tracker.search_runs("name = 's'")[0].status == "failed"

    dies.unlink()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        result = sweep(objective, space, 6, tracker=line, client=pool, **options)
    assert result.counts["complete"] == 6


def test_a_client_that_survives_a_dead_process_loses_its_trial_only(line: str) -> None:
    class Survivor(ThreadPoolExecutor):
        """Fails a future as a pool does whose process has died, and takes more."""

        def submit(self, call: Any, /, *arguments: Any, **more: Any) -> Any:
            if arguments[0].number == 3:
                return super().submit(broken)
            return super().submit(call, *arguments, **more)

    def broken() -> None:
        raise BrokenProcessPool("A process was terminated abruptly.")

    with Survivor(2) as pool:
        result = sweep(lambda trial: 0.0, {"x": Uniform(0, 1)}, 6, tracker=line, client=pool)
    assert result.counts == {"complete": 5, "pruned": 0, "failed": 1}
    assert result.trials[3].error.startswith("A process of the client died")


def test_trials_in_threads_are_announced_by_nobody() -> None:
    from mlopskit.tracking import sweep_study

    log, first, left = logging.getLogger("optuna"), threading.Event(), threading.Event()
    heard = []

    def one() -> None:
        with sweep_study._quiet():
            first.set()
            time.sleep(0.2)  # The other one begins meanwhile, if it can.
        left.set()

    def other() -> None:
        first.wait()
        with sweep_study._quiet():
            left.wait()
            heard.append(log.isEnabledFor(logging.INFO))

    threads = [threading.Thread(target=each) for each in (one, other)]
    before = log.level
    log.setLevel(logging.INFO)
    try:
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert heard == [False]
        assert log.level == logging.INFO
    finally:
        log.setLevel(before)


def test_hyperband_judges_a_trial_in_one_bracket_everywhere() -> None:
    from mlopskit.tracking.sweep_study import Asked, Study

    def bracket(study: Study, asked: Asked) -> Any:
        asked.report(1.0, 0)
        asked.should_prune()
        engine: Any = study._study
        return engine.pruner._get_bracket_id(engine, engine.get_trials()[-1])

    options: Any = {"space": Space({"x": Uniform(0, 1)}), "sampler": "random", "seed": 1}
    options |= {"pruning": Hyperband(1, 81, 3), "direction": "minimize"}
    whole, gone_on = Study(**options), Study(**options)
    for number in range(20):
        asked = whole.ask(number)
        there = Study(**options)
        alone = bracket(there, there.ask_for(number, asked.point))
        assert alone == bracket(whole, asked)
        if number % 3 == 0:  # The others were cut off.
            assert bracket(gone_on, gone_on.ask(number)) == alone

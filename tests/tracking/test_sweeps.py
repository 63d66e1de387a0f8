"""Sweeps search, survive, and give the same trials on every tracker."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from tests.tracking.sweeps_alike import SPACE, bowl, slow, slow_bowl, swept

from mlopskit.errors import Conflict, InvalidInput, MissingDependency, UnknownBackend
from mlopskit.kit import Kit, sweep
from mlopskit.tracking.sweeps import (
    Categorical,
    Fixed,
    MedianPruning,
    SweepResult,
    Trial,
    Uniform,
    run_sweep,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker

optuna = pytest.importorskip("optuna")


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    with Kit(tracking="local", home=tmp_path / "home") as kit:
        yield kit.tracker


def told(result: SweepResult) -> list[Any]:
    return [(each.number, each.state, each.params, each.value) for each in result.trials]


# Trials and their runs.


def test_every_trial_is_a_run_and_a_child_of_the_sweeps(tracker: Tracker) -> None:
    def objective(trial: Trial) -> float:
        trial.run.log_metric("loss", 0.5, step=100)
        return bowl(trial)

    result = run_sweep(
        tracker, objective, SPACE, 12, name="first", experiment="e", metric="loss", seed=5
    )

    parent = tracker.get_run(result.run_id)
    assert (parent.name, parent.status, parent.experiment) == ("first", "finished", "e")
    assert result.best is not None
    assert parent.tags["sweep.best"] == result.best.run_id
    assert parent.metrics["loss"] == result.best.value
    runs = tracker.search_runs(f"parent_id = '{parent.id}'", "e")
    assert {each.id for each in runs} == {each.run_id for each in result.trials}
    by_id = {each.id: each for each in runs}
    for each in result.trials:
        run = by_id[each.run_id]
        assert run.params == each.params
        assert run.metrics["loss"] == each.value  # What is returned comes last.
        assert run.status == "finished"


def test_an_objective_that_raises_fails_its_trial_and_no_other(tracker: Tracker) -> None:
    def objective(trial: Trial) -> Any:
        match trial.number % 5:
            case 1:
                raise ZeroDivisionError("by nothing")
            case 2:
                return math.nan
            case 3:
                return "low"
        return bowl(trial)

    result = run_sweep(tracker, objective, SPACE, 15, seed=5)

    assert result.counts == {"complete": 6, "pruned": 0, "failed": 9}
    assert result.trials[1].error == "ZeroDivisionError: by nothing"
    assert result.trials[2].error == "The objective returned nan"
    for each in result.trials:
        status = "failed" if each.state == "failed" else "finished"
        assert tracker.get_run(each.run_id).status == status
    assert tracker.get_run(result.run_id).tags["sweep.failed"] == "9"


@pytest.mark.parametrize(
    ("returned", "said"), [(None, "None"), (math.nan, "nan"), ("low", "'low'")], ids=str
)
def test_what_is_no_number_is_told_once_a_trial(
    tracker: Tracker, caplog: pytest.LogCaptureFixture, returned: Any, said: str
) -> None:
    run_sweep(tracker, lambda trial: returned, SPACE, 2)

    told = [each.getMessage() for each in caplog.records if "no number" in each.getMessage()]
    assert told == [f"Trial {n} returned {said}, which is no number." for n in range(2)]


def test_an_objective_that_cannot_be_called_is_refused(tracker: Tracker) -> None:
    with pytest.raises(InvalidInput, match=r"The objective is 0\.5"):
        run_sweep(tracker, 0.5, SPACE, 2)  # type: ignore[arg-type]  # on purpose
    assert tracker.search_runs() == []


def test_a_sweep_without_a_complete_trial_has_no_best(tracker: Tracker, tmp_path: Path) -> None:
    result = run_sweep(tracker, lambda trial: None, SPACE, 3)

    assert result.best is None
    assert result.importances() == {}
    assert "No trial is complete" in result.to_html(tmp_path / "r.html").read_text()


def test_ctrl_c_ends_the_sweep_and_it_can_go_on(tracker: Tracker) -> None:
    def objective(trial: Trial) -> float:
        if trial.number == 3 and not stopped:
            stopped.append(trial.run.id)
            raise KeyboardInterrupt
        return bowl(trial)

    stopped: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_sweep(tracker, objective, SPACE, 8, name="s", seed=2)
    (parent,) = tracker.search_runs("name = 's'")
    assert tracker.get_run(stopped[0]).status == parent.status == "killed"

    result = run_sweep(tracker, objective, SPACE, 8, name="s")
    assert told(result) == told(run_sweep(tracker, bowl, SPACE, 8, seed=2))
    assert tracker.get_run(result.run_id).status == "finished"


# Pruning.


@pytest.mark.parametrize("pruning", [MedianPruning(startup_trials=3), "hyperband"], ids=str)
def test_pruning_really_saves_steps_and_loses_no_good_trial(tracker: Tracker, pruning: Any) -> None:
    space = {"x": Uniform(-3, 3)}
    whole = run_sweep(tracker, slow, space, 40, sampler="random", seed=4)
    result = run_sweep(tracker, slow, space, 40, sampler="random", seed=4, pruning=pruning)

    assert whole.counts["pruned"] == 0
    assert 5 <= result.counts["pruned"] < 40
    assert sum(len(each.reported) for each in result.trials) < 0.75 * 27 * 40
    for each in result.trials:
        run = tracker.get_run(each.run_id)
        assert (run.tags["sweep.state"], run.status) == (each.state, "finished")
        assert run.last_steps["steps"] == max(each.reported)
    assert whole.best is not None
    assert result.best is not None
    assert result.best.value is not None
    assert result.best.value < 0.5


def test_a_trial_that_returns_nothing_when_told_to_stop_is_pruned(tracker: Tracker) -> None:
    def objective(trial: Trial) -> float | None:
        trial.report(trial.number, 0)
        return None if trial.should_prune() else float(trial.number)

    pruning = MedianPruning(startup_trials=1)
    result = run_sweep(tracker, objective, {"x": Uniform(0, 1)}, 4, pruning=pruning)
    assert [each.state for each in result.trials] == ["complete", "pruned", "pruned", "pruned"]


def test_optunas_own_exception_prunes_too(tracker: Tracker) -> None:
    def objective(trial: Trial) -> float:
        raise optuna.TrialPruned

    assert run_sweep(tracker, objective, SPACE, 2).counts["pruned"] == 2


def test_a_step_that_is_reported_twice_counts_once(tracker: Tracker) -> None:
    def objective(trial: Trial) -> float:
        trial.report(1.0, 3)
        trial.report(2.0, 3)
        assert not trial.should_prune()
        with pytest.raises(InvalidInput):
            trial.report(1.0, -1)
        with pytest.raises(InvalidInput):
            trial.report("low", 1)
        return 0.0

    result = run_sweep(tracker, objective, SPACE, 1)
    assert result.trials[0].reported == {3: 1.0}
    assert run_sweep(tracker, objective, SPACE, 1).counts["complete"] == 1


# Equal everywhere, and again.


def test_equal_seeds_give_equal_trials(tmp_path: Path) -> None:
    results = []
    for round_, seed in enumerate((7, 7, 8)):
        with Kit(tracking="local", home=tmp_path / str(round_)) as kit:
            results.append(told(run_sweep(kit.tracker, bowl, SPACE, 200, seed=seed)))

    assert results[0] == results[1]
    assert results[0] != results[2]
    assert len(results[0]) == 200


@pytest.mark.parametrize(("sampler", "pruning"), [("tpe", "median"), ("random", "hyperband")])
@pytest.mark.parametrize("tool", ["mlflow", "wandb"])
def test_every_tracker_gives_the_same_trials_and_keeps_them(
    tmp_path: Path, tool: str, sampler: Any, pruning: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it goes on half way. The script of `swept` does 200 trials on each of them."""
    pytest.importorskip(tool)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    chosen: dict[str, Any] = {"sampler": sampler, "pruning": pruning, "seed": 7}
    here = swept("local", tmp_path / "local", [30], **chosen)
    there = swept(tool, tmp_path / tool, [22, 30], **chosen)

    assert here.said == there.said
    assert here.digest == there.digest
    assert here.digest != swept("local", tmp_path / "8", [30], **{**chosen, "seed": 8}).digest
    assert min(here.counts.values()) > 0


@pytest.mark.parametrize("pruning", [None, "median", "hyperband"])
def test_a_sweep_that_goes_on_is_as_one_that_never_stopped(tracker: Tracker, pruning: Any) -> None:
    def both(trial: Trial) -> float:
        if trial.number % 7 == 6:
            raise ValueError("now and then")
        return slow_bowl(trial)

    for total in (4, 17, 17, 9, 30):
        result = run_sweep(tracker, both, SPACE, total, name="parts", seed=1, pruning=pruning)
        assert len(result.trials) == total if total != 9 else 17
    whole = run_sweep(tracker, both, SPACE, 30, name="whole", seed=1, pruning=pruning)

    assert told(result) == told(whole)
    assert result.counts["failed"] == 4
    runs = tracker.search_runs(f"parent_id = '{result.run_id}'", limit=None)
    assert len(runs) == 30


def test_another_search_of_the_same_name_is_a_conflict(tracker: Tracker) -> None:
    run_sweep(tracker, bowl, SPACE, 2, name="s", seed=1)

    with pytest.raises(Conflict, match="another space"):
        run_sweep(tracker, bowl, {**SPACE, "x": Uniform(0, 1)}, 4, name="s")
    with pytest.raises(Conflict, match="seed was 1"):
        run_sweep(tracker, bowl, SPACE, 4, name="s", seed=2)
    with pytest.raises(Conflict, match="already"):
        run_sweep(tracker, bowl, SPACE, 4, name="s", resume=False)
    other = run_sweep(tracker, bowl, SPACE, 3, name="s", experiment="other")
    assert len(other.trials) == 3


KILLED = """
    import os, sys
    from mlopskit.kit import Kit
    sys.path.insert(0, {tests!r})
    from sweeps_alike import SPACE, slow_bowl
    from mlopskit.tracking.sweeps import run_sweep

    def objective(trial):
        if trial.number == 11:
            trial.report(3.0, 0)
            os.kill({whom}, 9)
            import time; time.sleep(30)
        return slow_bowl(trial)

    if __name__ == "__main__":
        with Kit(tracking={line!r}, home={home!r}) as kit:
            run_sweep(kit.tracker, objective, SPACE, 20, name="s", seed=7, workers={workers})
"""


@pytest.mark.parametrize("tool", ["local", "mlflow", "wandb"])
def test_a_sweep_that_was_killed_goes_on_and_counts_none_twice(
    tmp_path: Path, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    line: Any = "local"
    if tool != "local":
        pytest.importorskip(tool)
        line = f"mlflow:sqlite:///{tmp_path}/m.db"
    if tool == "wandb":
        line = {"backend": "wandb", "mode": "offline"}
    home = str(tmp_path / "home")
    code = textwrap.dedent(KILLED).format(
        tests=os.path.dirname(__file__), line=line, home=home, whom="os.getpid()", workers=1
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr

    with Kit(tracking=line, home=home) as kit:
        result = run_sweep(kit.tracker, slow_bowl, SPACE, 20, name="s")
        runs = kit.tracker.search_runs(f"parent_id = '{result.run_id}'", limit=None)
        whole = run_sweep(kit.tracker, slow_bowl, SPACE, 20, name="whole", seed=7)

    assert told(result) == told(whole)
    assert len(runs) == 21  # One of them was cut off.
    assert sorted(each.status for each in runs)[-1] == "lost"


def test_params_of_the_objectives_own_are_no_part_of_the_search(tracker: Tracker) -> None:
    def objective(trial: Trial) -> float:
        trial.run.log_params({"weights": 12})
        return 0.0

    once = run_sweep(tracker, objective, SPACE, 3, name="s")
    assert told(run_sweep(tracker, objective, SPACE, 3, name="s")) == told(once)


def test_a_fan_out_sweeps_too(tmp_path: Path) -> None:
    lines = [f"local:{tmp_path}/one", f"local:{tmp_path}/two"]
    with Kit(tracking=lines, home=tmp_path / "home") as kit:
        run_sweep(kit.tracker, slow_bowl, SPACE, 4, name="s", seed=1)
        result = run_sweep(kit.tracker, slow_bowl, SPACE, 6, name="s", workers=2)
    for line in lines:
        with Kit(tracking=line) as kit:
            runs = kit.tracker.search_runs(f"parent_id = '{result.run_id}'")
            assert len(runs) == 6


def test_a_sweep_with_workers_that_was_killed_goes_on(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    code = textwrap.dedent(KILLED).format(
        tests=os.path.dirname(__file__), line="local", home=home, whom="os.getppid()", workers=2
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr

    with Kit(tracking="local", home=home) as kit:
        result = run_sweep(kit.tracker, slow_bowl, SPACE, 20, name="s", workers=2)
        runs = kit.tracker.search_runs(f"parent_id = '{result.run_id}'", limit=None)

    assert [each.number for each in result.trials] == list(range(20))
    counted = [each for each in runs if "sweep.state" in each.tags]
    assert len(counted) == 20


def test_one_process_runs_a_sweep_at_a_time(tracker: Tracker) -> None:
    def objective(trial: Trial) -> float:
        with pytest.raises(Conflict, match="running already"):
            run_sweep(tracker, bowl, SPACE, 1, name="s")
        run_sweep(tracker, bowl, SPACE, 1, name="another")
        return 0.0

    assert run_sweep(tracker, objective, SPACE, 1, name="s").counts["complete"] == 1


# The result.


def test_the_result_tells_what_it_depends_on(tracker: Tracker, tmp_path: Path) -> None:
    result = run_sweep(
        tracker,
        lambda trial: -(trial.params["x"] ** 2) + trial.params["little"] / 100,
        {"x": Uniform(-3, 3), "little": Uniform(0, 1), "<b>": Fixed("<script>")},
        40,
        direction="maximize",
        seed=1,
    )

    assert result.best is not None
    assert abs(result.best.params["x"]) < 0.5
    shares = result.importances()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["x"] > 0.8
    rows = result.table()
    assert rows[3]["x"] == result.trials[3].params["x"]
    page = result.to_html(tmp_path / "sweep.html").read_text()
    assert "<script" not in page
    assert "http" not in page
    assert page.count("<svg") >= 2
    (kept,) = tracker.list_artifacts(result.run_id)
    assert kept.name == "sweep.html"


def test_importances_need_no_scikit_learn(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlopskit.tracking import sweep_study

    monkeypatch.setattr(sweep_study, "find_spec", lambda name: None)
    space = {"x": Uniform(-3, 3), "little": Uniform(0, 1)}
    result = run_sweep(tracker, lambda trial: trial.params["x"] ** 2, space, 40, seed=1)
    assert result.importances()["x"] > 0.8


def test_values_of_every_size_are_drawn(tracker: Tracker, tmp_path: Path) -> None:
    values = [math.inf, -1.7e308, 1.7e308, 1e-310, 0.0]
    result = run_sweep(
        tracker,
        lambda trial: values[trial.number],
        {"x": Uniform(-8e307, 8e307), "many": Categorical(list(range(100)))},
        5,
        sampler="random",
    )

    assert result.best is not None
    assert result.best.value == -1.7e308
    page = result.to_html(tmp_path / "sweep.html").read_text()
    assert "nan" not in page.replace("nance", "")


# How it is opened.


def test_a_line_is_opened_and_closed(tmp_path: Path) -> None:
    result = sweep(bowl, SPACE, 3, tracker=f"local:{tmp_path}/runs", name="s")
    with Kit(tracking=f"local:{tmp_path}/runs") as kit:
        assert kit.tracker.get_run(result.run_id).name == "s"
        assert len(sweep(bowl, SPACE, 4, tracker=kit.tracker, name="s").trials) == 4
    with pytest.raises(UnknownBackend):
        sweep(bowl, SPACE, 3, tracker="nobody")


def test_without_optuna_it_says_what_to_install(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "mlopskit.tracking.sweep_study", raising=False)
    from mlopskit import tracking

    monkeypatch.delattr(tracking, "sweep_study", raising=False)
    with pytest.raises(MissingDependency, match=r"mlopskit\[sweeps\]"):
        run_sweep(tracker, bowl, SPACE, 1)


def test_optuna_is_imported_when_a_sweep_runs() -> None:
    code = "import sys, mlopskit.tracking.sweeps, mlopskit.kit; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

"""A real Optuna study logs its trials to any tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.integrations.trainings import LINES, trackers

from mlopskit.errors import InvalidInput
from mlopskit.kit import open_tracker

pytest.importorskip("optuna")

import optuna

from mlopskit.integrations.optuna import MlopskitCallback

if TYPE_CHECKING:
    from pathlib import Path

    from optuna import Study, Trial

NOTE = "x" * 100_000


def objective(trial: Trial) -> float:
    x = trial.suggest_float("x", -1, 1)
    trial.suggest_categorical("kind", ["a", None, 3])
    trial.set_user_attr("note", NOTE)
    for step in (0, 10, 5):
        trial.report(x + step, step)
    if trial.number == 1:
        raise optuna.TrialPruned
    if trial.number == 2:
        raise ValueError("no")
    return x * x


def study(**options: Any) -> Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name="s", sampler=optuna.samplers.RandomSampler(seed=1), **options
    )


@pytest.mark.parametrize("kind", LINES)
def test_each_trial_is_a_run(kind: str, tmp_path: Path) -> None:
    with trackers(kind, tmp_path) as (tracker, sinks):
        searched = study()
        searched.optimize(objective, 4, callbacks=[MlopskitCallback(tracker)], catch=(ValueError,))

        for sink in sinks:
            records = {record.name: record for record in sink.search_runs(experiment="s")}
            assert list(records) == ["trial-3", "trial-2", "trial-1", "trial-0"]
            for trial in searched.trials:
                record = records[f"trial-{trial.number}"]
                assert record.params == {**trial.params, "user_attrs": {"note": NOTE}}
                assert record.metrics.get("value") == trial.value or trial.number == 1
                assert record.tags["optuna.state"] == trial.state.name
                assert record.group == "s"
                history = sink.get_metric_history(record.id, "intermediate_value")
                assert list(history.steps) == [0, 5, 10]
            statuses = [records[f"trial-{i}"].status for i in range(4)]
            assert statuses == ["finished", "finished", "failed", "finished"]


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError("no"), "failed"), (KeyboardInterrupt(), "killed")]
)
def test_what_a_watched_objective_raises_leaves_a_run(
    error: BaseException, status: str, tmp_path: Path
) -> None:
    """Though Optuna calls no callback then."""

    def raising(trial: Trial) -> float:
        if trial.number == 1:
            trial.suggest_float("x", 0, 1)
            trial.set_user_attr("note", "n")
            trial.report(0.5, 3)
            raise error
        return 0.0

    where = f"local:{tmp_path}/there"
    searched = study()
    with MlopskitCallback(where) as callback, pytest.raises(type(error)):
        searched.optimize(callback.watched(raising), 3, callbacks=[callback])

    with open_tracker(where) as tracker:
        raised, first = tracker.search_runs(experiment="s")
        history = tracker.get_metric_history(raised.id, "intermediate_value")
    assert (first.name, first.status) == ("trial-0", "finished")
    assert (raised.name, raised.status) == ("trial-1", status)
    assert raised.params == {**searched.trials[1].params, "user_attrs": {"note": "n"}}
    assert raised.tags["optuna.state"] == searched.trials[1].state.name == "FAIL"
    assert raised.metrics["duration_s"] >= 0
    assert (list(history.steps), list(history.values)) == ([3], [0.5])


def test_a_watched_trial_has_one_run(tmp_path: Path) -> None:
    """Whether it is pruned, or raises what Optuna catches and tells the callback of."""
    where = f"local:{tmp_path}/there"
    with MlopskitCallback(where) as callback:
        study().optimize(
            callback.watched(objective), 4, callbacks=[callback], catch=(ValueError,), n_jobs=2
        )

    with open_tracker(where) as tracker:
        found = {run.name: run.status for run in tracker.search_runs(experiment="s")}
        assert len(tracker.search_runs()) == 4
    assert found == {f"trial-{i}": "failed" if i == 2 else "finished" for i in range(4)}


def test_an_error_of_logging_does_not_hide_what_a_watched_objective_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(trial: Trial) -> float:
        raise ZeroDivisionError("mine")

    (tmp_path / "home").write_text("no folder")
    monkeypatch.setenv("MLOPSKIT_HOME", str(tmp_path / "home"))
    callback = MlopskitCallback("local")
    with pytest.raises(ZeroDivisionError, match="mine"):
        study().optimize(callback.watched(raising), 1, callbacks=[callback])

    assert "Trial 0 has failed, and has no run" in caplog.text


def test_trials_are_parts_of_an_open_run(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _), tracker.start_run("mine") as run:
        study().optimize(
            lambda trial: trial.suggest_float("x", 0, 1),
            3,
            n_jobs=2,
            callbacks=[MlopskitCallback(run)],
        )

        parts = tracker.search_runs(f"parent_id = '{run.id}'", experiment="mine")
        history = tracker.get_metric_history(run.id, "value")
        assert len(parts) == 3
        assert sorted(history.steps) == [0, 1, 2]


def test_several_values_have_the_names_of_the_study(tmp_path: Path) -> None:
    where = f"local:{tmp_path}/there"
    searched = study(directions=["minimize", "maximize"])
    with MlopskitCallback(where, experiment="e") as callback:
        searched.optimize(lambda trial: (1.0, 2.0), 1, callbacks=[callback])
        with pytest.warns(optuna.exceptions.ExperimentalWarning):
            searched.set_metric_names(["loss", "f1(macro)"])
        searched.optimize(lambda trial: (1.0, 2.0), 1, callbacks=[callback])

    with open_tracker(where) as tracker:
        named, first = tracker.search_runs(experiment="e")
    assert set(first.metrics) == {"value_0", "value_1", "duration_s"}
    assert set(named.metrics) == {"loss", "f1(macro)", "duration_s"}


def test_another_rank_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    study().optimize(lambda trial: 1.0, 1, callbacks=[MlopskitCallback(f"local:{tmp_path}/there")])

    assert not (tmp_path / "there").exists()


def test_the_id_of_one_run_is_refused() -> None:
    with pytest.raises(InvalidInput, match="run_id"):
        MlopskitCallback(run_id="0" * 32)

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

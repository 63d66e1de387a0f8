"""An estimator of scikit-learn is recorded by any tracker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.integrations.trainings import LINES, the_run, trackers

from mlopskit.kit import open_tracker

pytest.importorskip("sklearn")

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlopskit.integrations.sklearn import RecordedEstimator

if TYPE_CHECKING:
    from pathlib import Path

X = np.arange(40.0).reshape(20, 2)
Y = (X[:, 0] > 18).astype(int)


@pytest.mark.parametrize("kind", LINES)
def test_params_fits_and_scores_arrive(kind: str, tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=np.float64(0.5)))
    with trackers(kind, tmp_path) as (tracker, sinks):
        with RecordedEstimator(pipeline, tracker, experiment="e") as model:
            assert model.fit(X, Y).score(X, Y) == 1
            assert model.predict(X).shape == (20,)
            found = model.scores(X, Y, ["accuracy", "f1_macro"], prefix="test/")

        assert found == {"accuracy": 1, "f1_macro": 1}
        for sink in sinks:
            record = the_run(sink)
            assert (record.experiment, record.status) == ("e", "finished")
            assert record.tags["estimator"] == "sklearn.pipeline.Pipeline"
            assert record.params["logisticregression__C"] == 0.5
            assert record.params["standardscaler__with_mean"] is True
            assert set(record.params) == set(pipeline.get_params())
            assert {key: record.metrics[key] for key in ("score", "test/f1_macro")} == {
                "score": 1,
                "test/f1_macro": 1,
            }
            assert record.metrics["fit_s"] > 0
            assert record.metrics["score_s"] > 0


def test_a_search_leaves_its_results(tmp_path: Path) -> None:
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
    with trackers("local", tmp_path) as (tracker, _):
        with RecordedEstimator(search, tracker) as model:
            model.fit(X, Y)

        record = the_run(tracker)
        assert record.params["best_params"] == search.best_params_
        assert record.metrics["best_score"] == search.best_score_
        (table,) = tracker.list_artifacts(record.id)
        text = tracker.download_artifact(record.id, table.name, tmp_path).read_text()
        assert json.loads(text)["columns"].count("mean_test_score") == 1


def test_a_block_that_raises_ends_the_run(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        with (
            pytest.raises(ValueError, match="classes"),
            RecordedEstimator(LogisticRegression(), tracker) as model,
        ):
            model.fit(X, np.zeros(20))

        assert the_run(tracker).status == "failed"


def test_an_open_run_is_left_open_and_each_score_is_kept(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _), tracker.start_run("mine") as run:
        with RecordedEstimator(LogisticRegression(), run) as model:
            model.fit(X, Y)
            for rows in (slice(0, 9), slice(9, 20)):
                model.score(X[rows], Y[rows])
        run.log_metric("after", 1)

        assert the_run(tracker).status == "running"
        assert list(tracker.get_metric_history(run.id, "score").steps) == [0, 1]


def test_another_rank_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    where = f"local:{tmp_path}/there"
    estimator: Any = LogisticRegression()
    with RecordedEstimator(estimator, where) as model:
        assert model.fit(X, Y).score(X, Y) == 1

    with open_tracker(where) as tracker:
        assert tracker.search_runs() == []

"""Odd trainings go on as they would without autologging, and are logged as far as they can be."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlopskit.integrations.autolog import autolog
from mlopskit.kit import Kit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker

pytest.importorskip("sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:sklearn.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:lightgbm.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:sklearn.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:xgboost.*"),
    pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated"),
    # Keras asks torch's tensors for arrays in the old way.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]
rng = np.random.default_rng(0)
X = rng.normal(size=(80, 3))
Y = (X[:, 0] + 0.1 * rng.normal(size=80) > 0).astype(int)


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    """Return an empty tracker; autologging is off afterwards."""
    with Kit(tracking="local", home=tmp_path / "home") as kit:
        yield kit.tracker
        autolog(off=True)


def test_a_search_keeps_the_model_that_it_found(tracker: Tracker) -> None:
    """Also one whose candidates are fitted by processes."""
    grid = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2, n_jobs=2)
    with autolog("sklearn", to=tracker):
        grid.fit(X, Y)
    (run,) = tracker.search_runs()
    (kept,) = tracker.list_artifacts(run.id)

    assert kept.logged_as == "model"
    assert kept.metadata["signature"]["outputs"]


def test_a_class_that_workers_get_whole_fits_there(tracker: Tracker) -> None:
    """As one of a notebook: what logs it cannot be pickled, and stays here."""

    class Near(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # it ships no types
        def __init__(self, bound: float = 0.0) -> None:
            self.bound = bound

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Near:  # noqa: N803
            self.classes_ = np.unique(y)
            return self

        def predict(self, X: Any) -> Any:  # noqa: N803 - its name in scikit-learn
            return (X[:, 0] > self.bound).astype(int)

    with autolog("sklearn", to=tracker, log_models=False):

        class Nearer(Near):  # Its own door, defined while autologging is on.
            def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Nearer:  # noqa: N803
                super().fit(X, y)
                return self

        search = GridSearchCV(Nearer(), {"bound": [0.0, 9.0]}, cv=2, n_jobs=2, error_score="raise")
        search.fit(X, Y)

    assert search.best_params_ == {"bound": 0.0}
    assert [run.name for run in tracker.search_runs()] == ["GridSearchCV"]


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm"])
def test_what_stands_for_train_is_pickled_by_its_name(framework: str, tracker: Tracker) -> None:
    module = pytest.importorskip(framework)
    with autolog(framework, to=tracker):
        pickled = pickle.dumps(module.train)
        assert pickle.loads(pickled) is module.train
    assert pickle.loads(pickled) is module.train


@pytest.mark.parametrize("form", ["csr_matrix", "coo_matrix"])
def test_a_sparse_matrix_is_scored(form: str, tracker: Tracker) -> None:
    """Though it has no length; the model of one that has no rows to take has no signature."""
    sparse = pytest.importorskip("scipy.sparse")
    rows = getattr(sparse, form)(X)
    with autolog("sklearn", to=tracker, silent=True):
        model = LogisticRegression().fit(rows, Y)
    (run,) = tracker.search_runs()

    assert run.metrics["training_score"] == model.score(rows, Y)
    assert [each.logged_as for each in tracker.list_artifacts(run.id)] == ["model"]


def test_a_fork_within_a_training_is_a_part_of_it(tracker: Tracker) -> None:
    """And one outside it logs by itself."""

    class Forks(BaseEstimator):  # type: ignore[misc]  # it ships no types
        def fit(self, X: Any, y: Any) -> Forks:  # noqa: N803 - its name in scikit-learn
            assert in_fork(LogisticRegression(C=2.0)) == 0
            return self

    def in_fork(model: Any) -> int | None:
        process = multiprocessing.get_context("fork").Process(target=model.fit, args=(X, Y))
        process.start()
        process.join(60)
        return process.exitcode

    with autolog("sklearn", to=tracker, log_models=False):
        Forks().fit(X, Y)
        assert in_fork(LogisticRegression(C=3.0)) == 0

    found = {run.name: run for run in tracker.search_runs()}
    assert found.keys() == {"Forks", "LogisticRegression"}
    assert found["LogisticRegression"].params["LogisticRegression.C"] == 3.0
    assert {run.status for run in found.values()} == {"finished"}


def test_a_training_goes_on_when_autologging_is_switched_off_meanwhile(tracker: Tracker) -> None:
    """Its run ends; what is trained after that makes none."""

    class Switches(BaseEstimator):  # type: ignore[misc]  # it ships no types
        def fit(self, X: Any, y: Any) -> Switches:  # noqa: N803 - its name in scikit-learn
            autolog(off=True)
            LogisticRegression().fit(X, y)
            return self

    autolog("sklearn", to=tracker, log_models=False)
    Switches().fit(X, Y)
    LogisticRegression().fit(X, Y)

    assert [(run.name, run.status) for run in tracker.search_runs()] == [("Switches", "finished")]


def test_an_unreachable_tracker_does_not_disturb_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The records wait for it in the journal."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLOPSKIT_HOME", str(tmp_path / "home"))
    with autolog("sklearn", to="mlflow:http://127.0.0.1:9", log_models=False, silent=True):
        model = LogisticRegression().fit(X, Y)

    assert model.score(X, Y) > 0.5
    assert any((tmp_path / "home" / "tracking" / "journal").iterdir())


def test_a_round_that_stops_a_training_is_logged(tracker: Tracker) -> None:
    """XGBoost asks no callback after the one that stops it."""
    xgboost = pytest.importorskip("xgboost")
    data, wrong = xgboost.DMatrix(X, Y), xgboost.DMatrix(X, 1 - Y)
    stops = [xgboost.callback.EarlyStopping(rounds=2)]
    rounds: dict[str, Any] = {}
    with autolog("xgboost", to=tracker):
        xgboost.train(
            {"objective": "binary:logistic"},
            data,
            50,
            evals=[(wrong, "wrong")],
            callbacks=stops,
            evals_result=rounds,
            verbose_eval=False,
        )
    (run,) = tracker.search_runs()

    history = tracker.get_metric_history(run.id, "wrong-logloss")
    assert list(history.values) == pytest.approx(rounds["wrong"]["logloss"])
    assert len(history) == 3
    assert len(stops) == 1


def test_a_name_that_xgboost_is_given_twice_is_logged_whole(tracker: Tracker) -> None:
    xgboost = pytest.importorskip("xgboost")
    params = [("eval_metric", "rmse"), ("eval_metric", "mae"), ("max_depth", 2)]
    with autolog("xgboost", to=tracker):
        xgboost.train(params, xgboost.DMatrix(X, Y), 1)
    (run,) = tracker.search_runs()

    assert run.params["xgboost.train.eval_metric"] == ["rmse", "mae"]
    assert run.params["xgboost.train.max_depth"] == 2


def test_rounds_of_another_thread_are_not_taken_for_those_of_a_training(tracker: Tracker) -> None:
    xgboost = pytest.importorskip("xgboost")
    data = xgboost.DMatrix(X, Y)

    def train(name: str) -> None:
        xgboost.train({}, data, 2, evals=[(data, name)], verbose_eval=False)

    class Outer(BaseEstimator):  # type: ignore[misc]  # it ships no types
        def fit(self, X: Any, y: Any) -> Outer:  # noqa: N803 - its name in scikit-learn
            thread = threading.Thread(target=train, args=("other",))
            thread.start()
            thread.join()
            train("own")
            return self

    with autolog(["sklearn", "xgboost"], to=tracker, log_models=False):
        Outer().fit(X, Y)
    (run,) = tracker.search_runs()

    assert run.metrics.keys() == {"own-rmse", "duration_s"}


def test_rounds_of_the_candidates_of_a_search_are_not_logged(tracker: Tracker) -> None:
    """They would be one series of a metric; those of a pipeline's only model are its own."""
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBRegressor(n_estimators=2)
    with autolog(["sklearn", "xgboost"], to=tracker, log_models=False):
        search = GridSearchCV(model, {"max_depth": [2, 3]}, cv=2)
        search.fit(X, Y, eval_set=[(X, Y)], verbose=False)
        make_pipeline(StandardScaler(), model).fit(
            X, Y, xgbregressor__eval_set=[(X, Y)], xgbregressor__verbose=False
        )
    found = {run.name: run for run in tracker.search_runs()}

    assert "validation_0-rmse" not in found["GridSearchCV"].metrics
    history = tracker.get_metric_history(found["Pipeline"].id, "validation_0-rmse")
    assert list(history.steps) == [0, 1]


def test_callbacks_that_are_passed_by_place_stay_there(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LightGBM and Keras take them so."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    lightgbm = pytest.importorskip("lightgbm")
    keras = pytest.importorskip("keras")
    data = lightgbm.Dataset(X, Y)
    seen: list[int] = []
    own = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(more=epoch))
    with autolog(["lightgbm", "keras"], to=tracker):
        params = {"verbosity": -1}
        before = [lambda environment: seen.append(environment.iteration)]
        lightgbm.train(params, data, 2, [data], ["own"], None, None, False, before)
        network(keras).fit(X, Y, None, 2, 0, [own])
    found = {run.name: run for run in tracker.search_runs()}

    assert seen == [0, 1]
    history = tracker.get_metric_history(found["lightgbm.train"].id, "own-l2")
    assert list(history.steps) == [0, 1]
    assert found["Sequential"].metrics["more"] == 1  # What own callbacks add is logged too.


def network(keras: Any) -> Any:
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    made.compile(optimizer="sgd", loss="mse")
    return made


def test_an_error_of_logging_never_reaches_keras(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a param that has another value, nor a name, nor data without a fingerprint."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")

    def batches() -> Iterator[Any]:
        while True:
            yield X[:8], Y[:8]

    unnamed = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update({"": 1}))
    with autolog("keras", to=tracker), tracker.start_run("mine") as run:
        network(keras).fit(X, Y, epochs=1, verbose=0)
        network(keras).fit(batches(), steps_per_epoch=2, epochs=2, verbose=0, shuffle=False)
        network(keras).fit(X, Y, epochs=1, verbose=0, callbacks=[unnamed])

    record = tracker.get_run(run.id)
    assert record.status == "finished"
    assert record.params["epochs"] == 1
    assert len(tracker.get_metric_history(run.id, "loss")) == 3
    assert len([each for each in caplog.records if "Autologging of" in each.message]) == 2

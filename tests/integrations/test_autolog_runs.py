"""Whose run a training is logged to, whatever holds that run: never a second one by accident."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
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

from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    """Return an empty tracker, which trainings are logged to."""
    with Kit(tracking="local", home=tmp_path / "home") as kit:
        autolog(to=kit.tracker, log_models=False)
        yield kit.tracker
        autolog(off=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fit_in_an_objective_is_logged_to_its_trial(tracker: Tracker, workers: int) -> None:
    pytest.importorskip("optuna")
    from mlopskit.tracking.sweeps import LogUniform, run_sweep

    def objective(trial: Any) -> float:
        return float(LogisticRegression(C=trial.params["C"]).fit(X, Y).score(X, Y))

    result = run_sweep(
        tracker, objective, {"C": LogUniform(0.1, 1)}, 2, name="s", seed=0, workers=workers
    )

    ids = {result.run_id, *(each.run_id for each in result.trials)}
    assert {each.id for each in tracker.search_runs()} == ids
    for each in result.trials:
        params = tracker.get_run(each.run_id).params
        assert params["LogisticRegression.C"] == each.params["C"]


def test_a_fit_in_another_thread_is_logged_to_the_one_open_run(tracker: Tracker) -> None:
    with tracker.start_run(name="outer") as run, ThreadPoolExecutor(1) as pool:
        pool.submit(LogisticRegression(C=0.5).fit, X, Y).result()

    assert [each.id for each in tracker.search_runs()] == [run.id]
    assert tracker.get_run(run.id).params["LogisticRegression.C"] == 0.5


def test_trainings_of_two_threads_are_logged_each_to_its_own_run(tracker: Tracker) -> None:
    """Also while both go on."""
    both = threading.Barrier(2)

    class Slow(LogisticRegression):  # type: ignore[misc]  # scikit-learn ships no types
        def fit(self, *args: Any) -> Any:
            both.wait(60)
            return super().fit(*args)

    def train(strength: float) -> str:
        with tracker.start_run(name=str(strength)) as run:
            Slow(C=strength).fit(X, Y)
        return run.id

    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(train, [0.25, 0.5]))

    assert {each.id for each in tracker.search_runs()} == set(ids)
    assert [tracker.get_run(each).params["Slow.C"] for each in ids] == [0.25, 0.5]


def test_a_recorded_estimator_is_one_run(tracker: Tracker) -> None:
    from mlopskit.integrations.sklearn import RecordedEstimator

    with RecordedEstimator(LogisticRegression(), tracker) as model:
        model.fit(X, Y)

    (run,) = tracker.search_runs()
    assert {"C", "LogisticRegression.C"} <= run.params.keys()
    assert run.status == "finished"


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
def test_a_fit_that_a_callback_logs_is_one_run(tracker: Tracker) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    from mlopskit.integrations.keras import MlopskitCallback

    net = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    net.compile("sgd", "mse")
    with MlopskitCallback(tracker) as callback:
        net.fit(X, Y, epochs=1, verbose=0, callbacks=[callback])

    (run,) = tracker.search_runs()
    assert run.params["epochs"] == 1
    assert run.status == "finished"


def test_a_second_training_of_a_class_in_one_run_has_its_own_params(tracker: Tracker) -> None:
    with tracker.start_run() as run:
        for strength in (0.1, 0.2, 0.3):
            LogisticRegression(C=strength).fit(X, Y)

    params = tracker.get_run(run.id).params
    assert params["LogisticRegression.C"] == 0.1
    assert params["LogisticRegression-2.C"] == 0.2
    assert params["LogisticRegression-3.C"] == 0.3


def test_rows_that_have_no_fingerprint_are_trained_on_without_a_word(
    tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for rows in (X.tolist(), sparse.csr_matrix(X)):
        LogisticRegression().fit(rows, Y)

    assert caplog.messages == []
    assert [run.status for run in tracker.search_runs()] == ["finished", "finished"]


def test_an_optimizer_is_logged_to_each_run_that_it_steps_in(tracker: Tracker) -> None:
    """And two of one run have learning rates of their own."""
    torch = pytest.importorskip("torch")
    one, two = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    first, second = torch.optim.SGD([one], lr=0.5), torch.optim.Adam([two], lr=0.25)
    ids = []
    for _ in range(2):
        with tracker.start_run() as run:
            for optimizer, weight in ((first, one), (second, two)):
                weight.sum().backward()
                optimizer.step()
        ids.append(run.id)

    for each in ids:
        record = tracker.get_run(each)
        assert {"optimizer.SGD", "optimizer.Adam"} <= record.params.keys()
        assert (record.metrics["lr"], record.metrics["lr/1"]) == (0.5, 0.25)

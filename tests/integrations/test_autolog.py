"""Autologging logs one run for one training, and never disturbs it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlopskit.errors import ConfigError, InvalidInput
from mlopskit.integrations.autolog import autolog
from mlopskit.kit import Kit
from mlopskit.tracking.within import current_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker

pytest.importorskip("sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
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


def test_a_fit_is_a_run(tracker: Tracker) -> None:
    """With params, score, data, and the model with its signature."""
    before = vars(LogisticRegression)["fit"]
    with autolog("sklearn", to=tracker, log_input_examples=True):
        model = LogisticRegression(C=0.5).fit(X, Y)
        assert vars(LogisticRegression)["fit"] is not before
    LogisticRegression().fit(X, Y)
    (run,) = tracker.search_runs()
    names = {each.logged_as for each in tracker.list_artifacts(run.id)}
    (details,) = {repr(each.metadata.get("signature")) for each in tracker.list_artifacts(run.id)}

    assert vars(LogisticRegression)["fit"] is before
    assert (run.name, run.status) == ("LogisticRegression", "finished")
    assert run.params["LogisticRegression.C"] == 0.5
    assert run.metrics["training_score"] == model.score(X, Y)
    assert run.metrics["duration_s"] > 0
    assert len(run.datasets) == 1
    assert names == {"model"}
    assert "input" in details


def test_a_search_of_a_pipeline_is_one_run(tracker: Tracker) -> None:
    """Not one for each candidate and step."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    grid = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=2)
    with autolog(["sklearn"], to=tracker, log_models=False):
        grid.fit(X, Y)
    (run,) = tracker.search_runs()

    assert run.name == "GridSearchCV"
    assert run.params["GridSearchCV.best"] == grid.best_params_
    assert run.metrics["best_cv_score"] == grid.best_score_


def test_an_open_run_is_logged_to_and_left_open(tracker: Tracker) -> None:
    """Two fits in one block are one run; after it, each is its own."""
    autolog("sklearn", to=tracker, log_models=False)
    with tracker.start_run("mine", name="mine") as run:
        assert current_run() is run
        LogisticRegression(C=1.0).fit(X, Y)
        StandardScaler().fit(X)
        run.log_metric("after", 1.0)
    assert current_run() is None
    LogisticRegression().fit(X, Y)

    assert sorted(each.name for each in tracker.search_runs()) == ["LogisticRegression", "mine"]
    mine = tracker.get_run(run.id)
    assert {"LogisticRegression.C", "StandardScaler.with_mean"} <= mine.params.keys()
    assert mine.metrics["after"] == 1.0


def test_a_class_that_is_defined_later_is_logged(tracker: Tracker) -> None:
    """By its own fit; one that raises leaves a failed run, and its error comes through."""

    autolog("sklearn", to=tracker)

    class Late(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # it ships no types
        def __init__(self, mode: str = "good") -> None:
            self.mode = mode

        def fit(self, X: Any, y: Any) -> Late:  # noqa: N803 - its name in scikit-learn
            if self.mode == "bad":
                raise ZeroDivisionError("no")
            return self

        def predict(self, X: Any) -> Any:  # noqa: N803 - its name in scikit-learn
            return np.zeros(len(X), dtype=int)

    own = vars(Late)["fit"].__wrapped__
    Late().fit(X, Y)
    with pytest.raises(ZeroDivisionError, match="no"):
        Late("bad").fit(X, Y)
    autolog(off=True)

    assert vars(Late)["fit"] is own
    assert {each.params["Late.mode"]: each.status for each in tracker.search_runs()} == {
        "good": "finished",
        "bad": "failed",
    }


@pytest.mark.parametrize("silent", [False, True])
def test_an_error_of_logging_never_reaches_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, silent: bool
) -> None:
    """It is told once, whatever is trained after it, or not at all."""
    (tmp_path / "home").write_text("no folder")
    with (
        Kit(tracking="local", home=tmp_path / "home") as kit,
        autolog("sklearn", to=kit.tracker, silent=silent),
        caplog.at_level(logging.WARNING),
    ):
        model = LogisticRegression().fit(X, Y)
        LinearRegression().fit(X, Y)
    autolog(off=True)

    assert model.score(X, Y) > 0.5
    told = [each.message for each in caplog.records if "Autologging of" in each.message]
    assert len(told) == (0 if silent else 1)
    assert silent or "could not begin a run" in told[0]


@pytest.mark.parametrize("to", ["nope", 3, {"backend": "local", "depht": 1}, ["local", "nope"]])
def test_a_tracker_that_is_not_there_is_refused_at_the_call(tracker: Tracker, to: Any) -> None:
    """What was switched on before stays as it was."""
    with autolog("sklearn", to=tracker, log_models=False):
        with pytest.raises(ConfigError):
            autolog("sklearn", to=to)
        LogisticRegression().fit(X, Y)

    assert len(tracker.search_runs()) == 1


def test_a_configured_tracker_that_is_not_there_is_refused_at_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLOPSKIT_TRACKING", "nope")

    with pytest.raises(ConfigError, match="No tracking backend is called 'nope'"):
        autolog("sklearn")
    autolog(off=True)


def test_a_fit_in_another_thread_meanwhile_makes_no_run(tracker: Tracker) -> None:
    """As the workers of a search do it."""
    autolog("sklearn", to=tracker, log_models=False)

    class Outer(BaseEstimator):  # type: ignore[misc]  # it ships no types
        def fit(self, X: Any, y: Any) -> Outer:  # noqa: N803 - its name in scikit-learn
            thread = threading.Thread(target=LogisticRegression().fit, args=(X, y))
            thread.start()
            thread.join()
            return self

    Outer().fit(X, Y)

    assert [each.name for each in tracker.search_runs()] == ["Outer"]


def test_other_ranks_log_nothing(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with autolog("sklearn", to=tracker):
        LogisticRegression().fit(X, Y)

    assert tracker.search_runs() == []


def test_a_framework_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'caffe' is none of the frameworks"):
        autolog(["caffe"])


@pytest.mark.parametrize("way", ["train", "fit"])
def test_xgboost_logs_its_rounds(tracker: Tracker, way: str) -> None:
    """One run, by either interface."""
    xgboost = pytest.importorskip("xgboost")
    before = xgboost.train
    with autolog(["sklearn", "xgboost"], to=tracker, log_models=False):
        if way == "train":
            data = xgboost.DMatrix(X, Y)
            params = {"objective": "binary:logistic", "max_depth": 2}
            xgboost.train(params, data, 5, evals=[(data, "train")], verbose_eval=False)
        else:
            model = xgboost.XGBClassifier(n_estimators=5, max_depth=2)
            model.fit(X, Y, eval_set=[(X, Y)], verbose=False)
    (run,) = tracker.search_runs()
    key = next(each for each in run.metrics if each.endswith("-logloss"))

    assert xgboost.train is before
    assert xgboost.sklearn.train is before
    assert list(tracker.get_metric_history(run.id, key).steps) == [0, 1, 2, 3, 4]
    assert 2 in run.params.values()


@pytest.mark.parametrize("way", ["train", "fit"])
def test_lightgbm_logs_its_rounds(tracker: Tracker, way: str) -> None:
    """One run, by either interface."""
    lightgbm = pytest.importorskip("lightgbm")
    before = lightgbm.train
    with autolog(["sklearn", "lightgbm"], to=tracker, log_models=False):
        if way == "train":
            data = lightgbm.Dataset(X, Y)
            params = {"objective": "binary", "max_depth": 2, "verbosity": -1}
            lightgbm.train(params, data, 5, valid_sets=[data], valid_names=["train"])
        else:
            model = lightgbm.LGBMClassifier(n_estimators=5, max_depth=2, verbosity=-1)
            model.fit(X, Y, eval_set=[(X, Y)])
    (run,) = tracker.search_runs()
    key = next(each for each in run.metrics if "logloss" in each)

    assert lightgbm.train is before
    assert list(tracker.get_metric_history(run.id, key).steps) == [0, 1, 2, 3, 4]
    assert 2 in run.params.values()


def test_keras_logs_its_epochs(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    before = keras.Model.fit
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    with autolog("keras", to=tracker):
        model.fit(X, Y, epochs=3, verbose=0)
    (run,) = tracker.search_runs()

    assert keras.Model.fit is before
    assert (run.name, run.status) == ("Sequential", "finished")
    assert len(tracker.get_metric_history(run.id, "loss")) == 3
    assert len(run.datasets) == 1


def test_torch_loops_log_what_optimizers_know(tracker: Tracker) -> None:
    """Into an open run only; the rate where it changes."""
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)

    def step() -> None:
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
        schedule.step()

    with autolog("torch", to=tracker):
        step()
        with tracker.start_run("loop") as run:
            for _ in range(4):
                step()
    step()
    record = tracker.get_run(run.id)

    assert len(tracker.search_runs()) == 1
    assert record.params["optimizer.SGD"]["momentum"] == 0.9
    history = tracker.get_metric_history(run.id, "lr")
    assert list(history.steps) == [0, 1, 3]
    assert list(history.values) == pytest.approx([0.5, 0.05, 0.005])


def kept(tracker: Tracker) -> tuple[Any, Any]:
    """Return the model of the only run, loaded as a registry loads it, and what is said of it."""
    (run,) = tracker.search_runs()
    about = next(e.metadata for e in tracker.list_artifacts(run.id) if e.logged_as == "model")
    with Kit(home=tracker.context.home) as kit:
        return kit.registry.load(f"runs:/{run.id}/model"), about


@pytest.mark.parametrize("way", ["train", "fit"])
def test_the_model_of_xgboost_is_kept(tracker: Tracker, way: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    with autolog(["sklearn", "xgboost"], to=tracker, log_input_examples=True):
        if way == "train":
            data = xgboost.DMatrix(X, Y, feature_names=["a", "b", "c"])
            model = xgboost.train({"objective": "binary:logistic"}, data, 5, verbose_eval=False)
            expected = model.predict(data)
        else:
            model = xgboost.XGBClassifier(n_estimators=5).fit(X, Y)
            expected = model.predict(X)
    found, about = kept(tracker)

    asked = data if way == "train" else X
    assert found.predict(asked).tolist() == expected.tolist()
    names = [each["name"] for each in about["signature"]["inputs"]]
    assert names == (["a", "b", "c"] if way == "train" else ["input"])


@pytest.mark.parametrize("way", ["train", "fit"])
def test_the_model_of_lightgbm_is_kept(tracker: Tracker, way: str) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    with autolog(["sklearn", "lightgbm"], to=tracker):
        if way == "train":
            params = {"objective": "binary", "verbosity": -1}
            model = lightgbm.train(params, lightgbm.Dataset(X, Y), 5)
        else:
            model = lightgbm.LGBMClassifier(n_estimators=5, verbosity=-1).fit(X, Y)
    found, about = kept(tracker)

    assert found.predict(X).tolist() == model.predict(X).tolist()
    assert len(about["signature"]["inputs"]) == (3 if way == "train" else 1)


def test_the_model_of_keras_is_kept(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    with autolog("keras", to=tracker):
        model.fit(X, Y, epochs=1, verbose=0)
    found, about = kept(tracker)

    expected = model.predict(X, verbose=0)
    assert found.predict(X, verbose=0) == pytest.approx(expected)
    assert about["signature"]["outputs"][0]["shape"] == [-1, 1]


def test_the_weights_of_a_torch_loop_are_kept(tracker: Tracker) -> None:
    """Those of the innermost module that has all that the optimizer trains, as they are at last."""
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    outer = torch.nn.ModuleList([net])
    optimizer = torch.optim.SGD(outer.parameters(), lr=0.1)
    with autolog("torch", to=tracker), tracker.start_run("loop"):
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.ones(4, 3)).sum().backward()
            optimizer.step()
    found, about = kept(tracker)

    assert found.keys() == net.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in net.state_dict().items())
    assert about["signature"]["inputs"][0]["shape"] == [-1, 3]
    assert not torch.nn.modules.module._global_forward_hooks


PROGRAM = """
import sys
from mlopskit.kit import Kit
from mlopskit.integrations.autolog import autolog
with Kit(tracking="local", home=sys.argv[1]) as kit:
    autolog(to=kit.tracker, log_models=False)
    assert not {"sklearn", "xgboost", "lightgbm", "keras", "torch"} & set(sys.modules)
    from sklearn.linear_model import Ridge
    Ridge().fit([[0.0], [1.0]], [0.0, 1.0])
    print([run.name for run in kit.tracker.search_runs()])
"""


def test_what_is_imported_later_is_waited_for(tmp_path: Path) -> None:
    """Autologging itself imports no framework."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['Ridge']"

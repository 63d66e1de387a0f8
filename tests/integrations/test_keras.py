"""A real Keras training logs to any tracker, and loses nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.integrations.trainings import AS_NUMBERS, LINES, SCALARS, the_run, trackers

from mlopskit.kit import open_tracker

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it when it is imported.
pytest.importorskip("keras")

import keras

from mlopskit.integrations.keras import MlopskitCallback

if TYPE_CHECKING:
    from pathlib import Path

# Keras' torch backend gives NumPy 2 an `__array__` of NumPy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")


class More(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Adds to the logs, as a user's callback may, or fails."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs.update(SCALARS)
        if self.fails:
            raise ValueError("no")


def model() -> Any:
    made = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    made.compile(optimizer=keras.optimizers.SGD(0.125), loss="mse", metrics=["mae"])
    return made


X, Y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")


def fit(net: Any, callback: Any, fails: bool = False) -> None:
    net.fit(X, Y, epochs=3, verbose=0, validation_data=(X, Y), callbacks=[More(fails), callback])


@pytest.mark.parametrize("kind", LINES)
def test_a_training_arrives_unchanged(kind: str, tmp_path: Path) -> None:
    with trackers(kind, tmp_path) as (tracker, sinks):
        callback = MlopskitCallback(tracker, experiment="e", name="fit")
        net = model()
        fit(net, callback)
        net.evaluate(X, Y, verbose=0, callbacks=[callback])

        for sink in sinks:
            record = the_run(sink)
            assert (record.name, record.experiment, record.status) == ("fit", "e", "finished")
            assert (record.params["epochs"], record.params["steps"]) == (3, 1)
            assert record.params["parameters"] == 3
            assert record.params["optimizer"]["learning_rate"] == 0.125
            assert {key: record.metrics[key] for key in AS_NUMBERS} == AS_NUMBERS
            assert {"loss", "mae", "val_loss", "test_mae"} <= set(record.metrics)
            assert list(sink.get_metric_history(record.id, "loss").steps) == [0, 1, 2]


def test_each_fit_is_a_run(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        callback = MlopskitCallback(tracker)
        net = model()
        fit(net, callback)
        fit(net, callback)

        assert [each.status for each in tracker.search_runs()] == ["finished", "finished"]


def test_a_block_that_raises_ends_the_run(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        with pytest.raises(ValueError, match="no"), MlopskitCallback(tracker) as callback:
            fit(model(), callback, fails=True)

        assert the_run(tracker).status == "failed"


def test_an_open_run_is_left_open(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _), tracker.start_run("mine") as run:
        fit(model(), MlopskitCallback(run))
        run.log_metric("after", 1)

        record = the_run(tracker)
        assert record.status == "running"
        assert {"after", "loss"} <= set(record.metrics)


def test_another_rank_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    where = f"local:{tmp_path}/there"
    callback = MlopskitCallback(where)
    fit(model(), callback)

    assert callback.run is None
    with open_tracker(where) as tracker:
        assert tracker.search_runs() == []

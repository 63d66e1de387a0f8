"""A module that is watched as it trains."""

from __future__ import annotations

import gc
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlopskit.errors import Conflict, InvalidInput
from mlopskit.kit import Kit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")


@pytest.fixture(params=["local", "mlflow"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tracker]:
    """Return an empty tracker."""
    if request.param == "mlflow":
        pytest.importorskip("mlflow")
    line = "local" if request.param == "local" else f"mlflow:sqlite:///{tmp_path}/m.db"
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        yield kit.tracker


def model() -> Any:
    """Return a small module, always the same, with a parameter that is not trained."""
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    made[2].bias.requires_grad_(requires_grad=False)
    return made


def train(module: Any, steps: int, after: Any = None) -> list[Any]:
    """Train it a little; return the gradients of the first weight, by step."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((module(torch.randn(8, 4)) - 1) ** 2).mean()
        loss.backward()
        seen.append(module[0].weight.grad.clone())
        optimizer.step()
        if after is not None:
            after()
    return seen


def test_gradients_and_parameters_are_logged_every_so_often(
    tracker: Tracker, tmp_path: Path
) -> None:
    """As norms and histograms, with the pass as their step; training is what it was."""
    plain = train(model(), 7)
    watched = model()
    with tracker.start_run("e") as run:
        run.watch(watched, log="all", every=3, bins=8)
        seen = train(watched, 7)
    record = tracker.get_run(run.id)
    names = {each.logged_as for each in tracker.list_artifacts(run.id)}

    assert all(torch.equal(one, other) for one, other in zip(plain, seen, strict=True))
    trained = ("0.weight", "0.bias", "2.weight")
    assert set(record.metrics) == {
        f"{kind}/{name}/norm" for kind in ("gradients", "parameters") for name in trained
    }
    history = tracker.get_metric_history(run.id, "gradients/0.weight/norm")
    assert list(history.steps) == [0, 3, 6]
    expected = [float(seen[step].double().norm()) for step in (0, 3, 6)]
    assert list(history.values) == pytest.approx(expected)
    assert {f"gradients/0.weight/{step:08d}" for step in (0, 3, 6)} <= names
    assert len(names) == 18
    folder = tracker.download_artifact(run.id, "gradients/0.weight/00000003", tmp_path / "got")
    said = json.loads((folder / "data.json").read_text())
    counts, edges = np.histogram(seen[3].double().numpy(), bins=8)
    assert said["counts"] == counts.tolist()
    assert said["edges"] == pytest.approx(edges.tolist())


def test_the_end_of_a_run_takes_the_hooks_away(tracker: Tracker) -> None:
    """So does `unwatch`, of one module or of all."""
    one, other = model(), model()
    with tracker.start_run("e") as run:
        run.watch(one, every=1)
        run.watch(other, every=1, name="second")
        with pytest.raises(Conflict, match="watched already"):
            run.watch(one)
        run.unwatch(one)
        run.unwatch(one)
        train(one, 1)
        train(other, 1)
    train(other, 3)
    record = tracker.get_run(run.id)

    assert all(key.startswith("second/gradients/") for key in record.metrics)
    assert set(record.last_steps.values()) == {0}
    assert all(not each._backward_hooks for each in other.parameters() if each.requires_grad)


def test_what_is_not_finite_is_told_and_never_reaches_training(tracker: Tracker) -> None:
    """A norm that is infinite or NaN, and no histogram."""
    watched = model()
    with tracker.start_run("e") as run:
        run.watch(watched, every=1)
        (watched(torch.full((1, 4), float("inf"))).sum() * 0).backward()
    record = tracker.get_run(run.id)

    assert any(np.isnan(value) for value in record.metrics.values())
    assert watched[0].weight.grad is not None


def test_an_error_in_a_hook_ends_the_watch_and_not_the_training(
    tracker: Tracker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged once."""
    watched = model()
    with tracker.start_run("e") as run:
        run.watch(watched, every=1)

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("no room")

        monkeypatch.setattr(run, "log_metrics", fail)
        with caplog.at_level(logging.ERROR):
            assert len(train(watched, 3)) == 3
    assert len([each for each in caplog.records if "Watching ends" in each.message]) == 1


def test_a_watched_module_can_be_collected(tracker: Tracker) -> None:
    """A run does not keep it alive."""
    watched = model()
    gone: list[str] = []
    with tracker.start_run("e") as run:
        run.watch(watched, every=1)
        train(watched, 1)
        import weakref

        weakref.finalize(watched, gone.append, "gone")
        del watched
        gc.collect()
        assert gone == ["gone"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"module": object()}, "no torch.nn.Module"),
        ({"log": "weights"}, "it may be 'gradients'"),
        ({"every": 0}, "it is an int from 1"),
        ({"module": torch.nn.ReLU()}, "No parameter of the module"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    tracker: Tracker, given: dict[str, Any], said: str
) -> None:
    with tracker.start_run("e") as run, pytest.raises(InvalidInput, match=said):
        run.watch(**{"module": model(), **given})

"""W&B's own sweeps, by its agent against the loopback server."""

from __future__ import annotations

import math
import os
import resource
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput
from mlopskit.kit import Kit
from mlopskit.testing.wandb_server import KEY, WandbServer
from mlopskit.tracking.sweeps import (
    Categorical,
    Fixed,
    Integer,
    LogUniform,
    MedianPruning,
    Normal,
    Trial,
    Uniform,
    When,
    run_sweep,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("wandb")
pytest.importorskip("optuna")
pytestmark = [pytest.mark.network, pytest.mark.timeout(240)]

SPACE: dict[str, Any] = {
    "x": Uniform(0.0, 1.0),
    "rate": LogUniform(1e-3, 1.0),
    "n": Integer(1, 5),
    "kind": Categorical(["a", None, True, 1.5]),
    "c": Fixed("always"),
}


def objective(trial: Trial) -> float:
    if trial.number == 1:
        raise ValueError("no")
    for step in range(3):
        trial.report(trial.params["x"] + 1 / (step + 1), step)
        assert not trial.should_prune()
    return float(trial.params["x"])


@pytest.fixture
def many_files() -> Iterator[None]:
    """Open more files than `select.select` can speak of, as a long training with loaders does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(Path(os.devnull).open())
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_wandbs_server_chooses_and_hears_the_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many_files: None
) -> None:
    with WandbServer() as server:
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        line = {
            "backend": "wandb",
            "location": "team/churn",
            "base_url": server.url,
            "api_key": KEY,
            "flush_timeout_s": 30,
        }
        options: dict[str, Any] = {
            "name": "s",
            "engine": "wandb",
            "sampler": "random",
            "metric": "loss",
        }
        with Kit(tracking=line, home=tmp_path / "home") as kit:
            run_sweep(kit.tracker, objective, SPACE, 2, **options)
            result = run_sweep(kit.tracker, objective, SPACE, 4, **options)
            records = [kit.tracker.get_run(each.run_id) for each in result.trials]
            parent = kit.tracker.get_run(result.run_id)

        assert result.counts == {"complete": 3, "pruned": 0, "failed": 1}
        (sweep,) = server.sweeps.values()
        assert parent.tags["sweep.wandb"] == sweep["name"]
        assert parent.metrics["loss"] == result.best.value if result.best else math.nan
        for each, record in zip(result.trials, records, strict=True):
            assert record.params == each.params
            assert record.parent_id == result.run_id
            assert each.params["n"] in range(1, 6)
            assert type(each.params["n"]) is int
            assert each.params["kind"] in ("a", None, True, 1.5)
            theirs = server.runs[record.tags["sweep.wandb_run"]]
            assert theirs["state"] == ("failed" if each.state == "failed" else "finished")
            rows = server.rows(record.tags["sweep.wandb_run"])
            said = [row["loss"] for row in rows if "loss" in row]
            assert said == ([] if each.value is None else [*each.reported.values(), each.value])
            assert server.runs[each.run_id].get("sweep") is None  # W&B counts only its own.
        assert [record.tags["sweep.wandb_run"] for record in records] == sweep["runs"]


@pytest.mark.parametrize(
    ("space", "more"),
    [
        ({"odd": Normal()}, {}),
        ({"odd": Uniform(0, 1, step=0.1)}, {}),
        ({"odd": Integer(1, 9, log=True)}, {}),
        ({"odd": Categorical([(1, 2)])}, {}),
        ({"odd": Categorical([0.5, math.nan])}, {}),
        ({"odd": Categorical([1, 1.0])}, {}),
        ({"odd": Fixed(math.inf)}, {}),
        ({"a": Categorical([1, 2]), "odd": When("a", [1], Uniform(0, 1))}, {}),
        (SPACE, {"pruning": MedianPruning()}),
        (SPACE, {"workers": 2}),
        (SPACE, {"seed": 1}),
        (SPACE, {"engine": "hyperopt"}),
        (SPACE, {}),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_said_before_anything_runs(
    tmp_path: Path, space: dict[str, Any], more: dict[str, Any]
) -> None:
    with (
        Kit(tracking="local", home=tmp_path) as kit,
        pytest.raises(InvalidInput, match="odd" if "odd" in space else "W&B|engine"),
    ):
        run_sweep(kit.tracker, objective, space, 1, **{"engine": "wandb", **more})
    with Kit(tracking="local", home=tmp_path) as kit:
        assert kit.tracker.search_runs() == []

"""What a sweep may try, and what is refused by the name of its parameter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput
from mlopskit.kit import Kit
from mlopskit.tracking.sweep_space import Space
from mlopskit.tracking.sweeps import (
    Categorical,
    Fixed,
    Integer,
    LogUniform,
    Normal,
    Uniform,
    When,
    run_sweep,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.sweeps import Trial

pytest.importorskip("optuna")

SPACE: dict[str, Any] = {
    "x": Uniform(-5.0, 5.0),
    "lr": LogUniform(1e-5, 1.0),
    "layers": Integer(1, 64, log=True),
    "kind": Categorical(["svm", ("mlp", 2), None]),
    "gamma": When("kind", ["svm"], Uniform(0, 1)),
    "noise": Normal(0, 1, step=0.25),
    "batch": Fixed(32),
}


def bowl(trial: Trial) -> float:
    return float(trial.params["x"] ** 2)


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    with Kit(tracking="local", home=tmp_path / "home") as kit:
        yield kit.tracker


@pytest.mark.parametrize(
    "domain",
    [
        Uniform(1.0, 0.0),
        Uniform(1.0, 1.0),
        Uniform(0.0, math.nan),
        Uniform(0.0, math.inf),
        Uniform(-1e308, 1e308),
        Uniform(0.0, 1.0, step=0.0),
        Uniform(0.0, 1.0, step=5.0),
        Uniform(False, 1.0),
        LogUniform(0.0, 1.0),
        LogUniform(1.0, 0.1),
        LogUniform(1e-4, 1e-1, step=0.5),
        LogUniform(1.1, 1.9, step=1),
        Integer(3, 2),
        Integer(1, 9, step=0),
        Integer(1, 9, step=2, log=True),
        Integer(0, 9, log=True),
        Integer(1.0, 9),  # type: ignore[arg-type]
        Integer(0, 2**60),
        Categorical([]),
        Categorical("abc"),
        Categorical([1, 1]),
        Categorical([object]),
        Normal(0.0, 0.0),
        Fixed(object),
        When("other", ["a"], Uniform(2.0, 1.0)),
        When("other", [], Uniform(1.0, 2.0)),
        When("other", ["z"], Uniform(1.0, 2.0)),
        When("nobody", ["a"], Uniform(1.0, 2.0)),
        When("width", [0.5], Uniform(1.0, 2.0)),
        When("bad one", ["a"], Uniform(1.0, 2.0)),
        0.5,
        [1, 2],
    ],
    ids=repr,
)
def test_a_bad_space_is_refused_by_the_name_of_its_parameter(tracker: Tracker, domain: Any) -> None:
    space = {"other": Categorical(["a", "b"]), "width": Uniform(0, 1), "bad one": domain}

    with pytest.raises(InvalidInput, match="'bad one'"):
        run_sweep(tracker, bowl, space, 1)
    assert tracker.search_runs() == []


def test_true_is_another_choice_than_one() -> None:
    Categorical([1, True, 1.0, "1"]).check("x")


@pytest.mark.parametrize(
    "more",
    [
        {"n_trials": 0},
        {"n_trials": None},
        {"sampler": "bayes"},
        {"pruning": "mean"},
        {"direction": "down"},
        {"workers": 0},
        {"seed": -1},
        {"sampler": "grid"},
    ],
    ids=repr,
)
def test_an_option_that_cannot_be_taken_is_named(tracker: Tracker, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        run_sweep(tracker, bowl, SPACE, **{"n_trials": 1, **more})


def test_a_param_whose_value_would_be_redacted_is_refused(tracker: Tracker) -> None:
    with pytest.raises(InvalidInput, match="'api_key'"):
        run_sweep(tracker, bowl, {"api_key": Categorical(["one", "two"])}, 1)


def test_params_are_of_their_types_and_in_their_ranges(tracker: Tracker) -> None:
    space: dict[str, Any] = {
        "ladder": Uniform(0.1, 0.95, step=0.2),
        "ints": Integer(1, 10, step=4),
        "huge": LogUniform(1e-12, 1e12, step=0.5),
        "bell": Normal(2.0, 0.5, log=True),
        **SPACE,
    }
    result = run_sweep(tracker, lambda trial: 0.0, space, 40, sampler="random", seed=1)

    seen = {
        name: {each.params[name] for each in result.trials if name in each.params} for name in space
    }
    assert seen["ladder"] == {0.1, 0.3, 0.5, 0.7, 0.9}
    assert seen["ints"] == {1, 5, 9}
    assert {type(each) for each in seen["ints"] | seen["layers"]} == {int}
    assert all(each % 0.5 == 0 for each in seen["huge"])
    assert all(each > 0 for each in seen["bell"])
    assert seen["kind"] == {"svm", ("mlp", 2), None}
    assert seen["batch"] == {32}


def test_a_conditional_param_is_there_when_its_condition_holds(tracker: Tracker) -> None:
    space: dict[str, Any] = {
        "deep": When("wide", [2, 3], Categorical(["x", "y"])),  # It comes before what it needs.
        "wide": When("kind", ["mlp"], Integer(1, 3)),
        "kind": Categorical(["mlp", "svm"]),
    }
    result = run_sweep(tracker, lambda trial: len(trial.params), space, 60, seed=3)

    for each in result.trials:
        assert ("wide" in each.params) == (each.params["kind"] == "mlp")
        assert ("deep" in each.params) == (each.params.get("wide") in (2, 3))
    assert {len(each.params) for each in result.trials} == {1, 2, 3}


def test_what_depends_on_itself_is_refused(tracker: Tracker) -> None:
    space: dict[str, Any] = {
        "a": When("b", [1], Categorical([1, 2])),
        "b": When("a", [1], Categorical([1, 2])),
    }
    with pytest.raises(InvalidInput, match="a -> b -> a"):
        run_sweep(tracker, bowl, space, 1)


def test_a_grid_tries_every_point_once(tracker: Tracker) -> None:
    space: dict[str, Any] = {
        "kind": Categorical(["a", "b"]),
        "n": Integer(1, 3),
        "extra": When("kind", ["b"], Uniform(0.0, 0.5, step=0.25)),
        "c": Fixed(None),
    }
    result = run_sweep(tracker, lambda trial: trial.params["n"], space, sampler="grid")

    tried = [tuple(each.params.items()) for each in result.trials]
    assert len(tried) == len(set(tried)) == 3 + 3 * 3
    assert result.best is not None
    assert result.best.params == {"kind": "a", "n": 1, "c": None}


def test_a_rounded_logarithmic_value_stays_in_its_range(tracker: Tracker) -> None:
    space = {"small": LogUniform(1e-4, 1.4, step=0.5), "odd": LogUniform(0.1, 0.9, step=0.1)}
    result = run_sweep(tracker, lambda trial: 0.0, space, 60, sampler="random", seed=1)

    assert {each.params["small"] for each in result.trials} == {0.5, 1.0}
    tenths = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
    assert {each.params["odd"] for each in result.trials} <= tenths


def test_a_grid_is_counted_by_the_points_that_it_has(tracker: Tracker) -> None:
    kinds = "abcdefgh"
    space: dict[str, Any] = {"kind": Categorical(list(kinds))}
    space |= {f"of {kind}": When("kind", [kind], Integer(0, 9)) for kind in kinds}
    points = Space(space).grid()
    assert len(points) == len({tuple(each.items()) for each in points}) == 80
    assert points[0] == {"kind": 0, "of a": 0}
    assert points[-1] == {"kind": 7, "of h": 9}
    result = run_sweep(tracker, lambda trial: 0.0, space, 11, sampler="grid")
    assert result.trials[10].params == {"kind": "b", "of b": 0}

    large = {name: Integer(1, 101) for name in "abc"}
    with pytest.raises(InvalidInput, match="more than 1,000,000 points"):
        run_sweep(tracker, lambda trial: 0.0, large, 1, sampler="grid")

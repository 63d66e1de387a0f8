"""W&B's sweep files are read as they are, or refused by the name of what cannot be honoured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput, NotFound
from mlopskit.kit import Kit
from mlopskit.tracking.sweep_file import SweepFile, read_sweep, read_sweep_file
from mlopskit.tracking.sweep_methods import Hyperband
from mlopskit.tracking.sweep_space import (
    Categorical,
    Fixed,
    Integer,
    LogUniform,
    Normal,
    Uniform,
)
from mlopskit.tracking.sweeps import run_sweep

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("yaml")

FILE = """
program: train.py
method: bayes
name: night
description: what W&B shows
project: churn
metric:
  name: val/loss
  goal: minimize
parameters:
  optimizer: {values: [adam, sgd, null, 3]}
  layers: {value: [64, 32]}
  width: {min: 16, max: 256}
  dropout: {min: 0.0, max: 0.5}
  lr: {distribution: log_uniform_values, min: 1e-5, max: 0.1}
  batch: {distribution: q_log_uniform_values, q: 8, min: 32, max: 256}
early_terminate: {type: hyperband, min_iter: 3, eta: 2}
run_cap: 12
command:
  - ${env}
  - ${interpreter}
  - ${program}
  - ${args}
"""


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(FILE)

    assert read_sweep_file(path) == SweepFile(
        space={
            "optimizer": Categorical(["adam", "sgd", None, 3]),
            "layers": Fixed([64, 32]),
            "width": Integer(16, 256),
            "dropout": Uniform(0.0, 0.5),
            "lr": LogUniform(1e-5, 0.1),
            "batch": LogUniform(32.0, 256.0, step=8.0),
        },
        sampler="tpe",
        metric="val/loss",
        pruning=Hyperband(3, 48, 2),
        n_trials=12,
        name="night",
        program="train.py",
        command=("${env}", "${interpreter}", "${program}", "${args}"),
    )


@pytest.mark.parametrize(
    ("given", "domain"),
    [
        ({"distribution": "constant", "value": 1}, Fixed(1)),
        ({"distribution": "categorical", "values": [1, "a"]}, Categorical([1, "a"])),
        ({"distribution": "int_uniform", "min": 1, "max": 4}, Integer(1, 4)),
        ({"distribution": "int_uniform", "min": 1.0, "max": "4"}, Integer(1, 4)),
        ({"values": [1, 2], "probabilities": [0.5, 0.5]}, Categorical([1, 2])),
        ({"distribution": "uniform", "min": 1, "max": 4}, Uniform(1.0, 4.0)),
        ({"min": 1, "max": 4.5}, Uniform(1.0, 4.5)),
        ({"distribution": "q_uniform", "min": 0.3, "max": 2}, Uniform(0.0, 2.0, step=1.0)),
        (
            {"distribution": "q_uniform", "min": 0.1, "max": 0.7, "q": 0.1},
            Uniform(0.1, 0.7, step=0.1),
        ),
        ({"distribution": "log_uniform", "min": -2, "max": 1}, LogUniform(math.exp(-2), math.e)),
        (
            {"distribution": "q_log_uniform", "min": 0, "max": 1, "q": 0.5},
            LogUniform(1.0, math.e, 0.5),
        ),
        (
            {"distribution": "inv_log_uniform", "min": -1, "max": 2},
            LogUniform(math.exp(-2), math.e),
        ),
        ({"distribution": "inv_log_uniform_values", "min": 1, "max": 9}, LogUniform(1.0, 9.0)),
        ({"distribution": "normal", "mu": 3}, Normal(3.0, 1.0)),
        ({"distribution": "q_normal", "sigma": 2}, Normal(0.0, 2.0, step=1.0)),
        ({"distribution": "log_normal", "mu": 1, "sigma": 2}, Normal(1.0, 2.0, log=True)),
        ({"distribution": "q_log_normal", "q": 4}, Normal(0.0, 1.0, step=4.0, log=True)),
    ],
    ids=str,
)
def test_every_distribution_that_can_be_honoured(given: dict[str, Any], domain: Any) -> None:
    said = read_sweep({"method": "random", "parameters": {"x": given}})
    assert said.space == {"x": domain}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "annealing"}, "method"),
        ({"method": None}, "method"),
        ({"method": "bayes"}, "metric.name"),
        ({"metric": {"name": "loss", "goal": "lower"}}, "metric.goal"),
        ({"metric": {"name": "loss", "target": 0.1}}, "target"),
        ({"parameters": {}}, "search space"),
        ({"parameters": {"x": 3}}, "parameters.x"),
        ({"parameters": {"x": {}}}, "parameters.x"),
        ({"parameters": {"x": {"min": 3}}}, "parameters.x"),
        ({"parameters": {"x": {"min": 3, "max": 1}}}, "'x'"),
        ({"parameters": {"x": {"min": "a", "max": 1}}}, "parameters.x"),
        ({"parameters": {"x": {"distribution": "uniform", "min": 3}}}, "'max'"),
        ({"parameters": {"x": {"distribution": "beta"}}}, "parameters.x.distribution"),
        ({"parameters": {"x": {"values": [1, 2], "probabilities": [0.1, 0.9]}}}, "probabilities"),
        ({"parameters": {"x": {"values": [1, 2], "probabilities": [1.0]}}}, "probabilities"),
        ({"parameters": {"x": {"min": 1, "max": 2, "probabilities": [1.0]}}}, "probabilities"),
        ({"parameters": {"x": {"distribution": "int_uniform", "min": 1.5, "max": 4}}}, "'x'"),
        ({"parameters": {"x": {"values": 3}}}, "'x'"),
        ({"parameters": {"x": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}}}, "x"),
        ({"parameters": {"x": {"distribution": "log_uniform", "min": 0, "max": 1e9}}}, "x"),
        ({"parameters": {"x": {"min": 1, "max": 2, "mean": 3}}}, "mean"),
        ({"parameters": {"net": {"parameters": {"x": {"value": 1}}}}}, "parameters.net.parameters"),
        ({"early_terminate": {"type": "envelope"}}, "early_terminate.type"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 3, "strict": True}}, "strict"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 1}}, "eta"),
        ({"run_cap": "many"}, "run_cap"),
        ({"run_cap": 2.5}, "run_cap"),
        ({"command": "python train.py"}, "command"),
        ({"imports": ["x"]}, "imports"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_named(change: dict[str, Any], named: str) -> None:
    config = {"method": "random", "parameters": {"x": {"min": 0.0, "max": 1.0}}} | change
    with pytest.raises(InvalidInput, match=named):
        read_sweep(config)


def test_a_cap_may_be_a_text() -> None:
    config = {"method": "random", "parameters": {"x": {"min": 0.0, "max": 1.0}}, "run_cap": "5"}
    assert read_sweep(config).n_trials == 5


def test_hyperband_of_the_other_kind() -> None:
    config = {
        "method": "random",
        "parameters": {"x": {"value": 1}},
        "early_terminate": {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3},
    }
    assert read_sweep(config).pruning == Hyperband(3, 27, 3)


def test_no_file_and_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_sweep_file(tmp_path / "nothing.yaml")
    (tmp_path / "odd.yaml").write_text("a: [")
    with pytest.raises(InvalidInput, match="no YAML"):
        read_sweep_file(tmp_path / "odd.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput):
        read_sweep_file(tmp_path / "bytes.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(InvalidInput, match="mapping"):
        read_sweep_file(tmp_path / "list.yaml")


def test_a_file_runs(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    path = tmp_path / "sweep.yaml"
    path.write_text(FILE)
    with Kit(tracking="local", home=tmp_path / "home") as kit:
        result = run_sweep(
            kit.tracker, lambda trial: trial.params["dropout"], **read_sweep_file(path).arguments()
        )
        assert len(result.trials) == 12
        assert result.name == "night"
        assert {each.params["batch"] % 8 for each in result.trials} == {0.0}
        assert {type(each.params["width"]) for each in result.trials} == {int}

"""What a sweep costs beside the search alone: ours, and Optuna's own `study.optimize`.

``python benchmarks/sweeps.py [trials]``; 200 if left out (about two minutes). Both run the same
objective over the same space with the same sampler, a multivariate TPE, in turns; CPU seconds of
all threads are counted. Ours also keeps each trial as a run: its params, its value, ten reported
values, and what a later process needs to go on.

The objective trains a softmax regression of 10 classes on 4,000 rows of 64 columns, by 500 steps
of gradient descent, which takes about 50 ms whatever its params: a small model
on a small table. A second
line gives the cost per trial where the objective costs nothing.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

# One thread: what is measured is what a trial costs, not how well it shares the machine.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402 - reads the environment
import optuna  # noqa: E402

from mlopskit.kit import Kit  # noqa: E402
from mlopskit.tracking.sweeps import (  # noqa: E402
    Domain,
    Integer,
    LogUniform,
    Trial,
    Uniform,
    run_sweep,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROUNDS = 3
SEED = 7
REPORTS = 10
STEPS = 500
SPACE: dict[str, Domain] = {
    "lr": LogUniform(1e-3, 1.0),
    "decay": LogUniform(1e-6, 1e-1),
    "momentum": Uniform(0.0, 0.99),
    "warmup": Integer(0, 100, step=10),
}


def main() -> None:
    """Measure, and print the medians and the ratio."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    logging.getLogger("optuna").setLevel(logging.WARNING)
    real = softmax_regression()
    print(f"-- CPU seconds of {trials} trials, medians of {ROUNDS}")
    for name, objective in (("training", real), ("nothing", nothing)):
        ours, theirs = measured(objective, trials)
        print(f"{name:10}mlopskit {ours:8.2f}   study.optimize {theirs:8.2f}", end="   ")
        print(f"more per trial: {(ours - theirs) / trials * 1000:.2f} ms", end="   ")
        if name == "training":
            ratio = ours / theirs
            print(f"ratio {ratio:.3f}, goal 1.2: {'held' if ratio <= 1.2 else 'MISSED'}")
    print()


def measured(objective: Callable[..., float], trials: int) -> tuple[float, float]:
    """Return the medians of both, which take turns."""
    seen: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for way, times in zip((ours, theirs), seen, strict=True):
            begun = time.process_time()
            way(objective, trials)
            times.append(time.process_time() - begun)
    return statistics.median(seen[0]), statistics.median(seen[1])


def ours(objective: Callable[..., float], trials: int) -> None:
    """Sweep, into the local tracker."""

    def tried(trial: Trial) -> float:
        return objective(trial.params, trial.report)

    with tempfile.TemporaryDirectory() as home, Kit(tracking="local", home=home) as kit:
        result = run_sweep(kit.tracker, tried, SPACE, trials, seed=SEED)
        assert result.counts["complete"] == trials


def theirs(objective: Callable[..., float], trials: int) -> None:
    """Let Optuna optimise, in memory."""

    def tried(trial: optuna.Trial) -> float:
        params = {
            "lr": trial.suggest_float("lr", 1e-3, 1.0, log=True),
            "decay": trial.suggest_float("decay", 1e-6, 1e-1, log=True),
            "momentum": trial.suggest_float("momentum", 0.0, 0.99),
            "warmup": trial.suggest_int("warmup", 0, 100, step=10),
        }
        return objective(params, trial.report)

    sampler = optuna.samplers.TPESampler(seed=SEED, multivariate=True)
    optuna.create_study(sampler=sampler).optimize(tried, n_trials=trials)


def nothing(params: dict[str, Any], report: Callable[[float, int], None]) -> float:
    """Return a value at once."""
    report(params["lr"], 0)
    return float((np.log10(params["lr"]) + 1) ** 2 + params["momentum"])


def softmax_regression() -> Callable[..., float]:
    """Return an objective: train, report now and then, and return the loss on other rows."""
    chance = np.random.default_rng(0)
    true = chance.normal(size=(64, 10))
    x = chance.normal(size=(5000, 64))
    y = np.argmax(x @ true + chance.normal(size=(5000, 10)) * 4, axis=1)
    train, held = (x[:4000], y[:4000]), (x[4000:], y[4000:])

    def objective(params: dict[str, Any], report: Callable[[float, int], None]) -> float:
        weights, speed = np.zeros((64, 10)), np.zeros((64, 10))
        size, loss = 500, 0.0
        for step in range(STEPS):
            rows = (np.arange(size) + step * size) % 4000
            rate = params["lr"] * min(1.0, (step + 1) / (params["warmup"] + 1))
            gradient = slope(weights, train[0][rows], train[1][rows])
            speed = params["momentum"] * speed - rate * (gradient + params["decay"] * weights)
            weights = weights + speed
            if step % (STEPS // REPORTS) == 0:
                loss = cross_entropy(weights, *held)
                report(loss, step)
        return cross_entropy(weights, *held)

    return objective


def slope(weights: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Return the gradient of the cross-entropy."""
    shares = softmax(x @ weights)
    shares[np.arange(len(y)), y] -= 1
    found: NDArray[Any] = x.T @ shares / len(y)
    return found


def cross_entropy(weights: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the mean loss."""
    return float(-np.log(softmax(x @ weights)[np.arange(len(y)), y] + 1e-12).mean())


def softmax(scores: NDArray[Any]) -> NDArray[Any]:
    """Return shares that sum to one, row by row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: NDArray[Any] = powers / powers.sum(axis=1, keepdims=True)
    return found


if __name__ == "__main__":
    main()

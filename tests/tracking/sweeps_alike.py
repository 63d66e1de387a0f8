"""Searches the same space on every tracker, and says of each what became of it, as one digest.

``python tests/tracking/sweeps_alike.py --trials 200`` ends with 0 if all of them are equal. The
digest is over every trial as the sweep returned it, and over its run as the tracker, opened again,
has it: params with their types, every reported point, the value, the tags and the status.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit.kit import Kit
from mlopskit.tracking.sweep_methods import PRUNINGS
from mlopskit.tracking.sweeps import (
    Categorical,
    Fixed,
    Integer,
    LogUniform,
    Normal,
    Trial,
    TrialPruned,
    Uniform,
    When,
    run_sweep,
)
from mlopskit.tracking.values import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import RunRecord
    from mlopskit.tracking.sweeps import Done, SweepResult

SPACE: dict[str, Any] = {
    "x": Uniform(-5.0, 5.0),
    "lr": LogUniform(1e-5, 1.0),
    "layers": Integer(1, 64, log=True),
    "kind": Categorical(["svm", ("mlp", 2), None]),
    "gamma": When("kind", ["svm"], Uniform(0, 1)),
    "noise": Normal(0, 1, step=0.25),
    "batch": Fixed(32),
}
TOOLS = ("local", "mlflow", "wandb")
FAILING = 19


def bowl(trial: Trial) -> float:
    """Return a value whose least is known: near 0, at x = 1, layers = 8, and no kind."""
    params = trial.params
    value = (params["x"] - 1) ** 2 + abs(params["layers"] - 8) / 8 + params.get("gamma", 0.5)
    return float(value) + (0.0 if params["kind"] is None else 0.3)


def slow_bowl(trial: Trial) -> float:
    """Report on the way to it, and stop when told to."""
    for step in range(4):
        trial.report(bowl(trial) + 1 / (step + 1), step)
        if trial.should_prune():
            raise TrialPruned
    return bowl(trial)


def slow(trial: Trial) -> float:
    """Report a curve that falls towards x squared."""
    for step in range(1, 28):
        trial.run.log_metric("steps", step, step=step)
        trial.report(trial.params["x"] ** 2 + 1 / step, step)
        if trial.should_prune():
            raise TrialPruned
    return float(trial.params["x"] ** 2)


def failing_bowl(trial: Trial) -> float:
    """Fail now and then, after a report."""
    if trial.number % FAILING == FAILING - 1:
        trial.report(bowl(trial), 0)
        raise ValueError(f"trial {trial.number}")
    return slow_bowl(trial)


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of a sweep.

    Attributes:
        said: A line for each trial, and one for its run, in the order of their numbers.
        counts: How many trials ended how.
    """

    said: tuple[str, ...]
    counts: Mapping[str, int]

    @property
    def digest(self) -> str:
        """``sha256:`` of all that is said."""
        return f"sha256:{sha256(chr(10).join(self.said).encode()).hexdigest()}"


def swept(tool: str, folder: Path, totals: Sequence[int], **options: Any) -> Swept:
    """Sweep up to each of these numbers of trials in turn, by a tracker that is opened anew."""
    result: SweepResult | None = None
    for total in totals:
        with opened(tool, folder) as kit:
            before, result = (
                result,
                run_sweep(
                    kit.tracker, failing_bowl, SPACE, total, name="alike", experiment="e", **options
                ),
            )
        if before is not None:
            kept = [trial(each) for each in result.trials[: len(before.trials)]]
            assert kept == [trial(each) for each in before.trials], tool
    assert result is not None
    with opened(tool, folder) as kit:
        runs = kept_runs(kit.tracker, result.run_id)
    assert len(runs) == len(result.trials) == totals[-1], tool
    return Swept((*map(trial, result.trials), *runs), result.counts)


def opened(tool: str, folder: Path) -> Kit:
    """Open a tracker that needs no server, in a folder."""
    folder.mkdir(exist_ok=True)
    line: Any = tool
    if tool == "mlflow":
        line = f"mlflow:sqlite:///{folder}/mlflow.db"
    if tool == "wandb":
        line = {"backend": "wandb", "mode": "offline"}
    return Kit(tracking=line, home=folder / "home")


def trial(done: Done) -> str:
    """Say all of a trial but which run it has."""
    return to_json(
        [
            *(done.number, done.state, dict(done.params), done.value, done.error),
            sorted(done.point.items()),
            sorted(done.reported.items()),
        ]
    )


def kept_runs(tracker: Tracker, parent_id: str) -> list[str]:
    """Say what a tracker has of the trials' runs, the first trial first."""
    runs = tracker.search_runs(f"parent_id = '{parent_id}'", "e", limit=None)
    runs.sort(key=lambda each: int(each.tags["sweep.trial"]))
    return ["\n".join(about(tracker, each)) for each in runs]


def about(tracker: Tracker, run: RunRecord) -> Iterator[str]:
    """Say what a run holds: all but what is of its own hour and machine."""
    yield to_json([run.name, run.experiment, run.status, run.group, run.job_type])
    yield to_json(dict(sorted(run.params.items())))
    yield to_json(dict(sorted(run.tags.items())))
    for key in sorted(run.metrics):
        history = tracker.get_metric_history(run.id, key)
        points = zip(map(int, history.steps), map(float, history.values), strict=True)
        yield to_json([key, [list(each) for each in points]])


def main() -> int:
    """Say the digest of each tracker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    parser.add_argument("--pruning", choices=PRUNINGS, default="median")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    given = parser.parse_args()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.disable(logging.WARNING)  # Of the trials that fail, and of tables that MLflow makes.
    found = set()
    for tool in given.tools:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="mlopskit-sweeps-") as folder:
            one = swept(
                tool,
                Path(folder),
                [given.trials],
                seed=given.seed,
                sampler=given.sampler,
                pruning=given.pruning,
            )
        took = time.perf_counter() - begun
        counts = ", ".join(f"{count} {state}" for state, count in one.counts.items())
        print(f"{tool:7} {one.digest}  {counts}  {took:.0f} s", flush=True)
        found.add(one.digest)
    print("all are equal" if len(found) == 1 else f"{len(found)} DIFFERENT results")
    return int(len(found) != 1)


if __name__ == "__main__":
    sys.exit(main())

"""What logging costs the caller: ours against MlflowClient, on the same kind of store.

Interleaved rounds, CPU seconds of the process and medians of wall time, ratios printed. Run it as
``python benchmarks/tracking.py [calls] [rounds]``; the default takes under a minute.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlopskit.kit import Kit

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Run every way of logging in turn, and print what each costs."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/m.db"
        client = MlflowClient(uri)
        experiment = client.create_experiment("bench", Path(folder, "artifacts").as_uri())
        ways: dict[str, Callable[[], tuple[list[int], float, float]]] = {
            "mlopskit local": lambda: ours("local", folder, calls),
            "mlopskit mlflow": lambda: ours(f"mlflow:{uri}", folder, calls),
            "MlflowClient.log_batch": lambda: theirs(client, experiment, calls),
        }
        seen: dict[str, list[tuple[list[int], float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                seen[name].append(way())
    report(seen, calls)


def ours(line: str, folder: str, calls: int) -> tuple[list[int], float, float]:
    """Log through a run; return each call's nanoseconds, and CPU and wall seconds in all."""
    with Kit(tracking=line, home=Path(folder, "home")) as kit:
        tracker = kit.tracker
        tracker.ping()
        begun, cpu = time.perf_counter(), time.process_time()
        with tracker.start_run("bench") as run:
            each = [timed(run.log_metrics, point(step), step) for step in range(calls)]
        return each, time.process_time() - cpu, time.perf_counter() - begun


def theirs(client: object, experiment: str, calls: int) -> tuple[list[int], float, float]:
    """Log the same with one `log_batch` per call, as `mlflow.log_metrics` does."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    assert isinstance(client, MlflowClient)
    begun, cpu = time.perf_counter(), time.process_time()
    run = client.create_run(experiment)

    def log(step: int) -> None:
        now = time.time_ns() // 1_000_000
        rows = [Metric(key, value, now, step) for key, value in point(step).items()]
        client.log_batch(run.info.run_id, metrics=rows)

    each = [timed(log, step) for step in range(calls)]
    client.set_terminated(run.info.run_id)
    return each, time.process_time() - cpu, time.perf_counter() - begun


def point(step: int) -> dict[str, float]:
    """Return three metrics."""
    return {"loss": step * 0.1, "accuracy": 0.5, "rate": 1e-3}


def timed(call: Callable[..., object], *given: object) -> int:
    """Return how many nanoseconds a call takes."""
    begun = time.perf_counter_ns()
    call(*given)
    return time.perf_counter_ns() - begun


def report(seen: dict[str, list[tuple[list[int], float, float]]], calls: int) -> None:
    """Print a line for each way, the last being what the others are compared with."""
    rows = {
        name: (
            statistics.median(ns for each, _, _ in runs for ns in each) / 1000,
            statistics.median(cpu for _, cpu, _ in runs),
            statistics.median(wall for _, _, wall in runs),
        )
        for name, runs in seen.items()
    }
    peer = list(rows.values())[-1]
    print(f"{calls} calls of 3 metrics, delivered and finished")
    print(f"{'':24}{'call p50 us':>12}{'CPU s':>8}{'wall s':>8}{'calls, x':>10}{'CPU, x':>8}")
    for name, (call, cpu, wall) in rows.items():
        ratios = f"{peer[0] / call:>10.0f}{peer[1] / cpu:>8.1f}"
        print(f"{name:24}{call:>12.1f}{cpu:>8.2f}{wall:>8.2f}{ratios}")


if __name__ == "__main__":
    main()

"""Profiles and drift reports, beside SciPy's exact two-sample tests on the values themselves.

100,000 rows a side, 20 numeric columns and 5 of text. CPU seconds, medians of interleaved runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy import stats

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable


def frame(rows: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {f"n{i}": rng.normal(0.01 * seed * i, 1, rows) for i in range(20)}
    for i in range(5):
        columns[f"c{i}"] = rng.choice([f"value {j}" for j in range(20)], rows).tolist()
    return pa.table(columns)


def exact(now: pa.Table, before: pa.Table) -> None:
    """Kolmogorov-Smirnov and Wasserstein for numbers, chi-squared for text."""
    for name in now.column_names:
        if name[0] == "n":
            one, two = before[name].to_numpy(), now[name].to_numpy()
            stats.ks_2samp(one, two, method="asymp")
            stats.wasserstein_distance(one, two)
        else:
            sides = [
                dict(map(_pair, side[name].value_counts().to_pylist())) for side in (before, now)
            ]
            values = sorted(sides[0] | sides[1])
            stats.chi2_contingency([[side.get(value, 0) for value in values] for side in sides])


def _pair(counted: dict[str, Any]) -> tuple[Any, Any]:
    return counted["values"], counted["counts"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    before, now = frame(given.rows, 0), frame(given.rows, 1)
    detector = mk.open_drift_detector("local")
    profile = detector.fit(before)
    current = detector.fit(now, like=profile)
    work: dict[str, Callable[[], object]] = {
        "fit the reference": lambda: detector.fit(before),
        "profile + detect": lambda: detector.detect(now, profile),
        "detect, two profiles": lambda: detector.detect(current, profile),
        "merge two profiles": lambda: current.merge(current),
        "scipy, exact": lambda: exact(now, before),
    }
    took: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(given.repeats):
        for name, run in work.items():
            start = time.process_time()
            run()
            took[name].append(time.process_time() - start)
    ours = statistics.median(took["profile + detect"])
    print(f"{given.rows:,} rows x 25 columns; a profile is {len(profile.to_json()) / 1000:.0f} KB")
    print(f"{'':22} {'CPU s':>8} {'x profile + detect':>20}")
    for name, times in took.items():
        value = statistics.median(times)
        print(f"{name:22} {value:8.4f} {value / ours:20.2f}")
    exact_ks = stats.ks_2samp(now["n19"].to_numpy(), before["n19"].to_numpy()).statistic
    got = detector.detect(now, profile).columns["n19"].statistic
    print(f"KS of n19: {got:.5f}, exact {exact_ks:.5f}")
    return 0 if abs(got - exact_ks) < 0.005 else 1


if __name__ == "__main__":
    sys.exit(main())

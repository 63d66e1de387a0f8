"""Online reads and point-in-time joins, ours and plain pandas on the same rows in one run.

The joins are checked to agree before they are timed. Pandas joins what it is given, in memory and
sorted by hand; ours reads the Parquet files and keeps the whole contract (order, ties, ttl).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlopskit.features import FeatureService, FeatureView
from mlopskit.features.local import LocalFeatureStore

if TYPE_CHECKING:
    from collections.abc import Callable

YEAR = datetime(2024, 1, 1, tzinfo=UTC)
SECONDS = 365 * 86400
VIEWS = {
    "weather": (3, 27_000, 4, 6),
    "carrier": (16, 300_000, 3, 24),
    "airport": (100, 300_000, 2, 24),
}


def events(
    rng: np.random.Generator, keys: int, rows: int, features: int, name: str
) -> pd.DataFrame:
    seconds = rng.choice(SECONDS, rows, replace=False)
    table: dict[str, Any] = {
        f"{name}_id": rng.integers(0, keys, rows).astype(str),
        "event_timestamp": pd.Timestamp(YEAR) + pd.to_timedelta(seconds, unit="s"),
    }
    table |= {f"{name}_{i}": rng.normal(size=rows) for i in range(features)}
    return pd.DataFrame(table)


def spine(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    table: dict[str, Any] = {
        f"{name}_id": rng.integers(0, keys, rows).astype(str) for name, (keys, *_) in VIEWS.items()
    }
    seconds = rng.integers(0, SECONDS, rows)
    table["event_timestamp"] = pd.Timestamp(YEAR) + pd.to_timedelta(seconds, unit="s")
    return pd.DataFrame(table)


def merged(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Return what an experienced user writes by hand, from the same files."""
    found = frame.assign(row=range(len(frame))).sort_values("event_timestamp", kind="stable")
    for name, (*_, hours) in VIEWS.items():
        found = pd.merge_asof(
            found,
            pd.read_parquet(folder / f"{name}.parquet").sort_values("event_timestamp"),
            on="event_timestamp",
            by=f"{name}_id",
            tolerance=pd.Timedelta(hours=hours),
        )
    return found.sort_values("row").drop(columns="row").set_index(frame.index)


def cpu(work: Callable[[], object], repeats: int, calls: int = 1) -> float:
    """Return the median CPU time of a call, in milliseconds."""
    took = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(calls):
            work()
        took.append((time.process_time() - start) / calls * 1000)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=85_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as name, LocalFeatureStore(Path(name, "store")) as store:
        folder = Path(name)
        references = define(store, rng, folder)
        frame = spine(rng, options.rows)
        ours = store.get_historical_features(frame, references)
        pd.testing.assert_frame_equal(ours, merged(frame, folder)[ours.columns])
        join = cpu(lambda: store.get_historical_features(frame, references), options.repeats)
        hand = cpu(lambda: merged(frame, folder), options.repeats)
        print(f"join of {len(frame):,} rows x {len(VIEWS)} views      ours {join:9.1f} ms CPU")
        print(f"  pandas merge_asof, by hand {hand:24.1f} ms CPU   {hand / join:5.2f} x ours")
        start = time.process_time()
        counted = store.materialize(YEAR, YEAR + timedelta(days=366))
        spent = time.process_time() - start
        print(
            f"materialize 627,000 events to {sum(counted.values())} keys {spent * 1000:9.1f} ms CPU"
        )
        online(store, frame, references, options.repeats)


def define(store: LocalFeatureStore, rng: np.random.Generator, folder: Path) -> list[str]:
    references = []
    for name, (keys, rows, features, hours) in VIEWS.items():
        table = events(rng, keys, rows, features, name)
        table.to_parquet(folder / f"{name}.parquet")
        names = [
            column
            for column in map(str, table)
            if column.startswith(f"{name}_") and column[-2:] != "id"
        ]
        source = folder / f"{name}.parquet"
        store.apply(FeatureView(name, [f"{name}_id"], names, source, ttl=timedelta(hours=hours)))
        references += [f"{name}:{feature}" for feature in names]
    store.apply(FeatureService("all", references))
    return references


def online(
    store: LocalFeatureStore, frame: pd.DataFrame, references: list[str], repeats: int
) -> None:
    keys = [f"{name}_id" for name in VIEWS]
    indexed = {
        name: pd.DataFrame(
            store.get_online_features(
                {key: sorted(frame[key].unique())}, references_of(name, references)
            ).to_dict()
        ).set_index(key)
        for name, key in zip(VIEWS, keys, strict=True)
    }
    for count in (1, 50, 1000):
        rows = frame[keys].head(count).to_dict("records")
        ours = cpu(lambda r=rows: store.get_online_features(r, "all").to_dict(), repeats, 20)  # type: ignore[misc]  # a bound loop variable
        hand = cpu(
            lambda r=rows: [  # type: ignore[misc]  # a bound loop variable
                indexed[n].loc[[row[f"{n}_id"] for row in r]].to_dict("list") for n in VIEWS
            ],
            repeats,
            20,
        )
        print(f"online read of {count:5} rows x {len(VIEWS)} views   ours {ours:9.3f} ms CPU")
        print(f"  pandas .loc, in memory     {hand:24.3f} ms CPU   {hand / ours:5.2f} x ours")
    late = YEAR + timedelta(days=400)
    for count in (3, 16):
        batch = [
            {
                "weather_id": str(i),
                "event_timestamp": late,
                **{f"weather_{j}": 0.5 for j in range(4)},
            }
            for i in range(count)
        ]
        spent = cpu(lambda b=batch: store.push("weather", b), repeats, 20)  # type: ignore[misc]  # a bound loop variable
        print(f"push of {count:5} rows               ours {spent:9.3f} ms CPU")


def references_of(view: str, references: list[str]) -> list[str]:
    return [reference for reference in references if reference.startswith(f"{view}:")]


if __name__ == "__main__":
    main()

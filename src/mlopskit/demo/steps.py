"""The expensive steps, as pipelines: what was computed before is not computed again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlopskit.demo import model
from mlopskit.demo.data import LATE_MINUTES, NEVER, read_flights, read_weather
from mlopskit.demo.features import requests, write_sources
from mlopskit.pipelines.graph import pipeline, step

if TYPE_CHECKING:
    from mlopskit.demo.data import Flights

FLIGHTS: Final = "flights.parquet"
LIBRARIES: Final = ("numpy", "pyarrow", "scikit-learn", "skops")


@step(environment=["pyarrow"])
def prepare(folder: Path, scratch: str) -> Path:
    """Write the flights and the events of every view as Parquet, and return their folder."""
    Path(scratch).mkdir(parents=True, exist_ok=True)
    written = Path(tempfile.mkdtemp(dir=scratch)) / "flights"
    written.mkdir()
    flights, weather = read_flights(folder), read_weather(folder)
    write_sources(written, flights, weather)
    write_flights(written, flights)
    return written


@step(environment=LIBRARIES)
def train(table: pa.Table) -> bytes:
    """Train the model and return it in the skops format."""
    return model.dumps(model.fit(table))


@step(environment=LIBRARIES)
def judge(trained: bytes, recent: pa.Table) -> dict[str, float]:
    """Return the quality of a model on flights it was not trained on."""
    return model.quality(recent[model.LABEL].to_numpy(), model.score(model.loads(trained), recent))


@pipeline
def prepared(folder: Path, scratch: str) -> Path:
    """Read the data files and lay them out for the feature store."""
    return prepare(folder, scratch)


@pipeline
def first_model(before: pa.Table, recent: pa.Table, whole: pa.Table) -> Any:
    """Judge a model on the last weeks of the data, then train on all of it.

    There is nothing older to fall back on, so the first model gets every row; how good it is, is
    measured on its twin that has not seen the last weeks.
    """
    return train(whole), judge(train(before), recent)


@pipeline
def challenger(before: pa.Table, recent: pa.Table) -> Any:
    """Train on the months before the last weeks, and judge on these."""
    trained = train(before)
    return trained, judge(trained, recent)


def clean(scratch: Path) -> None:
    """Remove what `prepare` left behind; the runner keeps its own copy."""
    shutil.rmtree(scratch, ignore_errors=True)


def write_flights(folder: Path, flights: Flights) -> None:
    """Write one row per flight: what is asked, and the label with the time it became known."""
    table = requests(flights).append_column("month", flights.table["month"])
    landed = flights.arrived != NEVER
    known = pa.array(np.where(landed, flights.arrived, 0), pa.timestamp("s", "UTC"), mask=~landed)
    late = pa.array(flights.arr_delay > LATE_MINUTES, mask=~landed)
    table = table.append_column("known", known).append_column(model.LABEL, late)
    pq.write_table(table, folder / FLIGHTS, compression="zstd")

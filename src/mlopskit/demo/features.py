"""What the model may know about a flight, and since when.

Three feature views, each with the instant at which a value became known as its event time:

* ``flights_weather``, by origin: the last complete hour of weather;
* ``flights_carrier``, by carrier: how late its flights landed in the last 3 and 24 hours;
* ``flights_origin``, by origin: how late flights left in the last 2 hours, and how late those
  landed that had left here, in the last 3 and 24.

Delays count from the minute in which they are known: a landing counts when it has landed. They are
summed up at every full hour, so that a value of 14:00 holds landings until 14:00. Predictions are
asked for at the full hour of the scheduled departure: nothing later than that is ever used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlopskit.demo.data import HOUR, NEVER, WEATHER, Flights
from mlopskit.features.entities import FeatureService, FeatureView

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.demo.data import Floats, Ints

CARRIER_DELAYS: Final = ("carrier_late_3h", "carrier_late_24h", "carrier_delay_3h")
ORIGIN_DELAYS: Final = (
    "origin_dep_delay_2h",
    "origin_departures_2h",
    "origin_late_3h",
    "origin_late_24h",
)
CATEGORIES: Final = ("carrier", "origin", "dest")
SCHEDULE: Final = ("hour", "weekday", "distance")
STORED: Final = (*WEATHER, *CARRIER_DELAYS, *ORIGIN_DELAYS)
NUMBERS: Final = (*SCHEDULE, *STORED)
COLUMNS: Final = (*CATEGORIES, *NUMBERS)

EVENT: Final = "event_timestamp"
VIEWS: Final = ("flights_weather", "flights_carrier", "flights_origin")
SERVICE: Final = "flights"
# The weather of some hours is missing; older than this, it says nothing about now.
WEATHER_TTL: Final = 6 * HOUR
DELAY_TTL: Final = 3 * HOUR


@dataclass(frozen=True)
class Events:
    """What one view learns over the year, in order of time.

    Attributes:
        known: When each row became known, in seconds since 1970, ascending.
        key: The name of the join key.
        table: The join key and the features, one row for each of ``known``.
    """

    known: Ints
    key: str
    table: pa.Table

    def timed(self) -> pa.Table:
        """Return the table with its event times, as the feature store takes it."""
        times = pa.array(self.known, pa.timestamp("s", "UTC")).cast(pa.timestamp("us", "UTC"))
        return self.table.append_column(EVENT, times)


def build_events(flights: Flights, weather: pa.Table) -> dict[str, Events]:
    """Return the events of every view, by the view's name."""
    observed = Events(weather["known"].to_numpy(), "origin", weather.drop_columns(["known"]))
    return {
        "flights_weather": observed,
        "flights_carrier": carrier_events(flights),
        "flights_origin": origin_events(flights),
    }


def carrier_events(flights: Flights) -> Events:
    """Sum up each carrier's landings of the last 3 and 24 hours, at every full hour."""
    names, keys = _codes(flights, "carrier")
    hours = _Hours.of(flights, len(names))
    landed = hours.of_events(keys, flights.arrived)
    late, _ = hours.window(landed, flights.late, 24)
    late_now, _ = hours.window(landed, flights.late, 3)
    delay, _ = hours.window(landed, flights.arr_delay, 3)
    values = dict(zip(CARRIER_DELAYS, (late_now, late, delay), strict=True))
    return hours.events("carrier", names, values, told=~np.isnan(late))


def origin_events(flights: Flights) -> Events:
    """Sum up each origin's departures and landings of the last hours, at every full hour."""
    names, keys = _codes(flights, "origin")
    hours = _Hours.of(flights, len(names))
    left = hours.of_events(keys, flights.departed)
    landed = hours.of_events(keys, flights.arrived)
    delay, count = hours.window(left, flights.dep_delay, 2)
    late_now, _ = hours.window(landed, flights.late, 3)
    late, _ = hours.window(landed, flights.late, 24)
    values = dict(zip(ORIGIN_DELAYS, (delay, count, late_now, late), strict=True))
    return hours.events("origin", names, values, told=~np.isnan(late))


def write_sources(folder: Path, flights: Flights, weather: pa.Table) -> dict[str, Path]:
    """Write the events of every view as Parquet, and return the files by the view's name."""
    files = {}
    for view, events in build_events(flights, weather).items():
        files[view] = folder / f"{view}.parquet"
        pq.write_table(events.timed(), files[view], compression="zstd")
    return files


def views(folder: Path) -> list[FeatureView | FeatureService]:
    """Return the demo's views over the files in a folder, and the service that joins them."""
    kinds = {
        "flights_weather": ("origin", WEATHER, WEATHER_TTL),
        "flights_carrier": ("carrier", CARRIER_DELAYS, DELAY_TTL),
        "flights_origin": ("origin", ORIGIN_DELAYS, DELAY_TTL),
    }
    made: list[FeatureView | FeatureService] = []
    for name, (key, features, ttl) in kinds.items():
        source = str(folder / f"{name}.parquet")
        made.append(FeatureView(name, [key], list(features), source, timestamp=EVENT, ttl=ttl))
    made.append(FeatureService(SERVICE, feature_names()))
    return made


def feature_names() -> list[str]:
    """Return the stored features as the store knows them: ``view:feature``."""
    return (
        [f"flights_weather:{name}" for name in WEATHER]
        + [f"flights_carrier:{name}" for name in CARRIER_DELAYS]
        + [f"flights_origin:{name}" for name in ORIGIN_DELAYS]
    )


def requests(flights: Flights) -> pa.Table:
    """Return what is known of each flight from its schedule, and when the prediction is asked for.

    Columns: ``row`` (its place in the flights), the event time, the categories and the schedule.
    """
    asked = pa.array(flights.asked, pa.timestamp("s", "UTC")).cast(pa.timestamp("us", "UTC"))
    columns = {"row": pa.array(np.arange(len(flights))), EVENT: asked}
    columns |= {name: flights.table[name] for name in (*CATEGORIES, *SCHEDULE)}
    return pa.table(columns)


@dataclass(frozen=True)
class _Hours:
    """A grid of keys by full hours, on which events are counted and summed."""

    first: int
    hours: int
    keys: int

    @classmethod
    def of(cls, flights: Flights, keys: int) -> _Hours:
        landed = flights.arrived[flights.arrived != NEVER]
        last = max(int(flights.asked.max()), int(landed.max(initial=0)))
        first = int(flights.asked.min())
        return cls(first, (last - first) // HOUR + 2, keys)

    def of_events(self, keys: Ints, known: Ints) -> tuple[Ints, Ints]:
        """Return the cell and the row of every event: its key, and the next full hour."""
        rows = np.flatnonzero(known != NEVER)
        hour = -((self.first - known[rows]) // HOUR)
        return keys[rows] * self.hours + hour, rows

    def window(
        self, events: tuple[Ints, Ints], values: Floats, width: int
    ) -> tuple[Floats, Floats]:
        """Return the mean (NaN where there is none) and the count over the last hours."""
        cells, rows = events
        size = self.keys * self.hours
        count = self._rolled(np.bincount(cells, minlength=size), width)
        total = self._rolled(np.bincount(cells, weights=values[rows], minlength=size), width)
        with np.errstate(invalid="ignore"):
            return total / count, count

    def _rolled(self, cells: Any, width: int) -> Floats:
        sums = np.cumsum(cells.reshape(self.keys, self.hours), axis=1, dtype=np.float64)
        sums[:, width:] = sums[:, width:] - sums[:, :-width]
        return sums

    def events(self, key: str, names: list[str], values: dict[str, Floats], told: Floats) -> Events:
        """Return the hours of which there is something to tell, in order of time."""
        hour, code = np.nonzero(told.T)
        columns = {key: pa.array(np.array(names)[code])}
        for name, grid in values.items():
            columns[name] = pa.array(grid[code, hour], from_pandas=True)
        return Events(self.first + hour.astype(np.int64) * HOUR, key, pa.table(columns))


def _codes(flights: Flights, name: str) -> tuple[list[str], Ints]:
    encoded = flights.table[name].combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)

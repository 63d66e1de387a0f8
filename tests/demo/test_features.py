"""No leakage: what a model sees of a flight was known at the hour it was asked about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlopskit.demo import features
from mlopskit.demo.data import DAY, HOUR, NEVER, Flights
from mlopskit.kit import Kit

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


def seconds(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp())  # type: ignore[misc,arg-type] # 3 to 5 numbers


def known_until(events: features.Events, cut: int) -> Any:
    return events.table.slice(0, int(np.searchsorted(events.known, cut, side="right")))


@pytest.fixture(scope="module")
def joined(
    flights: Flights, weather: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> pa.Table:
    """Real rows of the whole year, with what the feature store says of them."""
    folder: Path = tmp_path_factory.mktemp("flights")
    features.write_sources(folder, flights, weather)
    rows = np.random.default_rng(7).choice(len(flights), 120, replace=False)
    with Kit(home=str(folder / "home")) as kit:
        kit.feature_store.apply(*features.views(folder))
        asked = features.requests(flights).take(rows)
        return kit.feature_store.get_historical_features(asked, features.SERVICE)


@pytest.mark.parametrize(
    "cut",
    [
        seconds(2013, 1, 1, 18),
        seconds(2013, 3, 10, 7),
        seconds(2013, 7, 4, 3),
        seconds(2013, 12, 30),
    ],
)
def test_the_future_can_be_changed_at_will_and_no_feature_of_the_past_moves(
    flights: Flights, weather: pa.Table, cut: int
) -> None:
    random = np.random.default_rng(cut)
    left, landed = flights.departed > cut, flights.arrived > cut
    other = replace(
        flights,
        departed=np.where(left, cut + 1 + random.integers(0, DAY, len(flights)), flights.departed),
        arrived=np.where(landed, cut + 1 + random.integers(0, DAY, len(flights)), flights.arrived),
        dep_delay=np.where(left, random.normal(0, 999, len(flights)), flights.dep_delay),
        arr_delay=np.where(landed, random.normal(0, 999, len(flights)), flights.arr_delay),
    )
    before, after = features.build_events(flights, weather), features.build_events(other, weather)
    for view in features.VIEWS:
        told = known_until(before[view], cut)
        assert told.num_rows
        assert told.equals(known_until(after[view], cut)), view


def test_delays_are_those_that_had_been_seen_by_then(flights: Flights, joined: pa.Table) -> None:
    """A count by hand, flight by flight, over real rows."""
    carrier = flights.table["carrier"].to_numpy(zero_copy_only=False)
    origin = flights.table["origin"].to_numpy(zero_copy_only=False)
    for row in joined.to_pylist():
        asked = int(row[features.EVENT].timestamp())
        assert asked <= flights.scheduled[row["row"]]
        landed = (flights.arrived <= asked) & (flights.arrived > asked - 24 * HOUR)
        own = landed & (carrier == row["carrier"])
        recent = own & (flights.arrived > asked - 3 * HOUR)
        here = landed & (origin == row["origin"])
        left = (flights.departed <= asked) & (flights.departed > asked - 2 * HOUR)
        left &= origin == row["origin"]
        if not own.any():  # Then the last known value counts, for three hours.
            continue
        assert row["carrier_late_24h"] == mean(flights.late[own])
        assert row["carrier_late_3h"] == mean(flights.late[recent])
        assert row["carrier_delay_3h"] == mean(flights.arr_delay[recent])
        if here.any():
            assert row["origin_late_24h"] == mean(flights.late[here])
            assert row["origin_departures_2h"] == left.sum()
            assert row["origin_dep_delay_2h"] == mean(flights.dep_delay[left])


def test_weather_is_the_newest_whose_hour_is_over(weather: pa.Table, joined: pa.Table) -> None:
    known, origin = weather["known"].to_numpy(), weather["origin"].to_numpy(zero_copy_only=False)
    temp = weather["temp"].to_numpy(zero_copy_only=False)
    for row in joined.to_pylist():
        asked = int(row[features.EVENT].timestamp())
        there = np.flatnonzero((origin == row["origin"]) & (known <= asked))
        fresh = len(there) and known[there[-1]] >= asked - features.WEATHER_TTL
        assert row["temp"] == (pytest.approx(temp[there[-1]]) if fresh else None)


def test_no_event_is_older_than_what_it_counts(flights: Flights) -> None:
    events = features.carrier_events(flights)
    first = flights.arrived.min()
    assert events.known[0] >= first
    assert events.known[0] - first < HOUR


def test_flights_that_never_leave_are_counted_nowhere(flights: Flights) -> None:
    nobody = np.full(len(flights), NEVER)
    assert (
        features.origin_events(replace(flights, departed=nobody, arrived=nobody)).table.num_rows
        == 0
    )


def mean(values: Any) -> Any:
    return pytest.approx(float(values.mean())) if len(values) else None

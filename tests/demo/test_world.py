from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mlopskit import config
from mlopskit.demo import commands, features, steps
from mlopskit.demo.data import DAY, HOUR, month_start
from mlopskit.demo.monitor import as_served, compare
from mlopskit.demo.world import World

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from mlopskit.demo.data import Flights


@pytest.fixture(scope="module")
def world(flights: Flights, weather: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("world")
    features.write_sources(folder, flights, weather)
    steps.write_flights(folder, flights)
    return World(folder)


@pytest.mark.parametrize("month", [3, 4, 11])
def test_every_flight_of_a_month_is_asked_about_once_at_its_hour(world: World, month: int) -> None:
    """March and November hold the hours that do not exist and that come twice."""
    hours = world.hours(month)
    rows = world.rows(month_start(month), month_start(month + 1))
    assert [hour.first for hour in hours] + [hours[-1].end] == [
        hours[0].first,
        *(hour.end for hour in hours),
    ]
    assert (hours[0].first, hours[-1].end) == (rows[0], rows[-1] + 1)
    for hour in hours:
        assert set(world.asked[hour.first : hour.end].tolist()) == {hour.now}
    assert set(world.flights["month"].take(rows).to_pylist()) == {month}


@pytest.mark.parametrize("month", [3, 11])
def test_every_event_is_learned_once_and_not_before_its_time(world: World, month: int) -> None:
    hours = world.hours(month)
    for view, events in {view: features.VIEWS.index(view) for view in features.VIEWS}.items():
        learned = []
        for hour, before in zip(hours, [None, *hours[:-1]], strict=True):
            since = month_start(month) - HOUR if before is None else before.now
            for time in hour.learned.get(view, {}).get(features.EVENT, []):
                assert since < time.timestamp() <= hour.now
                learned.append(time)
        assert learned == sorted(learned)
        assert len(learned) > 1_000, events


def test_days_begin_before_the_first_flight_leaves(world: World) -> None:
    days = world.days(7)
    assert len(days) == 31
    assert all(day[-1].now - day[0].now < DAY for day in days)
    assert [hour for day in days for hour in day] == world.hours(7)


def test_a_label_counts_from_the_moment_it_is_known(world: World, flights: Flights) -> None:
    end = month_start(8)
    rows = world.rows(month_start(7), end)
    there, late = world.labelled(rows, by=end)
    assert there.sum() == len(late)
    in_the_air = (flights.departed[rows] <= end) & (flights.arrived[rows] > end)
    assert in_the_air.any()
    assert not there[in_the_air & (flights.arrived[rows] > end)].any()
    assert np.array_equal(late, flights.late[rows][there])


def test_a_value_that_differs_from_history_is_counted(world: World) -> None:
    import pyarrow as pa

    past = world.flights.slice(0, 3)
    for name in features.STORED:
        past = past.append_column(name, pa.array([1.0, None, 3.0]))
    served = np.array([[1.0, np.nan, 3.0]] * len(features.STORED)).T
    assert compare(served, past) == (3 * len(features.STORED), 0)
    served[0, 0], served[1, 1], served[2, 2] = 2.0, 0.0, np.nan
    assert compare(served, past) == (3 * len(features.STORED), 3)
    table = as_served(past, served)
    assert tuple(table.column_names) == features.COLUMNS
    assert table[features.STORED[2]].to_pylist() == [1.0, None, None]


def test_commands_say_where_the_program_lies_if_the_shell_would_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / ".venv" / "bin" / "mlopskit"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.chdir(tmp_path)
    assert commands.commands(config.read(environ={}), "f", "m")[2] == ".venv/bin/mlopskit features"
    monkeypatch.chdir(program.parent.parent)
    assert commands.commands(config.read(environ={}), "f", "m")[2] == "bin/mlopskit features"
    program.unlink()
    assert commands.commands(config.read(environ={}), "f", "m")[2].endswith(
        "python -m mlopskit features"
    )


def test_commands_repeat_what_no_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    plain = config.read(environ={})
    assert commands.commands(plain, "flights", "m")[0] == "mlopskit runs --experiment flights"
    given = config.read(
        lines={"home": str(tmp_path / "my home")},
        command_line=["tracking=mlflow:sqlite:///m.db"],
        environ={},
    )
    assert commands.commands(given, "flights", "m")[1] == (
        f"mlopskit --home '{tmp_path}/my home' -c tracking=mlflow:sqlite:///m.db models m"
    )
    assert commands.tools(given)["tracking"] == "mlflow"

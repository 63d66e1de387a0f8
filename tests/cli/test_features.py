"""``mlopskit features``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


@pytest.fixture
def store() -> None:
    """Define a view and a service, and put two entities online."""
    pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    with mk.load() as kit:
        view = mk.FeatureView("weather", ["origin"], {"temp": "float", "sky": "str"}, ttl=3600)
        kit.feature_store.apply(view, mk.FeatureService("delays", ["weather:temp"]))
        events = [
            {"origin": "JFK", "temp": 21.5, "sky": "fair", "event_timestamp": "2013-07-01T10:00Z"},
            {"origin": "LGA", "temp": 22.5, "sky": "rain", "event_timestamp": "2013-07-01T11:00Z"},
        ]
        kit.feature_store.push("weather", events)


@pytest.mark.usefixtures("store")
def test_views_and_services_are_listed_with_what_is_held(cli: Callable[..., Done]) -> None:
    done = cli("features")

    assert done.code == 0, done.err
    assert done.records[0] == [
        "weather",
        "origin",
        "temp, sky",
        "2",
        "2013-07-01 11:00:00Z",
        "1:00:00",
    ]
    assert done.records[-1] == ["delays", "weather:temp"]


@pytest.mark.usefixtures("store")
def test_json_has_the_definitions_and_the_statistics(cli: Callable[..., Done]) -> None:
    found = json.loads(cli("features", "--json").out)

    (view,) = found["views"]
    assert view["dtypes"] == {"temp": "float", "sky": "str"}
    assert view["stats"]["online_rows"] == 2
    assert view["stats"]["newest_event"] == "2013-07-01T11:00:00+00:00"
    assert found["services"] == [{"name": "delays", "features": ["weather:temp"]}]


@pytest.mark.usefixtures("store")
def test_one_view_is_shown_with_its_features_and_users(cli: Callable[..., Done]) -> None:
    done = cli("features", "weather")

    assert done.code == 0, done.err
    assert done.out.startswith("weather\n")
    assert ["services", "delays"] in done.records
    assert ["sky", "str"] in done.records


@pytest.mark.usefixtures("store")
def test_a_view_that_is_not_there_is_told_with_the_nearest(cli: Callable[..., Done]) -> None:
    done = cli("features", "wether")

    assert done.code == 1
    assert "'wether'" in done.err
    assert "weather" in done.err


def test_an_empty_store_says_so_beside_the_output(cli: Callable[..., Done]) -> None:
    pytest.importorskip("duckdb")

    done = cli("features")

    assert done.code == 0
    assert done.records == []
    assert done.err.startswith("There are no feature views.")


def test_a_home_that_cannot_be_made_is_told_with_the_way_out(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    pytest.importorskip("duckdb")
    (tmp_path / "file").write_text("in the way")

    done = cli("features", "--home", str(tmp_path / "file" / "home"))

    assert done.code == 1
    assert "cannot be made" in done.err
    assert "Choose another home with --home" in done.err

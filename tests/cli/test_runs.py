"""``mlopskit runs``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.cli.test_output import on_terminal

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done

HOSTILE = "r\u00e9d-[bold]x[/bold]"


@pytest.fixture
def ids() -> dict[str, str]:
    """Track three runs in two experiments."""
    pytest.importorskip("msgspec")
    found: dict[str, str] = {}
    with mk.load() as kit:
        for name, experiment, loss in (
            ("one", "churn", 0.1 + 0.2),
            (HOSTILE, "churn", float("nan")),
            ("three", "other", 7.0),
        ):
            params = {"opt": {"lr": 0.1}, "note": "\x1b[31mred\ntwo"}
            with kit.tracker.start_run(experiment, name=name, params=params) as run:
                run.log_metrics({"loss": loss}, step=3)
                found[name] = run.id
    return found


def test_every_run_is_one_line_the_latest_first(
    cli: Callable[..., Done], ids: dict[str, str]
) -> None:
    done = cli("runs")

    assert done.code == 0, done.err
    assert [record[:4] for record in done.records] == [
        [ids["three"], "three", "other", "finished"],
        [ids[HOSTILE], HOSTILE, "churn", "finished"],
        [ids["one"], "one", "churn", "finished"],
    ]
    last = done.records[-1]
    assert last[5] == "loss=0.30000000000000004", "every digit is shown"
    assert last[-1] == "note=\\x1b[31mred\\ntwo opt.lr=0.1"


def test_runs_are_chosen_ordered_and_limited(cli: Callable[..., Done], ids: dict[str, str]) -> None:
    chosen = cli("runs", "--where", "metrics.loss < 8 and params.opt.lr = 0.1", "--json")
    ordered = cli("runs", "--order-by", "metrics.loss desc", "--limit", "1")

    names = [each["name"] for each in json.loads(chosen.out)["runs"]]
    assert names == ["three", "one"]
    assert [record[0] for record in ordered.records] == [ids["three"]]
    assert "--all" in ordered.err
    assert len(cli("runs", "--limit", "1", "--all").records) == 3
    assert len(cli("runs", "--experiment", "churn").records) == 2


def test_json_keeps_types_and_nesting(cli: Callable[..., Done], ids: dict[str, str]) -> None:
    found = json.loads(cli("runs", "--json", "--experiment", "churn").out)

    assert found["truncated"] is False
    second, first = found["runs"]
    assert first["id"] == ids["one"]
    assert first["params"] == {"opt": {"lr": 0.1}, "note": "\x1b[31mred\ntwo"}
    assert first["metrics"] == {"loss": 0.1 + 0.2}
    assert second["metrics"] == {"loss": "NaN"}


def test_a_filter_that_cannot_be_read_is_a_mistake_of_the_caller(cli: Callable[..., Done]) -> None:
    pytest.importorskip("msgspec")
    done = cli("runs", "--where", "metrics.loss <")

    assert done.code == 2
    assert done.err.startswith("Error: ")
    assert "Traceback" not in done.err


def test_no_runs_is_told_beside_the_output(cli: Callable[..., Done]) -> None:
    pytest.importorskip("msgspec")
    done = cli("runs")

    assert done.code == 0
    assert done.records == []
    assert done.err == "There are no runs yet.\n"
    assert cli("runs", "--experiment", "x").err == "No run matches.\n"


def test_one_run_is_shown_whole(cli: Callable[..., Done], ids: dict[str, str]) -> None:
    done = cli("runs", ids["one"])

    assert done.code == 0, done.err
    assert done.out.startswith("one\n")
    assert ["id", ids["one"]] in done.records
    last = "0.30000000000000004"
    assert ["loss", "▄", last, last, last, last, "3"] in done.records
    assert ["note", "\\x1b[31mred\\ntwo"] in done.records
    assert ["opt.lr", "0.1"] in done.records
    assert json.loads(cli("runs", ids["one"], "--json").out)["artifacts"] == []


def test_a_run_that_is_not_there_is_told(cli: Callable[..., Done], ids: dict[str, str]) -> None:
    done = cli("runs", "0" * 32)

    assert done.code == 1
    assert "0" * 32 in done.err


def test_a_terminal_shows_ids_that_can_be_told_apart_and_typed(
    cli: Callable[..., Done], ids: dict[str, str]
) -> None:
    with mk.load() as kit:
        for last in "ab":
            kit.tracker.start_run("twins", run_id="12345678" + "0" * 23 + last).finish()
        with kit.tracker.start_run("long") as run:
            run.log_metrics({f"m{at}": at for at in range(10)} | {"system/cpu_percent": 7})

    narrow = on_terminal("runs", "--experiment", "churn", columns=100)
    wide = on_terminal("runs", "--experiment", "churn", columns=160)
    twins = on_terminal("runs", "--experiment", "twins", columns=100)
    long = on_terminal("runs", "--experiment", "long", columns=200)

    assert ids["one"][:8] in narrow
    assert ids["one"][:9] not in narrow
    assert ids["one"] in wide
    assert "12345678" + "0" * 9 in twins, "eight digits are not enough here"
    assert "m5=5 and 4 more" in long
    assert "system/" not in long
    assert "system/cpu_percent=7" in cli("runs", "--experiment", "long").out

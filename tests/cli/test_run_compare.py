"""``mlopskit run compare``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

pytest.importorskip("msgspec")


def logged(run_id: str, lr: float, line: str | None = None) -> None:
    """Log a run."""
    with mk.open_tracker(line) as tracker:
        params = {"lr": lr, "depth": 3}
        with tracker.start_run("e", name=run_id[:4], params=params, run_id=run_id) as run:
            for step in range(10):
                run.log_metric("loss", lr * step, step=step)
            run.log_text("same", "a.txt")


def test_runs_of_two_trackers(cli: Callable[..., Done], tmp_path: Path) -> None:
    there = f"local:{tmp_path / 'there'}"
    logged("a" * 32, 0.5)
    logged("b" * 32, 0.25, there)
    html = tmp_path / "page.html"

    shown = cli("run", "compare", "aaaa", f"{there}::bbbb", "--html", str(html))
    said = json.loads(cli("run", "compare", "aaaa", f"{there}::bbbb", "--json").out)

    assert shown.code == 0, shown.err
    assert "lr     0.5   0.25" in shown.out
    assert "1 param of all are the same." in shown.out
    assert "▁" in shown.out or "_" in shown.out
    assert html.read_text().startswith("<!doctype html>")
    (tmp_path / "any").touch()
    assert html.stat().st_mode == (tmp_path / "any").stat().st_mode
    assert said["params"] == {"lr": [{"value": 0.5}, {"value": 0.25}]}
    assert [each["last"] for each in said["metrics"]["loss"]] == [4.5, 2.25]
    assert len(set(said["artifacts"]["a.txt"])) == 1


def test_a_place_that_does_not_exist_is_refused_and_not_made(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    logged("a" * 32, 0.5)

    refused = cli("run", "compare", "aaaa", f"local:{tmp_path}/nothere::bbbb")

    assert refused.code == 1
    assert "There is no store of runs" in refused.err
    assert not (tmp_path / "nothere").exists()


def test_a_page_without_a_folder_is_refused_at_once(cli: Callable[..., Done]) -> None:
    refused = cli("run", "compare", "aaaa", "bbbb", "--html", "nowhere/page.html")

    assert refused.code == 2
    assert "There is no folder" in refused.err


def test_the_best_value_is_named_where_a_direction_is_given(cli: Callable[..., Done]) -> None:
    logged("a" * 32, 0.5)
    logged("b" * 32, 0.25)

    shown = cli("run", "compare", "aaaa", "bbbb", "--maximize", "loss")
    said = json.loads(cli("run", "compare", "aaaa", "bbbb", "--minimize", "loss", "--json").out)
    unknown = cli("run", "compare", "aaaa", "bbbb", "--minimize", "los")

    assert shown.code == 0, shown.err
    assert "The best is the highest of loss." in shown.out
    assert "4.5 *" in shown.out
    assert "2.25 *" not in shown.out
    assert said["directions"] == {"loss": "minimize"}
    assert [(each["best"], each["best_step"]) for each in said["metrics"]["loss"]] == [(0.0, 0)] * 2
    assert unknown.code == 1
    assert "loss" in unknown.err


def test_one_run_or_none_such_is_an_error(cli: Callable[..., Done]) -> None:
    logged("a" * 32, 0.5)

    alone, missing = cli("run", "compare", "aaaa"), cli("run", "compare", "aaaa", "cccc")

    assert (alone.code, missing.code) == (2, 1)
    assert "two runs at least" in alone.err
    assert "cccc" in missing.err

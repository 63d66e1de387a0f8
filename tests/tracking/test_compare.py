"""Runs beside each other."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from mlopskit.errors import InvalidInput, NotFound
from mlopskit.kit import Kit
from mlopskit.tracking.compare import ABSENT, compare_runs
from mlopskit.tracking.compare_page import page

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import RunRecord

pytest.importorskip("msgspec")


def logged(tracker: Tracker, seed: int, name: str = "<b>run</b>") -> tuple[Tracker, RunRecord]:
    """Log a run that shares some with the others."""
    params = {"lr": 0.1 * seed, "one": 1 if seed else True, "deep": {"a": seed, "b": 2}}
    with tracker.start_run("e", name=name, params=params, tags={"team": "x"}) as run:
        for step in range(500):
            run.log_metric("loss", math.sin(step / 50) + seed, step=step)
        run.log_metric("big", 2**2000 if seed else math.nan)
        if seed:
            run.log_metric("<only>", 1e308 * (-1) ** seed, step=3)
            run.log_metric("<only>", -1e308, step=4)
        run.log_text("same", "same.txt")
        run.log_text(f"{seed}", "different.txt")
        if seed:
            run.log_text("x", "more.txt")
    return tracker, tracker.get_run(run.id)


def test_what_differs_and_what_does_not(tmp_path: Path) -> None:
    """Over two trackers; one is not True, and 0.1 is 0.1."""
    with (
        Kit(tracking="local", home=tmp_path / "a") as one,
        Kit(tracking="local", home=tmp_path / "b") as other,
    ):
        runs = [logged(one.tracker, 0), logged(other.tracker, 1)]
        found = compare_runs(runs)
        with pytest.raises(InvalidInput, match="two runs at least"):
            compare_runs(runs[:1])

    assert found.params == {"deep.a": (0, 1), "lr": (0.0, 0.1), "one": (True, 1)}
    assert (found.same_params, found.tags, found.same_tags) == (1, {}, 1)
    loss = found.metrics["loss"]
    assert loss[0] is not None
    assert loss[0].last == math.sin(499 / 50)
    assert loss[0].last_step == 499
    assert loss[0].lowest == min(math.sin(step / 50) for step in range(500))
    assert loss[0].highest == max(math.sin(step / 50) for step in range(500))
    assert len(loss[0].values) <= 200
    assert found.metrics["<only>"][0] is None
    same, different, more = (found.artifacts[f"{n}.txt"] for n in ("same", "different", "more"))
    assert same[0] == same[1]
    assert different[0] != different[1]
    assert more[0] is None
    assert repr(ABSENT) == "-"
    assert {column.target for column in found.columns} == {one.tracker.target, other.tracker.target}
    labels = [column.label for column in found.columns]
    assert labels == [f"<b>run</b> {run.id[:8]}" for _, run in runs]


def test_the_best_is_what_the_direction_asks_for(tmp_path: Path) -> None:
    """With its step, and the run that has it; both ends stay, and without one there is no best."""
    with Kit(tracking="local", home=tmp_path) as kit:
        runs = [logged(kit.tracker, seed) for seed in (0, 1, 2)]
        up = compare_runs(runs, maximize=["loss"])
        down = compare_runs(runs, minimize=("loss", "<only>"))
        plain = page(compare_runs(runs))
        with pytest.raises(NotFound, match="loss"):
            compare_runs(runs, maximize=["los"])
        with pytest.raises(InvalidInput, match="maximized and minimized"):
            compare_runs(runs, maximize="loss", minimize="loss")

    values = [math.sin(step / 50) for step in range(500)]
    highest, lowest = up.metrics["loss"], down.metrics["loss"]
    assert [each.best for each in highest if each] == [max(values) + seed for seed in (0, 1, 2)]
    assert [each.best_step for each in highest if each] == [values.index(max(values))] * 3
    assert [each.best for each in lowest if each] == [min(values) + seed for seed in (0, 1, 2)]
    assert [each.best_step for each in lowest if each] == [values.index(min(values))] * 3
    assert [each.lowest for each in highest if each] == [each.best for each in lowest if each]
    assert [each.highest for each in lowest if each] == [each.best for each in highest if each]
    assert (up.directions, up.winners("loss"), up.winners("big")) == (
        {"loss": "maximize"},
        (2,),
        (),
    )
    assert (down.winners("loss"), down.winners("<only>")) == ((0,), (1, 2))
    assert all(each is None or each.best is None for each in up.metrics["<only>"])
    assert page(up).count("best of all: ") == 1
    assert page(down).count("best of all: ") == 3
    assert "best: " not in plain


class Checked(HTMLParser):
    """Gathers tags, and refuses what would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See one."""
        self.tags.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onload"}


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """And shows hostile names as they are; what no float holds breaks no curve."""
    with Kit(tracking="local", home=tmp_path) as kit:
        text = page(compare_runs([logged(kit.tracker, seed) for seed in (0, 1, 2)]))
    read = Checked()
    read.feed(text)
    read.close()

    assert "b" not in read.tags
    assert "script" not in read.tags
    assert read.tags.count("figure") == 2
    assert read.tags.count("polyline") == 5
    assert not re.search(r"https?:", text)
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<style>.*?</style>", "", text).split("<svg")[1])
    assert "&lt;only&gt;" in text
    assert len(text) < 400_000

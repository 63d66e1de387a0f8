"""Runs beside each other."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from mlopskit.errors import InvalidInput
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

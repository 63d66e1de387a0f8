"""Events of runs reach the listeners."""

from __future__ import annotations

import math
import queue
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput
from mlopskit.kit import Kit
from mlopskit.tool import Context
from mlopskit.tracking.alerts import AlertRules, Watch
from mlopskit.tracking.entities import MetricsLogged, RunEvent, RunRecord
from mlopskit.tracking.local import LocalTracker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.core

RUN = RunRecord(id="a" * 32, name="n", experiment="e", status="running")


class Heard:
    """A watch over a run that is only told about, and what it said."""

    def __init__(self, **rules: Any) -> None:
        self.now = 0.0
        self.events: list[RunEvent] = []
        self.watch = Watch(AlertRules(**rules), RUN, self.events.append, lambda: self.now)
        self._position = 0

    def log(self, step: int, **metrics: float) -> None:
        self._position += 1
        self.watch.see(MetricsLogged(self._position, 0, step, metrics))

    @property
    def said(self) -> list[tuple[str, str | None, Any, int | None]]:
        return [(each.kind, each.key, each.value, each.step) for each in self.events]


def test_a_threshold_tells_once_until_the_metric_came_back() -> None:
    heard = Heard(when=["metrics.loss > 10", "metrics.acc < 0.5 and metrics.loss < 1"])
    for step, loss in enumerate([1.0, 11.0, 12.0, 2.0, 13.0]):
        heard.log(step, loss=loss)
    heard.log(5, acc=0.1)
    heard.log(6, loss=0.5)

    assert heard.said == [
        ("threshold", "loss", 11.0, 1),
        ("threshold", "loss", 13.0, 4),
        ("threshold", "acc", 0.1, 5),
    ]
    assert "metrics.loss > 10" in heard.events[0].text


def test_what_is_not_finite_tells_once_for_each_metric() -> None:
    heard = Heard()
    for step, value in enumerate([math.nan, math.nan, 1.0, math.inf]):
        heard.log(step, loss=value)
        heard.log(step, fine=1.0)

    assert [(kind, step) for kind, _, _, step in heard.said] == [("nan", 0), ("nan", 3)]
    assert not Heard(nan=False).said


def test_a_run_that_logs_nothing_for_long_tells_once_and_again_after_it_went_on() -> None:
    heard = Heard(stalled_s=60)
    for now, logs in [(59, False), (60, False), (100, True), (159, False), (161, False)]:
        heard.now = now
        if logs:
            heard.log(1, loss=1.0)
        heard.watch.look()

    assert [each.kind for each in heard.events] == ["stalled", "stalled"]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"when": ["metrics.loss >"]}, "column"),
        ({"when": ["params.lr > 1"]}, "must compare metrics"),
        ({"when": ""}, "must compare metrics"),
        ({"stalled_s": 0}, "stalled_s"),
        ({"sooner": True}, "sooner"),
        ("nan", "a table"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused_when_the_tracker_is_opened(
    tmp_path: Path, rules: Any, said: str
) -> None:
    with (
        pytest.raises(InvalidInput, match=said),
        Kit(tracking={"backend": "local", "alerts": rules}, home=tmp_path) as kit,
    ):
        kit.tracker.ping()


def test_listeners_hear_of_a_run_while_it_goes_on_and_of_its_end(tmp_path: Path) -> None:
    heard: queue.Queue[RunEvent] = queue.Queue()

    def notify(name: str, **details: Any) -> None:
        if name == "run_alerted":
            heard.put(details["alert"])

    tracker = LocalTracker(tmp_path / "store", alerts={"when": "metrics.loss > 10"})
    tracker.context = Context(home=tmp_path, notify=notify)
    with pytest.raises(ZeroDivisionError), tracker.start_run("e", name="n") as run:
        run.alert("look at ghp_" + "a1B2" * 9, level="info")
        first = heard.get(timeout=30)
        run.log_metric("loss", 11.0, step=7)
        second = heard.get(timeout=30)
        1 / 0  # noqa: B018 - on purpose
    third = heard.get(timeout=30)
    tracker.close()

    assert (first.kind, first.text, first.level) == ("message", "look at [redacted]", "info")
    assert (second.kind, second.key, second.value, second.step) == ("threshold", "loss", 11.0, 7)
    assert (third.kind, third.level) == ("failed", "error")
    assert {(each.run_id, each.run_name, each.experiment) for each in (first, second, third)} == {
        (run.id, "n", "e")
    }
    assert heard.empty()


def test_a_listener_that_fails_harms_no_run(tmp_path: Path) -> None:
    def notify(name: str, **details: Any) -> None:
        raise RuntimeError("on purpose")

    tracker = LocalTracker(tmp_path / "store", alerts={})
    tracker.context = Context(home=tmp_path, notify=notify)
    with tracker.start_run() as run:
        run.log_metric("loss", math.nan)
        run.alert("text")

    assert tracker.get_run(run.id).status == "finished"
    tracker.close()

"""Webhooks, against a real server on the loopback interface."""

from __future__ import annotations

import fcntl
import json
import math
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry.receiver import SECRET, Receiver, until

from mlopskit.errors import NotFound
from mlopskit.registry import GateResult
from mlopskit.registry.local import LocalRegistry
from mlopskit.registry.webhooks import delivery
from mlopskit.registry.webhooks.delivery import message_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.core, pytest.mark.network]


@pytest.fixture
def registry(opened: Callable[..., LocalRegistry]) -> LocalRegistry:
    return opened()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing tried again but by `deliver_webhooks`."""
    monkeypatch.setattr(delivery, "drawn", lambda longest: 3600.0)


def actions(receiver: Receiver) -> list[str]:
    return [each.said["type"] for each in receiver.messages]


def status(registry: LocalRegistry) -> Any:
    (found,) = registry.webhooks()
    return found


def idle(registry: LocalRegistry) -> None:
    """Wait until the threads have nothing more to do now."""
    until(lambda: all(c._thread is None for c in registry._begun()[1]))


# What is told.


def test_what_happens_is_told_in_its_order_and_signed(
    registry: LocalRegistry, receiver: Receiver, source: Path
) -> None:
    registry.register("churn.model", source)
    registry.set_alias("churn.model", "champion", 1)
    registry.update_version("churn.model", 1, description="not asked for")
    registry.promote("churn.model", 1, "production", why="half a point better")
    until(lambda: len(receiver.messages) == 3)

    assert actions(receiver) == ["model.registered", "model.alias_set", "model.promoted"]
    history = registry.history("churn.model")
    last = receiver.messages[-1]
    assert last.said["data"] == json.loads(history[-1].model_dump_json())
    assert last.said["timestamp"] == history[-1].at.isoformat().replace("+00:00", "Z")
    assert last.headers["content-type"] == "application/json"
    assert last.path == "/hooks/token-in-path?k=v"
    assert len({each.id for each in receiver.messages}) == 3
    assert all("." not in each.id for each in receiver.messages)
    idle(registry)
    assert (status(registry).delivered, status(registry).pending) == (3, 0)


def test_every_action_of_the_history_can_be_asked_for(
    opened: Callable[..., LocalRegistry], receiver: Receiver, source: Path
) -> None:
    registry = opened(events=["refused", "edited", "deleted", "alias_deleted", "requested"])
    registry.register("churn", source)
    registry.register("churn", source)
    registry.promote("churn", 1, "production", [lambda asked: False])
    registry.update_model("churn", description="x")
    registry.set_alias("churn", "a", 2)
    registry.delete_alias("churn", "a")
    registry.request_approval("churn", 1, "production", why="x")
    registry.delete_version("churn", 2, consent=True)
    until(lambda: len(receiver.messages) == 5)

    assert [each.split(".")[1] for each in actions(receiver)] == [
        "refused",
        "edited",
        "alias_deleted",
        "requested",
        "deleted",
    ]


def test_what_was_there_before_the_webhook_is_not_told(
    home: Path, opened: Callable[..., LocalRegistry], receiver: Receiver, source: Path
) -> None:
    with LocalRegistry(home) as before:
        before.register("churn", source)
    registry = opened()
    registry.register("churn", source)
    with LocalRegistry(home) as beside:
        beside.register("new", source)
    registry.deliver_webhooks()

    told = [(each.said["data"]["name"], each.said["data"]["version"]) for each in receiver.messages]
    assert told == [("churn", 2), ("new", 1)]


def test_numbers_that_json_does_not_know_are_told_as_texts(
    registry: LocalRegistry, receiver: Receiver, source: Path
) -> None:
    registry.register("churn", source)
    evidence = {"auc": math.nan, "worst": [math.inf, 1.5]}
    registry.promote(
        "churn", 1, "staging", [lambda asked: GateResult(passed=True, evidence=evidence)]
    )
    until(lambda: len(receiver.messages) == 2)

    (found,) = receiver.messages[1].said["data"]["decision"]["evidence"].values()
    assert found == {"auc": "nan", "worst": ["inf", 1.5]}


def test_a_long_decision_is_told_without_its_evidence(
    registry: LocalRegistry, receiver: Receiver, source: Path
) -> None:
    registry.register("churn", source)
    gate = lambda asked: GateResult(passed=True, reason="fine", evidence={"x": "y" * 100_000})  # noqa: E731
    registry.promote("churn", 1, "staging", [gate])
    until(lambda: len(receiver.messages) == 2)

    data = receiver.messages[1].said["data"]
    assert data["shortened"] is True
    assert data["decision"]["evidence"] == {}
    assert "fine" in data["decision"]["reasons"][0]
    assert len(receiver.messages[1].body) < 10_000


def test_an_id_is_of_one_entry_of_one_registry(tmp_path: Path, source: Path) -> None:
    found = []
    for place in ("a", "b"):
        with LocalRegistry(tmp_path / place) as registry:
            registry.register("churn", source)
            registry.register("chu.rn", source)
            found += [message_id(registry.history(name)[0]) for name in ("churn", "chu.rn")]
    assert len(set(found)) == 4


# Failures.


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (500, "HTTP 500"),
        (404, "HTTP 404"),
        ((302, {"location": "/elsewhere"}), "HTTP 302; redirects are not followed"),
        ("reset", "ConnectionResetError"),
        ("hang", "no answer within 0.5 seconds"),
        ("drip", "no answer within 0.5 seconds"),
    ],
)
def test_what_failed_is_tried_again_with_the_same_id_and_a_new_time(
    opened: Callable[..., LocalRegistry],
    receiver: Receiver,
    source: Path,
    answer: Any,
    error: str,
) -> None:
    registry = opened(timeout_s=0.5)
    receiver.answers = [answer]
    registry.register("churn", source)
    until(lambda: status(registry).tries == 1)
    found = status(registry)
    assert error in found.error
    assert (found.pending, found.delivered) == (1, 0)
    assert found.next_try_at > datetime.now(UTC)

    assert registry.deliver_webhooks()[0].delivered == 0, "it waits for its next try"
    assert registry.deliver_webhooks(now=True)[0].delivered == 1

    first, second = receiver.messages
    assert first.id == second.id
    assert first.said == second.said
    assert status(registry).error == ""


def test_a_thread_tries_again_until_it_is_taken(
    registry: LocalRegistry, receiver: Receiver, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "BASE_S", 0.01)
    receiver.answers = [503, 503, "reset", 200]
    registry.register("churn", source)
    until(lambda: len(receiver.messages) == 4)
    idle(registry)

    assert len({each.id for each in receiver.messages}) == 1
    assert status(registry).delivered == 1


def test_pauses_grow_and_are_drawn_at_random(
    opened: Callable[..., LocalRegistry], monkeypatch: pytest.MonkeyPatch, source: Path
) -> None:
    pauses = [delivery.longest_pause(tries) for tries in (1, 2, 3, 7, 8, 1000)]
    assert pauses == [5.0, 20.0, 80.0, 20_480.0, 21_600.0, 21_600.0]
    assert all(0.0 <= delivery.drawn(5.0) <= 5.0 for _ in range(100))
    assert len({delivery.drawn(5.0) for _ in range(100)}) > 50
    asked: list[float] = []

    def drawn(longest: float) -> float:
        asked.append(longest)
        return 3600.0

    monkeypatch.setattr(delivery, "drawn", drawn)
    registry = opened(url="http://127.0.0.1:1/")
    registry.register("churn", source)
    until(lambda: asked)
    registry.deliver_webhooks(now=True)
    assert asked == [5.0, 20.0]


@pytest.mark.usefixtures("patient")
def test_nothing_overtakes_what_failed(
    registry: LocalRegistry, receiver: Receiver, source: Path
) -> None:
    receiver.answers = [500]
    registry.register("a", source)
    until(lambda: status(registry).tries == 1)
    registry.register("b", source)
    idle_or_waiting = registry.deliver_webhooks()
    assert idle_or_waiting[0].pending == 2
    assert len(receiver.messages) == 1

    registry.deliver_webhooks(now=True)
    assert [each.said["data"]["name"] for each in receiver.messages] == ["a", "a", "b"]


@pytest.mark.usefixtures("patient")
def test_what_failed_too_often_is_set_aside_and_can_be_sent_once_more(
    opened: Callable[..., LocalRegistry], receiver: Receiver, source: Path
) -> None:
    registry = opened(tries=2)
    receiver.answers = [500, 502, 204, 503]
    registry.register("churn", source)
    until(lambda: status(registry).tries == 1)
    registry.register("churn", source)
    registry.deliver_webhooks(now=True)

    (dead,) = registry.dead_letters()
    assert (dead.name, dead.tries, dead.error) == ("churn", 2, "HTTP 502")
    assert dead.entry == registry.history("churn")[0].id
    found = status(registry)
    assert (found.delivered, found.pending, found.dead, found.error) == (1, 0, 1, "HTTP 502")

    registry.deliver_webhooks(dead=True)
    assert registry.dead_letters()[0].tries == 3
    registry.deliver_webhooks(dead=True)
    assert registry.dead_letters() == []
    assert status(registry).delivered == 2
    assert [each.said["data"]["version"] for each in receiver.messages] == [1, 1, 2, 1, 1]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("status_", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept_to(
    registry: LocalRegistry,
    receiver: Receiver,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    status_: int,
    form: str,
) -> None:
    monkeypatch.setattr(delivery, "drawn", lambda longest: 0.0)
    when = datetime.now(UTC) + timedelta(hours=3)
    after = "10800" if form == "seconds" else when.strftime("%a, %d %b %Y %H:%M:%S GMT")
    receiver.answers = [(status_, {"retry-after": after})]
    registry.register("churn", source)
    until(lambda: status(registry).tries == 1)

    assert abs(status(registry).next_try_at - when) < timedelta(minutes=5)
    registry.deliver_webhooks()
    assert len(receiver.messages) == 1


@pytest.mark.parametrize("after", ["soon", "-1", "9" * 400, "Thu, 99 Foo 2026", "\u00b2"])
def test_a_retry_after_that_makes_no_sense_is_no_reason_to_wait_for_ever(after: str) -> None:
    from mlopskit.registry.webhooks.post import LONGEST_PAUSE_S, _pause

    assert 0.0 <= _pause(after) <= LONGEST_PAUSE_S


def test_410_disables_until_it_is_enabled(
    registry: LocalRegistry, receiver: Receiver, source: Path
) -> None:
    receiver.answers = [410]
    registry.register("churn", source)
    until(lambda: status(registry).disabled)
    registry.register("churn", source)
    registry.deliver_webhooks(now=True)
    assert len(receiver.messages) == 1
    assert "410" in status(registry).disabled

    registry.enable_webhook(status(registry).id)
    registry.deliver_webhooks(now=True)
    until(lambda: len(receiver.messages) == 3)
    assert [each.said["data"]["version"] for each in receiver.messages] == [1, 1, 2]
    with pytest.raises(NotFound, match=status(registry).id):
        registry.enable_webhook("nobody")


def test_one_that_hangs_keeps_no_other_and_no_caller_waiting(
    home: Path, receiver: Receiver, source: Path
) -> None:
    other = Receiver()
    receiver.answers = ["hang"]
    hooks = [{"url": each.url, "secret": SECRET} for each in (receiver, other)]
    with LocalRegistry(home, webhooks=hooks) as registry:
        for _ in range(5):
            registry.register("churn", source)
        until(lambda: len(other.messages) == 5)
        assert len(receiver.messages) == 1
        receiver.release.set()
        until(lambda: len(receiver.messages) == 5)
    other.close()


def test_closing_waits_for_a_bounded_time_and_loses_nothing(
    opened: Callable[..., LocalRegistry],
    receiver: Receiver,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "CLOSE_S", 0.2)
    receiver.answers = ["hang"]
    registry = opened()
    registry.register("churn", source)
    registry.register("churn", source)
    until(lambda: len(receiver.messages) == 1)
    (courier,) = registry._begun()[1]
    registry.close()
    thread = courier._thread
    assert thread is not None
    receiver.release.set()
    thread.join(30)
    assert not thread.is_alive()
    assert len(receiver.messages) == 1

    assert opened().deliver_webhooks()[0].delivered == 2, "what was under way is written down"
    assert [each.said["data"]["version"] for each in receiver.messages] == [1, 2]


def test_closing_delivers_what_is_new(
    opened: Callable[..., LocalRegistry], receiver: Receiver, source: Path
) -> None:
    registry = opened()
    for _ in range(5):
        registry.register("churn", source)
    registry.close()
    registry.close()
    assert len(receiver.messages) == 5


def test_closing_waits_for_another_process_that_is_at_it(
    home: Path, registry: LocalRegistry, receiver: Receiver, source: Path
) -> None:
    registry.register("churn", source)
    idle(registry)
    (courier,) = registry._begun()[1]
    with courier._path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        registry.register("churn", source)

        def finish() -> None:
            until(lambda: courier._stopping)
            time.sleep(0.5)
            fcntl.flock(file, fcntl.LOCK_UN)

        other = threading.Thread(target=finish)
        other.start()
        registry.close()
        other.join()
    assert [each.said["data"]["version"] for each in receiver.messages] == [1, 2]


def test_a_registry_works_on_where_webhooks_cannot(
    home: Path, registry: LocalRegistry, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "webhooks.db").mkdir(parents=True)
    assert registry.register("churn", source).version == 1
    assert "Webhooks are not told for now" in caplog.text


def test_threads_may_change_the_registry_at_once(
    registry: LocalRegistry, receiver: Receiver, source: Path
) -> None:
    start = threading.Barrier(8)

    def work(name: str) -> None:
        start.wait()
        for _ in range(5):
            registry.register(name, source)

    threads = [threading.Thread(target=work, args=(f"model-{i}",)) for i in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    until(lambda: len(receiver.messages) >= 40)
    idle(registry)
    assert len(receiver.messages) == len({each.id for each in receiver.messages}) == 40
    assert status(registry).delivered == 40

"""Webhooks beside other processes, on a full disk, without threads, and with odd answers."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry.receiver import SECRET, Receiver, until

from mlopskit.errors import IntegrityError, NotFound, StorageError, Unavailable
from mlopskit.registry import Decision
from mlopskit.registry.entities import HistoryEntry
from mlopskit.registry.local import LocalRegistry
from mlopskit.registry.webhooks import delivery
from mlopskit.registry.webhooks.config import webhooks_of
from mlopskit.registry.webhooks.delivery import Courier, message
from mlopskit.registry.webhooks.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry.entities import ModelVersion

pytestmark = [pytest.mark.core, pytest.mark.network]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing tried again but by `deliver_webhooks`."""
    monkeypatch.setattr(delivery, "drawn", lambda longest: 3600.0)


def status(registry: LocalRegistry) -> Any:
    (found,) = registry.webhooks()
    return found


def idle(registry: LocalRegistry) -> None:
    """Wait until the threads have nothing more to do now."""
    until(lambda: all(c._thread is None for c in registry._begun()[1]))


def told(receiver: Receiver) -> list[tuple[str, int]]:
    return [(each.said["data"]["name"], each.said["data"]["version"]) for each in receiver.messages]


# Other processes. What they share is the registry's folder, so a second registry stands for one.


@pytest.mark.usefixtures("patient")
def test_what_another_process_tried_in_vain_is_not_overtaken(
    home: Path, opened: Callable[..., LocalRegistry], receiver: Receiver, source: Path
) -> None:
    one, other = opened(), opened()
    other.register("other", source)
    idle(other)
    receiver.answers = [500]
    one.register("one", source)
    until(lambda: status(one).tries == 1)
    with LocalRegistry(home) as quiet:
        quiet.register("other", source)
    (courier,) = other._begun()[1]
    assert courier._looked({"other"}).pause_s, "it waits with what the other one waits for"
    assert told(receiver) == [("other", 1), ("one", 1)]

    other.deliver_webhooks(now=True)
    assert told(receiver)[2:] == [("one", 1), ("other", 2)]


def test_what_a_process_left_is_delivered_by_one_that_has_looked_before(
    home: Path,
    opened: Callable[..., LocalRegistry],
    receiver: Receiver,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "LOOK_S", 0.0)
    registry = opened()
    registry.register("mine", source)
    idle(registry)
    with LocalRegistry(home) as killed:
        killed.register("left", source)
    registry.register("mine", source)
    until(lambda: len(receiver.messages) == 3)
    assert told(receiver) == [("mine", 1), ("left", 1), ("mine", 2)]


# Trouble of one's own.


def test_a_message_that_was_taken_is_not_sent_again_while_the_disk_is_full(
    opened: Callable[..., LocalRegistry],
    receiver: Receiver,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "TROUBLE_S", 0.01)
    done = Outbox.done
    refused: list[Any] = []

    def full(self: Outbox, *args: Any, **more: Any) -> None:
        if len(refused) < 5:
            refused.append(args)
            raise StorageError("no space left on device")
        done(self, *args, **more)

    monkeypatch.setattr(Outbox, "done", full)
    registry = opened()
    registry.register("churn", source)
    registry.register("churn", source)
    until(lambda: len(receiver.messages) >= 2)
    idle(registry)
    assert len(refused) == 5
    assert told(receiver) == [("churn", 1), ("churn", 2)]
    assert status(registry).delivered == 2


def test_a_thread_that_cannot_be_started_is_started_by_the_next_change(
    opened: Callable[..., LocalRegistry],
    receiver: Receiver,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = opened()
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name == "mlopskit webhook":
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert registry.register("churn", source).version == 1
        registry.close()
    registry = opened()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        registry.register("churn", source)
    registry.register("churn", source)
    until(lambda: len(receiver.messages) == 3)
    assert told(receiver) == [("churn", 1), ("churn", 2), ("churn", 3)]


def test_what_happened_while_a_webhook_could_not_begin_is_told_once_it_can(
    home: Path, opened: Callable[..., LocalRegistry], receiver: Receiver, source: Path
) -> None:
    with LocalRegistry(home) as before:
        before.register("churn", source)
    blocked = home / "webhooks.db"
    blocked.mkdir()
    registry = opened()
    registry.register("churn", source)
    registry.register("new", source)
    blocked.rmdir()
    registry.register("churn", source)
    until(lambda: len(receiver.messages) == 3)
    assert told(receiver) == [("churn", 2), ("new", 1), ("churn", 3)]


class Lossy(LocalRegistry):
    """A registry whose tool does what it is asked, and is away before it says so."""

    def _set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        quietly: Any = LocalRegistry._set_alias
        quietly.__wrapped__(self, name, alias, version)
        raise Unavailable("the tool", "the connection was lost")


def test_a_change_whose_answer_was_lost_is_told(
    home: Path, receiver: Receiver, source: Path
) -> None:
    hook = {"url": receiver.url, "secret": SECRET, "events": ["alias_set"]}
    with Lossy(home, webhooks=[hook]) as registry:
        registry.register("churn", source)
        idle(registry)
        with pytest.raises(Unavailable):
            registry.set_alias("churn", "champion", 1)
        until(lambda: receiver.messages)
    assert receiver.messages[0].said["data"]["alias"] == "champion"


# What was set aside.


@pytest.mark.usefixtures("patient")
def test_one_who_is_away_is_not_asked_about_everything_that_was_set_aside(
    opened: Callable[..., LocalRegistry], receiver: Receiver, source: Path
) -> None:
    registry = opened(tries=1)
    receiver.answers = [500, 500, 500]
    for _ in range(3):
        registry.register("churn", source)
    until(lambda: len(registry.dead_letters()) == 3)

    receiver.answers = [503]
    registry.deliver_webhooks(dead=True)
    assert len(receiver.messages) == 4
    assert sorted(each.tries for each in registry.dead_letters()) == [1, 1, 2]

    receiver.answers = [422]
    registry.deliver_webhooks(dead=True)
    assert len(receiver.messages) == 7, "one that is not wanted keeps no other back"
    assert len(registry.dead_letters()) == 1


# Answers.


@pytest.fixture
def parrot() -> Iterator[str]:
    """Answer every request with its own first line, and yield the URL."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.sendall(peer.recv(1 << 16).partition(b"\r\n")[0] + b"\r\n\r\n")
                while peer.recv(1 << 16):
                    pass

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/hooks/token-in-path"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.usefixtures("patient")
def test_a_path_that_comes_back_in_the_answer_is_neither_stored_nor_logged(
    home: Path,
    opened: Callable[..., LocalRegistry],
    parrot: str,
    source: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = opened(url=parrot)
    registry.register("churn", source)
    until(lambda: status(registry).tries == 1)

    assert status(registry).error == "the answer is not HTTP (BadStatusLine)"
    assert "churn" in caplog.text, "the failure was logged"
    assert "token-in-path" not in caplog.text
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"token-in-path" not in stored


class Briefly:
    """Histories that cannot be read at first."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0

    def models(self) -> list[str]:
        return ["churn"]

    def entries(self, name: str) -> list[HistoryEntry]:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return [entry(action="registered")]


def courier_of(receiver: Receiver, source: Briefly, folder: Path) -> Courier:
    (hook,) = webhooks_of({"url": receiver.url, "secret": SECRET})
    outbox = Outbox(folder / "webhooks.db")
    outbox.begin(hook.id, dict)
    return Courier(hook, source, outbox, folder, redact=str)


def test_a_history_that_could_not_be_read_is_told_as_soon_as_it_can(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TROUBLE_S", 0.01)
    away = Unavailable("the tool", "the connection was lost")
    courier = courier_of(receiver, Briefly(away, away), tmp_path)
    courier.wake("churn")
    until(lambda: courier._thread is None)
    assert [each.said["data"]["name"] for each in receiver.messages] == ["churn"]


def test_a_damaged_history_is_not_read_for_ever(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TROUBLE_S", 0.01)
    damaged = Briefly(IntegrityError("A line", "one", "another"))
    courier = courier_of(receiver, damaged, tmp_path)
    courier.wake("churn")
    until(lambda: courier._thread is None)
    assert damaged.asked == 1
    assert receiver.messages == []


def test_secrets_are_taken_out_of_what_a_registry_says_of_its_own_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def models(self) -> list[str]:
            return ["churn"]

        def entries(self, name: str) -> list[HistoryEntry]:
            raise NotFound("model", "hunter2")

    (hook,) = webhooks_of({"url": "http://127.0.0.1:1/", "secret": SECRET})
    courier = Courier(
        hook,
        Broken(),
        Outbox(tmp_path / "webhooks.db"),
        tmp_path,
        redact=lambda text: text.replace("hunter2", "[redacted]"),
    )
    assert courier.queue(["churn"]) == []
    assert "[redacted]" in caplog.text
    assert "hunter2" not in caplog.text


# Long messages.


def entry(**fields: Any) -> HistoryEntry:
    given = {"id": 1, "name": "churn", "version": 1, "at": datetime.now(UTC), "after": "none"}
    return HistoryEntry(**{**given, **fields})


@pytest.mark.parametrize(
    "long",
    [
        entry(action="refused", decision=Decision(approved=False, reasons=("x" * 100_000,))),
        entry(action="edited", details={"tags": {"notes": "x" * 100_000}}),
        entry(action="promoted", why="x" * 100_000),
    ],
    ids=lambda each: each.action,
)
def test_a_message_stays_short_whatever_made_it_long(long: HistoryEntry) -> None:
    body = message(long)
    assert len(body) < 3000
    assert b'"shortened":true' in body


def test_texts_stay_whole_where_leaving_the_evidence_out_is_enough() -> None:
    reason = "x" * 2000
    decision = Decision(approved=True, reasons=(reason,), evidence={"gate": {"y": "z" * 100_000}})
    body = message(entry(action="promoted", decision=decision)).decode()
    assert reason in body
    assert '"evidence":{}' in body

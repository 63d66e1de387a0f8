"""Webhooks where processes are killed, run beside each other, fork and end."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.registry.receiver import SECRET, Receiver, until

from mlopskit.registry.webhooks.delivery import message_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlopskit.registry.local import LocalRegistry

pytestmark = [pytest.mark.core, pytest.mark.network]


CHILD = """
import os, sys, time
from mlopskit.registry.webhooks import outbox
from mlopskit.registry.local import LocalRegistry
home, url, secret, source, how = sys.argv[1:]
registry = LocalRegistry(home, webhooks=[{"url": url, "secret": secret}])
if how == "dies between":
    outbox.Outbox.done = lambda *a, **k: os.kill(os.getpid(), 9)
    registry.register("churn", source)
    time.sleep(60)
elif how == "many":
    for number in range(15):
        registry.register("churn", source)
        registry.set_alias("churn", f"{os.getpid()}-{number}", "latest")
    registry.close()
elif how == "leaves":
    registry.register("churn", source)  # The end of the program is all that it does.
elif how == "forks while sending":
    registry.register("churn", source)
    while not os.path.exists(home + "/received"):
        time.sleep(0.01)
    child = os.fork()
    if child == 0:
        registry.register("churn", source)
        open(home + "/registered", "w").close()
        registry.close()
        os._exit(0)
    os.waitpid(child, 0)
    os._exit(0)  # Only the child can have told of its change.
elif how == "forks":
    registry.register("churn", source)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            registry.register("churn", source)
            registry.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    registry.register("churn", source)
    registry.close()
"""


@pytest.fixture
def child(home: Path, receiver: Receiver, source: Path) -> Callable[[str], subprocess.Popen[bytes]]:
    def start(how: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CHILD, str(home), receiver.url, SECRET, str(source), how]
        return subprocess.Popen(command)

    return start


def test_a_kill_after_sending_loses_nothing_and_sends_it_again(
    child: Callable[[str], subprocess.Popen[bytes]],
    opened: Callable[..., LocalRegistry],
    receiver: Receiver,
) -> None:
    assert child("dies between").wait(60) == -9
    assert len(receiver.messages) == 1

    registry = opened()
    assert registry.deliver_webhooks()[0].delivered == 1
    first, second = receiver.messages
    assert (first.id, first.body) == (second.id, second.body)
    registry.deliver_webhooks(now=True)
    assert len(receiver.messages) == 2


def test_a_kill_while_sending_loses_nothing_and_frees_the_lock(
    child: Callable[[str], subprocess.Popen[bytes]],
    opened: Callable[..., LocalRegistry],
    receiver: Receiver,
) -> None:
    receiver.answers = ["hang"]
    process = child("leaves")
    until(lambda: receiver.messages)
    process.kill()
    process.wait(60)

    assert opened().deliver_webhooks()[0].delivered == 1
    assert len({each.id for each in receiver.messages}) == 1


def test_two_processes_deliver_each_entry_once_and_in_its_order(
    home: Path,
    child: Callable[[str], subprocess.Popen[bytes]],
    opened: Callable[..., LocalRegistry],
    receiver: Receiver,
) -> None:
    processes = [child("many") for _ in range(2)]
    assert [each.wait(120) for each in processes] == [0, 0]
    registry = opened()
    registry.deliver_webhooks()

    history = [message_id(entry) for entry in registry.history("churn")]
    assert len(history) == 60
    assert [each.id for each in receiver.messages] == history


def test_a_program_that_ends_without_closing_gives_delivery_its_time(
    child: Callable[[str], subprocess.Popen[bytes]], receiver: Receiver
) -> None:
    assert child("leaves").wait(60) == 0
    assert len(receiver.messages) == 1


def test_a_fork_delivers_what_it_changes(
    child: Callable[[str], subprocess.Popen[bytes]], receiver: Receiver
) -> None:
    assert child("forks").wait(60) == 0
    assert sorted({each.said["data"]["version"] for each in receiver.messages}) == [1, 2, 3, 4, 5]


def test_a_fork_in_the_middle_of_sending_delivers_too(
    home: Path, child: Callable[[str], subprocess.Popen[bytes]], receiver: Receiver
) -> None:
    receiver.answers = ["hang"]
    process = child("forks while sending")
    until(lambda: receiver.messages)
    (home / "received").touch()
    until((home / "registered").exists)
    receiver.release.set()
    assert process.wait(60) == 0
    assert [each.said["data"]["version"] for each in receiver.messages] == [1, 2]

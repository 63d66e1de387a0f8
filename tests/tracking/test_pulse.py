"""The thread for what has to happen every so often, and pauses after failures."""

from __future__ import annotations

import threading

import pytest

from mlopskit.tracking.breaker import LONGEST_PAUSE_S, OPEN_AFTER, Breaker
from mlopskit.tracking.pulse import Pulse

pytestmark = pytest.mark.core


def test_it_calls_until_it_is_told_to_stop() -> None:
    pulse = Pulse()
    often = threading.Semaphore(0)

    pulse.every(0.001, often.release)
    for _ in range(3):
        assert often.acquire(timeout=30)
    pulse.stop(often.release)

    pulse.close()
    while often.acquire(blocking=False):
        pass
    assert not often.acquire(timeout=0.05)


def test_a_call_that_fails_disturbs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    pulse = Pulse()
    often = threading.Semaphore(0)

    def fails() -> None:
        often.release()
        raise ValueError("on purpose")

    other = threading.Semaphore(0)
    pulse.every(0.001, fails)
    pulse.every(0.001, other.release)
    for _ in range(3):
        assert often.acquire(timeout=30)
        assert other.acquire(timeout=30)
    pulse.close()

    assert any("failed" in record.message for record in caplog.records)


def test_its_thread_ends_when_there_is_nothing_to_call() -> None:
    pulse = Pulse()
    once = threading.Event()

    def call() -> None:
        pulse.stop(call)
        once.set()

    pulse.every(0.0, call)
    assert once.wait(30)
    for thread in threading.enumerate():
        if thread.name == "mlopskit pulse":
            thread.join(30)
    assert not any(thread.name == "mlopskit pulse" for thread in threading.enumerate())


def test_pauses_grow_to_a_limit_and_end_with_a_success() -> None:
    now = 0.0
    breaker = Breaker(lambda: now)
    assert breaker.may_try

    longest = 0.0
    for failures in range(1, 200):
        assert breaker.failed() == failures
        assert breaker.is_open == (failures >= OPEN_AFTER)
        pause = 0.0
        while not breaker.may_try:
            now += 0.5
            pause += 0.5
        longest = max(longest, pause)
    assert 5 < longest <= LONGEST_PAUSE_S + 0.5

    breaker.succeeded()
    assert breaker.may_try
    assert not breaker.is_open
    assert breaker.failed() == 1

"""A run whose process is gone reads lost, wherever that process was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.tool import Context
from mlopskit.tracking import outbox
from mlopskit.tracking.entities import Alive, Batch, Started
from mlopskit.tracking.local import LocalTracker
from mlopskit.tracking.owner import HEARTBEAT_S, LOST_AFTER_S, is_gone, is_lost, this_process

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.core

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def changed(**fields: Any) -> str:
    """Return this process as another machine, boot, namespace or process would have it."""
    names = ("host", "boot", "namespace", "pid", "started")
    return json.dumps(
        [fields.get(n, v) for n, v in zip(names, json.loads(this_process()), strict=True)]
    )


def test_a_process_of_this_machine_is_looked_at() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "from mlopskit.tracking.owner import *; print(this_process())"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert is_gone(this_process()) is False
    assert is_gone(said.stdout) is True
    assert is_gone(changed(started="1")) is True  # The number was given to another process.
    assert is_gone(changed(boot="another")) is True
    assert is_gone(changed(pid=1)) is True


@pytest.mark.parametrize(
    "owner",
    [changed(host="elsewhere"), changed(namespace="x"), "", "[1]"],
    ids=["another machine", "another container", "nobody", "no process"],
)
def test_one_that_is_out_of_sight_is_heard(owner: str) -> None:
    assert is_gone(owner) is None
    assert not is_lost(owner, NOW - timedelta(seconds=LOST_AFTER_S), NOW)
    assert is_lost(owner, NOW - timedelta(seconds=LOST_AFTER_S + 1), NOW)
    assert not is_lost(owner, None, NOW)
    assert LOST_AFTER_S > 3 * HEARTBEAT_S  # A few may be late.


def test_a_run_of_another_machine_is_lost_once_it_is_silent(tmp_path: Path) -> None:
    tracker = LocalTracker(tmp_path / "store")
    tracker.context = Context(home=tmp_path)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    for number, ago_s in enumerate((10, 1000)):
        began = now_ms - 2_000_000
        start = Started(1, began, "n", "e", None, changed(host="elsewhere"))
        records = (start, Alive(2, now_ms - ago_s * 1000))
        tracker.write(Batch(f"{number:032x}", f"s{number}", records))

    assert tracker.get_run(f"{0:032x}").status == "running"
    assert tracker.get_run(f"{1:032x}").status == "lost"
    assert [run.id for run in tracker.search_runs("status = 'lost'")] == [f"{1:032x}"]
    tracker.close()


def test_a_process_that_logs_nothing_still_says_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HEARTBEAT_S", 0.05)
    tracker = LocalTracker(tmp_path / "store")
    tracker.context = Context(home=tmp_path)
    with tracker.start_run() as run:
        first = tracker.get_run(run.id).heartbeat_at
        assert first is not None
        while True:
            later = tracker.get_run(run.id).heartbeat_at
            assert later is not None
            if later > first:
                break
    tracker.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_is_not_its_parent() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, this_process().encode())
        os._exit(0)
    os.waitpid(child, 0)
    owner = os.read(reading, 10_000).decode()
    for end in (reading, writing):
        os.close(end)

    assert owner != this_process()
    assert is_gone(owner) is True

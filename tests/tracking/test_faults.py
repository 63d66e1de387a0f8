"""Kills, full disks, long outages and long days, over real processes and a real file system."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.disks import small_disk

from mlopskit.errors import Unavailable
from mlopskit.tool import Context
from mlopskit.tracking.breaker import OPEN_AFTER
from mlopskit.tracking.entities import Started
from mlopskit.tracking.local import LocalTracker
from mlopskit.tracking.outbox import Outbox

if TYPE_CHECKING:
    from mlopskit.tracking.entities import Batch

HERE = Path(__file__).parent


@pytest.mark.timeout(600)
def test_nothing_that_was_acknowledged_is_lost_or_doubled_by_kills() -> None:
    """A few of the thousand that `make kills` does."""
    said = subprocess.run(
        [sys.executable, str(HERE / "kills.py"), "--kills", "60", "--seed", str(os.getpid())],
        capture_output=True,
        text=True,
    )

    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.timeout(600)
def test_a_long_day_leaves_nothing_behind() -> None:
    """A short one of the days that `make soak` lasts."""
    said = subprocess.run(
        [sys.executable, str(HERE / "soak.py"), "--runs", "400"], capture_output=True, text=True
    )

    assert said.returncode == 0, said.stdout + said.stderr


class Down(LocalTracker):
    """A local tracker that can be down."""

    down = True
    tries = 0

    def write(self, batch: Batch) -> None:
        self.tries += 1
        if self.down:
            raise Unavailable("the backend", "it is down")
        super().write(batch)


def test_a_backend_that_is_back_after_an_hour_gets_all_of_it_unasked(tmp_path: Path) -> None:
    now = 0.0
    tracker = Down(tmp_path / "store")
    tracker.context = Context(home=tmp_path)
    box = Outbox(tmp_path / "j", [tracker], limit=1 << 20, notify=print, clock=lambda: now)
    feed = box.open("a" * 32, "", "e")
    start = Started(0, 0, "n", "e", None, "")
    feed.written.append(["start", 1, start.name, start.experiment, None, ""])
    feed.written.append(["metrics", 2, 0, {"loss": 0.5}])
    while tracker.tries < OPEN_AFTER + 3:  # Each pause is longer, up to a minute.
        now += 60.0
        time.sleep(0.05)

    tried = tracker.tries
    time.sleep(0.5)
    assert tracker.tries <= tried + 1  # Time stands still, and so do the tries.
    tracker.down = False
    now += 3600.0
    while any(status.pending for status in box.status("a" * 32).values()):
        time.sleep(0.05)

    assert tracker.read_run("a" * 32).metrics == {"loss": 0.5}
    box.close(5)
    tracker.close()


FILLING = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from mlopskit.errors import StorageError
    from mlopskit.tool import Context
    from mlopskit.tracking.local import LocalTracker

    home, store = map(Path, sys.argv[1:3])
    tracker = LocalTracker(store, flush_timeout_s=2)
    tracker.context = Context(home=home)
    run = tracker.start_run(params={"lr": 0.1})
    logged = 0
    kept = 0
    try:
        for step in range(10**6):
            run.log_metrics({"loss": step * 0.5, "text" * 50: 1.0}, step=step)
            logged += 1
            if step % 100 == 0:
                run.log_text("x" * 20_000 + str(step), f"f{step}.txt")
                kept += 1
    except StorageError as exc:
        print(run.id, logged, kept, type(exc).__name__, flush=True)
    try:
        run.finish("failed")
    except StorageError:
        pass
    """
)


@pytest.mark.parametrize("together", [True, False], ids=["with the store", "the journals alone"])
def test_a_full_disk_is_an_error_at_once_and_what_was_acknowledged_is_there(
    tmp_path: Path, together: bool
) -> None:
    with small_disk(tmp_path / "small", "2m") as disk:
        store = disk / "store" if together else tmp_path / "store"
        if together:  # A store that can be opened, and has no room left for what comes.
            tracker = LocalTracker(store)
            tracker.context = Context(home=disk)
            tracker.ping()
            tracker.close()
        said = subprocess.run(
            [sys.executable, "-c", FILLING, str(disk), str(store)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert said.returncode == 0, said.stderr
        run_id, logged, kept, error = said.stdout.split()
        assert error == "StorageError"
        assert int(logged) > 0

        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        tracker = LocalTracker(store)
        tracker.context = Context(home=disk)
        report = tracker.sync()
        history = tracker.get_metric_history(run_id, "loss")
        files = tracker.list_artifacts(run_id)
        for each in files:
            tracker.download_artifact(run_id, each.name, tmp_path / "got")
        tracker.close()

    assert (report.rejected, report.pending) == (0, {})
    assert list(history.steps) == list(range(int(logged)))
    assert len(files) == int(kept)

"""Journals, deliveries and the sync, with backends that fail."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import (
    BackendError,
    ConfigError,
    InvalidInput,
    NotFound,
    StorageError,
    Unavailable,
)
from mlopskit.tool import Context
from mlopskit.tracking.entities import MetricsLogged
from mlopskit.tracking.fanout import FanOutTracker
from mlopskit.tracking.local import LocalTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.tracking.entities import Batch

pytestmark = pytest.mark.core


class Faulty(LocalTracker):
    """A local tracker whose writes first pass a gate that may raise."""

    def __init__(self, location: Path, **options: Any) -> None:
        super().__init__(location, **options)
        self.gate: Callable[[Batch], None] = lambda batch: None

    def write(self, batch: Batch) -> None:
        self.gate(batch)
        super().write(batch)


def down(batch: Batch) -> None:
    raise Unavailable("the backend", "it is down")


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Faulty]:
    tracker = Faulty(tmp_path / "store", flush_timeout_s=1)
    tracker.context = Context(home=tmp_path)
    yield tracker
    tracker.gate = lambda batch: None
    tracker.close()


def journals(home: Path) -> list[Path]:
    return sorted((home / "tracking" / "journal").glob("*.journal"))


def test_what_is_on_its_way_is_pending_and_a_reader_waits_for_it(faulty: Faulty) -> None:
    entered, released = threading.Event(), threading.Event()

    def slow(batch: Batch) -> None:
        entered.set()
        assert released.wait(30)

    faulty.gate = slow
    faulty.flush_timeout_s = 30
    with faulty.start_run() as run:
        run.log_metric("loss", 0.5)
        assert entered.wait(30)
        (status,) = run.delivery.values()
        found: list[float] = []
        reader = threading.Thread(
            target=lambda: found.extend(faulty.get_run(run.id).metrics.values())
        )
        reader.start()
        reader.join(0.3)
        still_waiting = reader.is_alive()
        released.set()
        reader.join()

    assert status.pending > 0
    assert still_waiting
    assert found == [0.5]


def test_a_backend_that_is_down_costs_a_warning_and_a_later_sync_delivers(
    faulty: Faulty, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.gate = down
    with faulty.start_run(params={"lr": 0.1}) as run:
        run.log_metric("loss", 0.5, step=1)
        run.log_text("hello", "notes.txt")

    (status,) = run.delivery.values()
    assert (status.delivered, status.rejected) == (0, 0)
    assert status.pending > 0
    assert "it is down" in status.error
    assert any("not all at" in record.message for record in caplog.records)
    with pytest.raises(NotFound):
        faulty.get_run(run.id)

    faulty.gate = lambda batch: None
    report = faulty.sync()

    assert report.pending == {}
    assert faulty.get_run(run.id).metrics == {"loss": 0.5}
    assert [each.name for each in faulty.list_artifacts(run.id)] == ["notes.txt"]
    assert journals(tmp_path) == []


def test_loss_can_be_made_fatal(tmp_path: Path) -> None:
    tracker = Faulty(tmp_path / "store", flush_timeout_s=0.2, on_error="raise")
    tracker.context = Context(home=tmp_path)
    tracker.gate = down
    run = tracker.start_run()

    with pytest.raises(Unavailable, match="it is down"):
        run.finish()

    tracker.gate = lambda batch: None
    tracker.close()


def test_what_failed_halfway_is_stored_once(faulty: Faulty) -> None:
    calls: list[int] = []

    def unsure(batch: Batch) -> None:
        """Store the batch, and lose the answer."""
        calls.append(len(batch.records))
        if len(calls) <= 3:
            LocalTracker.write(faulty, batch)
            raise BackendError("the answer was lost")

    faulty.gate = unsure
    faulty.flush_timeout_s = 30
    with faulty.start_run() as run:
        for step in range(100):
            run.log_metric("loss", step * 0.5, step=step)
        # The breaker lets a flush give up early, so that only the journal tells when all is there.
    assert faulty.sync().pending == {}

    assert len(calls) > 3
    assert list(faulty.get_metric_history(run.id, "loss").steps) == list(range(100))


def test_a_record_that_is_refused_for_good_does_not_block_the_others(
    faulty: Faulty, tmp_path: Path
) -> None:
    def picky(batch: Batch) -> None:
        for record in batch.records:
            if isinstance(record, MetricsLogged) and record.step == 7:
                raise InvalidInput("7 is not my number")

    faulty.gate = picky
    with faulty.start_run() as run:
        for step in range(10):
            run.log_metric("loss", 1.5, step=step)

    (status,) = run.delivery.values()
    assert (status.delivered, status.rejected, status.pending) == (11, 1, 0)
    assert list(faulty.get_metric_history(run.id, "loss").steps) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    (refused,) = (tmp_path / "tracking" / "rejected").glob("*.jsonl")
    assert "7 is not my number" in refused.read_text()


def test_a_run_that_cannot_be_read_keeps_no_other_waiting(faulty: Faulty) -> None:
    spoiled, whole = faulty.start_run(), faulty.start_run()

    def gate(batch: Batch) -> None:
        if batch.run_id == spoiled.id:
            raise StorageError("its journal is spoiled")

    faulty.gate = gate
    spoiled.log_metric("loss", 1.0)
    whole.log_metric("loss", 2.0)
    whole.finish(timeout_s=30)

    assert faulty.get_run(whole.id).metrics == {"loss": 2.0}
    assert "spoiled" in spoiled.delivery[faulty.target].error
    faulty.gate = lambda batch: None
    spoiled.finish(timeout_s=30)
    assert faulty.get_run(spoiled.id).metrics == {"loss": 1.0}


def test_a_journal_for_several_backends_waits_for_the_last_of_them(tmp_path: Path) -> None:
    good = LocalTracker(tmp_path / "good", flush_timeout_s=0.5)
    bad = Faulty(tmp_path / "bad", flush_timeout_s=0.5)
    bad.gate = down
    both = FanOutTracker([good, bad])
    both.context = Context(home=tmp_path)
    with both.start_run("e", params={"lr": 0.1}) as run:
        run.log_metric("loss", 0.5)

    good_status, bad_status = run.delivery[good.target], run.delivery[bad.target]
    assert (good_status.delivered, good_status.pending) == (4, 0)
    assert bad_status.delivered == 0
    assert both.get_run(run.id).metrics == {"loss": 0.5}
    assert len(journals(tmp_path)) == 1

    bad.gate = lambda batch: None
    assert both.sync().pending == {}
    assert bad.read_run(run.id) == both.get_run(run.id)
    assert journals(tmp_path) == []
    both.delete_run(run.id)
    with pytest.raises(NotFound):
        bad.read_run(run.id)
    both.close()


def test_a_fan_out_can_do_what_all_of_it_can(tmp_path: Path) -> None:
    one, two = LocalTracker(tmp_path / "one"), LocalTracker(tmp_path / "two")

    both = FanOutTracker([one, two])

    for line in both.capabilities:
        assert line.level == one.capabilities[line.name].level
    assert both.native == [one.native, two.native]
    both.ping()
    with pytest.raises(ConfigError, match="name it once"):
        FanOutTracker([one, LocalTracker(tmp_path / "one")])
    with pytest.raises(ConfigError, match="at least one"):
        FanOutTracker([])
    both.close()


def test_another_process_delivers_what_a_dead_one_left(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from mlopskit.errors import Unavailable
        from mlopskit.tool import Context
        from mlopskit.tracking.local import LocalTracker

        class Down(LocalTracker):
            def write(self, batch):
                raise Unavailable("the backend", "it is down")

        home = Path(sys.argv[1])
        tracker = Down(home / "store", flush_timeout_s=0.1)
        tracker.context = Context(home=home)
        with tracker.start_run(params={"lr": 0.1}) as done:
            done.log_metric("loss", 0.5)
        open_run = tracker.start_run()
        open_run.log_text("kept", "notes.txt")
        print(done.id, open_run.id, flush=True)
        os._exit(0)
        """
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    done, open_run = said.stdout.split()
    assert len(journals(tmp_path)) == 2
    tracker = LocalTracker(tmp_path / "store")
    tracker.context = Context(home=tmp_path)
    (segment,) = journals(tmp_path)[0].glob("*.log")
    with segment.open("ab") as torn:
        torn.write(b"\xabMKJ\xff\x00\x00\x00 half a frame")

    report = tracker.sync()

    assert (report.delivered, report.rejected, report.pending) == (7, 0, {})
    assert tracker.get_run(done).status == "finished"
    assert tracker.get_run(open_run).status == "lost"
    assert [each.name for each in tracker.list_artifacts(open_run)] == ["notes.txt"]
    assert tracker.sync() == type(report)()
    assert journals(tmp_path) == []
    tracker.close()


def test_a_sync_leaves_live_processes_and_other_targets_alone(
    faulty: Faulty, tmp_path: Path
) -> None:
    other = LocalTracker(tmp_path / "elsewhere", flush_timeout_s=1)
    other.context = Context(home=tmp_path)
    with faulty.start_run() as run:
        run.log_metric("loss", 0.5)
        assert other.sync() == type(other.sync())()
        assert other.search_runs() == []
    assert faulty.get_run(run.id).status == "finished"
    other.close()


def test_a_tracker_that_was_closed_leaves_its_journals_to_the_next(tmp_path: Path) -> None:
    first = Faulty(tmp_path / "store", flush_timeout_s=0.2)
    first.context = Context(home=tmp_path)
    first.gate = down
    with first.start_run() as run:
        run.log_metric("loss", 0.5)
    first.close()
    second = LocalTracker(tmp_path / "store")
    second.context = Context(home=tmp_path)

    assert second.sync().delivered == 3

    assert second.get_run(run.id).status == "finished"
    second.close()


def test_a_full_disk_is_an_error_and_never_a_false_success(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from mlopskit.errors import StorageError
        from mlopskit.tool import Context
        from mlopskit.tracking.local import LocalTracker

        home = Path(sys.argv[1])
        tracker = LocalTracker(home / "store")
        tracker.context = Context(home=home)
        run = tracker.start_run()
        run.flush()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        logged = 0
        try:
            for step in range(1000):
                run.log_metric("loss", 0.5, step=step)
                logged += 1
        except StorageError as exc:
            print(logged, type(exc).__name__)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        run.log_metric("after", 1.5)
        run.finish()
        print(run.id, len(tracker.get_metric_history(run.id, "loss")))
        print(tracker.get_run(run.id).metrics["after"])
        tracker.close()
        """
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    logged, error, _, stored, after = said.stdout.split()

    assert error == "StorageError"
    assert 0 < int(logged) < 1000
    assert (stored, after) == (logged, "1.5")


def test_a_journal_has_a_limit(tmp_path: Path) -> None:
    tracker = Faulty(tmp_path / "store", journal_limit=2000, flush_timeout_s=5)
    tracker.context = Context(home=tmp_path)
    run = tracker.start_run()
    for step in range(100):  # What is delivered does not count.
        run.log_metric("loss", 0.5, step=step)
        run.flush()
    tracker.gate = down

    with pytest.raises(StorageError, match="limit of 2000 bytes"):
        for step in range(1000):
            run.log_metric("loss", 0.5, step=step)
    tracker.gate = lambda batch: None
    run.finish("failed")  # How it ended always has room.

    assert tracker.get_run(run.id).status == "failed"
    tracker.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_a_child_logs_after_its_parent_has_finished_is_synced(
    faulty: Faulty, tmp_path: Path
) -> None:
    run = faulty.start_run()
    inside, outside = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(inside, 1)
            run.log_metric("late", 1.0)
        finally:
            os._exit(0)
    run.finish()
    assert journals(tmp_path) == []
    os.write(outside, b"x")
    os.waitpid(child, 0)
    for fd in (inside, outside):
        os.close(fd)

    assert faulty.sync().delivered == 1

    record = faulty.get_run(run.id)
    assert (record.status, record.metrics) == ("finished", {"late": 1.0})


def test_a_listener_hears_that_a_run_has_ended(tmp_path: Path) -> None:
    heard: list[tuple[str, Any]] = []
    tracker = LocalTracker(tmp_path / "store")
    tracker.context = Context(
        home=tmp_path, notify=lambda event, **details: heard.append((event, details["run"]))
    )
    with tracker.start_run(name="n") as run:
        pass
    tracker.close()

    ((event, record),) = heard
    assert (event, record.id, record.status) == ("run_finished", run.id, "finished")


def test_a_listener_hears_it_even_if_the_backend_is_down(faulty: Faulty, tmp_path: Path) -> None:
    heard: list[Any] = []
    faulty.context = Context(home=tmp_path, notify=lambda event, **told: heard.append(told["run"]))
    faulty.gate = down
    run = faulty.start_run("e", params={"lr": 0.1})
    run.finish("failed", timeout_s=0)

    (record,) = heard
    assert (record.id, record.status, record.params) == (run.id, "failed", {"lr": 0.1})


def test_workers_end_with_their_tracker(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        tracker = LocalTracker(tmp_path / "store")
        tracker.context = Context(home=tmp_path)
        with tracker.start_run():
            pass
        tracker.close()

    assert set(threading.enumerate()) <= before


def test_a_script_that_never_finishes_its_run_ends_it_with_itself(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        import mlopskit

        kit = mlopskit.Kit(home=sys.argv[1])
        run = kit.tracker.start_run("e")
        run.log_metric("loss", 0.5)
        if sys.argv[2] == "fail":
            1 / 0
        """
    )
    for how in ("end", "fail"):
        subprocess.run([sys.executable, "-c", script, str(tmp_path), how], capture_output=True)

    tracker = LocalTracker()
    tracker.context = Context(home=tmp_path)
    found = [(run.status, run.metrics["loss"]) for run in tracker.search_runs()]
    tracker.close()

    assert found == [("failed", 0.5), ("finished", 0.5)]
    assert journals(tmp_path) == []


def test_a_damaged_journal_gives_what_is_whole_and_names_the_rest(tmp_path: Path) -> None:
    first = Faulty(tmp_path / "store", flush_timeout_s=0.2)
    first.context = Context(home=tmp_path)
    first.gate = down
    with first.start_run() as run:
        for step in range(10):
            run.log_metric("loss", 0.5, step=step)
    first.close()
    (segment,) = journals(tmp_path)[0].glob("*.log")
    whole = bytearray(segment.read_bytes())
    whole[whole.index(b'"loss"') + 2] ^= 1
    segment.write_bytes(whole)
    second = LocalTracker(tmp_path / "store")
    second.context = Context(home=tmp_path)

    report = second.sync()

    assert report.delivered == 11
    ((source, said),) = report.damaged.items()
    assert source.startswith(run.id)
    assert "checksum" in said
    (kept,) = (tmp_path / "tracking" / "rejected").glob("*.jsonl")
    assert "unreadable" in kept.read_text()
    assert list(second.get_metric_history(run.id, "loss").steps) == list(range(1, 10))
    second.close()


def test_files_are_private(faulty: Faulty, tmp_path: Path) -> None:
    with faulty.start_run() as run:
        run.log_text("x", "x.txt")
        run.flush()
        modes = {path: path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")}

    assert [path for path, mode in modes.items() if mode and path.is_file()] == []


ORDERED = """
import os, sys
from pathlib import Path
from mlopskit.errors import Unavailable
from mlopskit.tool import Context
from mlopskit.tracking.local import LocalTracker

class Down(LocalTracker):
    def write(self, batch):
        raise Unavailable("the backend", "it is down")

home = Path(sys.argv[1])
tracker = Down(home / "store", flush_timeout_s=0.1)
tracker.context = Context(home=home)
for _ in range(8):  # The names of journals are chance: some child's comes first.
    run = tracker.start_run("e")
    if os.fork() == 0:
        run.log_metric("child", 1.0)
        os._exit(0)
    os.wait()
    run.log_metric("parent", 1.0)
os._exit(0)
"""


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_sync_delivers_a_parents_journal_before_its_childs(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", ORDERED, str(tmp_path)], check=True, capture_output=True)
    assert len(journals(tmp_path)) == 16
    tracker = Faulty(tmp_path / "store")
    tracker.context = Context(home=tmp_path)
    tracker.gate = down

    waiting = tracker.sync()
    tracker.gate = lambda batch: None
    report = tracker.sync()

    assert (len(waiting.pending), waiting.rejected) == (8, 0)
    assert (report.rejected, report.pending) == (0, {})
    runs = tracker.search_runs(limit=None)
    assert [run.metrics for run in runs] == [{"child": 1.0, "parent": 1.0}] * 8
    assert {run.status for run in runs} == {"lost"}
    assert journals(tmp_path) == []
    tracker.close()

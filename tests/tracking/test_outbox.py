"""An outbox keeps what it was given, and nothing more: no lock, no file and no run that is over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import StorageError, Unavailable
from mlopskit.tool import Context
from mlopskit.tracking import outbox, records
from mlopskit.tracking.entities import Alive, Artifact, ArtifactLogged
from mlopskit.tracking.local import LocalTracker
from mlopskit.tracking.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.tracking.entities import Batch, MetricsLogged
    from mlopskit.tracking.feed import Feed

pytestmark = [
    pytest.mark.core,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

RUN = "a" * 32


class Watched(LocalTracker):
    """A local tracker that can be down, and remembers what it was given."""

    down = False

    def __init__(self, location: Path, **options: Any) -> None:
        super().__init__(location, **options)
        self.seen: list[Any] = []
        self.there: list[bool] = []

    def write(self, batch: Batch) -> None:
        if self.down:
            raise Unavailable("the backend", "it is down")
        for record in batch.records:
            if isinstance(record, ArtifactLogged):
                self.there += [path is not None and path.exists() for _, path in record.files]
        super().write(batch)
        self.seen += [(batch.run_id, record) for record in batch.records]


def opened(home: Path) -> Watched:
    made = Watched(home / "store", flush_timeout_s=5)
    made.context = Context(home=home)
    return made


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Watched]:
    made = opened(tmp_path)
    yield made
    made.down = False
    made.close()


@pytest.fixture
def later(tmp_path: Path) -> Iterator[Watched]:
    """Return what is opened once `tracker` is closed, in the same process."""
    made = opened(tmp_path)
    yield made
    made.close()


@pytest.fixture
def box(tracker: Watched, tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "j", [tracker], limit=1 << 20, notify=print)
    yield made
    made.close(5)


def begun(box: Outbox) -> Feed:
    feed = box.open(RUN, "", "e")
    feed.written.append(["start", 1, "n", "e", None, ""])
    return feed


def journals(home: Path) -> list[str]:
    return [path.name for path in (home / "tracking" / "journal").iterdir()]


def forked(work: Any) -> None:
    """Do something in a forked child, and wait for its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def test_a_run_that_cannot_begin_leaves_nothing_behind(tmp_path: Path) -> None:
    tracker = LocalTracker(tmp_path / "store", journal_limit=10)
    tracker.context = Context(home=tmp_path)
    with pytest.raises(StorageError, match="limit of 10 bytes"):
        tracker.start_run("e")

    assert journals(tmp_path) == []
    tracker.describe_experiment("e", "nothing is open in it")
    tracker.delete_experiment("e")
    tracker.close()


def test_a_long_run_says_that_it_lives_while_short_ones_begin(
    tracker: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HEARTBEAT_S", 0.3)
    with tracker.start_run() as long:
        for _ in range(40):
            with tracker.start_run():
                time.sleep(0.02)

    assert any(run == long.id for run, record in tracker.seen if isinstance(record, Alive))


def test_a_run_that_ends_after_its_tracker_was_closed_goes_out_with_the_next_sync(
    tracker: Watched, later: Watched
) -> None:
    run = tracker.start_run()
    run.log_metric("loss", 0.5)
    tracker.close()
    run.log_metric("loss", 0.25)
    run.finish()

    assert later.sync().delivered == 2
    found = later.get_run(run.id)
    assert (found.status, found.metrics) == ("finished", {"loss": 0.25})


def test_a_child_that_logs_after_the_tracker_was_closed_is_delivered_by_the_next_sync(
    tracker: Watched, later: Watched
) -> None:
    run = tracker.start_run()
    tracker.close()
    forked(lambda: run.log_metric("loss", 0.5))
    run.finish()

    later.sync()
    assert later.get_run(run.id).metrics == {"loss": 0.5}


def test_a_closed_tracker_leaves_the_journals_of_its_children_to_the_next_sync(
    tracker: Watched, later: Watched
) -> None:
    tracker.down = True
    tracker.flush_timeout_s = 0.2
    run = tracker.start_run()
    forked(lambda: run.log_metric("loss", 0.5))
    run.finish()
    tracker.close()

    later.sync()
    assert later.get_run(run.id).metrics == {"loss": 0.5}


def test_a_child_holds_no_lock_of_another_childs_journal(tracker: Watched, tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from tests.tracking.test_outbox import Watched
        from mlopskit.tool import Context

        home = Path(sys.argv[1])
        tracker = Watched(home / "store", flush_timeout_s=0.2)
        tracker.context = Context(home=home)
        tracker.down = True
        run = tracker.start_run(run_id="a" * 32)
        if os.fork() == 0:
            run.log_metric("loss", 0.5)
            os._exit(0)
        os.wait()
        run.flush()  # Takes the lock of that child's journal.
        lasting = os.fork()
        if lasting == 0:
            for fd in range(3):
                os.close(fd)
            signal.pause()
        print(lasting, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    root = str(Path(__file__).parents[2])
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path), root],
        capture_output=True,
        text=True,
    )
    lasting = int(said.stdout)
    try:
        tracker.sync()
        assert tracker.get_run(RUN).metrics == {"loss": 0.5}
    finally:
        os.kill(lasting, 9)


def test_the_first_descriptor_is_a_lock_like_any_other(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from mlopskit.tool import Context
        from mlopskit.tracking.local import LocalTracker

        home = Path(sys.argv[1])
        tracker = LocalTracker(home / "store")
        tracker.context = Context(home=home)
        run = tracker.start_run()
        if os.fork() == 0:
            run.log_metric("loss", 0.5)
            os._exit(0)
        os.wait()
        os.close(0)  # As where a service was started without a standard input.
        run.flush()
        run.finish()
        print(tracker.get_run(run.id).metrics, len(list((home / "tracking/journal").iterdir())))
        """
    )
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
    )

    assert said.stdout == "{'loss': 0.5} 0\n", said.stderr


def test_equal_bytes_of_another_record_stay_until_that_one_is_delivered(
    tracker: Watched, box: Outbox
) -> None:
    feed = begun(box)
    digest, _ = feed.keep(b"x")
    feed.keep(b"x")  # What another thread is about to log.
    for each in "ab":
        file = Artifact(name=each, size=1, digest=digest, type="file", logged_as=each)
        feed.written.append(records.files_logged(each, [file], 2))
        feed.kept(digest)
        assert box.flush(RUN, 10)

    assert tracker.there == [True, True]
    box.close(5)
    assert not feed.written.files.has(digest)


def test_an_alert_of_a_forked_child_is_heard(tmp_path: Path) -> None:
    heard = tmp_path / "heard"

    def notify(event: str, **details: Any) -> None:
        if event == "run_alerted":
            with heard.open("a") as file:
                file.write(details["alert"].text)

    tracker = LocalTracker(tmp_path / "store")
    tracker.context = Context(home=tmp_path, notify=notify)
    with tracker.start_run() as run:
        forked(lambda: run.alert("from a child"))
    tracker.close()

    assert heard.read_text() == "from a child"


def test_a_childs_journal_that_cannot_be_claimed_hinders_nobody(
    tracker: Watched, later: Watched, tmp_path: Path
) -> None:
    run = tracker.start_run()
    forked(lambda: run.log_metric("loss", 0.5))
    for path in (tmp_path / "tracking" / "journal").glob("*.journal"):
        if json.loads((path / "about.json").read_bytes())["child"]:
            (path / "lock").unlink()
            (path / "lock").mkdir()
    run.flush()

    assert tracker.get_run(run.id).metrics == {"loss": 0.5}
    run.finish(timeout_s=0)
    tracker.close()
    (reason,) = later.sync().pending.values()
    assert "cannot be used: Is a directory" in reason


class Slow:
    """A watch that takes its time."""

    def __init__(self) -> None:
        self.entered, self.released = threading.Event(), threading.Event()
        self.said: list[Any] = []

    def see(self, record: MetricsLogged) -> None:
        self.entered.set()
        assert self.released.wait(30)
        self.said.append(record.step)

    def look(self) -> None:
        self.said.append("look")

    def end(self, status: str) -> None:
        self.said.append(status)


def test_a_watch_hears_the_end_after_all_that_was_logged(box: Outbox) -> None:
    feed, watch = begun(box), Slow()
    feed.watch(watch)  # type: ignore[arg-type]
    feed.written.append(["metrics", 2, 7, {"loss": 0.5}])
    troubles: list[BaseException] = []

    def look() -> None:
        try:
            feed.look()
        except BaseException as exc:  # noqa: BLE001 - told to the test
            troubles.append(exc)

    looking = threading.Thread(target=look)
    looking.start()
    assert watch.entered.wait(30)
    ending = threading.Thread(target=feed.end_watch, args=("finished",))
    ending.start()
    ending.join(0.3)
    watch.released.set()
    looking.join()
    ending.join()

    assert troubles == []
    assert watch.said.index(7) < watch.said.index("finished")
    assert watch.said[-1] == "finished"

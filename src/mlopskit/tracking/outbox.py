"""The journals of one home, and the deliveries that empty them."""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mlopskit.errors import MlopskitError, StorageError
from mlopskit.tracking import journal as journals
from mlopskit.tracking import records
from mlopskit.tracking.delivery import Delivery
from mlopskit.tracking.entities import MetricsLogged, SyncReport
from mlopskit.tracking.journal import SUFFIX, About, Journal, Reader
from mlopskit.tracking.owner import HEARTBEAT_S, this_process
from mlopskit.tracking.place import Place
from mlopskit.tracking.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mlopskit.storage import Blobs
    from mlopskit.tracking.alerts import Watch
    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import DeliveryStatus, RunEvent

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
FOLLOW_S: Final = 5.0
SETTLE_S: Final = 0.1


class Feed:
    """One journal that this process delivers, and the place of every backend in it.

    Attributes:
        journal: Its writing end; None where a forked child writes it.
        experiment: That of its run.
        places: By target.
        left: The targets that do not have all of it yet.
    """

    def __init__(
        self,
        path: Path,
        run_id: str,
        experiment: str,
        places: dict[str, Place],
        journal: Journal | None = None,
    ) -> None:
        self.path = path
        self.run_id = run_id
        self.experiment = experiment
        self.places = places
        self.journal = journal
        self.left = set(places)
        self.lock_fd = -1  # Of a child's journal, once the child has ended.
        self._watch: Watch | None = None
        self._watched: Reader | None = None
        self._files: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def source(self) -> str:
        """The journal's name."""
        return self.path.stem

    @property
    def written(self) -> Journal:
        """The writing end of the journal, in the process that has it."""
        if self.journal is None:
            raise StorageError(f"The journal {self.path} is written by another process.")
        return self.journal

    def close(self) -> None:
        """Let go of the files."""
        for place in self.places.values():
            place.reader.close()
        if self.journal is not None:
            self.journal.close()
        fd, self.lock_fd = self.lock_fd, -1
        if fd >= 0:
            os.close(fd)

    def watch(self, watch: Watch) -> None:
        """Hold alert rules against what is logged from now on."""
        self._watch, self._watched = watch, Reader(self.path)

    def look(self) -> None:
        """Show the watch what was logged since the last look."""
        if self._watch is None or self._watched is None:
            return
        while found := self._watched.read():
            for position, raw in found:
                if raw[0] == "metrics":
                    self._watch.see(MetricsLogged(position, *raw[1:]))
        self._watch.look()

    def end_watch(self, status: str) -> None:
        """Show the watch the rest, and how the run ended."""
        if self._watch is not None and self._watched is not None:
            with suppress(MlopskitError):
                self.look()
            self._watch.end(status)
            self._watched.close()
            self._watched = None

    def keep(self, source: Path | bytes) -> tuple[str, int]:
        """Copy the bytes of an artifact into the journal; return their digest and size."""
        files: Blobs = self.written.files
        while True:
            digest, size = files.put(source)
            with self._lock:
                # What every backend has of an earlier artifact may be removed at any time.
                if files.path(digest).exists():
                    self._files[digest] = math.inf
                    return digest, size

    def kept(self, digest: str) -> None:
        """Say that the record of those bytes has been appended."""
        with self._lock:
            self._files[digest] = self.written.end

    def reclaim(self) -> None:
        """Remove what every backend has, while the run goes on."""
        if self.journal is None:
            return
        low = min(place.reached for place in self.places.values())
        if self._watched is not None:
            low = min(low, self._watched.offset)
        self.journal.reclaim(low)
        with self._lock:
            for digest in [each for each, position in self._files.items() if position <= low]:
                del self._files[digest]
                self.journal.files.path(digest).unlink(missing_ok=True)


class Outbox:
    """Opens journals for runs, delivers them, and takes care of those that others left.

    Records that a backend refuses for good, and the files they name, are kept in the folder
    ``rejected`` beside the journals.

    Args:
        folder: Where journals lie.
        sinks: The backends that every record goes to.
        limit: The most bytes that one journal may take.
        notify: Is given the events of runs, in a thread of its own.
        clock: The time in seconds, by which pauses are measured.
    """

    def __init__(
        self,
        folder: Path,
        sinks: Sequence[Tracker],
        *,
        limit: int,
        notify: Callable[[RunEvent], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self._limit = limit
        self._notify = notify
        self._deliveries = {
            sink.target: Delivery(sink, self._moved, self._done, clock) for sink in sinks
        }
        self._feeds: dict[str, Feed] = {}
        self._events: queue.SimpleQueue[RunEvent] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self.pulse = Pulse()
        self._closed = False

    def open(self, run_id: str, owner: str, experiment: str) -> Feed:
        """Begin a journal for a run, and its delivery.

        Raises:
            StorageError: If it cannot be made.
        """
        about = About(run_id, tuple(self._deliveries), owner)
        journal = Journal(self.folder, about, limit=self._limit)
        feed = self._fed(journal.path, run_id, experiment, journal)
        self.pulse.every(HEARTBEAT_S, self._beat)
        self.pulse.every(LOOK_S, self._look)
        self.pulse.every(FOLLOW_S, self._follow)
        return feed

    def open_child(self, run_id: str, experiment: str) -> Feed:
        """Begin a journal in a forked child, which the process of the run delivers."""
        about = About(run_id, tuple(self._deliveries), this_process(), child=True)
        journal = Journal(self.folder, about, limit=self._limit)
        return Feed(journal.path, run_id, experiment, {}, journal)

    def post(self, run_id: str, owner: str, fill: Callable[[Journal], None]) -> SyncReport:
        """Deliver the records of a whole run, which nobody sees before all of them are written.

        A process that dies before that leaves nothing; one that dies later leaves a journal, which
        the next sync delivers.

        Args:
            run_id: The run.
            owner: The process that wrote it at first.
            fill: Appends the records.

        Raises:
            StorageError: If they cannot be written; then none of them is delivered.
        """
        # As that of a child it is delivered as it is: nobody writes an end that it does not have.
        about = About(run_id, tuple(self._deliveries), owner, child=True)
        journal = Journal(self.folder, about, limit=self._limit, hidden=True)
        try:
            fill(journal)
            journal.sync()
            journal.show()
        except BaseException:
            journals.remove(journal.path)
            raise
        finally:
            journal.close()
        deadline = time.monotonic() + max(d.sink.flush_timeout_s for d in self._deliveries.values())
        while True:
            report = self._adopt(journal.path, SyncReport())
            if report.pending or not journal.path.exists():
                return report
            if time.monotonic() > deadline:
                return _with(report, pending={journal.source: "another process delivers it"})
            time.sleep(SETTLE_S)

    @property
    def targets(self) -> list[str]:
        """The backends that every record goes to, by `Tracker.target`."""
        return list(self._deliveries)

    def runs(self) -> set[str]:
        """Return the ids of the runs that are open, or not fully delivered, in this process."""
        return {feed.run_id for feed in list(self._feeds.values())}

    def experiments(self) -> set[str]:
        """Return the experiments of these runs."""
        return {feed.experiment for feed in list(self._feeds.values())}

    def shut(self, feed: Feed, status: str) -> None:
        """Say that nothing more comes: the journal is removed once every backend has all of it."""
        feed.end_watch(status)
        for place in feed.places.values():
            place.closed = True
        for delivery in self._deliveries.values():
            delivery.hurry()

    def flush(
        self, run_id: str | None, timeout_s: float, *, patient: bool = False, only: str = ""
    ) -> bool:
        """Wait until what a run (or every run) has logged is delivered; tell whether it is.

        A broken backend is not waited for, or if `patient`, tried once more. With `only`, the
        other targets are not waited for at all.
        """
        deadline = time.monotonic() + timeout_s
        self._follow()
        feeds = self._of(run_id)
        waits = [
            delivery.wait([feed.places[target] for feed in feeds], deadline, patient=patient)
            for target, delivery in self._deliveries.items()
            if only in ("", target)
        ]
        return all(waits)

    def status(self, run_id: str) -> dict[str, DeliveryStatus]:
        """Say how far each backend has got with a run that is not wholly delivered."""
        feeds = self._of(run_id)
        return {
            target: delivery.status([feed.places[target] for feed in feeds])
            for target, delivery in self._deliveries.items()
        }

    def status_of(self, feed: Feed) -> dict[str, DeliveryStatus]:
        """Say how far each backend has got with a run, delivered or not."""
        feeds = [feed, *(each for each in self._of(feed.run_id) if each is not feed)]
        return {
            target: delivery.status([each.places[target] for each in feeds])
            for target, delivery in self._deliveries.items()
        }

    def tell(self, event: RunEvent) -> None:
        """Hand an event to the listeners, soon and from another thread."""
        self._events.put(event)
        self.pulse.every(0.0, self._tell)

    def sync(self, run_id: str = "") -> SyncReport:
        """Deliver what earlier or dead processes left, and what is our own."""
        report = SyncReport()
        if not run_id:
            wait = max(each.sink.flush_timeout_s for each in self._deliveries.values())
            self.flush(None, wait, patient=True)
            journals.sweep(self.folder)
        held: set[str] = set()
        for path in sorted(self.folder.glob(f"{run_id}*{SUFFIX}"), key=_age):
            run = path.name.partition(".")[0]
            if path.stem in self._feeds or run in held:
                # A run's journals go out in their order: what follows may need what came before.
                held.add(run)
                continue
            report = self._adopt(path, report)
            if path.exists():
                held.add(run)
        for source, feed in list(self._feeds.items()):
            behind = {t: s for t, s in self.status(feed.run_id).items() if s.pending}
            if behind and not run_id:
                reason = "; ".join(s.error or "not delivered yet" for s in behind.values())
                report = _with(report, pending={source: reason})
        return report

    def close(self, timeout_s: float) -> None:
        """Deliver what is pending, as far as the time allows, and end the threads."""
        if not self.flush(None, timeout_s):
            logger.warning("Not everything was delivered; the rest waits in %s.", self.folder)
        self._closed = True
        self.pulse.close()
        self._tell()
        for delivery in self._deliveries.values():
            delivery.stop()
        for feed in list(self._feeds.values()):
            if feed.journal is not None and all(each.closed for each in feed.places.values()):
                feed.journal.close()  # Whoever syncs next may take it over.

    def _of(self, run_id: str | None) -> list[Feed]:
        feeds = list(self._feeds.values())
        return [feed for feed in feeds if run_id in (None, feed.run_id)]

    def _fed(
        self, path: Path, run_id: str, experiment: str, journal: Journal | None = None
    ) -> Feed:
        end = None if journal is None else lambda: journal.end
        places = {target: Place(path, run_id, target, end) for target in self._deliveries}
        feed = Feed(path, run_id, experiment, places, journal)
        with self._lock:
            self._feeds[feed.source] = feed
        for target, delivery in self._deliveries.items():
            delivery.add(places[target])
        return feed

    def _moved(self, place: Place) -> None:
        """Hear that one backend has got further with a journal."""
        if (feed := self._feeds.get(place.source)) is not None:
            feed.reclaim()

    def _done(self, place: Place) -> None:
        """Hear that one backend has all of a closed journal; remove it after the last one."""
        with self._lock:
            feed = self._feeds.get(place.source)
            if feed is None:
                return
            feed.left -= {target for target, each in feed.places.items() if each is place}
            if feed.left:
                return
        journals.remove(feed.path)
        self._forget(feed)

    def _forget(self, feed: Feed) -> None:
        with self._lock:
            self._feeds.pop(feed.source, None)
            if not self._feeds:
                for call in (self._beat, self._look, self._follow):
                    self.pulse.stop(call)
        feed.close()

    # What happens every so often.

    def _beat(self) -> None:
        """Say that this process lives, in every journal that it writes."""
        for feed in list(self._feeds.values()):
            if feed.journal is None or any(each.closed for each in feed.places.values()):
                continue
            with feed.journal.lock, suppress(MlopskitError):
                feed.journal.append(["alive", time.time_ns() // 1_000_000])

    def _look(self) -> None:
        for feed in list(self._feeds.values()):
            with suppress(MlopskitError):
                feed.look()

    def _tell(self) -> None:
        self.pulse.stop(self._tell)
        with suppress(queue.Empty):
            while True:
                self._notify(self._events.get_nowait())

    def _follow(self) -> None:
        """Deliver what forked children log, and see which of them have ended."""
        with self._lock:
            for feed in list(self._feeds.values()):
                if feed.journal is None:
                    self._see_whether_ended(feed)
                    continue
                for path in self.folder.glob(f"{feed.run_id}.*{SUFFIX}"):
                    said = None if path.stem in self._feeds else journals.about(path)
                    if said is not None and said.child and self._is_of_ours(said):
                        self._see_whether_ended(self._fed(path, feed.run_id, feed.experiment))

    def _is_of_ours(self, said: About) -> bool:
        return set(said.targets) == set(self._deliveries)

    def _see_whether_ended(self, feed: Feed) -> None:
        if feed.lock_fd >= 0:
            return
        feed.lock_fd = journals.claim(feed.path) or -1
        if feed.lock_fd >= 0:
            for place in feed.places.values():
                place.closed = True
        elif not feed.path.exists():  # A sync of another process was quicker.
            for target, delivery in self._deliveries.items():
                delivery.drop(feed.places[target])
            self._forget(feed)

    # What others left.

    def _adopt(self, path: Path, report: SyncReport) -> SyncReport:
        """Deliver one journal that another process left, unless that process still lives."""
        try:
            fd = journals.claim(path)
        except OSError as exc:
            return _with(report, pending={path.stem: f"it cannot be opened: {exc.strerror}"})
        if fd is None:
            return report  # Its process lives, or another sync is at it.
        try:
            return self._adopted(path, report)
        except MlopskitError as exc:
            return _with(report, pending={path.stem: str(exc)})
        finally:
            os.close(fd)

    def _adopted(self, path: Path, report: SyncReport) -> SyncReport:
        about = journals.about(path)
        if about is None:
            reason = f"its {journals.ABOUT} cannot be read, so nobody knows where it belongs"
            return _with(report, pending={path.stem: reason})
        places = {target: Place(path, about.run_id, target) for target in about.targets}
        if not about.child:
            _end(path, about, min(place.reached for place in places.values()))
        waiting = {}
        for target, place in places.items():
            place.closed = True
            delivery = self._deliveries.get(target)
            if delivery is None:
                if place.pending:
                    waiting[target] = f"waits for a sync of {target}"
                continue
            try:
                if not _settled(delivery, place, delivery.sink.flush_timeout_s):
                    waiting[target] = "it was taken, and is not known to be stored yet"
            except Exception as exc:  # noqa: BLE001 - said in the report; the journal stays
                waiting[target] = f"{type(exc).__name__}: {exc}"
            report = _with(report, delivered=place.delivered, rejected=place.rejected)
        damage = {str(each): each for place in places.values() for each in place.damage}
        if damage:
            report = _with(report, damaged={path.stem: "; ".join(damage)})
        for place in places.values():
            place.reader.close()
        if waiting:
            return _with(report, pending={path.stem: "; ".join(waiting.values())})
        journals.remove(path)
        return report


def _age(path: Path) -> tuple[str, bool, int, str]:
    """Sort the journals of a run: its own before those of forked children, the oldest first."""
    said = journals.about(path)
    run = path.name.partition(".")[0]
    return (run, False, 0, path.name) if said is None else (run, said.child, said.begun_ns, "")


def _settled(delivery: Delivery, place: Place, patience_s: float) -> bool:
    """Deliver a journal that nobody writes; tell whether it was stored for good in time."""
    deadline = time.monotonic() + patience_s
    while not delivery.deliver(place):
        if time.monotonic() > deadline:
            return False
        time.sleep(SETTLE_S)
    return True


def _end(path: Path, about: About, offset: int) -> None:
    """Write that a run was lost, where its journal does not say how it ended."""
    reader = Reader(path, offset)
    begun, died_ms = offset > 0, 0
    try:
        while found := reader.read(whole=True):
            for _, record in found:
                if record[0] == "end":
                    return
                begun, died_ms = True, int(record[1])
    finally:
        reader.close()
    if not begun:
        return  # Its process died before it said that there is a run.
    died_ms = died_ms or int(path.stat().st_mtime * 1000)
    journals.add_to(path, records.ended("lost", about.owner, died_ms))


def _with(
    report: SyncReport,
    *,
    delivered: int = 0,
    rejected: int = 0,
    pending: dict[str, str] | None = None,
    damaged: dict[str, str] | None = None,
) -> SyncReport:
    return SyncReport(
        delivered=report.delivered + delivered,
        rejected=report.rejected + rejected,
        pending={**report.pending, **(pending or {})},
        damaged={**report.damaged, **(damaged or {})},
    )

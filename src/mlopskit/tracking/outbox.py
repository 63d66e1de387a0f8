"""The journals of one home, and the deliveries that empty them."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mlopskit.errors import MlopskitError
from mlopskit.storage import disk_errors, sync_folder
from mlopskit.tracking import journal_folders as journals
from mlopskit.tracking.adoption import SETTLE_S, added, adopt, by_age
from mlopskit.tracking.delivery import Delivery
from mlopskit.tracking.entities import SyncReport
from mlopskit.tracking.feed import Feed
from mlopskit.tracking.journal import Journal
from mlopskit.tracking.journal_folders import SUFFIX, About
from mlopskit.tracking.owner import HEARTBEAT_S, this_process
from mlopskit.tracking.place import Place
from mlopskit.tracking.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import DeliveryStatus, RunEvent

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
FOLLOW_S: Final = 5.0


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
        self._pid = os.getpid()
        self._closed = False

    def open(self, run_id: str, owner: str, experiment: str) -> Feed:
        """Begin a journal for a run, and its delivery.

        Raises:
            StorageError: If it cannot be made.
        """
        about = About(run_id, tuple(self._deliveries), owner)
        journal = Journal(self.folder, about, limit=self._limit)
        return self._fed(journal.path, run_id, experiment, journal)

    def forsake(self, run_id: str) -> None:
        """Remove the journals of a run that could not begin: nothing was written to them."""
        for feed in self._of(run_id):
            if feed.journal is not None and feed.journal.end == 0:
                self._drop(feed)
                journals.remove(feed.path)

    def open_child(self, run_id: str, experiment: str) -> Feed:
        """Begin a journal in a forked child, which the process of the run delivers."""
        about = About(run_id, tuple(self._deliveries), this_process(), child=True)
        journal = Journal(self.folder, about, limit=self._limit)
        return Feed(journal.path, run_id, experiment, {}, journal)

    def post(
        self,
        run_id: str,
        owner: str,
        fill: Callable[[Journal], None],
        *,
        replaces: str = "",
    ) -> SyncReport:
        """Deliver the records of a whole run, which nobody sees before all of them are written.

        A process that dies before that leaves nothing; one that dies later leaves a journal, which
        the next sync delivers.

        Args:
            run_id: The run.
            owner: The process that wrote it at first.
            fill: Appends the records.
            replaces: The id of a run to delete once all is written here, and before anything of
                it is delivered.

        Raises:
            StorageError: If they cannot be written; then none of them is delivered.
        """
        # As that of a child it is delivered as it is: nobody writes an end that it does not have.
        about = About(run_id, tuple(self._deliveries), owner, child=True, replaces=replaces)
        journal = Journal(self.folder, about, limit=self._limit, hidden=True)
        try:
            fill(journal)
            journal.sync()
            journal.show()
            if replaces:  # From here on it is the only one that is kept.
                sync_folder(self.folder)
        except BaseException:
            journals.remove(journal.path)
            raise
        finally:
            journal.close()
        deadline = time.monotonic() + max(d.sink.flush_timeout_s for d in self._deliveries.values())
        while True:
            report = adopt(journal.path, self._deliveries, SyncReport())
            if report.pending or not journal.path.exists():
                return report
            if time.monotonic() > deadline:
                return added(report, pending={journal.source: "another process delivers it"})
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
        feed.end()
        for delivery in self._deliveries.values():
            delivery.hurry()
        if self._closed:
            feed.close()  # Whoever syncs next may take it over.

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
        """Hand an event to the listeners, soon and from another thread.

        A forked child, which has none of the threads, hands it over at once.
        """
        if os.getpid() != self._pid:
            self._notify(event)
            return
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
        for path in sorted(self._journals(f"{run_id}*"), key=by_age):
            run = path.name.partition(".")[0]
            if path.stem in self._feeds or run in held:
                # A run's journals go out in their order: what follows may need what came before.
                held.add(run)
                continue
            report = adopt(path, self._deliveries, report)
            if path.exists():
                held.add(run)
        for source, feed in list(self._feeds.items()):
            behind = {t: s for t, s in self.status(feed.run_id).items() if s.pending}
            if behind and not run_id:
                reason = "; ".join(s.error or "not delivered yet" for s in behind.values())
                report = added(report, pending={source: reason})
        return report

    def close(self, timeout_s: float) -> None:
        """Deliver what is pending, as far as the time allows, and end the threads."""
        delivered = False
        with suppress(MlopskitError):
            delivered = self.flush(None, timeout_s)
        if not delivered:
            logger.warning("Not everything was delivered; the rest waits in %s.", self.folder)
        with self._lock:
            self._closed = True
        self.pulse.close()
        self._tell()
        for delivery in self._deliveries.values():
            delivery.stop()
        for feed in list(self._feeds.values()):
            if feed.journal is None:
                feed.let_go()
            elif feed.ended:
                feed.close()  # Whoever syncs next may take it over.

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
            if not self._feeds:
                self.pulse.every(HEARTBEAT_S, self._beat)
                self.pulse.every(LOOK_S, self._look)
                self.pulse.every(FOLLOW_S, self._follow)
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
            if feed.journal is None or feed.ended:
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
            if self._closed:
                return  # What it found now it would never deliver.
            for feed in list(self._feeds.values()):
                if feed.journal is None:
                    self._see_whether_ended(feed)
                    continue
                for path in self._journals(f"{feed.run_id}.*"):
                    said = None if path.stem in self._feeds else journals.about(path)
                    if said is not None and said.child and self._is_of_ours(said):
                        self._see_whether_ended(self._fed(path, feed.run_id, feed.experiment))

    def _journals(self, names: str) -> list[Path]:
        with disk_errors(self.folder):
            return list(self.folder.glob(names + SUFFIX))

    def _is_of_ours(self, said: About) -> bool:
        return set(said.targets) == set(self._deliveries)

    def _see_whether_ended(self, feed: Feed) -> None:
        if feed.claim is not None:
            return
        with suppress(MlopskitError):  # What cannot be claimed now is tried again.
            feed.claim = journals.claim(feed.path)
        if feed.claim is not None:
            feed.end()
        elif not feed.path.exists():  # A sync of another process was quicker.
            self._drop(feed)

    def _drop(self, feed: Feed) -> None:
        """Deliver a journal no more."""
        for target, delivery in self._deliveries.items():
            delivery.drop(feed.places[target])
        self._forget(feed)

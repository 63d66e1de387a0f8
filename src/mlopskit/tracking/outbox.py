"""The journals of one home, and the deliveries that empty them."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from mlopskit.errors import MlopskitError, StorageError
from mlopskit.storage import Blobs, disk_errors
from mlopskit.tracking import records
from mlopskit.tracking.delivery import Delivery, Place
from mlopskit.tracking.entities import SyncReport
from mlopskit.tracking.journal import SUFFIX, Journal, Reader, frame_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import DeliveryStatus

logger = logging.getLogger(__name__)


class Feed:
    """One journal that this process writes, and its place at every backend."""

    def __init__(self, journal: Journal, files: Blobs, places: dict[str, Place]) -> None:
        self.journal = journal
        self.files = files
        self.places = places
        self.left = set(places)


class Outbox:
    """Opens journals for runs, delivers them, and takes care of those that others left.

    Args:
        folder: Where journals lie.
        sinks: The backends that every record goes to.
        limit: The most bytes that one journal may take.
    """

    def __init__(self, folder: Path, sinks: Sequence[Tracker], *, limit: int) -> None:
        self.folder = folder
        self._limit = limit
        self._deliveries = {sink.target: Delivery(sink, self._done) for sink in sinks}
        self._feeds: dict[str, Feed] = {}
        self._lock = threading.RLock()

    def open(self, run_id: str, owner: str) -> Feed:
        """Begin a journal for a run, and its delivery.

        Raises:
            StorageError: If it cannot be made.
        """
        journal = Journal(self.folder, run_id, limit=self._limit)
        journal.append(records.header(run_id, list(self._deliveries), owner))
        files = Blobs(files_of(journal.path))
        places = {target: Place(journal.path, run_id, target, files) for target in self._deliveries}
        feed = Feed(journal, files, places)
        with self._lock:
            self._feeds[journal.source] = feed
        for target, delivery in self._deliveries.items():
            delivery.add(places[target])
        return feed

    def runs(self) -> set[str]:
        """Return the ids of the runs that are open, or not fully delivered, in this process."""
        return {source.partition(".")[0] for source in list(self._feeds)}

    def shut(self, feed: Feed) -> None:
        """Say that nothing more comes: the journal is removed once every backend has all of it."""
        for place in feed.places.values():
            place.closed = True
        for delivery in self._deliveries.values():
            delivery.hurry()

    def flush(self, run_id: str | None, timeout_s: float, *, patient: bool = False) -> bool:
        """Wait until what a run (or every run) has logged is delivered; tell whether it is.

        A broken backend is not waited for, or if `patient`, tried once more.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            feeds = [
                feed
                for source, feed in self._feeds.items()
                if run_id is None or source.startswith(run_id)
            ]
        waits = [
            delivery.wait([feed.places[target] for feed in feeds], deadline, patient=patient)
            for target, delivery in self._deliveries.items()
        ]
        return all(waits)

    def status(self, feed: Feed) -> dict[str, DeliveryStatus]:
        """Say how far each backend has got with one journal."""
        return {
            target: delivery.status(feed.places[target])
            for target, delivery in self._deliveries.items()
        }

    def sync(self, run_id: str = "") -> SyncReport:
        """Deliver what earlier or dead processes left, and what is our own."""
        report = SyncReport()
        if not run_id:
            wait = max(each.sink.flush_timeout_s for each in self._deliveries.values())
            self.flush(None, wait, patient=True)
        for path in sorted(self.folder.glob(f"{run_id}*{SUFFIX}")):
            if path.stem not in self._feeds:
                report = self._adopt(path, report)
        for source, feed in list(self._feeds.items()):
            behind = {t: s for t, s in self.status(feed).items() if s.pending}
            if behind and not run_id:
                reason = "; ".join(s.error or "not delivered yet" for s in behind.values())
                report = _with(report, pending={source: reason})
        return report

    def close(self, timeout_s: float) -> None:
        """Deliver what is pending, as far as the time allows, and end the workers."""
        if not self.flush(None, timeout_s):
            logger.warning("Not everything was delivered; the rest waits in %s.", self.folder)
        for delivery in self._deliveries.values():
            delivery.stop()
        for feed in list(self._feeds.values()):
            if all(place.closed for place in feed.places.values()):
                feed.journal.close()  # Whoever syncs next may take it over.

    def _done(self, place: Place) -> None:
        """Hear that one backend has all of a closed journal; remove it after the last one."""
        with self._lock:
            feed = self._feeds.get(place.source)
            if feed is None:
                return
            feed.left -= {target for target, each in feed.places.items() if each is place}
            if feed.left:
                return
        feed.journal.path.unlink(missing_ok=True)
        # A forked child may have appended until this moment; from now on it is told to stop.
        for target, each in feed.places.items():
            if each.pending:
                self._deliveries[target].deliver(each)
        with self._lock:
            self._feeds.pop(place.source, None)
        for each in feed.places.values():
            each.forget()
        feed.journal.close()
        shutil.rmtree(feed.files.root, ignore_errors=True)

    def _adopt(self, path: Path, report: SyncReport) -> SyncReport:
        """Deliver one journal that another process left, unless that process still lives."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return report  # Another sync was quicker.
        except OSError as exc:
            return _with(report, pending={path.stem: f"it cannot be opened: {exc.strerror}"})
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink == 0:
                return report
            return self._adopted(path, fd, report)
        except BlockingIOError:
            return report  # Its process lives, or another sync is at it.
        except MlopskitError as exc:
            return _with(report, pending={path.stem: str(exc)})
        finally:
            os.close(fd)

    def _adopted(self, path: Path, fd: int, report: SyncReport) -> SyncReport:
        found = _survey(path)
        if found is None:
            # It died before its first record was whole, so nothing was ever acknowledged.
            _remove(path, [])
            return report
        run_id, targets, owner, ended = found
        if not ended:
            _append_end(path, fd, owner)
        others = [target for target in targets if target not in self._deliveries]
        places = [Place(path, run_id, t, Blobs(files_of(path))) for t in targets]
        waiting = {target: f"waits for a sync of {target}" for target in others}
        for target, place in zip(targets, places, strict=True):
            place.closed = True
            if target in self._deliveries:
                try:
                    self._deliveries[target].deliver(place)
                except Exception as exc:  # noqa: BLE001 - said in the report; the journal stays
                    waiting[target] = f"{type(exc).__name__}: {exc}"
            elif not place.pending:
                del waiting[target]
            report = _with(report, delivered=place.delivered, rejected=place.rejected)
        if waiting:
            for place in places:
                place.reader.close()
            return _with(report, pending={path.stem: "; ".join(waiting.values())})
        _remove(path, places)
        return report


def files_of(path: Path) -> Path:
    """Return the folder with the bytes of the artifacts that a journal names."""
    return path.with_suffix(".files")


def _survey(path: Path) -> tuple[str, list[str], str, bool] | None:
    """Return the run, the targets and the owner of a journal, and whether it says how it ended."""
    reader = Reader(path)
    header = None
    ended = False
    try:
        while found := reader.read(whole=True):
            for _, record in found:
                if record[0] == records.HEADER:
                    header = record
                ended = ended or record[0] == "end"
    finally:
        reader.close()
    if header is None:
        return None
    _, _, run_id, targets, owner = header
    return run_id, targets, owner, ended


def _append_end(path: Path, fd: int, owner: str) -> None:
    with disk_errors(path):
        died_ms = int(os.fstat(fd).st_mtime * 1000)
        frame = frame_of(records.ended("lost", owner, died_ms))
        if os.write(fd, frame) != len(frame):
            raise StorageError(f"{path} cannot be ended: no space is left.")


def _remove(path: Path, places: Sequence[Place]) -> None:
    for place in places:
        place.forget()
    shutil.rmtree(files_of(path), ignore_errors=True)
    with suppress(FileNotFoundError):
        path.unlink()


def _with(
    report: SyncReport,
    *,
    delivered: int = 0,
    rejected: int = 0,
    pending: dict[str, str] | None = None,
) -> SyncReport:
    return SyncReport(
        delivered=report.delivered + delivered,
        rejected=report.rejected + rejected,
        pending={**report.pending, **(pending or {})},
    )

"""Takes records from journals to one backend: in batches, again and again until it has them."""

from __future__ import annotations

import json
import logging
import os
import random
import struct
import threading
import time
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import (
    Conflict,
    InvalidInput,
    InvalidName,
    NotFound,
    StorageError,
    Unavailable,
    Unsupported,
)
from mlopskit.tracking.entities import Batch, DeliveryStatus
from mlopskit.tracking.journal import Reader
from mlopskit.tracking.records import decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mlopskit.storage import Blobs
    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Record

logger = logging.getLogger(__name__)

POLL_S: Final = 0.2
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 60.0
BROKEN_AFTER: Final = 3
FOR_GOOD: Final = (InvalidInput, InvalidName, Conflict, NotFound, Unsupported)
_OFFSET = struct.Struct("<Q")


class Place:
    """How far one backend has got in one journal. The place outlives the process in a small file.

    Args:
        path: The journal.
        run_id: The run it belongs to.
        target: The backend's `Tracker.target`.
        files: The bytes of the artifacts that the journal names.
    """

    def __init__(self, path: Path, run_id: str, target: str, files: Blobs) -> None:
        self.run_id = run_id
        self.source = path.stem
        self.files = files
        self.closed = False
        self.delivered = 0
        self.rejected = 0
        self.error = ""
        mark = sha256(target.encode()).hexdigest()[:12]
        self._cursor = path.with_name(f"{path.stem}.{mark}.cursor")
        self._refused = path.with_name(f"{path.stem}.{mark}.rejected")
        self.reader = Reader(path, self._stored())
        # The reader is ahead of this while a batch is on its way.
        self.reached = self.reader.offset

    @property
    def pending(self) -> int:
        """How many bytes the backend has not stored yet."""
        return max(0, self.reader.size() - self.reached)

    def take(self) -> tuple[int, list[tuple[list[Any], Record]]]:
        """Return the offset before the next records, and these, as written and as decoded."""
        before = self.reader.offset
        taken = []
        for position, raw in self.reader.read(whole=self.closed):
            record = decoded(position, raw, self.files)
            if record is not None:
                taken.append((raw, record))
        return before, taken

    def store(self) -> None:
        """Remember the place for later processes. It may lag behind: backends deduplicate."""
        with suppress(OSError):
            fd = os.open(self._cursor, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, _OFFSET.pack(self.reached), 0)
            finally:
                os.close(fd)

    def refuse(self, raw: list[Any], reason: Exception) -> None:
        """Keep a record that the backend will never take, with its reason, beside the journal."""
        self.rejected += 1
        logger.warning("A record of run %s was refused for good: %s", self.run_id, reason)
        line = json.dumps({"run": self.run_id, "reason": str(reason), "record": raw}) + "\n"
        fd = os.open(self._refused, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

    def forget(self) -> None:
        """Remove the remembered place."""
        self.reader.close()
        with suppress(FileNotFoundError):
            self._cursor.unlink()

    def _stored(self) -> int:
        try:
            return int(_OFFSET.unpack(self._cursor.read_bytes())[0])
        except (OSError, struct.error):
            return 0


class Delivery:
    """One backend's worker. Its thread starts with the first place and ends with `stop`.

    Args:
        sink: The backend.
        done: Called, from any thread, when all of a closed journal has been delivered to it.
    """

    def __init__(self, sink: Tracker, done: Callable[[Place], None]) -> None:
        self.sink = sink
        self._done = done
        self._places: list[Place] = []
        self._turn = threading.Condition(threading.RLock())
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._urgent = False
        self._failures = 0
        self._not_before = 0.0
        self._rounds = 0
        self._busy = False

    @property
    def broken(self) -> bool:
        """Whether the backend has failed so often that nobody should wait for it."""
        return self._failures >= BROKEN_AFTER

    def add(self, place: Place) -> None:
        """Deliver from a journal from now on."""
        with self._turn:
            self._places.append(place)
            if self._thread is None:
                name = f"mlopskit delivery to {self.sink.target.partition(':')[0]}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()
            self._turn.notify_all()

    def hurry(self) -> None:
        """Try now, whatever the back-off says."""
        with self._turn:
            self._urgent = True
            self._turn.notify_all()

    def wait(self, places: Sequence[Place], deadline: float, *, patient: bool = False) -> bool:
        """Wait until all that the journals hold now is delivered; tell whether it is.

        Returns early where the backend is broken; if `patient`, only after another try.
        """
        goals = [(place, place.reader.size()) for place in places]
        with self._turn:
            self.hurry()
            tries = self._rounds + patient * (2 if self._busy else 1)
            while any(self._behind(place, goal) for place, goal in goals):
                left = deadline - time.monotonic()
                broken = self.broken and self._rounds >= tries
                if left <= 0 or broken or self._stopped:
                    return False
                self._turn.wait(left)
        return True

    def status(self, place: Place) -> DeliveryStatus:
        """Say how far the backend has got with one journal."""
        return DeliveryStatus(
            delivered=place.delivered,
            pending=0 if place not in self._places else place.pending,
            rejected=place.rejected,
            error=place.error,
            guarantee="exactly once" if self.sink.exactly_once else "at least once",
        )

    def stop(self) -> None:
        """End the thread after the batch in its hands."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=self.sink.flush_timeout_s)

    def deliver(self, place: Place) -> None:
        """Deliver all that one journal holds now, in the calling thread.

        Raises:
            Exception: What the backend raised, if it may take the records later.
        """
        with self._writing:
            while True:
                before, taken = place.take()
                if not taken:
                    place.reached = place.reader.offset
                    break
                try:
                    self._write(place, taken)
                except BaseException as exc:
                    place.reader.offset = before
                    place.error = f"{type(exc).__name__}: {exc}"
                    raise
                place.error = ""
                place.reached = place.reader.offset
                place.store()
                with self._turn:
                    self._turn.notify_all()

    def _write(self, place: Place, taken: Sequence[tuple[list[Any], Record]]) -> None:
        records = tuple(record for _, record in taken)
        try:
            self.sink.write(Batch(place.run_id, place.source, records))
        except FOR_GOOD as exc:
            if len(taken) == 1:
                place.refuse(taken[0][0], exc)
                return
        else:
            place.delivered += len(records)
            return
        for one in taken:
            self._write(place, [one])

    def _behind(self, place: Place, goal: int) -> bool:
        # A closed journal is done when it is gone.
        return place in self._places and (place.closed or place.reached < goal)

    def _work(self) -> None:
        while True:
            with self._turn:
                if not self._stopped and not self._urgent:
                    self._turn.wait(self._pause())
                if self._stopped:
                    return
                if not self._urgent and time.monotonic() < self._not_before:
                    continue
                self._urgent = False
                self._busy = True
                places = list(self._places)
            self._round(places)
            with self._turn:
                self._rounds += 1
                self._busy = False
                self._turn.notify_all()

    def _pause(self) -> float | None:
        if not self._places:
            return None
        return max(POLL_S, self._not_before - time.monotonic())

    def _round(self, places: list[Place]) -> None:
        failure: Exception | None = None
        for place in places:
            try:
                self._empty(place)
            except (Unavailable, StorageError) as exc:
                failure = exc
                break
            except Exception as exc:  # noqa: BLE001 - one run's trouble, and the worker's life
                failure = exc
        if failure is not None:
            self._failed(failure)
        else:
            self._failures = 0
            self._not_before = 0.0

    def _empty(self, place: Place) -> None:
        closed = place.closed
        self.deliver(place)
        if closed and not place.pending:
            self._done(place)
            with self._turn:
                self._places.remove(place)
                self._turn.notify_all()

    def _failed(self, exc: Exception) -> None:
        first = self._failures == 0
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 20))
        self._not_before = time.monotonic() + random.uniform(0.0, pause)  # noqa: S311 - jitter
        with self._turn:
            self._failures += 1
            self._turn.notify_all()
        level = logging.WARNING if first or self._failures == BROKEN_AFTER else logging.DEBUG
        logger.log(
            level,
            "Delivery to %s failed (%s: %s). The records wait in the journal.",
            self.sink.target,
            type(exc).__name__,
            exc,
        )

"""Takes records from journals to one backend: in batches, again and again until it has them."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from mlopskit.errors import (
    Conflict,
    InvalidInput,
    InvalidName,
    NotFound,
    Unavailable,
    Unsupported,
)
from mlopskit.tracking.breaker import OPEN_AFTER, Breaker
from mlopskit.tracking.entities import Batch, DeliveryStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Record
    from mlopskit.tracking.place import Place

logger = logging.getLogger(__name__)

POLL_S: Final = 0.2
# So many batches of one run before the next run has its turn.
TURN: Final = 20
FOR_GOOD: Final = (InvalidInput, InvalidName, Conflict, NotFound, Unsupported)


class Delivery:
    """One backend's worker. Its thread starts with the first place and ends with `stop`.

    Args:
        sink: The backend.
        moved: Called, from any thread, when a place has moved on.
        done: Called, from any thread, when all of a closed journal has been delivered to it.
        clock: The time in seconds, by which pauses are measured.
    """

    def __init__(
        self,
        sink: Tracker,
        moved: Callable[[Place], None],
        done: Callable[[Place], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sink = sink
        self._moved = moved
        self._done = done
        self._breaker = Breaker(clock)
        self._places: list[Place] = []
        self._turn = threading.Condition(threading.RLock())
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._urgent = False
        self._rounds = 0
        self._busy = False

    def add(self, place: Place) -> None:
        """Deliver from a journal from now on."""
        with self._turn:
            self._places.append(place)
            if self._thread is None:
                name = f"mlopskit delivery to {self.sink.target.partition(':')[0]}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()
            self._turn.notify_all()

    def drop(self, place: Place) -> None:
        """Deliver from a journal no more."""
        with self._turn:
            if place in self._places:
                self._places.remove(place)
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
        goals = [(place, place.end()) for place in places]
        with self._turn:
            self.hurry()
            tries = self._rounds + patient * (2 if self._busy else 1)
            while any(self._behind(place, goal) for place, goal in goals):
                left = deadline - time.monotonic()
                broken = self._breaker.is_open and self._rounds >= tries
                if left <= 0 or broken or self._stopped:
                    return False
                self._turn.wait(left)
        return True

    def status(self, places: Sequence[Place]) -> DeliveryStatus:
        """Say how far the backend has got with the journals of one run."""
        mine = [place for place in places if place in self._places]
        return DeliveryStatus(
            delivered=sum(place.delivered for place in places),
            pending=sum(place.pending for place in mine),
            rejected=sum(place.rejected for place in places),
            error=next((place.error for place in places if place.error), ""),
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

    def deliver(self, place: Place, batches: int | None = None) -> bool:
        """Deliver what a journal holds, in the calling thread; tell whether all of it is settled.

        Args:
            place: Where the backend is in it.
            batches: Stop after so many; None to go on to the end.

        Raises:
            Exception: What the backend raised, if it may take the records later.
        """
        with self._writing:
            while batches is None or batches > 0:
                try:
                    taken = place.take()
                    self._write(place, taken)
                    moved = place.arrived(self.sink.settled(place.run_id, place.source))
                except BaseException as exc:
                    place.failed(exc)
                    raise
                if moved:
                    self._moved(place)
                    with self._turn:
                        self._turn.notify_all()
                if not taken:
                    return place.is_settled
                batches = None if batches is None else batches - 1
        return False

    def _write(self, place: Place, records: Sequence[Record]) -> None:
        if not records:
            return
        try:
            self.sink.write(Batch(place.run_id, place.source, tuple(records)))
        except FOR_GOOD as exc:
            if len(records) == 1:
                place.refuse(records[0], exc)
                return
        else:
            place.count(records)
            return
        for record in records:
            self._write(place, [record])

    def _behind(self, place: Place, goal: int) -> bool:
        # A closed journal is done when it is gone.
        return place in self._places and (place.closed or place.reached < goal)

    def _work(self) -> None:
        while True:
            with self._turn:
                if not self._stopped and not self._urgent:
                    self._turn.wait(POLL_S if self._places else None)
                if self._stopped:
                    return
                if not self._urgent and not self._breaker.may_try:
                    continue
                self._urgent = False
                self._busy = True
                places = list(self._places)
            self._round(places)
            with self._turn:
                self._rounds += 1
                self._busy = False
                self._turn.notify_all()

    def _round(self, places: list[Place]) -> None:
        failure: Exception | None = None
        for place in places:
            try:
                self._empty(place)
            except Unavailable as exc:
                failure = exc
                break
            except Exception as exc:  # noqa: BLE001 - one run's trouble, and the worker's life
                failure = exc
        if failure is not None:
            self._failed(failure)
        elif places:
            self._breaker.succeeded()

    def _empty(self, place: Place) -> None:
        closed = place.closed
        if not self.deliver(place, TURN):
            with self._turn:
                self._urgent |= place.reader.offset < place.end()
        elif closed and not place.pending:
            self._done(place)
            self.drop(place)

    def _failed(self, exc: Exception) -> None:
        with self._turn:
            failures = self._breaker.failed()
            self._turn.notify_all()
        level = logging.WARNING if failures in (1, OPEN_AFTER) else logging.DEBUG
        logger.log(
            level,
            "Delivery to %s failed (%s: %s). The records wait in the journal.",
            self.sink.target,
            type(exc).__name__,
            exc,
        )

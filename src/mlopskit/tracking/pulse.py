"""One thread for what has to happen every so often while runs are open."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class Pulse:
    """Calls functions at intervals, from one thread that lives while there is something to call.

    A function that raises is logged and called again in its turn. The clock may be another one
    than the machine's, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = threading.Condition()
        self._due: dict[Callable[[], None], tuple[float, float]] = {}
        self._thread: threading.Thread | None = None

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call a function every so many seconds from now on, until `stop` is told the same one."""
        with self._turn:
            self._due[call] = (self._clock() + seconds, seconds)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="mlopskit pulse", daemon=True
                )
                self._thread.start()
            self._turn.notify_all()

    def stop(self, call: Callable[[], None]) -> None:
        """Call a function no more. It may be in the midst of its last call."""
        with self._turn:
            self._due.pop(call, None)
            self._turn.notify_all()

    def close(self) -> None:
        """Stop everything and wait for the thread to end."""
        with self._turn:
            self._due.clear()
            self._turn.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)

    def _work(self) -> None:
        while True:
            with self._turn:
                if not self._due:
                    self._thread = None
                    return
                now = self._clock()
                call = min(self._due, key=lambda each: self._due[each][0])
                at, seconds = self._due[call]
                if at > now:
                    self._turn.wait(at - now)
                    continue
                # After a sleep of the machine the missed calls are not made up for.
                self._due[call] = (max(at + seconds, now), seconds)
            try:
                call()
            except Exception:
                logger.exception("What runs every %g seconds failed.", seconds)

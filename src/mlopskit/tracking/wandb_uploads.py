"""Which artifacts are on their way to a W&B server."""

from __future__ import annotations

import queue
import threading
from typing import Any

from mlopskit.errors import Unavailable


class Uploads:
    """The artifacts of one run that the server does not have yet.

    A thread waits for them, one after the other: W&B gives an upload up when a wait for it ends
    early.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int], Any] = {}
        self._order: queue.SimpleQueue[tuple[tuple[str, int], Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed: Exception | None = None

    def add(self, source: str, position: int, logged: Any) -> None:
        """Wait for an artifact of W&B's that was just logged."""
        self._waiting[source, position] = logged
        self._order.put(((source, position), logged))
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._wait, name="mlopskit uploads to wandb", daemon=True
            )
            self._thread.start()

    def first(self) -> dict[str, int]:
        """Return the first position, by journal, of what is not on the server yet.

        Raises:
            Unavailable: If it was not taken.
        """
        if self._failed is not None:
            raise Unavailable("W&B", f"it has not taken an artifact: {self._failed!r}")
        first: dict[str, int] = {}
        for source, position in list(self._waiting):
            first[source] = min(position, first.get(source, position))
        return first

    def _wait(self) -> None:
        while True:
            place, logged = self._order.get()
            try:
                logged.wait()
            except Exception as exc:  # noqa: BLE001 - whatever it is, `first` says it
                self._failed = exc
                return
            del self._waiting[place]

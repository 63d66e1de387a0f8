"""One journal that this process delivers: the backends' places in it, its files, its watch."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from mlopskit.errors import MlopskitError, StorageError
from mlopskit.tracking.entities import MetricsLogged
from mlopskit.tracking.journal_reader import Reader

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.storage import Blobs
    from mlopskit.tracking.alerts import Watch
    from mlopskit.tracking.journal import Journal
    from mlopskit.tracking.journal_folders import Claim
    from mlopskit.tracking.place import Place


class Feed:
    """One journal that this process delivers, and the place of every backend in it.

    Attributes:
        journal: Its writing end; None where a forked child writes it.
        experiment: That of its run.
        places: By target.
        left: The targets that do not have all of it yet.
        claim: The lock of a child's journal, once the child has ended.
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
        self.claim: Claim | None = None
        self._watch: Watch | None = None
        self._watched: Reader | None = None
        self._looking = threading.Lock()
        self._files: dict[str, float] = {}
        self._awaited: dict[str, int] = {}
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

    @property
    def ended(self) -> bool:
        """Whether nothing more is written to it."""
        return all(place.closed for place in self.places.values())

    def end(self) -> None:
        """Say that nothing more is written to it."""
        for place in self.places.values():
            place.closed = True

    def close(self) -> None:
        """Let go of the files and the lock."""
        for place in self.places.values():
            place.reader.close()
        self.let_go()

    def let_go(self) -> None:
        """Leave it to whoever claims it next. What is being delivered from it is read on."""
        if self.journal is not None:
            with self.journal.lock:
                self.journal.close()
        if self.claim is not None:
            self.claim.let_go()

    def watch(self, watch: Watch) -> None:
        """Hold alert rules against what is logged from now on."""
        self._watch, self._watched = watch, Reader(self.path)

    def look(self) -> None:
        """Show the watch what was logged since the last look."""
        with self._looking:
            if self._watch is None or self._watched is None:
                return
            while found := self._watched.read():
                for position, raw in found:
                    if raw[0] == "metrics":
                        self._watch.see(MetricsLogged(position, *raw[1:]))
            self._watch.look()

    def end_watch(self, status: str) -> None:
        """Show the watch the rest, and how the run ended."""
        with suppress(MlopskitError):
            self.look()
        with self._looking:
            if self._watch is not None and self._watched is not None:
                self._watch.end(status)
                self._watched.close()
                self._watched = None

    def keep(self, source: Path | bytes) -> tuple[str, int]:
        """Copy the bytes of an artifact into the journal; return their digest and size.

        They stay at least until `kept` is called.
        """
        files: Blobs = self.written.files
        while True:
            digest, size = files.put(source)
            with self._lock:
                # What every backend has of an earlier artifact may be removed at any time.
                if files.path(digest).exists():
                    self._files.setdefault(digest, math.inf)
                    self._awaited[digest] = self._awaited.get(digest, 0) + 1
                    return digest, size

    def kept(self, digest: str) -> None:
        """Say that a record of those bytes has been appended."""
        with self._lock:
            self._files[digest] = self.written.end
            # Another thread may have kept equal bytes, whose record is still to come.
            awaited = self._awaited.pop(digest, 0) - 1
            if awaited > 0:
                self._awaited[digest] = awaited

    def reclaim(self) -> None:
        """Remove what every backend has, while the run goes on."""
        if self.journal is None:
            return
        low = min(place.reached for place in self.places.values())
        if (watched := self._watched) is not None:
            low = min(low, watched.offset)
        self.journal.reclaim(low)
        with self._lock:
            done = [each for each, position in self._files.items() if position <= low]
            for digest in done:
                if digest not in self._awaited:
                    del self._files[digest]
                    self.journal.files.path(digest).unlink(missing_ok=True)

"""How far one backend has got in one journal."""

from __future__ import annotations

import json
import logging
import os
import struct
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import MlopskitError
from mlopskit.storage import Blobs, disk_errors, make_private_folder
from mlopskit.tracking.entities import ArtifactLogged
from mlopskit.tracking.journal_reader import Reader
from mlopskit.tracking.records import decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mlopskit.tracking.entities import Record
    from mlopskit.tracking.journal_reader import Damage

logger = logging.getLogger(__name__)

BATCH: Final = 1000
REJECTED: Final = "rejected"
_OFFSET = struct.Struct("<Q")


class Place:
    """A backend's place in a journal. It outlives the process in a small file of the journal.

    Args:
        path: The journal.
        run_id: The run it belongs to.
        target: The backend's `Tracker.target`.
        end: Where the journal ends now, in bytes; left out, its files are looked at.

    Attributes:
        closed: Nothing more comes.
        delivered: Records that the backend has.
        rejected: Records that it will never take.
        error: Why the last try failed.
        reached: The offset up to which everything is delivered or rejected.
    """

    def __init__(
        self, path: Path, run_id: str, target: str, end: Callable[[], int] | None = None
    ) -> None:
        self.run_id = run_id
        self.source = path.stem
        self.closed = False
        self.delivered = 0
        self.rejected = 0
        self.error = ""
        self._counted = -1
        self._path = path
        self._files = Blobs(path / "files")
        self._mark = sha256(target.encode()).hexdigest()[:12]
        self._cursor = path / f"{self._mark}.cursor"
        self._way = path / f"{self._mark}.way"
        self.reader = Reader(path, self._stored())
        # The reader is ahead of this while a batch is on its way.
        self.reached = self.reader.offset
        self.end = end or self.reader.size

    @property
    def pending(self) -> int:
        """How many bytes the backend has not got yet."""
        return max(0, self.end() - self.reached)

    def take(self) -> list[Record]:
        """Return the next records: of metrics at most a thousand."""
        found = self.reader.read(most=BATCH, weigh=_values, whole=self.closed)
        self._name_damage()
        return [decoded(position, raw, self._files) for position, raw in found]

    @property
    def is_settled(self) -> bool:
        """Whether all that was taken is stored for good."""
        return self.reached >= self.reader.offset

    def arrived(self, position: int | None = None) -> bool:
        """Remember that what was taken is done, all of it or up to a position; tell if that is new.

        Later processes begin there. The file may lag behind after a crash: backends deduplicate.
        """
        self.error = ""
        reached = self.reader.offset if position is None else min(position, self.reader.offset)
        if reached <= self.reached:
            return False
        self.reached = reached
        with suppress(OSError):
            fd = os.open(self._cursor, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, _OFFSET.pack(self.reached), 0)
            finally:
                os.close(fd)
        return True

    @property
    def has_way(self) -> bool:
        """Whether the run that this journal replaces is gone, or was begun anew."""
        return self.reached > 0 or self._way.exists()

    def made_way(self) -> None:
        """Remember that the run which this journal replaces is gone.

        Raises:
            StorageError: If it cannot be remembered; then nothing is delivered.
        """
        with disk_errors(self._way):
            os.close(os.open(self._way, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def count(self, records: Sequence[Record]) -> None:
        """Count what was written, once however often it comes."""
        self.delivered += sum(record.position > self._counted for record in records)
        self._counted = max(self._counted, records[-1].position)

    def failed(self, error: BaseException) -> None:
        """Go back to where the last batch began; it will be taken again."""
        self.reader.back_to(self.reached)
        self.error = f"{type(error).__name__}: {error}"

    def refuse(self, record: Record, reason: Exception) -> None:
        """Keep a record that the backend will never take, with its reason and its files.

        Raises:
            StorageError: If it cannot be kept; then it stays in the journal.
        """
        if isinstance(record, ArtifactLogged):
            kept = Blobs(self._refuge() / f"{self.source}.files")
            for _, path in record.files:
                if path is not None and path.exists():
                    kept.put(path)
        said = {"run": self.run_id, "reason": str(reason), "record": self._written(record)}
        self._keep(said)
        self.rejected += 1
        logger.warning("A record of run %s was refused for good: %s", self.run_id, reason)

    def _written(self, record: Record) -> list[Any] | None:
        """Return a record that was taken as it is written: looked up, since it is seldom asked."""
        reader = Reader(self._path, self.reached)
        while found := reader.read(whole=True):
            for position, raw in found:
                if position == record.position:
                    return raw
        return None

    @property
    def damage(self) -> list[Damage]:
        """What of the journal could not be read on the way."""
        return self.reader.damage

    def _name_damage(self) -> None:
        for each in self.damage[getattr(self, "_named", 0) :]:
            logger.error("The journal %s is damaged: %s.", self._path, each)
            with suppress(MlopskitError):
                self._keep({"run": self.run_id, "reason": f"unreadable: {each}", "record": None})
        self._named = len(self.damage)

    def _refuge(self) -> Path:
        return make_private_folder(self._path.parent.parent / REJECTED)

    def _keep(self, said: dict[str, Any]) -> None:
        path = self._refuge() / f"{self.source}.{self._mark}.jsonl"
        line = (json.dumps(said) + "\n").encode()
        with disk_errors(path), open(path, "ab", buffering=0, opener=_private) as file:
            file.write(line)

    def _stored(self) -> int:
        try:
            return int(_OFFSET.unpack(self._cursor.read_bytes())[0])
        except (OSError, struct.error):
            return 0


def _values(raw: list[Any]) -> int:
    return len(raw[3]) if raw[0] == "metrics" else 1


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)

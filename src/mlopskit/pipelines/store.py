"""Where the values of steps are kept: documents by key, larger bytes and files by digest."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlopskit.errors import StorageError
from mlopskit.pipelines.files import Files, Unstorable
from mlopskit.pipelines.history import History
from mlopskit.pipelines.locks import Lock
from mlopskit.pipelines.values import Decoder, Encoder
from mlopskit.storage import Blobs, make_private_folder

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """A value's document, and how the value may be handed on.

    Attributes:
        document: The document.
        mutable: Whether the value can be changed in place.
        files: Whether it holds files or folders.
    """

    document: Any
    mutable: bool = True
    files: bool = True


class Store:
    """The folder of a local runner."""

    def __init__(self, root: Path) -> None:
        # One by one: folders that are made on the way to another are open to all.
        for folder in (root, root / "scratch"):
            make_private_folder(folder)
        self.root = root
        self.history = History(root / "runs.db")
        self.blobs = Blobs(root / "blobs")
        self.decoder = Decoder(self.blobs, Files(root / "files", self.blobs))
        self._clear_after_the_dead()

    def scratch(self, run_id: str) -> Path:
        """Return the folder for what the steps of a run write."""
        return self.root / "scratch" / run_id

    def _clear_after_the_dead(self) -> None:
        """Remove what runs wrote whose process is gone."""
        for folder in (self.root / "scratch").iterdir():
            if not self.history.may_write(folder.name):
                self.clear(folder)

    def clear(self, folder: Path) -> None:
        """Remove a scratch folder, as far as that goes."""
        shutil.rmtree(folder, ignore_errors=True)

    def lock(self, key: str) -> Lock | None:
        """Take the lock of a key at once, or return None while another has it."""
        return Lock.take(self.root / "locks" / key)

    def put(self, value: Any) -> Stored:
        """Store a value.

        Raises:
            Unstorable: If it cannot be stored exactly, or the disk refuses it.
        """
        encoder = Encoder(self.blobs.put)
        try:
            return Stored(encoder.document(value), encoder.mutable, encoder.files)
        except StorageError as exc:
            logger.exception("A value could not be stored.")
            raise Unstorable(str(exc)) from exc

    def find(self, key: str) -> tuple[Stored, str] | None:
        """Return what is kept for a key, and the run that made it, if it can be read back."""
        found = self.history.value(key)
        if found is None:
            return None
        document, run_id = found
        problem = self.decoder.problem(document)
        if problem:
            logger.warning("A kept value is made anew: %s.", problem)
            return None
        return Stored(document), run_id

    def clear_empty(self, folder: Path) -> None:
        """Remove a folder if nothing is in it."""
        with suppress(OSError):
            folder.rmdir()

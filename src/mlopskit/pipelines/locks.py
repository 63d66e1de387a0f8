"""One holder per name among all threads and processes of a machine."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from mlopskit.storage import disk_errors, make_private_folder

if TYPE_CHECKING:
    from pathlib import Path


class Lock:
    """A lock that the operating system gives back when its holder dies."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Lock | None:
        """Take a lock at once, or return None while somebody else has it.

        Where the file system has no locks, everybody gets one: two may then do the same work.

        Raises:
            StorageError: If its file cannot be made.
        """
        make_private_folder(path.parent)
        while True:
            with disk_errors(path):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:
                os.close(descriptor)
                return cls(path, None)
            if _is_still(path, descriptor):
                return cls(path, descriptor)
            # The last holder removed the file between our opening and locking it.
            os.close(descriptor)

    def release(self) -> None:
        """Give the lock back, and remove its file. Twice is fine."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            self._path.unlink(missing_ok=True)
        finally:
            # A child forked meanwhile shares the descriptor, so closing alone would not unlock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False

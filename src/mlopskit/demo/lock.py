"""One demo at a time in one home: two would replay the year into each other's features."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlopskit.errors import Conflict
from mlopskit.storage import disk_errors, make_private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the demo's lock of a home. It is released with the process, however that ends.

    Raises:
        Conflict: If another process holds it.
        StorageError: If the folder cannot be written.
    """
    make_private_folder(folder)
    path = folder / "lock"
    with disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode() or "?"
            raise Conflict(
                f"A demo is already running in {folder.parent} (process {holder}). Wait for its "
                "end, or run this one with --home somewhere else."
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)

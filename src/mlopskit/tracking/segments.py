"""The files of a journal that hold its records: ``<offset>.log``, named by where they begin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def segment(journal: Path, begin: int) -> str:
    """Return the path of the segment that begins at an offset."""
    return f"{journal}/{begin:020d}.log"


def new_segment(journal: Path, begin: int) -> int:
    """Make the segment that begins at an offset; return it open for appending.

    Raises:
        FileExistsError: If it is there already.
        OSError: If it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    return os.open(segment(journal, begin), flags, 0o600)


def stretches(journal: Path) -> Sequence[tuple[int, int | None]]:
    """Return where each segment begins, and where the next one does; nothing of a lost journal.

    Raises:
        OSError: If the folder cannot be listed.
    """
    try:
        begins = sorted(int(name[:-4]) for name in os.listdir(journal) if name.endswith(".log"))
    except FileNotFoundError:
        return []
    return list(zip(begins, [*begins[1:], None], strict=True))


def end_of(journal: Path) -> int | None:
    """Return where the last segment ends; None if there is none.

    Raises:
        OSError: If it cannot be looked at, or has been removed meanwhile.
    """
    known = stretches(journal)
    if not known:
        return None
    begin = known[-1][0]
    return begin + os.stat(segment(journal, begin)).st_size

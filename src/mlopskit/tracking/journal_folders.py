"""The folders of journals, and what is done with one from outside: found, claimed, removed.

Beside its segments a journal has ``about.json``, which says whose it is, and ``lock``, which the
process that writes it holds for as long as it lives: who can claim that lock may deliver it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
import uuid
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import StorageError
from mlopskit.storage import disk_errors
from mlopskit.tracking.frames import frame_of
from mlopskit.tracking.segments import end_of, segment

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX: Final = ".journal"
ABOUT: Final = "about.json"
LOCK: Final = "lock"
STILLBORN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class About:
    """What a journal says of itself.

    Attributes:
        run_id: The run.
        targets: The backends that all of it goes to.
        owner: The process that writes it, as `owner.this_process` has it.
        child: Whether that process was forked from the run's own; then it never ends the run.
        replaces: The id of a run that is deleted before the first record is delivered; or empty.
        begun_ns: When it was begun, in nanoseconds since 1970-01-01 UTC.
    """

    run_id: str
    targets: tuple[str, ...]
    owner: str
    child: bool = False
    replaces: str = ""
    begun_ns: int = field(default_factory=time.time_ns, compare=False)

    def write(self, journal: Path) -> None:
        """Say it in a journal that is being made.

        Raises:
            OSError: If it cannot be written whole.
        """
        said = {
            "version": 1,
            "run": self.run_id,
            "targets": self.targets,
            "owner": self.owner,
            "child": self.child,
            "replaces": self.replaces,
            "begun": self.begun_ns,
        }
        content = json.dumps(said).encode()
        fd = os.open(journal / ABOUT, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)


def about(path: Path) -> About | None:
    """Return what a journal says of itself; None if it is none."""
    try:
        said = json.loads((path / ABOUT).read_bytes())
        return About(
            run_id=said["run"],
            targets=tuple(said["targets"]),
            owner=said["owner"],
            child=said["child"],
            replaces=said.get("replaces", ""),
            begun_ns=said["begun"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Claim:
    """A journal's lock, held by this process, and not by those that are forked from it.

    It ends with `let_go`, or with the object.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        _claims.add(self)

    def let_go(self) -> None:
        """Let others have it. Doing so twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.let_go()


_claims: weakref.WeakSet[Claim] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """Close what a forked child inherited: it must not hold the locks of a parent that dies."""
    for each in list(_claims):
        each.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)


def first_claim(path: Path) -> Claim:
    """Make the lock of a journal that is being made; nobody finds it before it is held.

    Raises:
        OSError: If it cannot be made.
    """
    made = f"{path / LOCK}.new"
    fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    claim = Claim(fd)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.rename(made, path / LOCK)
    return claim


def claim(path: Path) -> Claim | None:
    """Take over a journal that no living process writes; None if there is one, or it is gone.

    Raises:
        StorageError: If its lock cannot be used.
    """
    with disk_errors(path):
        try:
            fd = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        claim = Claim(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            claim.let_go()
            return None
        if not path.exists() or os.fstat(fd).st_nlink == 0:
            claim.let_go()  # Somebody else has just delivered all of it.
            return None
        return claim


def add_to(path: Path, record: list[Any]) -> None:
    """Append a record to a journal that was claimed.

    Raises:
        StorageError: If it cannot be written whole.
    """
    frame = frame_of(record)
    with disk_errors(path):
        # A segment of its own, unless the last one is empty: its end may be torn.
        place = segment(path, end_of(path) or 0)
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, frame) != len(frame):
                raise StorageError(f"{path} cannot be ended: no space is left.")
        finally:
            os.close(fd)


def remove(path: Path) -> None:
    """Remove a journal with all that is in it, so that no other process sees a part of it."""
    gone = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.gone")
    with suppress(FileNotFoundError):
        os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what was left of journals whose making or removal was cut short."""
    for path in folder.glob(".*.gone"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.new"):
        with suppress(OSError, StorageError):
            begun = (path / LOCK).exists() or time.time() - path.stat().st_mtime < STILLBORN_S
            if (held := claim(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                held.let_go()
            elif not begun:
                shutil.rmtree(path, ignore_errors=True)

"""Which process writes a run, and whether it still lives.

A process of this machine can be looked at. One of another machine or container cannot: it says
that it lives, every `HEARTBEAT_S`, and counts as dead when nothing was heard for `LOST_AFTER_S`.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

HEARTBEAT_S: Final = 20.0
LOST_AFTER_S: Final = 90.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_process() -> str:
    """Describe this process: its machine, boot, process namespace, id and start, as JSON."""
    pid = os.getpid()
    return json.dumps([socket.gethostname(), _boot(), _namespace(), pid, _started(pid)])


def is_lost(owner: str, heartbeat_at: datetime | None, now: datetime) -> bool:
    """Tell whether the process described by `this_process` has died, or not been heard for long."""
    gone = is_gone(owner)
    if gone is not None:
        return gone
    return heartbeat_at is not None and (now - heartbeat_at).total_seconds() > LOST_AFTER_S


def is_gone(owner: str) -> bool | None:
    """Tell whether a process described by `this_process` has ended; None if it is out of sight."""
    try:
        host, boot, namespace, pid, started = json.loads(owner)
    except ValueError:
        return None
    if host != socket.gethostname():
        return None
    if boot != _boot():
        return True
    return not _lives(pid, started) if namespace == _namespace() else None


def _lives(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # The number may have been given to another process since.
    return _started(pid) == started


def _boot() -> str:
    with suppress(OSError):
        return BOOT_ID.read_text().strip()
    return ""


def _namespace() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _started(pid: int) -> str:
    """Return the start of a process in clock ticks since boot; empty for a zombie or no /proc."""
    with suppress(OSError, IndexError):
        # The command in parentheses may hold blanks and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""

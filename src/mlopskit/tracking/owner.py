"""Which process writes a run, and whether it still lives."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_process() -> str:
    """Describe this process: its machine, boot, process namespace, id and start, as JSON."""
    pid = os.getpid()
    return json.dumps([socket.gethostname(), _boot(), _namespace(), pid, _started(pid)])


def is_gone(owner: str) -> bool:
    """Tell whether a process described by `this_process` is known to have ended.

    A process of another machine or container cannot be seen from here; it counts as alive.
    """
    try:
        host, boot, namespace, pid, started = json.loads(owner)
    except ValueError:
        return False
    if host != socket.gethostname():
        return False
    if boot != _boot():
        return True
    return namespace == _namespace() and not _lives(pid, started)


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

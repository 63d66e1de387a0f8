"""Ends a process group when the process that started it ends, however that ends.

Who starts the group keeps the one end of a pipe open; the program of the group waits at the other.
The system closes the first end with its process, also when that is killed.
"""

from __future__ import annotations

import os
import signal
import threading


def hold(end: int) -> None:
    """Wait, in a thread, until the other end is closed; then kill this process's group.

    Args:
        end: Of the pipe, to read from. What this process starts does not inherit it.
    """
    os.set_inheritable(end, False)
    threading.Thread(target=_wait, args=(end,), daemon=True).start()


def _wait(end: int) -> None:
    while os.read(end, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)

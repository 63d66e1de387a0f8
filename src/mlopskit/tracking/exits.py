"""Runs that a program leaves open when it ends are ended with it.

An exception that ended the program makes them ``failed``, anything else ``finished``: the exit
code of `sys.exit` is not known here. A ``with`` block knows it, and `Run.finish` says it.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlopskit.tracking.entities import Status
    from mlopskit.tracking.run import Run

logger = logging.getLogger(__name__)

_open: dict[str, tuple[Run, int]] = {}


def remember(run: Run) -> None:
    """End a run at the end of this process, unless it ends before."""
    _open[run.id] = run, os.getpid()


def forget(run: Run) -> None:
    """Leave a run alone: it has ended."""
    _open.pop(run.id, None)


def end_all() -> None:
    """End every open run of this process, all of them within the time that one may take."""
    status: Status = "failed" if getattr(sys, "last_value", None) is not None else "finished"
    deadline = None
    for run, pid in list(_open.values()):
        if pid != os.getpid():
            continue
        now = time.monotonic()
        if deadline is None:
            deadline = now + run.patience_s
        try:
            run.finish(status, timeout_s=max(0.0, deadline - now))
        except Exception:
            logger.exception("Run %s could not be ended; its journal stays.", run.id)


atexit.register(end_all)

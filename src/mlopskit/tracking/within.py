"""In whose block the code stands: which run is the current one, here and in other threads."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.tracking.run import Run

# The runs whose blocks the code stands in, the innermost last.
_here: ContextVar[tuple[Run, ...]] = ContextVar("mlopskit_within", default=())
# Those of all threads; a run is in it as often as blocks of it are open.
_anywhere: list[Run] = []
_lock = threading.Lock()


def enter(run: Run) -> None:
    """Make a run the current one, until it is left."""
    _here.set((*_here.get(), run))
    with _lock:
        _anywhere.append(run)


def leave(run: Run) -> None:
    """Make the run current that was so before. Blocks may end in any order."""
    stack = list(_here.get())
    for at in reversed(range(len(stack))):
        if stack[at] is run:
            del stack[at]
            break
    _here.set(tuple(stack))
    with _lock:
        for at in reversed(range(len(_anywhere))):
            if _anywhere[at] is run:
                del _anywhere[at]
                break


@contextmanager
def within(run: Run) -> Iterator[None]:
    """Make a run the current one in a block, and leave it open at the end."""
    enter(run)
    try:
        yield
    finally:
        leave(run)


def current_run() -> Run | None:
    """Return the open run in whose block the caller stands; None outside of any."""
    return next((run for run in reversed(_here.get()) if not run.finished), None)


def only_run() -> Run | None:
    """Return the one open run in whose block any thread stands; None if there are none or more."""
    with _lock:
        found = {id(run): run for run in _anywhere if not run.finished}
    return next(iter(found.values())) if len(found) == 1 else None

"""A program whose server dies while it logs, and what is found of its values afterwards.

It notes every call in a file, before and after, so that what it waited for is known if it is
killed.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mlopskit.comparison.drivers import opened, stored, synced
from mlopskit.comparison.workload import BEFORE, PACE_S, SENT, SETTLED_S

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.comparison.place import Place

NOTES: Final = "notes"
SERVER: Final = "server.pid"


class Notes(NamedTuple):
    """What a program noted.

    Attributes:
        id: Of its run; empty if it never had one.
        killed: When its server was killed, in seconds of `time.monotonic`; None if it was not.
        acknowledged: The steps whose calls returned.
        blocked_s: The longest that one call took.
        in_finish: Whether that was the end of the run, not a call that logs.
        returned: Whether that call ever returned.
        error: The exception that a call raised.
    """

    id: str
    killed: float | None
    acknowledged: frozenset[int]
    blocked_s: float
    in_finish: bool
    returned: bool
    error: str


def log_on(place: Place, way: str, folder: Path) -> dict[str, Any]:
    """Log a series at a pace, kill the server on the way, and go on as if nothing had happened."""
    server = int((folder / SERVER).read_text())
    with (folder / NOTES).open("a", buffering=1) as file:

        def note(*said: object) -> None:
            file.write(json.dumps([time.monotonic(), *said]) + "\n")

        def call(what: int, done: Any, *args: Any) -> None:
            note("begins", what)
            try:
                done(*args)
            except BaseException as exc:
                note("raises", what, f"{type(exc).__name__}: {exc}")
                raise
            note("returns", what)

        driver = opened(place, way, folder)
        note("run", driver.id)
        time.sleep(SETTLED_S)  # The server has the run, also where nobody waits for that.
        for step in range(SENT):
            if step == BEFORE:
                os.killpg(server, signal.SIGKILL)
                note("killed")
            call(step, driver.log_metric, "loss", value_at(step), step)
            time.sleep(PACE_S)
        call(SENT, driver.end)
    return {}


def found(place: Place, way: str, folder: Path) -> dict[str, Any]:
    """Count the acknowledged values that the server has; each is looked for by step and value."""
    notes = noted(folder, 0)
    there = {(step, float(value)) for step, value in stored(place, way, folder, notes.id)}
    return {"found": sum((step, value_at(step)) in there for step in notes.acknowledged)}


def sync(place: Place, way: str, folder: Path) -> dict[str, Any]:
    """Deliver what the program left, as far as the tool can."""
    return {"can": synced(place, way, folder)}


def value_at(step: int) -> float:
    """Return what is logged at a step."""
    return 1 / (step + 1)


def noted(folder: Path, now: float) -> Notes:
    """Read what a program has noted until now."""
    path = folder / NOTES
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    run, killed, error = "", None, ""
    open_since: dict[int, float] = {}
    took: dict[int, float] = {}
    acknowledged = set()
    for at, what, *rest in map(json.loads, lines):
        if what == "run":
            run = rest[0]
        elif what == "killed":
            killed = at
        elif what == "begins":
            open_since[rest[0]] = at
        else:
            took[rest[0]] = at - open_since.pop(rest[0])
            error = rest[1] if what == "raises" else error
            if what == "returns" and rest[0] < SENT:
                acknowledged.add(rest[0])
    took |= {call: now - since for call, since in open_since.items()}
    longest = max(took, key=lambda each: took[each], default=0)
    return Notes(
        id=run,
        killed=killed,
        acknowledged=frozenset(acknowledged),
        blocked_s=took.get(longest, 0.0),
        in_finish=longest == SENT,
        returned=longest not in open_since,
        error=error,
    )

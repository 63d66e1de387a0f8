"""What programs meet whose server is not there, or dies."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.comparison import dying
from mlopskit.comparison.processes import (
    CHILD,
    PREFIX,
    interrupt,
    last,
    run,
    shortened,
    started,
)
from mlopskit.comparison.result import Death, Outage
from mlopskit.comparison.server import Failed, free_port, place_at, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.comparison.place import Place

LONGEST_S: Final = 300.0
SAID: Final = "said"


def without(place: Place, way: str, longest_s: float) -> Outage:
    """See what a program does whose server is not there, for so long."""
    with _scratch() as folder:
        begun = time.monotonic()
        with _begun(place, way, folder, "outage") as child:
            try:
                code = child.wait(longest_s)
            except subprocess.TimeoutExpired:
                code = None
            took = time.monotonic() - begun
            if code is None:
                interrupt(child)
        said = place.fetched()[1].text(_said(folder)) if code else ""
        outage = Outage(ended=code is not None, code=code, took_s=took, detail=said)
        counted = run(place, way, folder, "left", LONGEST_S)
        if counted.code == 0:
            outage = outage.model_copy(update=json.loads(counted.said))
    return outage


def death(tool: str, way: str, longest_s: float) -> Death:
    """See what a program does whose server is killed while it logs, for so long after that.

    The server runs here, whatever place is compared; it is started again on the same storage.
    """
    with _scratch() as folder:
        port = free_port()
        place = place_at(tool, port)
        try:
            with served(tool, folder, port) as server:
                (folder / dying.SERVER).write_text(str(server))
                seen = _watched(place, way, folder, longest_s)
            with served(tool, folder, port):
                return seen.model_copy(update=_found(place, way, folder))
        except Failed as exc:
            return Death(error=str(exc))


def _watched(place: Place, way: str, folder: Path, longest_s: float) -> Death:
    """Run the program until it ends, or so long after the death of its server."""
    with _begun(place, way, folder, "dying") as child:
        until = time.monotonic() + LONGEST_S
        while child.poll() is None and (now := time.monotonic()) < until:
            killed = dying.noted(folder, now).killed
            until = until if killed is None else killed + longest_s
            time.sleep(0.02)
        now, code = time.monotonic(), child.poll()
        notes = dying.noted(folder, now)
        if code is None:
            interrupt(child)
    if notes.killed is None:
        raise Failed(_said(folder) or "its program did not get so far")
    return Death(
        ended=code is not None,
        code=code,
        took_s=now - notes.killed,
        blocked_s=notes.blocked_s,
        at_least=not notes.returned,
        in_finish=notes.in_finish,
        exception=shortened(notes.error),
        acknowledged=len(notes.acknowledged),
    )


@contextmanager
def _begun(place: Place, way: str, folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """Begin a program in its folder; a file there has what it says."""
    with (
        (folder / SAID).open("w") as said,
        started(CHILD, way, str(folder), what, cwd=folder, output=said) as child,
    ):
        assert child.stdin is not None  # noqa: S101 - for the type checker
        child.stdin.write(place.model_dump_json())
        child.stdin.close()
        yield child


def _said(folder: Path) -> str:
    return last((folder / SAID).read_text(errors="replace"))


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _found(place: Place, way: str, folder: Path) -> dict[str, Any]:
    """Count what the server has, as it is and after the tool has sent what it kept."""
    there = _asked(place, way, folder, "found")["found"]
    synced = _asked(place, way, folder, "sync")["can"]
    later = _asked(place, way, folder, "found")["found"] if synced else None
    return {"found": there, "found_after_sync": later}


def _asked(place: Place, way: str, folder: Path, what: str) -> dict[str, Any]:
    ended = run(place, way, folder, what, LONGEST_S)
    if ended.code != 0:
        raise Failed(f"{what}: {ended.said or ended.code}")
    said: dict[str, Any] = json.loads(ended.said)
    return said

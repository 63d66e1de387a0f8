"""Runs the programs of a comparison; none of them outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlopskit.comparison.place import Place

CHILD: Final = "mlopskit.comparison.child"
LONGEST: Final = 80
PATIENCE_S: Final = 10.0
PREFIX: Final = "mlopskit-compare-"
SURROUNDINGS: Final[Mapping[str, str]] = {
    "WANDB_SERVICE": "",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_CONSOLE": "off",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


class Ended(NamedTuple):
    """How a program ended.

    Attributes:
        code: Its exit code; None if it did not end in time and was killed.
        took_s: How long it took.
        said: The last line that it printed: to standard output if all went well, or else to
            standard error, without secrets.
    """

    code: int | None
    took_s: float
    said: str


@contextmanager
def started(
    *args: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    output: IO[str] | int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[str]]:
    """Start a module of ours with arguments, in a process group that is killed at the end.

    It gets one argument more: the end of a pipe for `lifeline.hold`.

    Args:
        args: The module, and its arguments.
        cwd: Where it stands.
        environment: Variables on top of this process's.
        output: Where standard output and standard error go.
    """
    end, mine = os.pipe()
    try:
        child = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-P", "-m", *args, str(end)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env={**os.environ, **SURROUNDINGS, **(environment or {})},
            pass_fds=(end,),
            text=True,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            kill(child)
    finally:
        os.close(end)
        os.close(mine)


def kill(child: subprocess.Popen[Any]) -> None:
    """Kill a program with all of its group, unless it has ended."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def shortened(text: str) -> str:
    """Return a text in one line that is not too long for a table."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def interrupt(child: subprocess.Popen[Any]) -> None:
    """End a program as ctrl-C does; kill it if that does not help."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(child.pid, signal.SIGINT)
        child.wait(PATIENCE_S)
    kill(child)


def run(place: Place, way: str, folder: Path, what: str, longest_s: float) -> Ended:
    """Run one of the children to its end, or for so long."""
    begun = time.perf_counter()
    # A path in a line is one from here; what a tool drops where it stands is not to lie here.
    cwd = folder if place.private else None
    with started(CHILD, way, str(folder), what, cwd=cwd) as child:
        try:
            out, err = child.communicate(place.model_dump_json(), timeout=longest_s)
        except subprocess.TimeoutExpired:
            return Ended(None, longest_s, "")
    took = time.perf_counter() - begun
    if child.returncode == 0:
        return Ended(0, took, last(out))
    return Ended(child.returncode, took, place.fetched()[1].text(last(err)))


def last(text: str) -> str:
    """Return the last line that holds anything."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""

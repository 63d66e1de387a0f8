"""Trials side by side, each in a forked process of its own.

The search stays in the process of the sweep, and so do the runs: a forked child logs to its own
journal, and what it wants to know of other trials it asks through a pipe. The objective needs not
be importable. What a fork does not carry, such as other threads and a GPU that is in use already,
the objective has to open itself.
"""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mlopskit.tracking.sweep_trials import Outcome, Trial, attempt, write_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection
    from types import FrameType

    from mlopskit.tracking.run import Run
    from mlopskit.tracking.sweep_study import Asked


logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
STARTING_S: Final = 5.0


@dataclass(slots=True)
class Begun:
    """A trial whose run is open."""

    asked: Asked
    run: Run
    params: dict[str, Any]
    metric: str


@dataclass(slots=True)
class _Work:
    """What a child does."""

    objective: Callable[[Trial], Any]
    begun: Begun
    pruned: tuple[type[BaseException], ...]
    let_go: Callable[[], None]


@dataclass(slots=True)
class _Child:
    begun: Begun
    pid: int
    outcome: Outcome | None = None


class _Asking:
    """The judge of a trial in another process."""

    def __init__(self, line: Connection) -> None:
        self._line = line

    def report(self, value: float, step: int) -> None:
        self._line.send(("report", value, step))

    def should_prune(self) -> bool:
        self._line.send(("prune",))
        return bool(self._line.recv())


def side_by_side(
    objective: Callable[[Trial], Any],
    begun: Iterable[Begun],
    workers: int,
    pruned: tuple[type[BaseException], ...],
    let_go: Callable[[], None],
) -> Iterator[tuple[Begun, Outcome]]:
    """Run trials in processes; yield each as it ends.

    Args:
        objective: What each is given to.
        begun: The trials, each begun when there is a process for it.
        workers: How many processes there may be at once.
        pruned: What an objective raises to give a trial up.
        let_go: Called first in each child, to close what must not outlive the sweep.
    """
    waiting = iter(begun)
    children: dict[Connection, _Child] = {}
    try:
        while True:
            while len(children) < workers and (one := next(waiting, None)) is not None:
                line, child = _start(_Work(objective, one, pruned, let_go), list(children))
                children[line] = child
            if not children:
                return
            for ready in connection.wait(list(children)):
                line = next(each for each in children if each is ready)
                if (ended := _hear(line, children[line])) is not None:
                    begun_one = children.pop(line).begun
                    line.close()
                    yield begun_one, ended
    finally:
        for line, child in children.items():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            line.close()
            child.begun.run.finish("killed")


def _hear(line: Connection, child: _Child) -> Outcome | None:
    """Take one message of a child; return how its trial ended, once it has."""
    try:
        message = line.recv()
    except (EOFError, OSError):
        _, status = os.waitpid(child.pid, 0)
        if child.outcome is not None:
            return child.outcome
        code = os.waitstatus_to_exitcode(status)
        return Outcome("failed", error=f"The process of the trial ended with {code}")
    if message[0] == "report":
        child.begun.asked.report(message[1], message[2])
    elif message[0] == "prune":
        with suppress(OSError):
            line.send(child.begun.asked.should_prune())
    else:
        child.outcome = message[1]
    return None


def _start(work: _Work, others: list[Connection]) -> tuple[Connection, _Child]:
    """Fork a child that holds no pipe of a program another thread is starting.

    `subprocess` hears through a pipe whether its program began. A child forked in the middle of it
    (W&B's SDK starts programs when a run begins) would hold that pipe, and the thread would wait
    until the trial ends. No lock keeps the two apart, and forking runs hooks that let other threads
    go on. So the child is told which pipes came between a moment when no program was being started
    and the fork, and closes them: whoever made them is not in the child.
    """
    before = _calm_pipes()
    parent = os.getpid()
    ours, theirs = get_context("fork").Pipe()  # Sockets.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # Else the child would write it again.
    with warnings.catch_warnings():
        # Python 3.12 warns of forking where there are threads. Ours hold no lock of a child's.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _child(work, theirs, [ours, *others], parent)
    theirs.close()
    with suppress(OSError):  # It has died; that is heard of later.
        ours.send(set() if before is None else set(_pipes()) - before)
    return ours, _Child(work.begun, pid)


def _calm_pipes() -> set[int] | None:
    """Return the pipes of a moment when no thread started a program; None if there is none."""
    deadline = time.monotonic() + STARTING_S
    while time.monotonic() < deadline:
        pipes = set(_pipes())
        if not any(map(_starts, sys._current_frames().values())):
            return pipes
        time.sleep(0.001)
    return None


def _pipes() -> dict[int, list[int]]:
    """Return the descriptors of this process's pipes, by inode."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # The one of this list is closed by now.
            status = os.fstat(int(name))
            if stat.S_ISFIFO(status.st_mode):
                found.setdefault(status.st_ino, []).append(int(name))
    return found


def _starts(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__init__" and code.co_filename == subprocess.__file__:
            return True
        frame = frame.f_back
    return False


def _child(work: _Work, line: Connection, others: list[Connection], parent: int) -> NoReturn:
    code = 1
    try:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        for each in others:
            each.close()
        foreign = line.recv()
        for inode, descriptors in _pipes().items():
            for each_end in descriptors if inode in foreign else ():
                os.close(each_end)
        work.let_go()
        _one_thread()
        begun = work.begun
        trial = Trial(begun.asked.number, begun.params, begun.run, _Asking(line), begun.metric)
        outcome = attempt(work.objective, trial, work.pruned)
        write_value(begun.run, begun.metric, outcome)
        begun.run.flush()
        line.send(("done", outcome))
        code = 0
    except (KeyboardInterrupt, BrokenPipeError, EOFError):
        pass  # The sweep's own process is stopping, or has died.
    except Exception:
        logger.exception("Trial %d could not be kept.", work.begun.asked.number)
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # The exit hooks, and the threads they wait for, are the parent's.
        os._exit(code)


def _one_thread() -> None:
    """Let PyTorch compute in this thread, as its own `DataLoader` does in the workers it forks.

    The pool of threads that it had stayed in the parent, and it would wait for that for ever.
    """
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


def _end_with(parent: int) -> None:
    """End this process soon after the sweep's own has died: nobody would hear of its trial."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)

"""Connections to SQLite that survive a fork of their process, in parent and child.

SQLite notes in the memory of a process which locks the process has on a file, since POSIX gives
them to processes and not to descriptors. A forked child inherits the notes without the locks: it
waits in vain for a lock that another thread held at that moment, and it believes to hold the one
that keeps the log alive, so that whoever closes the file deletes a log which the child writes to.

So every connection is closed before a fork, which leaves no notes, and opened again when it is next
used; it stays the same object. One that is in use is waited for, for `WAIT_S` at most, and not at
all if the thread that forks uses it itself. Where one stays open, the parent goes on as ever, and
the child is refused that file. See https://sqlite.org/howtocorrupt.html
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAIT_S = 10.0
LOOK_S: Final = 0.0005
REFUSED: Final = (
    "it was in use when this process was forked, and SQLite cannot open it here; fork while no "
    "transaction is open, or start the process by 'spawn'"
)


class _State:
    """What is known of a connection. It is kept beside it, since opening it anew empties it.

    Attributes:
        connection: The connection.
        path: Its file.
        prepare: Called whenever it has been opened.
        timeout: How many seconds to wait for the lock of another one.
        is_: What it is now; one that is ``left`` is the parent's.
        thread: The one that used it last.
        users: The ids of its cursors; 0 while one is made, and -1 while the file is opened.
        closing: Whether a thread that forks is closing it, or sees just now that it is in use.
        kept: What was set after `prepare`, to be set again.
    """

    def __init__(
        self,
        connection: Connection,
        path: Path,
        prepare: Callable[[sqlite3.Connection], None],
        timeout: float,
    ) -> None:
        self.connection = weakref.ref(connection)
        self.path = path
        self.prepare = prepare
        self.timeout = timeout
        self.is_: Literal["new", "open", "asleep", "left", "closed"] = "new"
        self.thread = threading.get_ident()
        self.users: set[int] = set()
        self.closing = False
        self.kept: tuple[int, Any, Any] | None = None

    @property
    def in_use(self) -> bool:
        """Whether it is in a transaction, or a cursor of it is alive."""
        return bool(self.users) or self.in_transaction

    @property
    def in_transaction(self) -> bool:
        """Whether it is in a transaction."""
        found = self.connection()
        with suppress(sqlite3.ProgrammingError):
            return self.is_ == "open" and found is not None and found.in_transaction
        return False

    def enter(self) -> None:
        """Begin to use it, which a thread that forks sees; or wait until that has forked."""
        mine = threading.get_ident()
        while True:
            self.thread = mine
            self.users.add(0)
            goes_on = _forks.thread in (None, mine) or self._goes_on()
            if goes_on and not self.closing:
                return
            self.users.discard(0)
            if goes_on:
                time.sleep(LOOK_S)
            else:
                with _forks.turn:
                    pass

    def _goes_on(self) -> bool:
        """Tell whether this thread is in the middle of something: a fork waits for its end."""
        if len(self.users) > 1 or self.in_transaction:
            return True
        others = (each for each in list(_states.values()) if each is not self)
        return any(each.thread == self.thread and each.in_use for each in others)


class _Cursor(sqlite3.Cursor):
    """A cursor; while it is alive, its connection is in use."""

    state: _State | None = None

    def __del__(self) -> None:
        if self.state is not None:
            self.state.users.discard(id(self))


class Connection(sqlite3.Connection):
    """A connection in autocommit mode that is closed over a fork.

    Args:
        path: The file.
        prepare: Called with the connection whenever it has been opened.
        timeout: How many seconds to wait for the lock of another one.
    """

    def __init__(
        self, path: Path, prepare: Callable[[sqlite3.Connection], None], *, timeout: float
    ) -> None:
        state, key, states = _State(self, path, prepare, timeout), id(self), _states
        state.connection = weakref.ref(self, lambda _: states.pop(key, None))
        states[key] = state
        self.ready()

    def ready(self) -> None:
        """Open it, if it is not; wait for a fork that is under way."""
        state = _states[id(self)]
        if state.is_ == "open" and _forks.thread is None:
            return
        state.enter()
        try:
            self._open()
        finally:
            state.users.discard(0)

    def cursor(self, factory: Any = _Cursor) -> Any:
        """Return a cursor; the connection is in use until it is let go."""
        state = _states[id(self)]
        state.enter()
        try:
            if state.is_ != "open":
                self._open()
            made = super().cursor(factory)
            if factory is _Cursor:
                made.state = state
                state.users.add(id(made))
        finally:
            state.users.discard(0)
        return made

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Execute a statement."""
        made: sqlite3.Cursor = self.cursor()
        return made.execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        """Execute a statement for each of several."""
        made: sqlite3.Cursor = self.cursor()
        return made.executemany(*arguments)

    def executescript(self, script: str) -> sqlite3.Cursor:
        """Execute several statements."""
        made: sqlite3.Cursor = self.cursor()
        return made.executescript(script)

    def close(self) -> None:
        """Close it. One that the parent uses is left alone."""
        if not _states:  # The interpreter is going down, and closes it soon.
            return
        state = _states[id(self)]
        if state.is_ == "left":
            return
        state.enter()
        try:
            if state.is_ == "open":
                super().close()
            state.is_ = "closed"
        finally:
            state.users.discard(0)

    def _open(self) -> None:
        state = _states[id(self)]
        if state.is_ not in ("new", "asleep", "left"):
            return
        if state.is_ == "left" or (_forks.refused and _key(state.path) in _forks.refused):
            raise sqlite3.OperationalError(REFUSED)
        if state.is_ == "asleep" and not state.path.exists():
            raise sqlite3.OperationalError("the file is gone")
        before, state.is_ = state.is_, "open"
        state.users.add(-1)
        try:
            # `close` may run in another thread than the one that opened the connection.
            super().__init__(
                state.path, timeout=state.timeout, isolation_level=None, check_same_thread=False
            )
            state.prepare(self)
            if state.kept is not None:
                synchronous, self.row_factory, self.text_factory = state.kept
                super().cursor().execute(f"pragma synchronous = {synchronous}")
        except BaseException:
            state.is_ = before
            with suppress(sqlite3.ProgrammingError):  # It was not even opened.
                super().close()
            raise
        finally:
            state.users.discard(-1)

    @property
    def in_transaction(self) -> bool:
        """Whether it is in a transaction; one that was closed is not."""
        return _states[id(self)].is_ == "open" and super().in_transaction

    def _sleep(self) -> None:
        """Close it until it is used again."""
        state = _states[id(self)]
        with suppress(sqlite3.Error):
            (synchronous,) = super().cursor().execute("pragma synchronous").fetchone()
            state.kept = synchronous, self.row_factory, self.text_factory
            super().close()
            state.is_ = "asleep"


class _Forks:
    """What is known of the forks of this process.

    Attributes:
        thread: The one that is forking.
        turn: What it holds meanwhile.
        held: The connections that stay open over the fork.
        refused: The files that this process must not open, by device and inode.
    """

    def __init__(self) -> None:
        self.thread: int | None = None
        self.turn = threading.RLock()
        self.held: list[Connection] = []
        self.refused: set[tuple[int, int] | None] = set()


_forks = _Forks()
_states: dict[int, _State] = {}


def _connections() -> list[tuple[Connection, _State]]:
    states = list(_states.values())
    return [(found, each) for each in states if (found := each.connection()) is not None]


def _key(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return None


def _before() -> None:
    """Close every connection, once nobody uses it."""
    deadline = time.monotonic() + WAIT_S
    _forks.turn.acquire(timeout=WAIT_S)
    _forks.thread = mine = threading.get_ident()
    while True:
        waited_for = False
        for connection, state in _connections():
            state.closing = True
            try:
                if state.in_use:
                    waited_for |= state.thread != mine
                elif state.is_ == "open":
                    connection._sleep()
            finally:
                state.closing = False
        if not waited_for or time.monotonic() >= deadline:
            break
        time.sleep(LOOK_S)
    _forks.held = [connection for connection, state in _connections() if state.is_ == "open"]


def _in_parent() -> None:
    _forks.held = []
    _forks.thread = None
    with suppress(RuntimeError):  # Another thread has been forking all the time.
        _forks.turn.release()


def _in_child() -> None:
    """Leave what stayed open alone, for ever: closing it would write to what the parent uses."""
    for connection, state in _connections():
        state.users.clear()
        if state.is_ == "open":
            state.is_ = "left"
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
            _forks.refused.add(_key(state.path))
    _forks.refused.discard(None)
    _forks.held = []
    _forks.thread = None
    _forks.turn = threading.RLock()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)

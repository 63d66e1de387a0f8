"""A SQLite file that threads, forks and processes may all use at once.

Write-ahead logging, one connection per thread and process, a schema that is created race-free, and
every failure of the disk as a `StorageError`. What a fork does to them is in `sqlite_forks`.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal
from weakref import WeakSet

from mlopskit.errors import StorageError
from mlopskit.sqlite_forks import Connection
from mlopskit.storage import make_private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BUSY_S = 30.0


class Database:
    """One SQLite file and its schema.

    Args:
        path: The file; its folder is made, both readable by their owner only.
        schema: Statements that make the tables, run once in one transaction.
        version: Raised whenever `schema` changes; a file written by a newer version is refused.
        upgrade: Brings a file of the layout that it is given to this one, in one transaction; what
            it does not bring there is refused.
        synchronous: ``"FULL"`` survives power loss at every commit, ``"NORMAL"`` at every `sync`.
        check_up_to: A file of at most so many bytes is looked through for broken pages when it is
            first opened.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        *,
        version: int = 1,
        upgrade: Callable[[sqlite3.Connection, int], None] | None = None,
        synchronous: Literal["NORMAL", "FULL"] = "FULL",
        check_up_to: int = 0,
    ) -> None:
        self.path = path
        self._schema = schema
        self._version = version
        self._upgrade = upgrade
        self._synchronous = synchronous
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._open: WeakSet[_Held] = WeakSet()
        self._closed = False
        self._unchecked = check_up_to

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection, in autocommit mode, opened at its first use.

        Raises:
            StorageError: If the file cannot be opened, made, or is none of ours.
        """
        held: _Held | None = getattr(self._mine, "held", None)
        if held is not None and held.pid == os.getpid() and not self._closed:
            with self.errors():
                held.connection.ready()
            return held.connection
        if self._closed:
            raise StorageError(f"{self.path} has been closed.")
        with self.errors():
            held = _Held(self._connect())
        self._mine.held = held
        with self._lock:
            self._open.add(held)
        return held.connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the only writing transaction: all of the block is stored, or none of it.

        Raises:
            StorageError: If it cannot be begun or committed.
        """
        connection = self.connection()
        with self.errors():
            connection.execute("begin immediate")
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's failures of disk and locks into `StorageError`."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # A broken constraint is the caller's own question, answered by the caller.
        except (sqlite3.Error, OSError) as exc:
            raise StorageError(f"{self.path} cannot be used: {exc}.") from exc

    def sync(self) -> None:
        """Put every committed transaction on the disk, power loss included."""
        with self.errors():
            # A checkpoint syncs what it moves; what a reader keeps it from moving stays in the log.
            self.connection().execute("pragma wal_checkpoint(passive)")
            with suppress(FileNotFoundError):
                fd = os.open(self.path.with_name(self.path.name + "-wal"), os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def close(self) -> None:
        """Close this process's connections, of every thread. Closing twice is fine."""
        self._closed = True
        with self._lock:
            held, self._open = list(self._open), WeakSet()
        for each in held:
            each.close()

    def _connect(self) -> Connection:
        make_private_folder(self.path.parent)
        _make_private(self.path)
        return Connection(self.path, self._begin, timeout=BUSY_S)

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._prepare(connection)
        self._check(connection)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"pragma synchronous = {self._synchronous}")
        connection.execute("pragma foreign_keys = on")
        connection.execute("pragma trusted_schema = off")
        connection.execute("pragma cell_size_check = on")
        if self._stored_version(connection) == self._version:
            return
        # The switch to WAL takes an exclusive lock and ignores the timeout, so one at a time.
        with _file_lock(self.path):
            connection.execute("pragma journal_mode = wal")
            connection.execute("begin immediate")
            stored = self._stored_version(connection)
            if stored == 0:
                for statement in statements(self._schema):
                    connection.execute(statement)
                connection.execute(f"pragma user_version = {self._version}")
            elif stored < self._version and self._upgrade is not None:
                self._upgrade(connection, stored)
                connection.execute(f"pragma user_version = {self._version}")
                stored = self._version
            connection.execute("commit")
        if stored not in (0, self._version):
            raise StorageError(
                f"{self.path} has the layout {stored}, and this version of mlopskit reads "
                f"{self._version}. Use the version that wrote it, or another home."
            )

    def _check(self, connection: sqlite3.Connection) -> None:
        (pages,), (size,) = (
            connection.execute(f"pragma {name}").fetchone() for name in ("page_count", "page_size")
        )
        if not 0 < pages * size <= self._unchecked:
            return
        self._unchecked = 0
        (found,) = connection.execute("pragma integrity_check(1)").fetchone()
        if found != "ok":
            raise StorageError(f"{self.path} is damaged: {found}. Put a copy in its place.")

    @staticmethod
    def _stored_version(connection: sqlite3.Connection) -> int:
        version: int = connection.execute("pragma user_version").fetchone()[0]
        return version


class _Held:
    """A thread's connection, closed when the thread ends or the database is let go."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.pid = os.getpid()

    def close(self) -> None:
        if self.pid == os.getpid():
            self.connection.close()

    def __del__(self) -> None:
        self.close()


def _make_private(path: Path) -> None:
    """Make an empty file for its owner only, if there is none; -wal and -shm take its mode.

    SQLite would make it readable by all. An existing file is not even opened: closing any
    descriptor of a database drops every lock that this process holds on it (POSIX), and another
    process would then delete the log that is still in use. See https://sqlite.org/howtocorrupt.html
    """
    if path.exists():
        return
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    os.close(fd)
    try:
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script, a trigger with its body as one."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    import fcntl  # noqa: PLC0415 - only the first opening of a file pays for it

    fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

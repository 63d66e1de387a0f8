from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from mlopskit import sqlite_forks
from mlopskit.errors import StorageError
from mlopskit.sqlite import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.core

SCHEMA = """
create table note (id integer primary key, text text not null unique);
create index note_text on note (text);
"""


def count(database: Database) -> int:
    number: int = database.connection().execute("select count(*) from note").fetchone()[0]
    return number


def test_a_block_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA)
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        connection.execute("insert into note (text) values ('one')")
        _ = 1 / 0
    assert count(database) == 0

    with database.transaction() as connection:
        connection.execute("insert into note (text) values ('one')")
    assert count(database) == 1


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    database = Database(tmp_path / "home" / "a.db", SCHEMA)
    with database.transaction() as connection:
        connection.execute("insert into note (text) values ('one')")

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").iterdir()}
    assert modes == {0o600}
    assert database.connection().execute("pragma journal_mode").fetchone() == ("wal",)


def test_a_broken_constraint_is_the_callers_own_business(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA)
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        connection.execute("insert into note (text) values (null)")


def test_threads_have_connections_of_their_own(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA)

    def write(first: int) -> None:
        for number in range(first, first + 50):
            with database.transaction() as connection:
                connection.execute("insert into note (text) values (?)", (str(number),))

    threads = [threading.Thread(target=write, args=(100 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert count(database) == 400


def test_a_thread_that_ends_takes_its_connection_along(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA)
    database.connection()
    open_files = []
    for _ in range(20):
        thread = threading.Thread(target=database.connection)
        thread.start()
        thread.join()
        open_files.append(len(os.listdir("/proc/self/fd")))

    # SQLite keeps one descriptor for the next to come, since closing it would drop our locks.
    assert open_files[-1] == open_files[0]


def test_a_fork_opens_its_own_connection(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA)
    mine = database.connection()
    child = os.fork()
    if child == 0:
        ok = database.connection() is not mine
        with database.transaction() as connection:
            connection.execute("insert into note (text) values ('child')")
        os._exit(0 if ok else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert database.connection() is mine
    assert count(database) == 1


def test_eight_processes_may_open_a_file_that_does_not_exist_yet(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlopskit.sqlite import Database\n"
        f"database = Database(Path(sys.argv[1]), {SCHEMA!r})\n"
        "for number in range(20):\n"
        "    with database.transaction() as c:\n"
        "        c.execute('insert into note (text) values (?)', (f'{sys.argv[2]}-{number}',))\n"
    )
    path = tmp_path / "fresh" / "a.db"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(8)]

    assert [writer.wait() for writer in writers] == [0] * 8
    assert count(Database(path, SCHEMA)) == 160


def test_a_file_of_another_layout_is_refused_untouched(tmp_path: Path) -> None:
    Database(tmp_path / "a.db", SCHEMA, version=2).connection()

    with pytest.raises(
        StorageError, match="has the layout 2, and this version of mlopskit reads 1"
    ):
        Database(tmp_path / "a.db", SCHEMA, version=1).connection()


def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database at all" * 100)

    with pytest.raises(StorageError, match="not a database"):
        Database(tmp_path / "a.db", SCHEMA).connection()


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA)
    database.connection()
    database.close()
    database.close()

    with pytest.raises(StorageError, match="has been closed"):
        database.connection()


def test_sync_leaves_the_committed_rows_readable(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA, synchronous="NORMAL")
    with database.transaction() as connection:
        connection.execute("insert into note (text) values ('one')")
    database.sync()

    assert count(Database(tmp_path / "a.db", SCHEMA)) == 1


@pytest.mark.parametrize("disturbed", ["by another thread", "by sync"])
def test_nothing_we_do_drops_the_locks_that_keep_the_log_alive(
    tmp_path: Path, disturbed: str
) -> None:
    """Closing a descriptor of the file would: then whoever closes last deletes a log in use."""
    path = tmp_path / "a.db"
    database = Database(path, SCHEMA, synchronous="NORMAL")
    code = (
        "import sys; from pathlib import Path; from mlopskit.sqlite import Database\n"
        f"database = Database(Path(sys.argv[1]), {SCHEMA!r}, synchronous='NORMAL')\n"
        "with database.transaction() as c:\n"
        "    c.execute('insert into note (text) values (?)', (sys.argv[2],))\n"
        "database.close()\n"
    )
    for turn in range(5):
        with database.transaction() as connection:
            connection.execute("insert into note (text) values (?)", (f"mine {turn}",))
        if disturbed == "by sync":
            database.sync()
        else:
            thread = threading.Thread(target=database.connection)
            thread.start()
            thread.join()
        subprocess.run([sys.executable, "-c", code, str(path), f"theirs {turn}"], check=True)
        with database.transaction() as connection:
            connection.execute("insert into note (text) values (?)", (f"after {turn}",))

    assert count(Database(path, SCHEMA)) == 15
    assert database.connection().execute("pragma integrity_check").fetchone() == ("ok",)


# Forks. A child inherits what SQLite knows of the locks of its parent, and not the locks.


def in_child(work: Callable[[], bool]) -> int:
    """Fork, and return the id of the child, which exits with 0 if the work is done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Of forks where there are threads.
        child = os.fork()
    if child == 0:
        done = False
        with suppress(Exception):
            done = work()
        os._exit(0 if done else 1)
    return child


def ended_well(child: int) -> bool:
    return os.waitpid(child, 0)[1] == 0


def write(path: Path, text: str) -> bool:
    with Database(path, SCHEMA).transaction() as connection:
        connection.execute("insert into note (text) values (?)", (text,))
    return True


def is_refused(path: Path) -> bool:
    try:
        return not write(path, "child")
    except StorageError as exc:
        return "spawn" in str(exc)


@contextmanager
def held_by_another_thread(database: Database, until: Callable[[], object]) -> Iterator[None]:
    """Have another thread in a transaction when the block begins, which ends it at its leisure."""
    begun = threading.Event()

    def work() -> None:
        with database.transaction() as connection:
            connection.execute("insert into note (text) values ('thread')")
            begun.set()
            until()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        thread.join()


def test_a_fork_takes_along_no_lock_of_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlopskit.sqlite.BUSY_S", 2.0)
    path = tmp_path / "a.db"
    database = Database(path, SCHEMA)
    with held_by_another_thread(database, lambda: time.sleep(0.2)):
        child = in_child(lambda: write(path, "child"))
    assert ended_well(child)
    assert count(database) == 2


def test_what_a_child_writes_outlives_the_parents_closing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database = Database(path, SCHEMA)
    write(path, "parent")
    hear, tell = os.pipe()
    listen, say = os.pipe()

    def work() -> bool:
        write(path, "child")
        own = Database(path, SCHEMA)
        own.connection()
        os.write(tell, b".")
        os.read(listen, 1)
        with own.transaction() as connection:
            connection.execute("insert into note (text) values ('child, later')")
        return True

    assert count(database) == 1
    child = in_child(work)
    os.read(hear, 1)
    assert count(database) == 2
    database.close()
    os.write(say, b".")
    assert ended_well(child)
    for end in (hear, tell, listen, say):
        os.close(end)
    code = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]))"
    query = "select count(*) from note"
    done = subprocess.run([sys.executable, "-c", code, str(path), query], capture_output=True)
    assert done.stdout == b"(3,)\n"


def test_a_fork_within_a_transaction_waits_for_nothing_and_harms_nothing(tmp_path: Path) -> None:
    """Without a word the child would wait for a lock that it believes to hold itself."""
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    database = Database(path, SCHEMA)
    with database.transaction() as connection:
        connection.execute("insert into note (text) values ('parent')")
        before = time.monotonic()
        refused = in_child(lambda: is_refused(path))
        free = in_child(lambda: write(other, "child"))
        assert time.monotonic() - before < sqlite_forks.WAIT_S
        assert ended_well(refused)
        assert ended_well(free)
        connection.execute("insert into note (text) values ('parent, later')")
    assert count(database) == 2
    assert ended_well(in_child(lambda: write(path, "child")))


def test_a_fork_waits_for_others_no_longer_than_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_forks, "WAIT_S", 0.1)
    path = tmp_path / "a.db"
    database = Database(path, SCHEMA)
    over = threading.Event()
    with held_by_another_thread(database, over.wait):
        assert ended_well(in_child(lambda: is_refused(path)))
        over.set()
    assert count(database) == 1


def test_threads_write_on_while_the_process_is_forked(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database, over = Database(path, SCHEMA), threading.Event()
    other = Database(tmp_path / "b.db", SCHEMA)
    written, failed = [0, 0, 0], []

    def work(at: int) -> None:
        try:
            while not over.is_set():
                with database.transaction() as connection:
                    for _ in range(3):
                        written[at] += 1
                        text = f"{at}-{written[at]}"
                        connection.execute("insert into note (text) values (?)", (text,))
                    with other.transaction() as nested:
                        nested.execute("insert into note (text) values (?)", (text,))
        except Exception as exc:
            failed.append(exc)
            raise

    threads = [threading.Thread(target=work, args=(at,)) for at in range(3)]
    for thread in threads:
        thread.start()
    children = [in_child(lambda n=n: write(path, f"child {n}")) for n in range(20)]  # type: ignore[misc]
    over.set()
    for thread in threads:
        thread.join()

    assert all(map(ended_well, children))
    assert failed == []
    assert count(database) == sum(written) + 20
    assert count(other) == sum(written) / 3
    assert database.connection().execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_connection_is_as_it_was_after_a_fork(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA)
    connection = database.connection()
    connection.execute("pragma synchronous = normal")
    connection.row_factory = sqlite3.Row
    assert ended_well(in_child(lambda: not names_of_open_files(tmp_path)))
    assert names_of_open_files(tmp_path) == []

    assert tuple(connection.execute("pragma synchronous").fetchone()) == (1,)
    assert tuple(connection.execute("pragma foreign_keys").fetchone()) == (1,)
    assert connection.execute("select 1 as one").fetchone()["one"] == 1
    assert database.connection() is connection


def names_of_open_files(folder: Path) -> list[str]:
    links = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in links if link.startswith(str(folder))]

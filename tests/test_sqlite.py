from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from mlopskit.errors import StorageError
from mlopskit.sqlite import Database

if TYPE_CHECKING:
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

"""MLflow keeps the contract on PostgreSQL and behind its server, whatever happens to that."""

from __future__ import annotations

import importlib
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.programs import launched
from tests.tracking.servers import Proxy, mlflow_server, postgres, postgres_folder

from mlopskit.errors import Unavailable
from mlopskit.kit import Kit
from mlopskit.testing.tracking import Line, TrackerContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

mlflow = pytest.importorskip("mlflow")
pytestmark = [
    pytest.mark.network,
    # SQLAlchemy's pool is collected with its engine, which MLflow never disposes of.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty database once: its migrations take seconds."""
    path: Path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Run PostgreSQL."""
    if postgres_folder() is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with postgres() as uri:
        mlflow.MlflowClient(uri)
        yield uri


@pytest.mark.skipif(postgres_folder() is None, reason="PostgreSQL is not installed")
class TestMlflowOnPostgres(TrackerContract):
    processes = 3
    points = 10_000  # A hundred thousand take a minute, and say nothing more.

    @pytest.fixture
    def line(self, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
        """Return the one database, emptied."""
        psycopg = importlib.import_module("psycopg")
        connection = psycopg.connect(database)
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "select tablename from pg_tables where schemaname = 'public'"
                " and tablename <> 'alembic_version'"
            )
            tables = ", ".join(f'"{name}"' for (name,) in cursor.fetchall())
            cursor.execute(f"truncate {tables} restart identity cascade")
        connection.close()
        # Where a database's experiments keep their files is decided by the process that makes it.
        monkeypatch.chdir(tmp_path)
        return {"backend": "mlflow", "location": database, "flush_timeout_s": 120}


@contextmanager
def closed(database: str) -> Iterator[None]:
    """Refuse connections to the database, and end those that there are."""
    psycopg = importlib.import_module("psycopg")
    above = database.rpartition("/")[0] + "/template1"
    allow = "alter database postgres allow_connections "
    with psycopg.connect(above, autocommit=True) as connection:
        connection.execute(allow + "false")
        try:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'postgres'"
            )
            yield
        finally:
            connection.execute(allow + "true")


@pytest.mark.parametrize("known", [True, False])
def test_a_database_that_goes_away_gets_all_of_it_later(
    database: str, tmp_path: Path, known: bool
) -> None:
    """Whether this process has written to it before or not."""
    line = {"backend": "mlflow", "location": database, "flush_timeout_s": 60}
    with Kit(tracking=line, home=tmp_path) as kit:
        run = kit.tracker.start_run("e", params={"lr": 0.1}) if known else None
        if run is not None:
            run.flush()
        with closed(database):
            run = run or kit.tracker.start_run("e", params={"lr": 0.1})
            for step in range(1500):
                run.log_metrics({"loss": step * 0.5, "up": math.inf}, step=step)
            run.flush(timeout_s=2)
            (status,) = run.delivery.values()
            with pytest.raises(Unavailable):
                kit.tracker.list_experiments()
        assert status.pending > 0
        assert status.error.startswith("Unavailable")
        run.log_text("hello", "notes.txt")
        run.finish()
        whole(database, tmp_path, run.id)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(database: str, tmp_path: Path) -> None:
    """Parent and child ask and write at once; what one is answered never reaches the other."""
    line = {"backend": "mlflow", "location": database, "flush_timeout_s": 60}
    with Kit(tracking=line, home=tmp_path) as kit:
        with kit.tracker.start_run("forks", name="before") as before:
            before.log_metric("loss", 0.5)
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    for _ in range(20):
                        assert kit.tracker.get_run(before.id).name == "before"
                    with kit.tracker.start_run("forks", name=f"child {number}") as run:
                        for step in range(100):
                            run.log_metric("loss", float(number), step=step)
                    (status,) = run.delivery.values()
                    code = int(status.pending > 0)
                finally:
                    os._exit(code)
            children.append(child)
        for _ in range(20):
            assert kit.tracker.get_run(before.id).name == "before"
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        runs = kit.tracker.search_runs("name like 'child%'", "forks", order_by="name")
        assert [each.metrics for each in runs] == [{"loss": 0.0}, {"loss": 1.0}, {"loss": 2.0}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Iterator[int]:
    """Run MLflow's server."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(empty, folder / "m.db")
    with mlflow_server(f"sqlite:///{folder}/m.db", folder) as (port, _):
        yield port


class TestMlflowBehindItsServer(TrackerContract):
    processes = 3
    points = 10_000  # A hundred thousand take a minute, and say nothing more.

    @pytest.fixture
    def line(self, served: int) -> Line:
        """Return the one server, emptied."""
        uri = f"http://127.0.0.1:{served}"
        client = mlflow.MlflowClient(uri)
        for each in client.search_experiments():
            if each.name != "Default":
                client.rename_experiment(each.experiment_id, f"{each.name} {os.urandom(4).hex()}")
                client.delete_experiment(each.experiment_id)
        return {"backend": "mlflow", "location": uri, "flush_timeout_s": 120}


LOGGING = """
import sys
import mlopskit
line = {"backend": "mlflow", "location": sys.argv[1], "flush_timeout_s": 3, "connect_timeout_s": 1}
with mlopskit.Kit(tracking=line, home=sys.argv[2]) as kit:
    with kit.tracker.start_run("e", params={"lr": 0.1}) as run:
        print(run.id, flush=True)
        if len(sys.argv) > 3:
            run.flush()
            print("flushed", flush=True)
            sys.stdin.readline()
        for step in range(1500):
            run.log_metrics({"loss": step * 0.5, "up": float("inf")}, step=step)
        run.log_text("hello", "notes.txt")
"""
QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}


def whole(uri: str, home: Path, run_id: str) -> None:
    """Sync, and see that everything is there once."""
    with Kit(tracking={"backend": "mlflow", "location": uri}, home=home) as kit:
        report = kit.tracker.sync()
        assert (report.rejected, report.pending, report.damaged) == (0, {}, {})
        record = kit.tracker.get_run(run_id)
        assert (record.status, record.params) == ("finished", {"lr": 0.1})
        history = kit.tracker.get_metric_history(run_id, "loss")
        assert list(history.steps) == list(range(1500))
        assert list(kit.tracker.get_metric_history(run_id, "up").values) == [math.inf] * 1500
        assert [each.name for each in kit.tracker.list_artifacts(run_id)] == ["notes.txt"]
        assert kit.tracker.sync().delivered == 0
    assert list((home / "tracking" / "journal").iterdir()) == []


@pytest.mark.parametrize("mode", ["refuse", "hang", "error", "drop", "late"])
def test_a_server_that_misbehaves_costs_nothing(served: int, tmp_path: Path, mode: str) -> None:
    """The program ends well, and a later sync delivers everything once."""
    with Proxy(served) as proxy:
        uri = f"http://127.0.0.1:{proxy.port}"
        proxy.mode = mode
        said = subprocess.run(
            [sys.executable, "-c", LOGGING, uri, str(tmp_path)],
            capture_output=True,
            text=True,
            env={**os.environ, **QUICK},
            timeout=120,
        )
        assert said.returncode == 0, said.stderr
        assert "not all at" in said.stderr
        assert proxy.seen > 0
        proxy.mode = "pass"
        whole(uri, tmp_path, said.stdout.strip())


@pytest.mark.parametrize("mode", ["refuse", "hang", "error", "drop", "late"])
def test_a_server_that_begins_to_misbehave_costs_nothing(
    served: int, tmp_path: Path, mode: str
) -> None:
    """In the midst of a run whose beginning it has stored."""
    with Proxy(served) as proxy:
        uri = f"http://127.0.0.1:{proxy.port}"
        with launched(
            [sys.executable, "-c", LOGGING, uri, str(tmp_path), "wait"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **QUICK},
        ) as program:
            assert program.stdout is not None
            assert program.stdin is not None
            run_id = program.stdout.readline().strip()
            assert program.stdout.readline().strip() == "flushed"
            proxy.mode = mode
            proxy.cut()
            program.stdin.write("go on\n")
            program.stdin.close()
            assert program.wait(120) == 0
        proxy.mode = "pass"
        whole(uri, tmp_path, run_id)


def test_a_reader_is_told_that_a_server_hangs(served: int, tmp_path: Path) -> None:
    """Not after MLflow's twenty minutes of retries."""
    with Proxy(served) as proxy:
        line = {
            "backend": "mlflow",
            "location": f"http://127.0.0.1:{proxy.port}",
            "connect_timeout_s": 0.5,
        }
        with Kit(tracking=line, home=tmp_path) as kit:
            with kit.tracker.start_run("e") as run:
                pass
            assert run.url is not None
            proxy.mode = "hang"
            for ask in (kit.tracker.search_runs, kit.tracker.list_experiments):
                with pytest.raises(Unavailable):
                    ask()
            assert run.url is None
            proxy.mode = "pass"
            proxy.cut()
            assert kit.tracker.get_run(run.id).status == "finished"


def test_a_server_that_is_killed_and_restarted_gets_all_of_it(empty: Path, tmp_path: Path) -> None:
    """While the program goes on: nobody has to call a sync."""
    shutil.copy(empty, tmp_path / "m.db")
    store = f"sqlite:///{tmp_path}/m.db"
    home = tmp_path / "home"
    script = textwrap.dedent(
        """
        import sys
        import mlopskit
        line = {"backend": "mlflow", "location": sys.argv[1], "flush_timeout_s": 100}
        with mlopskit.Kit(tracking=line, home=sys.argv[2]) as kit:
            with kit.tracker.start_run("e", params={"lr": 0.1}) as run:
                print(run.id, flush=True)
                for step in range(1500):
                    run.log_metrics({"loss": step * 0.5, "up": float("inf")}, step=step)
                    if step == 500:
                        run.flush()
                        print("flushed", flush=True)
                        sys.stdin.readline()
                run.log_text("hello", "notes.txt")
                print("logged", flush=True)
                sys.stdin.readline()
            (status,) = run.delivery.values()
            print(status.pending, status.error, flush=True)
        """
    )
    with mlflow_server(store, tmp_path) as (port, process):
        uri = f"http://127.0.0.1:{port}"
        program: Any = subprocess.Popen(
            [sys.executable, "-c", script, uri, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **QUICK},
        )
        run_id = program.stdout.readline().strip()
        assert program.stdout.readline().strip() == "flushed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    program.stdin.write("go on\n")
    program.stdin.flush()
    assert program.stdout.readline().strip() == "logged"
    with mlflow_server(store, tmp_path, port):
        program.stdin.write("end\n")
        program.stdin.close()
        assert program.stdout.readline().strip() == "0"
        assert program.wait(60) == 0
        program.stdout.close()
        whole(uri, home, run_id)

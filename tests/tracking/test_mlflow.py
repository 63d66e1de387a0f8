"""MLflow keeps the contract, and what only it can get wrong."""

from __future__ import annotations

import math
import shutil
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.tracking.servers import mlflow_server

from mlopskit.errors import ConfigError, Unavailable
from mlopskit.kit import Kit
from mlopskit.testing.tracking import Line, TrackerContract

if TYPE_CHECKING:
    from pathlib import Path

mlflow = pytest.importorskip("mlflow")
pytestmark = [
    # SQLAlchemy's pool is collected with its engine, which MLflow never disposes of.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty database once: its migrations take seconds."""
    path: Path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def line(tmp_path: Path, empty_store: Path) -> Line:
    path = tmp_path / "store" / "m.db"
    path.parent.mkdir()
    shutil.copy(empty_store, path)
    return {"backend": "mlflow", "location": f"sqlite:///{path}", "flush_timeout_s": 120}


class TestMlflowTracker(TrackerContract):
    processes = 3

    @pytest.fixture
    def line(self, line: Line) -> Line:
        return line


def test_processes_may_make_a_database_at_once(tmp_path: Path) -> None:
    line = {
        "backend": "mlflow",
        "location": f"sqlite:///{tmp_path}/new/m.db",
        "flush_timeout_s": 200,
    }
    contract = TestMlflowTracker()

    contract.test_many_processes_may_open_a_new_store_at_once(line, tmp_path / "home")


def test_runs_that_others_wrote_can_be_read(line: Line, tmp_path: Path) -> None:
    assert isinstance(line, dict)
    client = mlflow.MlflowClient(line["location"])
    experiment = client.create_experiment("theirs", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment, run_name="foreign", tags={"k": "v"})
    client.log_param(run.info.run_id, "lr", "0.1")
    for step in (3, 1):
        client.log_metric(run.info.run_id, "loss", step / 2, step=step, timestamp=1000 + step)
    client.log_text(run.info.run_id, "hello", "deep/notes.txt")
    client.set_terminated(run.info.run_id)

    with Kit(tracking=line, home=tmp_path / "home") as kit:
        record = kit.tracker.get_run(run.info.run_id)
        found = kit.tracker.search_runs("params.lr = '0.1' and metrics.loss = 1.5", "theirs")
        history = kit.tracker.get_metric_history(run.info.run_id, "loss")
        (artifact,) = kit.tracker.list_artifacts(run.info.run_id)
        path = kit.tracker.download_artifact(run.info.run_id, artifact.name, tmp_path / "got")

    assert (record.name, record.experiment, record.status) == ("foreign", "theirs", "finished")
    assert (record.params, record.tags["k"]) == ({"lr": "0.1"}, "v")
    assert (record.metrics, record.last_steps) == ({"loss": 1.5}, {"loss": 3})
    assert [each.id for each in found] == [record.id]
    assert list(history.steps) == [1, 3]
    assert (artifact.name, artifact.size, path.read_text()) == ("deep/notes.txt", 5, "hello")


def test_mlflows_own_pages_show_what_was_logged(line: Line, tmp_path: Path) -> None:
    assert isinstance(line, dict)
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        with (
            kit.tracker.start_run("e", name="top") as parent,
            kit.tracker.start_run(
                "e", name="shown", params={"lr": 0.1, "opt": "adam"}, parent=parent
            ) as run,
        ):
            run.log_metrics({"loss": 0.5, "up": math.inf}, step=7)
            run.log_text("hello", "notes.txt")
        client = kit.tracker.native
        experiment = client.get_experiment_by_name("e").experiment_id
        (seen,) = client.search_runs([experiment], "params.lr = '0.1' and metrics.loss < 1")

    assert (seen.info.run_name, seen.info.status) == ("shown", "FINISHED")
    assert seen.data.params == {"lr": "0.1", "opt": "adam"}
    assert seen.data.metrics == {"loss": 0.5, "up": 1.7976931348623157e308}
    top = client.get_run(seen.data.tags["mlflow.parentRunId"])
    assert top.info.run_name == "top"
    assert [each.path for each in client.list_artifacts(seen.info.run_id)] == [
        "mlopskit",
        "notes.txt",
    ]


@pytest.mark.network
def test_a_server_that_refuses_costs_nothing_and_gets_all_of_it_later(
    line: Line, tmp_path: Path
) -> None:
    assert isinstance(line, dict)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound and not listening: every connection is refused.
        port = taken.getsockname()[1]
        down = {"backend": "mlflow", "location": f"http://127.0.0.1:{port}", "flush_timeout_s": 60}
        with Kit(tracking=down, home=tmp_path / "home") as kit:
            with kit.tracker.start_run("e", params={"lr": 0.1, "acc@1": "x" * 9000}) as run:
                run.log_metrics({"loss": 0.5, "up": math.inf}, step=1)
                run.log_text("hello", "deep/notes.txt")
            (status,) = run.delivery.values()
            with pytest.raises(Unavailable, match="127"):
                kit.tracker.ping(timeout_s=2)
            with pytest.raises(Unavailable):
                kit.tracker.get_run(run.id)
    assert (status.delivered, status.rejected) == (0, 0)
    assert status.pending > 0

    with (
        mlflow_server(line["location"], tmp_path, port),
        Kit(tracking=down, home=tmp_path / "home") as kit,
    ):
        while True:
            with suppress(Unavailable):
                kit.tracker.ping(timeout_s=5)
                break
        report = kit.tracker.sync()
        assert (report.delivered, report.rejected, report.pending) == (5, 0, {})
        record = kit.tracker.get_run(run.id)
        path = kit.tracker.download_artifact(run.id, "deep/notes.txt", tmp_path / "got")
        url = kit.tracker.run_url(run.id)

    assert (record.status, record.metrics) == ("finished", {"loss": 0.5, "up": math.inf})
    assert record.params == {"lr": 0.1, "acc@1": "x" * 9000}
    assert path.read_text() == "hello"
    assert url is not None
    assert url.startswith(f"http://127.0.0.1:{port}/#/experiments/")


@pytest.mark.parametrize("location", ["mlruns", "./mlruns", "file:///tmp/mlruns", "/tmp/mlruns"])
def test_a_folder_is_refused_with_the_way_out(location: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///mlflow\.db"):
        _ = Kit(tracking=f"mlflow:{location}").tracker


def test_a_relative_database_means_the_same_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Kit(tracking="mlflow:sqlite:///m.db", home=tmp_path / "home").tracker
    monkeypatch.chdir(tmp_path)

    assert tracker.target == f"mlflow:sqlite:///{tmp_path}/cwd/m.db"

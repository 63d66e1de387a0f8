"""The tracker reads from MLflow without a word, and MLflow's own calls stay as they are."""

from __future__ import annotations

import math
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.tracking.servers import mlflow_server

from mlopskit.errors import IntegrityError, NotFound, StorageError
from mlopskit.kit import Kit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.mlflow import MlflowTracker

mlflow = pytest.importorskip("mlflow")
pytestmark = [
    # SQLAlchemy's pool is collected with its engine, which MLflow never disposes of.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty database once: its migrations take seconds."""
    path: Path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.network)])
def uri(request: pytest.FixtureRequest, tmp_path: Path, empty_store: Path) -> Iterator[str]:
    """Yield where an empty MLflow is."""
    path = tmp_path / "store" / "m.db"
    path.parent.mkdir()
    shutil.copy(empty_store, path)
    if request.param == "sqlite":
        yield f"sqlite:///{path}"
        return
    with mlflow_server(f"sqlite:///{path}", tmp_path) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def kit(uri: str, tmp_path: Path) -> Iterator[Kit]:
    line = {"backend": "mlflow", "location": uri, "flush_timeout_s": 120}
    with Kit(tracking=line, home=tmp_path / "home") as opened:
        yield opened


@contextmanager
def silence(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """See that nothing is printed meanwhile, and that nothing was switched off for it."""
    before = dict(os.environ)
    bars = mlflow.environment_variables.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
    capfd.readouterr()
    yield
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert bars.get() is True
    assert dict(os.environ) == before


def test_reading_a_run_prints_nothing(
    kit: Kit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its long texts, the numbers that MLflow cannot hold, its files and its models."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.txt", "größe.txt"):
        (folder / name).write_text(name)
    long = "x" * 7000
    with kit.tracker.start_run("e", params={"long": long}, tags={"long": long}) as run:
        run.log_metrics({"loss": math.inf}, step=0)
        if (pid := os.fork()) == 0:
            run.log_metrics({"loss": 0.25}, step=1)
            run.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        run.log_artifact(folder, "folder")
        run.log_model(folder / "a.txt", "net")

    kit.tracker.sync()
    with silence(capfd):
        record = kit.tracker.get_run(run.id)
        found = kit.tracker.search_runs("params.long is not null")
        history = kit.tracker.get_metric_history(run.id, "loss")
        path = kit.tracker.download_artifact(run.id, "folder", tmp_path / "got")
        use = kit.tracker.get_artifact("folder", "e")
        model = kit.registry.register("net", f"runs:/{run.id}/net")

    assert (record.params["long"], record.tags["long"]) == (long, long)
    assert [each.id for each in found] == [run.id]
    assert list(history.values) == [math.inf, 0.25]
    assert {each.name: each.read_text() for each in path.iterdir()} == {
        name: name for name in ("a.txt", "größe.txt")
    }
    assert (use.run_id, model.size) == (run.id, 5)


def test_the_files_of_others_are_read_as_quietly(
    kit: Kit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = cast("MlflowTracker", kit.tracker).native
    run: Any = client.create_run(client.create_experiment("theirs"))
    client.log_text(run.info.run_id, "hello", "deep/notes.txt")
    client.set_terminated(run.info.run_id)

    with silence(capfd):
        (file,) = kit.tracker.list_artifacts(run.info.run_id)
        path = kit.tracker.download_artifact(run.info.run_id, file.name, tmp_path / "got")
    assert path.read_text() == "hello"


def test_mlflows_own_downloads_keep_their_bar(
    kit: Kit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with kit.tracker.start_run("e") as run:
        run.log_text("hello", "notes.txt")
    kit.tracker.download_artifact(run.id, "notes.txt", tmp_path / "ours")
    client: Any = kit.tracker.native
    (seen,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    capfd.readouterr()
    client.download_artifacts(seen.info.run_id, "notes.txt", str(tmp_path))

    assert "Downloading artifacts" in capfd.readouterr().err


def test_bytes_that_are_gone_or_changed_are_named(kit: Kit, tmp_path: Path) -> None:
    with kit.tracker.start_run("e") as run:
        run.log_text("hello", "gone.txt")
        run.log_text("hello", "changed.txt")
    (gone,) = (each for each in tmp_path.rglob("gone.txt") if each.is_file())
    gone.unlink()
    (changed,) = (each for each in tmp_path.rglob("changed.txt") if each.is_file())
    changed.write_text("hallo")

    with pytest.raises(NotFound, match=r"gone\.txt"):
        kit.tracker.download_artifact(run.id, "gone.txt", tmp_path / "got")
    with pytest.raises(IntegrityError, match=r"changed\.txt"):
        kit.tracker.download_artifact(run.id, "changed.txt", tmp_path / "got")
    assert [each for each in (tmp_path / "got").rglob("*") if each.is_file()] == []


def test_a_disk_that_cannot_be_read_is_a_storage_error(kit: Kit, uri: str, tmp_path: Path) -> None:
    if uri.startswith("http"):
        pytest.skip("the disk is the server's")
    with kit.tracker.start_run("e") as run:
        run.log_text("hello", "notes.txt")
    (path,) = (each for each in tmp_path.rglob("notes.txt") if each.is_file())
    path.unlink()
    path.mkdir()

    with pytest.raises(StorageError, match=r"notes\.txt"):
        kit.tracker.download_artifact(run.id, "notes.txt", tmp_path / "got")

"""W&B online keeps what the tracking interface promises, against a server on loopback."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from mlopskit.errors import Unavailable
from mlopskit.kit import Kit
from mlopskit.testing.tracking import OPENING, TrackerContract
from mlopskit.testing.wandb_server import KEY, WandbServer
from mlopskit.tracking.values import to_json
from mlopskit.tracking.wandb_kept import Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.testing.tracking import Line
    from mlopskit.testing.wandb_server import Kind

wandb_online = pytest.importorskip("mlopskit.tracking.wandb_online")
wandb_writer = pytest.importorskip("mlopskit.tracking.wandb_writer")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B's service from reporting anywhere."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    """Return a server."""
    with WandbServer() as running:
        yield running


class TestWandbOnline(TrackerContract):
    """The contract, on a server."""

    processes: ClassVar[int] = 3  # each starts a service of W&B's, which takes a second of CPU
    points: ClassVar[int] = 10_000  # the server is written in Python, and reads every row

    @pytest.fixture
    def line(self, quick: dict[str, Any]) -> Line:
        """Return the line of an empty project."""
        return quick


QUICK = {
    "x_file_stream_transmit_interval": 1.0,
    "x_file_stream_retry_wait_max_seconds": 1.0,
    "x_graphql_retry_wait_max_seconds": 1.0,
    "x_file_transfer_retry_wait_max_seconds": 1.0,
}


def test_a_server_that_goes_and_comes_back_has_everything_once(
    line: dict[str, Any], server: WandbServer, tmp_path: Path
) -> None:
    """It is away in the middle of a run, and then loses answers after it has stored the rows."""
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        run = kit.tracker.start_run("e", params={"lr": 0.1})
        for step in range(50):
            run.log_metric("loss", step / 7, step=step)
        run.flush()
        server.fail("down", math.inf)
        for step in range(50, 100):
            run.log_metric("loss", step / 7, step=step)
        run.log_text("hello", "notes.txt")
        run.flush(timeout_s=1)
        (behind,) = run.delivery.values()
        server.mend()
        server.fail("drop", 2, match="file_stream")
        run.finish(timeout_s=60)
        (done,) = run.delivery.values()
        steps = list(kit.tracker.get_metric_history(run.id, "loss").steps)
        path = kit.tracker.download_artifact(run.id, "notes.txt", tmp_path / "got")

    assert behind.pending > 0
    assert (done.pending, done.rejected) == (0, 0)
    assert steps == list(range(100))
    assert path.read_text() == "hello"


@pytest.mark.parametrize("before", [True, False], ids=["from the start", "in the middle"])
@pytest.mark.parametrize("kind", ["down", "refuse", "hang", "error", "drop", "late"])
def test_a_program_ends_well_while_the_server_misbehaves(
    line: dict[str, Any], server: WandbServer, tmp_path: Path, kind: Kind, before: bool
) -> None:
    """With exit code 0, within its flush timeout; a later sync delivers all of it."""
    line = {**line, "flush_timeout_s": 2.0}
    program = (
        "run = tracker.start_run('e', params={'lr': 0.1})\n"
        "for step in range(50): run.log_metric('loss', step / 7, step=step)\n"
        "run.flush()\n"
        "print(run.id, flush=True)\n"
        "input()\n"
        "for step in range(50, 100): run.log_metric('loss', step / 7, step=step)\n"
        "run.log_text('hello', 'notes.txt')\n"
    )
    if before:
        server.fail(kind, math.inf, seconds=20)
    with _started(program, line, tmp_path / "home") as worker:
        assert worker.stdout is not None
        run_id = worker.stdout.readline().strip()
        server.fail(kind, math.inf, seconds=20)
        _, errors = worker.communicate("\n", timeout=60)
    server.mend()

    assert worker.returncode == 0, errors
    assert "Traceback" not in errors
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        report = kit.tracker.sync()
        record = kit.tracker.get_run(run_id)
        steps = list(kit.tracker.get_metric_history(run_id, "loss").steps)
        path = kit.tracker.download_artifact(run_id, "notes.txt", tmp_path / "got")

    assert report.pending == {}
    assert (record.status, record.params) == ("finished", {"lr": 0.1})
    assert steps == list(range(100))
    assert path.read_text() == "hello"


@pytest.mark.parametrize(
    ("mark", "step", "revision", "expected"),
    [
        (5, 9, 2, {"aaaa": 70}),
        (5, 9, 1, {}),  # The config is behind.
        (5, 8, 2, {}),  # The history is.
        (4, 9, 2, {}),  # The summary is.
        (None, 9, 2, {}),
    ],
)
def test_what_counts_as_stored_is_stored_in_every_part(
    mark: int | None, step: int, revision: int, expected: dict[str, int]
) -> None:
    """History, config and summary reach the server on different ways."""
    run = SimpleNamespace(step=0)
    opened = wandb_writer.Open(run, Kept("ab" * 16), Path(), resumed=False)
    opened.marks[5] = wandb_writer.Mark({"aaaa": 70}, step=9, revision=2)
    bucket = {
        "summaryMetrics": json.dumps({} if mark is None else {"_mk/mark": str(mark)}),
        "config": json.dumps({"_mk": {"value": {"revision": revision}}}),
        "historyTail": json.dumps([json.dumps({"_step": step})]),
    }

    assert wandb_online.reached(opened, bucket) == expected


def test_a_key_that_the_server_refuses_is_named(
    line: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to set; so is one that is missing, and nobody is asked on the terminal."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for key in ("b" * 40, None):
        with Kit(tracking={**line, "api_key": key}, home=tmp_path / f"home {key}") as kit:
            with kit.tracker.start_run() as run:
                pass
            (status,) = run.delivery.values()
            with pytest.raises(Unavailable, match="WANDB_API_KEY"):
                kit.tracker.ping()

        assert "WANDB_API_KEY" in status.error
        assert status.pending > 0


def test_wandbs_own_api_sees_what_its_pages_show(
    line: dict[str, Any], server: WandbServer, tmp_path: Path
) -> None:
    """Config, group, tags, notes, media, and artifacts with their aliases."""
    np = pytest.importorskip("numpy")
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        with kit.tracker.start_run(
            "e", name="n", params={"lr": 0.1, "model": "cnn"}, tags={"a": "b"}, group="g", notes="x"
        ) as run:
            run.log_metric("loss", 0.5, step=9)
            run.log_image(np.zeros((3, 3, 3), dtype=np.uint8), "one.png")
            run.log_table([{"a": 1}], "table")
            run.log_artifact(__file__, "code.py", aliases=["best"])
        native = kit.tracker.native.run(f"team/churn/{run.id}")
        rows = list(native.scan_history(use_cache=False))
        artifacts = {each.name: each for each in native.logged_artifacts()}

    assert (native.name, native.group, native.notes, native.state) == ("n", "g", "x", "finished")
    assert native.tags == ["a:b"]
    assert (native.config["lr"], native.config["model"]) == (0.1, "cnn")
    assert [row["_mk/step"] for row in rows if "loss" in row] == [9]
    assert [row["one_png"]["_type"] for row in rows if "one_png" in row] == ["image-file"]
    assert [row["table"]["_type"] for row in rows if "table" in row] == ["table-file"]
    assert any("/media/images/" in name for name in server.files)
    assert any("/media/table/" in name for name in server.files)
    assert "best" in artifacts["file-code.py:v0"].aliases
    assert list((tmp_path / "home").rglob("artifacts/*")) == []


def test_what_the_server_can_filter_it_filters(
    line: dict[str, Any], server: WandbServer, tmp_path: Path
) -> None:
    """A search of many runs does not read them all; what it cannot say is evaluated here."""
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        for name in ("cnn", "mlp"):
            with kit.tracker.start_run("e", name=name, params={"model": name}) as run:
                run.log_metric("loss", 0.5)
        found = kit.tracker.search_runs("params.model = 'cnn' and metrics.loss < 1", "e")

    assert [each.name for each in found] == ["cnn"]
    assert server.last_filters == {
        "$and": [{"config.model": "cnn"}, {"config._mk_experiment": "e"}]
    }


def test_runs_that_others_wrote_are_read(
    line: dict[str, Any], server: WandbServer, tmp_path: Path
) -> None:
    """The config as params, W&B's steps, state and files."""
    sdk = pytest.importorskip("wandb")
    settings = sdk.Settings(base_url=server.url, api_key=KEY, console="off", silent=True)
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        kit.tracker.ping()
        native = sdk.init(
            entity="team",
            project="churn",
            name="theirs",
            config={"lr": 0.5},
            tags=["fast"],
            dir=str(tmp_path),
            settings=settings,
            reinit="create_new",
        )
        for value in (1.0, 0.5):
            native.log({"loss": value})
        artifact = sdk.Artifact("model", type="model")
        (tmp_path / "w.bin").write_bytes(b"weights")
        artifact.add_file(str(tmp_path / "w.bin"))
        native.log_artifact(artifact)
        native.finish()
        record = kit.tracker.get_run(native.id)
        history = kit.tracker.get_metric_history(native.id, "loss")
        path = kit.tracker.download_artifact(native.id, "model/w.bin", tmp_path / "got")
        found = [each.id for each in kit.tracker.search_runs("metrics.loss = 0.5")]

    assert (record.name, record.status, record.experiment) == ("theirs", "finished", "churn")
    assert (record.params, record.tags) == ({"lr": 0.5}, {"fast": ""})
    assert (record.metrics, record.last_steps) == ({"loss": 0.5}, {"loss": 1})
    assert list(history.values) == [1.0, 0.5]
    assert path.read_bytes() == b"weights"
    assert found == [native.id]


def test_an_offline_run_reaches_the_server_complete(
    line: dict[str, Any], server: WandbServer, tmp_path: Path
) -> None:
    """`wandb sync` sends it, with what only mlopskit reads."""
    np = pytest.importorskip("numpy")
    offline = {
        "backend": "wandb",
        "location": "team/churn",
        "mode": "offline",
        "folder": str(tmp_path / "store"),
    }
    params = {"lr": 0.1, "odd": (1, 2.0), "nan": float("nan")}
    with Kit(tracking=offline, home=tmp_path / "home") as kit:
        with kit.tracker.start_run("e", params=params, tags={"a": "b"}, notes="n") as run:
            for step in (5, 3, 3):
                run.log_metrics({"loss": float("inf"), "a.b": 2**60 + 1}, step=step)
            run.log_text("hello", "notes.txt")
            run.log_image(np.zeros((3, 3, 3), dtype=np.uint8), "one.png")
        before = kit.tracker.get_run(run.id)
    (folder,) = (tmp_path / "store" / "wandb").glob("offline-run-*")
    own = {"WANDB_SERVICE": "", "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    environment = {**os.environ, **own}

    subprocess.run(
        [sys.executable, "-m", "wandb", "sync", str(folder)],
        env=environment,
        check=True,
        capture_output=True,
        timeout=60,
    )

    with Kit(tracking=line, home=tmp_path / "home") as kit:
        after = kit.tracker.get_run(run.id)
        history = kit.tracker.get_metric_history(run.id, "a.b")
        names = [each.name for each in kit.tracker.list_artifacts(run.id)]
        path = kit.tracker.download_artifact(run.id, "notes.txt", tmp_path / "got")
    assert after.model_dump_json() == before.model_dump_json()
    assert to_json(after.params) == to_json(params)
    assert (list(history.steps), list(history.values)) == ([5, 3, 3], [2**60 + 1] * 3)
    assert names == ["notes.txt", "one.png"]
    assert path.read_text() == "hello"


@pytest.fixture
def line(quick: dict[str, Any]) -> dict[str, Any]:
    """Return the line of an empty project."""
    return quick


@pytest.fixture
def quick(server: WandbServer) -> Iterator[dict[str, Any]]:
    """Return the line of an empty project, of a server that is up and tried again soon."""
    server.runs.clear()
    server.artifacts.clear()
    server.files.clear()
    server.mend()
    yield {
        "backend": "wandb",
        "location": "team/churn",
        "base_url": server.url,
        "api_key": KEY,
        "settings": QUICK,
    }
    server.mend()


def _started(program: str, line: dict[str, Any], home: Path) -> subprocess.Popen[str]:
    """Start a program that has opened the same tracker."""
    return subprocess.Popen(
        [sys.executable, "-c", OPENING + program, json.dumps(line), str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

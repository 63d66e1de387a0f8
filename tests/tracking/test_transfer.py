"""Runs go from any tracker to any other, whole, once, and through kills and outages."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
from tests.tracking.servers import mlflow_server
from tests.tracking.transfers import copied

import mlopskit as mk
from mlopskit.errors import (
    Conflict,
    CopyDiffers,
    IntegrityError,
    InvalidInput,
    NotFound,
    Unavailable,
)
from mlopskit.kit import Kit
from mlopskit.testing.tracking import HARD_PARAMS, HARD_STEPS, HARD_VALUES
from mlopskit.tracking.export import export_run
from mlopskit.tracking.snapshot import snapshot_of
from mlopskit.tracking.transfer import id_at_destination, transfer_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Artifact, RunRecord

mlflow = pytest.importorskip("mlflow")
wandb = pytest.importorskip("wandb")
wandb_server = pytest.importorskip("mlopskit.testing.wandb_server")

ENDS = ("local", "mlflow", "mlflow server", "wandb offline", "wandb online")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B's service from reporting anywhere."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run one MLflow server; yield its address."""
    folder = tmp_path_factory.mktemp("server")
    store = f"sqlite:///{folder}/server.db"
    mlflow.MlflowClient(store).search_experiments()
    with mlflow_server(store, folder) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Tracker]]:
    """Return what opens a tracker in a home of its own."""
    kits: list[Kit] = []
    servers: list[Any] = []

    def line(kind: str, name: str) -> Any:
        if kind == "mlflow":
            return f"mlflow:sqlite:///{tmp_path}/{name}.db"
        if kind == "mlflow server":  # All of this name are one.
            return f"mlflow:{request.getfixturevalue('server')}"
        if kind == "wandb offline":
            return {"backend": "wandb", "mode": "offline", "folder": str(tmp_path / name)}
        if kind == "wandb online":
            server = wandb_server.WandbServer()
            server.start()
            servers.append(server)
            soon = dict.fromkeys(
                ("x_file_stream_transmit_interval", "x_graphql_retry_wait_max_seconds"), 1.0
            )
            return {
                "backend": "wandb",
                "location": "team/churn",
                "base_url": server.url,
                "api_key": wandb_server.KEY,
                "settings": soon,
            }
        return kind

    def make(kind: str, name: str, **options: Any) -> Tracker:
        said = line(kind, name)
        if options:
            said = {**(said if isinstance(said, dict) else {"backend": kind}), **options}
        kits.append(Kit(tracking=said, home=tmp_path / name))
        return kits[-1].tracker

    yield make
    for kit in kits:
        kit.close()
    for server in servers:
        server.stop()


def fill(tracker: Tracker) -> None:
    """Log what is hard to keep."""
    about: dict[str, Any] = {"name": "päron", "notes": "n\nö", "group": "g", "job_type": "j"}
    with tracker.start_run("e", params=HARD_PARAMS, tags={"a": "b"}, **about) as run:
        for step, value in enumerate(HARD_VALUES):
            run.log_metrics({"m": value, "acc@1": 1.0}, step=step)
        for step in HARD_STEPS:
            run.log_metric("odd", 2**60 + 1, step=step)
        run.log_text("hello", "notes.txt")
        run.log_dict({"a": [1, None]}, "deep/d.json")
        run.log_dataset({"a": [1, 2]}, "train")
        run.log_histogram([1.0, 2.0, 2.0], "weights", step=3)
        with tracker.start_run("e", parent=run) as child:
            child.log_metric("x", 1)
    with pytest.raises(ZeroDivisionError), tracker.start_run("other"):
        _ = 1 / 0


def test_every_pair_has_equal_digests(opened: Callable[..., Tracker]) -> None:
    """In every direction; a second time nothing is copied."""
    sources = {kind: opened(kind, f"from {kind}") for kind in ENDS}
    theirs: dict[str, str] = {}
    for kind, tracker in sources.items():
        fill(tracker)
        ids = ", ".join(f"'{run.id}'" for run in tracker.search_runs())
        theirs[kind] = f"id IN ({ids})"
    for one, other in permutations(ENDS, 2):
        there = opened(other, f"{one} to {other}")
        report = transfer_runs(sources[one], there, theirs[one])
        again = transfer_runs(sources[one], there, theirs[one])

        assert len(report.copied) == 3, (one, other)
        assert len(report.digests) == 3
        assert all(left == right for left, right in report.digests.values()), (one, other)
        assert (again.copied, len(again.present)) == ((), 3), (one, other)
        assert again.digests == report.digests


def test_runs_that_mlflow_wrote_go_anywhere(opened: Callable[..., Tracker], tmp_path: Path) -> None:
    """With their ids, points, tags, files and parents."""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/theirs.db")
    experiment = client.create_experiment("old", (tmp_path / "files").as_uri())
    parent = client.create_run(experiment, tags={"team": "a"}, run_name="p").info.run_id
    child = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    for step in (3, 1, 2):
        client.log_metric(child, "loss", step / 7, timestamp=1_700_000_000_001 + step, step=step)
    client.log_param(child, "lr", "0.1")
    client.log_text(child, "hello", "deep/notes.txt")
    client.set_terminated(child, "FAILED")

    ours = opened("mlflow", "theirs")
    report = transfer_runs(ours, opened("local", "home"))
    there = opened("local", "home")
    run = there.get_run(child)

    assert set(report.copied) == {parent, child}
    assert (run.parent_id, run.status, run.params) == (parent, "failed", {"lr": "0.1"})
    assert there.get_run(parent).status == "running"
    history = there.get_metric_history(child, "loss")
    assert list(history.steps) == [1, 2, 3]
    assert list(history.timestamps) == [1_700_000_000_002, 1_700_000_000_003, 1_700_000_000_004]
    path = there.download_artifact(child, "deep/notes.txt", tmp_path / "got")
    assert path.read_text() == "hello"
    assert transfer_runs(ours, there).copied == ()
    assert transfer_runs(there, opened("wandb offline", "on")).copied == report.copied


def test_a_run_that_nobody_ended_is_no_conflict_and_is_brought_up_to_date(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    """Its copy reads lost after a while, where MLflow goes on to say that it runs."""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/theirs.db")
    experiment = client.create_experiment("old", (tmp_path / "files").as_uri())
    begun = 1_700_000_000_000
    run = client.create_run(experiment, start_time=begun, tags={"a": "b"}).info.run_id
    client.log_metric(run, "loss", 0.5, timestamp=begun + 1, step=1)
    source, there = opened("mlflow", "theirs"), opened("local", "home")
    transfer_runs(source, there)

    assert (source.get_run(run).status, there.get_run(run).status) == ("running", "lost")
    again = transfer_runs(source, there)
    assert (again.copied, again.present) == ((), (run,))
    assert len(set(again.digests[run])) == 1

    client.log_metric(run, "loss", 0.25, timestamp=begun + 2, step=2)
    client.log_metric(run, "acc", 1.0, timestamp=begun + 2, step=2)
    client.log_param(run, "lr", "0.1")
    client.set_terminated(run, end_time=begun + 3)
    assert transfer_runs(source, there).copied == (run,)
    assert list(there.get_metric_history(run, "loss").values) == [0.5, 0.25]
    assert (there.get_run(run).status, there.get_run(run).params) == ("finished", {"lr": "0.1"})
    client.set_tag(run, "a", "c")
    with pytest.raises(Conflict, match=r"tags\.a"):
        transfer_runs(source, there)


@pytest.mark.parametrize("what", ["tag", "point"])
def test_an_open_copy_that_holds_something_of_its_own_is_not_replaced(
    opened: Callable[..., Tracker], what: str
) -> None:
    """Somebody has gone on with it at the destination."""
    source, there = opened("local", "from"), opened("local", "to")
    with source.start_run("e", run_id="a" * 32) as run:
        run.log_metric("loss", 1.0, step=0)
        run.flush()
        transfer_runs(source, there)
        with there.start_run(run_id="a" * 32, resume=True) as other:
            if what == "tag":
                other.set_tags({"mine": "x"})
            else:
                other.log_metric("loss", 2.0, step=1)
            other.flush()
            run.log_metric("loss", 3.0, step=1)
            run.flush()
            with pytest.raises(Conflict, match=r"mine|loss"):
                transfer_runs(source, there)
    assert there.get_run("a" * 32).tags.get("mine") == ("x" if what == "tag" else None)


def test_a_run_that_w_and_b_wrote_gets_an_id_that_stays(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    """Its own has eight characters, and others take 32."""
    program = (
        "import sys, wandb\n"
        "run = wandb.init(project='mlopskit', dir=sys.argv[1], mode='offline', id='abcd1234',"
        " config={'lr': 0.1})\n"
        "for step in range(5): run.log({'loss': step / 7})\n"
        "run.finish()\n"
    )
    (tmp_path / "theirs").mkdir()
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "theirs")],
        check=True,
        env={**os.environ, "WANDB_SERVICE": "", "WANDB_SILENT": "true"},
        timeout=120,
    )
    source = opened("wandb offline", "theirs")
    there = opened("local", "home")
    report = transfer_runs(source, there)
    own = id_at_destination(source, "abcd1234")

    assert report.copied == (own,)
    assert there.get_run(own).params == {"lr": 0.1}
    assert list(there.get_metric_history(own, "loss").values) == [step / 7 for step in range(5)]
    assert transfer_runs(source, there).present == (own,)


def test_what_w_and_b_logged_and_is_no_number_is_named(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    """Also where nothing is left to copy; the numbers of the same key are copied."""
    program = (
        "import sys, wandb\n"
        "run = wandb.init(project='mlopskit', dir=sys.argv[1], mode='offline', id='abcd1234')\n"
        "run.log({'loss': 1.0, 's': 'text', 'h': wandb.Histogram([1, 2, 2])})\n"
        "run.log({'loss': float('nan'), 'mixed': 1})\n"
        "run.log({'mixed': 'two', 'nested': {'t': 'x', 'n': 2}})\n"
        "run.finish()\n"
    )
    (tmp_path / "theirs").mkdir()
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "theirs")],
        check=True,
        env={**os.environ, "WANDB_SERVICE": "", "WANDB_SILENT": "true"},
        timeout=120,
    )
    source, there = opened("wandb offline", "theirs"), opened("local", "home")
    own = id_at_destination(source, "abcd1234")
    for _ in range(2):
        report = transfer_runs(source, there)
        assert report.left_out == {own: ("h", "mixed", "nested.t", "s")}
    assert report.present == (own,)
    assert set(there.get_run(own).metrics) == {"loss", "mixed", "nested.n"}
    ours = opened("local", "ours")
    fill(ours)
    assert transfer_runs(ours, opened("wandb offline", "copy")).left_out == {}


@pytest.mark.parametrize("kind", ["local", "mlflow", "wandb offline"])
def test_a_source_that_does_not_exist_is_refused_and_not_made(
    opened: Callable[..., Tracker], tmp_path: Path, kind: str
) -> None:
    """It is a mistyped one."""
    line: Any = {
        "local": f"local:{tmp_path}/nothere",
        "mlflow": f"mlflow:sqlite:///{tmp_path}/nothere.db",
        "wandb offline": {
            "backend": "wandb",
            "mode": "offline",
            "folder": str(tmp_path / "nothere"),
        },
    }[kind]
    with pytest.raises(NotFound, match="nothere"):
        mk.transfer(line, opened("local", "to"))
    assert [each for each in tmp_path.iterdir() if "nothere" in each.name] == []


def test_a_filter_and_an_experiment_choose(opened: Callable[..., Tracker]) -> None:
    """And a filter that cannot be read is refused before anything is asked."""
    source, there = opened("local", "from"), opened("local", "to")
    for number in range(4):
        with source.start_run("even" if number % 2 == 0 else "odd") as run:
            run.log_metric("n", number)

    assert len(transfer_runs(source, there, "metrics.n >= 2", "even").copied) == 1
    assert len(transfer_runs(source, there, experiment="odd").copied) == 2
    assert sorted(run.metrics["n"] for run in there.search_runs()) == [1, 2, 3]
    with pytest.raises(InvalidInput, match="column 11"):
        transfer_runs(source, there, "metrics.n 2")
    with pytest.raises(Conflict, match="both the source and the destination"):
        transfer_runs(source, source)


def test_a_run_that_differs_is_refused_before_anything_is_written(
    opened: Callable[..., Tracker],
) -> None:
    """And replaced on request."""
    source, there = opened("local", "from"), opened("local", "to")
    for tracker, value in ((source, 1.0), (there, 2.0)):
        with tracker.start_run("e", name="same", run_id="a" * 32) as run:
            run.log_metric("loss", value, step=0)
    with source.start_run("e"):
        pass

    with pytest.raises(Conflict, match=r"metrics\.loss: point 1 of 1: 1\.0 at step 0"):
        transfer_runs(source, there)
    assert [run.id for run in there.search_runs()] == ["a" * 32]
    assert there.get_run("a" * 32).metrics == {"loss": 2.0}

    report = transfer_runs(source, there, replace=True)
    assert len(report.copied) == 2
    assert there.get_run("a" * 32).metrics == {"loss": 1.0}


class Vanishing:
    """A source whose tool goes away in the middle of a run."""

    def __init__(self, tracker: Tracker, after: int) -> None:
        self._tracker = tracker
        self._left = after

    @property
    def target(self) -> str:
        """That of the tracker."""
        return self._tracker.target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)

    def fetch_artifact(self, id: str, artifact: Artifact, path: Path) -> None:
        """Fetch, as often as it is said."""
        self._left -= 1
        if self._left < 0:
            raise Unavailable(self.target, "it has gone")
        self._tracker.fetch_artifact(id, artifact, path)


def test_a_source_that_vanishes_leaves_nothing_half_written(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    """What was whole stays; the next transfer goes on."""
    source, there = opened("local", "from"), opened("local", "to")
    for number in range(3):
        with source.start_run("e", params={"n": number}) as run:
            for name in "abc":
                run.log_text(name, f"{name}.txt")
                run.log_metric("loss", number, step=number)

    with pytest.raises(Unavailable, match="it has gone"):
        transfer_runs(Vanishing(source, after=5), there)
    assert [run.params for run in there.search_runs()] == [{"n": 0}]
    assert list((tmp_path / "to" / "tracking" / "journal").iterdir()) == []
    report = transfer_runs(source, there)
    assert (len(report.copied), len(report.present)) == (2, 1)


def test_a_destination_that_is_down_gets_the_rest_later(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    """It says so at once."""
    source = opened("local", "from")
    with source.start_run("e"):
        pass
    down = opened("mlflow", "to", location="http://127.0.0.1:9", connect_timeout_s=1.0)

    with pytest.raises(Unavailable):
        transfer_runs(source, down)


@pytest.mark.parametrize("seed", range(3))
def test_kills_in_the_middle_neither_lose_nor_double(tmp_path: Path, seed: int) -> None:
    """The transfer is begun again each time, and the digests are equal at the end."""
    copied(tmp_path, runs=120, kills=8, seed=seed)


@pytest.mark.parametrize("metrics", ["csv", "parquet"])
def test_what_was_exported_can_be_taken_in(
    opened: Callable[..., Tracker], tmp_path: Path, metrics: Any
) -> None:
    """By another tracker, with equal digests; a second time nothing is taken."""
    source, there = opened("local", "from"), opened("mlflow", "to")
    fill(source)
    for run in source.search_runs():
        export_run(source, run.id, tmp_path / "out" / run.id, metrics=metrics)
    report = mk.transfer(tmp_path / "out", there)

    assert len(report.copied) == 3
    for run in source.search_runs():
        digest = snapshot_of(source, run).digest
        assert report.digests[run.id] == (digest, digest)
    assert mk.transfer(tmp_path / "out", there, "metrics.x = 1").present != ()
    assert mk.transfer(tmp_path / "out" / run.id, opened("local", "one")).copied == (run.id,)


def test_an_export_that_is_damaged_is_named(opened: Callable[..., Tracker], tmp_path: Path) -> None:
    """And nothing of it is taken."""
    source, there = opened("local", "from"), opened("local", "to")
    with source.start_run("e") as run:
        run.log_metric("loss", 1.0)
        run.log_text("hello", "a.txt")
    folder = export_run(source, run.id, tmp_path / "out" / run.id)

    with pytest.raises(InvalidInput, match="holds no exported run"):
        mk.transfer(tmp_path / "nowhere", there)
    (folder / "artifacts" / "a.txt").write_text("changed")
    with pytest.raises(IntegrityError, match="exported file"):
        mk.transfer(folder, there)
    (folder / "artifacts" / "a.txt").unlink()
    with pytest.raises(NotFound, match="exported file"):
        mk.transfer(folder, there)
    (folder / "metrics.csv").write_text("key,step,timestamp,value\nloss,x,y,z\n")
    with pytest.raises(InvalidInput, match="cannot be read"):
        mk.transfer(folder, there)
    for text in ("{", '{"format": 9}', '{"format": 1, "exact": {"run": {"id": 1}}}', "[]"):
        (folder / "run.json").write_text(text)
        with pytest.raises(InvalidInput, match=r"is no exported run|has format 9"):
            mk.transfer(folder, there)
    assert there.search_runs() == []


class Lossy:
    """A destination that changes a value on its way out, and so is found out."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)

    def get_run(self, id: str) -> RunRecord:
        """Return a run with a tag that nobody set."""
        return self._tracker.get_run(id).model_copy(update={"tags": {"new": "tag"}})


def test_a_copy_that_differs_is_named(opened: Callable[..., Tracker]) -> None:
    """With what differs, after all the rest has been copied."""
    source, there = opened("local", "from"), opened("local", "to")
    for _ in range(2):
        with source.start_run("e"):
            pass

    with pytest.raises(CopyDiffers, match=r"tags\.new: nothing became \"tag\"") as caught:
        transfer_runs(source, Lossy(there))  # type: ignore[arg-type]  # it behaves as one
    assert len(caught.value.different) == 2
    assert len(there.search_runs()) == 2


def test_secrets_of_other_writers_do_not_come_along(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    """They are removed as from what is logged."""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/theirs.db")
    run = client.create_run(client.create_experiment("old")).info.run_id
    client.log_param(run, "api_key", "very-secret")
    client.set_terminated(run)
    there = opened("local", "home")
    transfer_runs(opened("mlflow", "theirs"), there)

    assert "very-secret" not in str(there.get_run(run).params)
    with pytest.raises(NotFound):
        there.get_run("b" * 32)
    assert snapshot_of(there, there.get_run(run)).digest.startswith("sha256:")

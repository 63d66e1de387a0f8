"""A transfer loses nothing: at the destination, of what it cannot place, or for a second name."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.tracking.servers import mlflow_server

import mlopskit as mk
from mlopskit.errors import BackendError, Conflict, NotFound
from mlopskit.kit import Kit
from mlopskit.tracking.local import LocalTracker
from mlopskit.tracking.transfer import (
    CannotReplace,
    NotCopied,
    SameStore,
    id_at_destination,
    transfer_runs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Batch

mlflow = pytest.importorskip("mlflow")
wandb = pytest.importorskip("wandb")
wandb_server = pytest.importorskip("mlopskit.testing.wandb_server")

RUN = "a" * 32


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B's service from reporting anywhere."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Tracker]]:
    """Return what opens a tracker by its line, in a home of its own."""
    kits: list[Kit] = []

    def make(line: Any, home: str) -> Tracker:
        kits.append(Kit(tracking=line, home=tmp_path / home))
        return kits[-1].tracker

    yield make
    for kit in kits:
        kit.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Run one MLflow server; yield its database and port."""
    folder = tmp_path_factory.mktemp("server")
    store = f"sqlite:///{folder}/server.db"
    mlflow.MlflowClient(store).search_experiments()
    with mlflow_server(store, folder) as (port, _):
        yield store, port


def two(opened: Callable[..., Tracker]) -> tuple[Tracker, Tracker]:
    """Return two trackers that hold one run, otherwise each."""
    source, there = opened("local", "from"), opened("local", "to")
    for tracker, value in ((source, 1), (there, 2)):
        with tracker.start_run("e", name="same", run_id=RUN, params={"p": value}) as run:
            run.log_text(f"of {value}", "a.txt")
    return source, there


def test_a_run_stays_where_its_replacement_cannot_be_read(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    source, there = two(opened)
    for path in (tmp_path / "from").rglob("*"):
        if path.is_file() and path.read_bytes() == b"of 1":
            path.unlink()

    with pytest.raises(NotFound):
        transfer_runs(source, there, replace=True)
    assert there.get_run(RUN).params == {"p": 2}
    path = there.download_artifact(RUN, "a.txt", tmp_path / "got")
    assert path.read_text() == "of 2"


KILLED = """
import os, sys
from mlopskit.kit import Kit, transfer
from mlopskit.tracking.local import LocalTracker

where, left = sys.argv[3], int(sys.argv[4])
whole = getattr(LocalTracker, where)

def dying(self, *given):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return whole(self, *given)

with Kit(tracking="local", home=sys.argv[1]) as one, Kit(tracking="local", home=sys.argv[2]) as two:
    one.tracker, two.tracker
    setattr(LocalTracker, where, dying)
    transfer(one.tracker, two.tracker, replace=True)
"""


@pytest.mark.parametrize(
    ("where", "calls"), [("remove_run", 0), ("write", 0), ("settled", 0), ("copy_artifact", 0)]
)
def test_a_kill_in_the_middle_of_a_replacement_leaves_the_old_run_or_the_new_one(
    opened: Callable[..., Tracker], tmp_path: Path, where: str, calls: int
) -> None:
    two(opened)
    homes = [str(tmp_path / "from"), str(tmp_path / "to")]
    program = [sys.executable, "-c", KILLED, *homes, where, str(calls)]
    assert subprocess.run(program, check=False, timeout=120).returncode == -9
    report = transfer_runs(opened("local", "from"), opened("local", "to"), replace=True)
    run = opened("local", "to").get_run(RUN)

    assert (len(report.copied) + len(report.present), run.params) == (1, {"p": 1})
    assert len(set(report.digests[RUN])) == 1


def test_a_delivery_that_comes_again_does_not_delete_what_it_has_brought(
    opened: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, there = two(opened)
    removed: list[str] = []
    remove, write = LocalTracker.remove_run, LocalTracker.write
    left = [1]

    def counted(self: LocalTracker, id: str) -> None:
        removed.append(id)
        remove(self, id)

    def failing(self: LocalTracker, batch: Batch) -> None:
        write(self, batch)
        if left[0]:
            left[0] -= 1
            raise mk.errors.Unavailable("it", "it has gone")

    monkeypatch.setattr(LocalTracker, "remove_run", counted)
    monkeypatch.setattr(LocalTracker, "write", failing)
    with pytest.raises(mk.errors.Unavailable):
        transfer_runs(source, there, replace=True)
    report = transfer_runs(source, there, replace=True)

    assert (report.present, removed) == ((RUN,), [RUN])


def test_one_file_under_two_names_is_refused(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    """The only copy of its runs would be deleted."""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/m.db")
    run = client.create_run(client.create_experiment("x"), tags={"api_key": "very-secret"})
    client.set_terminated(run.info.run_id)
    (tmp_path / "link.db").symlink_to("m.db")
    with opened("local", "A").start_run("e"):
        pass
    (tmp_path / "B").symlink_to("A")
    lines = [
        (f"mlflow:sqlite:///{tmp_path}/m.db", f"mlflow:sqlite:///{tmp_path}/link.db"),
        (f"local:{tmp_path}/A/tracking", f"local:{tmp_path}/B/tracking"),
    ]
    for one, other in lines:
        with pytest.raises(SameStore, match="both the source and the destination"):
            transfer_runs(opened(one, "one"), opened(other, "two"), replace=True)
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"
    fan_out = [lines[0][1], f"local:{tmp_path}/C"]
    with pytest.raises(SameStore):
        transfer_runs(opened(lines[0][0], "one"), opened(fan_out, "three"), replace=True)


def test_one_server_under_two_names_is_refused(
    opened: Callable[..., Tracker], server: tuple[str, int], tmp_path: Path
) -> None:
    """Also where the other name is its own database; another store is none of them."""
    store, port = server
    client = mlflow.MlflowClient(store)
    run = client.create_run(client.create_experiment("twice"), tags={"api_key": "very-secret"})
    ours = opened(f"mlflow:http://127.0.0.1:{port}", "ours")
    for other in (f"mlflow:http://localhost:{port}", f"mlflow:{store}"):
        for pair in ((ours, opened(other, "other")), (opened(other, "other"), ours)):
            with pytest.raises(SameStore, match="two names of one store"):
                transfer_runs(*pair, replace=True)
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"
    there = opened(f"mlflow:sqlite:///{tmp_path}/there.db", "there")
    assert len(transfer_runs(ours, there).copied) >= 1


def test_models_of_mlflow_3_go_along(
    opened: Callable[..., Tracker], server: tuple[str, int], tmp_path: Path
) -> None:
    """Two of one name, and a file of the run; there and back, where all is found equal."""
    _, port = server
    client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
    experiment = client.create_experiment("models")
    run = client.create_run(experiment).info.run_id
    client.log_text(run, "hello", "notes.txt")
    (tmp_path / "model").mkdir()
    ids = []
    for number in range(2):
        (tmp_path / "model" / "MLmodel").write_text(f"flavors: {{}} # {number}")
        model = client.create_logged_model(
            experiment, name="model", source_run_id=run, params={"depth": str(number)}
        )
        client.log_model_artifacts(model.model_id, str(tmp_path / "model"))
        client.finalize_logged_model(model.model_id, "READY")
        ids.append(model.model_id)
    client.set_terminated(run)
    theirs, there = opened(f"mlflow:http://127.0.0.1:{port}", "s"), opened("local", "to")
    report = transfer_runs(theirs, there, experiment="models")
    files = {each.name: each for each in there.list_artifacts(run)}

    assert report.copied == (run,)
    assert set(files) == {"model/MLmodel", f"model-{ids[1]}/MLmodel", "notes.txt"}
    first = files["model/MLmodel"]
    assert (first.type, first.metadata["mlflow_model_id"]) == ("model", ids[0])
    assert first.metadata["mlflow_model_params"] == {"depth": "0"}
    path = there.download_artifact(run, f"model-{ids[1]}", tmp_path / "got")
    assert (path / "MLmodel").read_text().endswith("# 1")
    back = transfer_runs(there, theirs)
    assert (back.copied, back.present) == ((), (run,))


def test_points_of_one_time_and_step_all_arrive_in_mlflow(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/theirs.db")
    run = client.create_run(client.create_experiment("old")).info.run_id
    for number in range(20):
        client.log_metric(run, "even", number / 3, timestamp=1_700_000_000_000)
        client.log_metric(run, "odd", number, timestamp=1_700_000_000_001)
    client.set_terminated(run)
    source = opened(f"mlflow:sqlite:///{tmp_path}/theirs.db", "from")
    for name, line in (("l", "local"), ("m", f"mlflow:sqlite:///{tmp_path}/m.db")):
        assert transfer_runs(source, opened(line, name)).copied == (run,)
    there = opened(f"mlflow:sqlite:///{tmp_path}/m.db", "m")
    assert sorted(there.get_metric_history(run, "even").values) == [n / 3 for n in range(20)]
    assert sorted(there.get_metric_history(run, "odd").values) == list(range(20))


def test_a_run_that_cannot_be_read_keeps_no_other_back(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    """It is named with its file; the next transfer has the others already."""
    source, there = opened("local", "from"), opened("local", "to")
    ids = []
    for number in range(3):
        with source.start_run("e") as run:
            run.log_text(f"text {number}", "a.txt")
        ids.append(run.id)
    for path in (tmp_path / "from").rglob("*"):
        if path.is_file() and path.read_bytes() == b"text 1":
            path.unlink()
    for _ in range(2):
        with pytest.raises(NotCopied) as caught:
            transfer_runs(source, there)
        assert list(caught.value.failures) == [ids[1]]
        assert {run.id for run in there.search_runs()} == {ids[0], ids[2]}


def test_a_file_that_mlflow_cannot_hand_out_is_named(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    """Not the run, which is there."""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/theirs.db")
    run = client.create_run(client.create_experiment("old", (tmp_path / "f").as_uri())).info.run_id
    client.log_text(run, "hi", "a#b.txt")
    client.set_terminated(run)
    source = opened(f"mlflow:sqlite:///{tmp_path}/theirs.db", "from")
    with pytest.raises(BackendError, match=f"'a#b.txt' of the run {run} cannot be read"):
        transfer_runs(source, opened("local", "to"))


def test_a_store_of_files_without_credentials_is_named(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/theirs.db")
    for name, place in (("bad", "nowhere://bucket/x"), ("good", (tmp_path / "f").as_uri())):
        run = client.create_run(client.create_experiment(name, place)).info.run_id
        client.set_terminated(run)
    with pytest.raises(NotCopied, match=r"(?s)1 run of .*nowhere"):
        transfer_runs(
            opened(f"mlflow:sqlite:///{tmp_path}/theirs.db", "from"), opened("local", "to")
        )
    assert [each.experiment for each in opened("local", "to").search_runs()] == ["good"]


PROGRAM = """
import sys, wandb
run = wandb.init(project='churn', dir=sys.argv[1], mode=sys.argv[2], id='abcd1234')
for step in range(5): run.log({'loss': step / 7})
run.summary['best'] = 0.75
run.summary['nested'] = {'deep': 2, 'text': 'y'}
run.summary['why'] = 'early'
run.summary['list'] = [1, 2]
open(sys.argv[1] + '/keep.txt', 'w').write('kept')
run.save(sys.argv[1] + '/keep.txt', base_path=sys.argv[1])
run.finish()
"""


def wandb_wrote(folder: Path, mode: str, **environment: str) -> None:
    """Run W&B's own SDK in a program of its own."""
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), mode],
        check=True,
        env={**os.environ, "WANDB_SERVICE": "", "WANDB_SILENT": "true", **environment},
        timeout=120,
    )


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_what_only_the_summary_of_w_and_b_has_and_what_was_saved_goes_along(
    opened: Callable[..., Tracker], tmp_path: Path, mode: str
) -> None:
    """Or is named; the way back finds the original."""
    folder = tmp_path / "theirs"
    server = wandb_server.WandbServer()
    server.start()
    try:
        line: dict[str, Any] = {"backend": "wandb", "mode": mode}
        if mode == "online":
            key = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": wandb_server.KEY}
            wandb_wrote(folder, mode, **key, WANDB_ENTITY="team")
            line |= {
                "location": "team/churn",
                "base_url": server.url,
                "api_key": wandb_server.KEY,
            }
        else:
            wandb_wrote(folder, mode)
            line |= {"location": "churn", "folder": str(folder)}
        source, there = opened(line, "from"), opened("local", "to")
        own = id_at_destination(source, "abcd1234")
        for _ in range(2):
            report = transfer_runs(source, there)
            assert report.left_out == {own: ("summary.list",)}
        run = there.get_run(own)
        best = there.get_metric_history(own, "best")

        assert report.present == (own,)
        assert (run.metrics["best"], run.metrics["nested.deep"]) == (0.75, 2.0)
        assert (list(best.steps), len(best)) == ([4], 1)
        assert run.tags == {"summary.why": "early", "summary.nested.text": "y"}
        path = there.download_artifact(own, "files/keep.txt", tmp_path / "got")
        assert path.read_text() == "kept"

        if mode == "online":
            line["base_url"] = server.url.replace("127.0.0.1", "localhost")
        else:
            line["folder"] = str(folder / "wandb")
        with pytest.raises(SameStore):
            transfer_runs(source, opened(line, "again"), replace=True)
        back = transfer_runs(there, source)
        assert (back.copied, back.present) == ((), (own,))
        assert [each.id for each in source.search_runs()] == ["abcd1234"]
    finally:
        server.stop()


def test_two_runs_never_become_one(opened: Callable[..., Tracker], tmp_path: Path) -> None:
    """A run that W&B wrote, and a copy of it beside it."""
    folder = tmp_path / "theirs"
    wandb_wrote(folder, "offline")
    line = {"backend": "wandb", "mode": "offline", "location": "churn", "folder": str(folder)}
    source = opened(line, "from")
    own = id_at_destination(source, "abcd1234")
    with source.start_run("e", run_id=own) as run:
        run.log_metric("loss", 9.0)
    there = opened("local", "to")

    with pytest.raises(Conflict, match=f"abcd1234 and {own}|{own} and abcd1234"):
        transfer_runs(source, there)
    assert there.search_runs() == []


def test_an_original_that_holds_more_than_a_copy_is_not_replaced(
    opened: Callable[..., Tracker], tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    wandb_wrote(folder, "offline")
    line = {"backend": "wandb", "mode": "offline", "location": "churn", "folder": str(folder)}
    there, source = opened(line, "to"), opened("local", "from")
    with source.start_run("churn", run_id=id_at_destination(there, "abcd1234")):
        pass
    with pytest.raises(CannotReplace, match=r"summary\.list"):
        transfer_runs(source, there, replace=True)
    assert [each.id for each in there.search_runs()] == ["abcd1234"]

"""MLflow keeps the contract, and what only it can get wrong."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.tracking.servers import free_port, mlflow_server

from mlopskit import filters
from mlopskit.errors import (
    BackendError,
    ConfigError,
    InvalidInput,
    NotFound,
    Unavailable,
)
from mlopskit.kit import Kit
from mlopskit.testing.tracking import Line, TrackerContract
from mlopskit.tracking.entities import Batch, Dataset, MetricsLogged, Started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.mlflow import MlflowTracker

mlflow = pytest.importorskip("mlflow")
server = pytest.importorskip("mlopskit.tracking.mlflow_server")
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


@pytest.fixture
def tracker(line: Line, tmp_path: Path) -> Iterator[MlflowTracker]:
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        yield cast("MlflowTracker", kit.tracker)


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
    contract.processes = 8  # type: ignore[misc]  # of seven that begin at once, MLflow lets one live

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


# What comes again, or from elsewhere.

OWN = "ab" * 16
START = Started(1, 1_700_000_000_000, "n", "e", None, "nobody", notes="said")


def test_a_param_may_go_back_to_its_first_value(tracker: MlflowTracker) -> None:
    with tracker.start_run(params={"lr": 1, "n": 1}) as run:
        run.log_params({"lr": 2, "n": 2}, overwrite=True)
        run.log_params({"lr": 1}, overwrite=True)

    assert tracker.get_run(run.id).params == {"lr": 1, "n": 2}


def test_a_start_that_was_stored_in_part_is_completed(tracker: MlflowTracker) -> None:
    tracker.write(Batch(OWN, "s", [START]))
    client: Any = tracker.native
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    client.delete_tag(run.info.run_id, "mlflow.note.content")

    tracker.write(Batch(OWN, "s", [START]))

    assert tracker.read_run(OWN).notes == "said"
    assert len(list(tracker.scan_runs("e", None))) == 1


def test_points_of_children_are_there_once_however_their_batches_come(
    tracker: MlflowTracker,
) -> None:
    """Two children log the same points at the same time; a crash repeats what one of them sent."""
    points = [MetricsLogged(10 + at, START.time_ms + 1, at, {"a": 0.5}) for at in range(3)]
    tracker.write(Batch(OWN, "s", [START]))
    for parts in ([points], [points[:1], points[1:]], [points[:2]], [points]):
        for part in parts:
            tracker.write(Batch(OWN, "child-1", part))
    tracker.write(Batch(OWN, "child-2", points))

    assert list(tracker.read_metric_history(OWN, "a").steps) == [0, 0, 1, 1, 2, 2]


def test_an_experiment_that_another_process_deleted_is_made_again(
    tracker: MlflowTracker, line: Line, tmp_path: Path
) -> None:
    with tracker.start_run("gone"):
        pass
    with Kit(tracking=line, home=tmp_path / "other") as kit:
        kit.tracker.delete_experiment("gone")

    with tracker.start_run("gone") as run:
        run.log_metric("loss", 0.5)

    assert [each.id for each in tracker.search_runs(experiment="gone")] == [run.id]


def test_an_experiment_deleted_in_mlflow_says_how_to_restore_it_and_nothing_is_lost(
    tracker: MlflowTracker, caplog: pytest.LogCaptureFixture
) -> None:
    with tracker.start_run("gone"):
        pass
    client: Any = tracker.native
    theirs = client.get_experiment_by_name("gone").experiment_id
    client.delete_experiment(theirs)
    with tracker.start_run("gone") as run:
        run.log_metric("loss", 0.5)
        run.finish(timeout_s=1)
    assert f"mlflow experiments restore -x {theirs}" in caplog.text
    (status,) = run.delivery.values()
    assert (status.delivered, status.rejected) == (0, 0)

    client.restore_experiment(theirs)
    tracker.sync()

    assert tracker.get_run(run.id).metrics == {"loss": 0.5}


# What others see of it, and what is seen of others.


def test_mlflow_shows_notes_data_and_descriptions(tracker: MlflowTracker) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    with tracker.start_run("e", notes="**what** it is") as run:
        run.log_dataset(frame, "flights", role="validation")
    tracker.describe_experiment("e", "about it")

    client: Any = tracker.native
    experiment = client.get_experiment_by_name("e")
    (seen,) = client.search_runs([experiment.experiment_id])
    (given,) = seen.inputs.dataset_inputs

    assert experiment.tags["mlflow.note.content"] == "about it"
    assert seen.data.tags["mlflow.note.content"] == "**what** it is"
    assert given.dataset.name == "flights"
    assert {tag.key: tag.value for tag in given.tags} == {"mlflow.data.context": "validation"}
    columns = json.loads(given.dataset.schema)["mlflow_colspec"]
    assert [each["name"] for each in columns] == ["a", "b"]
    assert json.loads(given.dataset.profile)["num_rows"] == 2
    assert tracker.get_run(run.id).datasets[0].digest.startswith("sha256:")


def test_mlflow_shows_the_beginning_of_long_notes_and_may_change_them(
    tracker: MlflowTracker,
) -> None:
    long = "# Title\n" + "a\x00b ü" * 3000
    with tracker.start_run("e", notes=long) as run:
        pass
    client: Any = tracker.native
    (seen,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])

    assert seen.data.tags["mlflow.note.content"].startswith("# Title\na?b ü")
    assert seen.data.tags["mlflow.note.content"].endswith("…")
    assert tracker.get_run(run.id).notes == long
    client.set_tag(seen.info.run_id, "mlflow.note.content", "changed…")
    assert tracker.get_run(run.id).notes == "changed…"


def test_mlflows_slider_finds_the_pictures_of_each_step(
    tracker: MlflowTracker, tmp_path: Path
) -> None:
    """Of one name there is one file here, and one for each step on MLflow's page."""
    np = pytest.importorskip("numpy")
    image = pytest.importorskip("PIL.Image")
    with tracker.start_run("e") as run:
        for step in (1, 2):
            run.log_image(np.full((300, 2, 3), step, dtype=np.uint8), "a/größe.png", step=step)
        run.log_image(np.zeros((2, 2), dtype=np.uint8), "plain.png")
    client: Any = tracker.native
    (seen,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])

    there = [each.path for each in client.list_artifacts(seen.info.run_id, "images")]
    names = [path.removeprefix("images/").split("+") for path in sorted(there)]
    assert [name[0] for name in names] == ["a~gr__e"] * 4
    assert [[*name[1:4:2], name[2]] for name in names] == [
        ["step", "timestamp", step] for step in ("1", "1", "2", "2")
    ]
    assert [name[-1] for name in names[::2]] == ["compressed.webp"] * 2
    assert [name[-1] for name in names[1::2]] == [f"{name[5]}.png" for name in names[::2]]
    assert seen.data.tags["mlflow.loggedImages"] == "True"
    small = client.download_artifacts(seen.info.run_id, sorted(there)[0], str(tmp_path))
    with image.open(small) as picture:
        assert picture.size == (2, 256)
    assert [each.name for each in tracker.list_artifacts(run.id)] == ["a/größe.png", "plain.png"]
    assert tracker.get_run(run.id).tags == {}
    path = tracker.download_artifact(run.id, "a/größe.png", tmp_path / "got")
    with image.open(path) as picture:
        assert picture.size == (2, 300)
        assert picture.getpixel((0, 0)) == (2, 2, 2)


def test_mlflow_knows_which_files_are_tables(tracker: MlflowTracker) -> None:
    np = pytest.importorskip("numpy")
    with tracker.start_run("e") as run:
        run.log_table([{"a": 1}], "plain.json")
        run.log_table([{"a": np.zeros((2, 2, 3), dtype=np.uint8)}], "pictures")
        run.log_table([{"a": 2}], "plain.json")
    client: Any = tracker.native
    (seen,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])

    assert json.loads(seen.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "pictures/rows.json", "type": "table"},
        {"path": "plain.json", "type": "table"},
    ]
    assert tracker.get_run(run.id).tags == {}


def test_a_description_that_mlflow_cannot_hold_is_refused(tracker: MlflowTracker) -> None:
    with pytest.raises(InvalidInput):
        tracker.describe_experiment("e", "x" * 100_000)


@pytest.mark.filterwarnings("ignore:.*integer column:UserWarning")
def test_data_of_a_run_that_others_wrote_is_read(tracker: MlflowTracker) -> None:
    pandas = pytest.importorskip("pandas")
    data = pytest.importorskip("mlflow.data")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    given = data.from_pandas(frame, source="https://example.org/flights.csv", name="flights")
    entities = mlflow.entities
    client = tracker.native
    run = client.create_run(client.create_experiment("theirs"))
    client.log_inputs(
        run.info.run_id,
        [
            entities.DatasetInput(
                given._to_mlflow_entity(), [entities.InputTag("mlflow.data.context", "test")]
            ),
            entities.DatasetInput(entities.Dataset("odd", "d", "code", "no json", "[]", "{}"), []),
        ],
    )

    found = {each.name: each for each in tracker.get_run(run.info.run_id).datasets}
    odd, flights = found["odd"], found["flights"]

    assert (flights.name, flights.role, flights.rows) == ("flights", "test", 2)
    assert (flights.source, flights.uri) == ("http", "https://example.org/flights.csv")
    assert [name for name, _ in flights.columns] == ["a", "b"]
    assert odd == Dataset(name="odd", source="code")


def test_mlflow_counts_what_the_system_did_among_its_system_metrics(
    line: Line, tmp_path: Path
) -> None:
    pytest.importorskip("psutil")
    assert isinstance(line, dict)
    with Kit(tracking={**line, "system_metrics_s": 0.1}, home=tmp_path / "home") as kit:
        with kit.tracker.start_run("e") as run:
            while not any(key.startswith("system/") for key in kit.tracker.get_run(run.id).metrics):
                time.sleep(0.05)
        client: Any = kit.tracker.native
        (seen,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])

    assert all(key.startswith("system/") for key in seen.data.metrics)


# Questions.


def test_every_page_of_a_search_is_read(
    tracker: MlflowTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlopskit.tracking.mlflow_layout.PAGE", 2)
    for number in range(5):
        with tracker.start_run("e", name=f"n{number}") as run:
            run.log_metric("loss", float(number % 3))
            run.log_text(
                "x",
                "x.txt",
            )

    found = tracker.search_runs(experiment="e", limit=None, order_by="metrics.loss desc")

    assert [each.name for each in found] == ["n2", "n4", "n1", "n3", "n0"]
    use = tracker.get_artifact("x.txt", "e")
    assert use.run_id == next(each.id for each in found if each.name == "n4")


@pytest.mark.parametrize(
    ("where", "few"),
    [
        ("metrics.loss < 1.5", {"n0", "n1"}),
        ("metrics.loss < 1.5 and (params.n = 0 or params.n = 9)", {"n0", "n1"}),
        ("params.kind = 'even'", {"n0", "n2"}),
        ("tags.odd = 'yes' and name = 'n1'", {"n1"}),
        ("status = 'finished' and group = 'g'", {"n2"}),
    ],
)
def test_mlflow_answers_what_it_can_be_asked(
    tracker: MlflowTracker, where: str, few: set[str]
) -> None:
    """What comes from it is less than everything, so that little has to be looked at here."""
    for number in range(3):
        params = {"n": number, "kind": "odd" if number % 2 else "even"}
        group = "g" if number == 2 else None
        with tracker.start_run("e", name=f"n{number}", params=params, group=group) as run:
            run.log_metric("loss", float(number))
            if number % 2:
                run.set_tags({"odd": "yes"})

    assert {each.name for each in tracker.scan_runs("e", filters.parse(where))} == few


@pytest.mark.parametrize("kind", ["metrics", "params", "tags"])
@pytest.mark.parametrize("key", ["a:b", "_mk_a", "mlflow.note.content", "größe/α", "a b.c"])
def test_what_others_wrote_is_found_by_its_own_key(
    tracker: MlflowTracker, kind: str, key: str
) -> None:
    """Where mlopskit itself would have escaped the key, too."""
    client: Any = tracker.native
    run = client.create_run(client.create_experiment("theirs")).info.run_id
    client.log_metric(run, key, 0.5)
    client.log_param(run, key, "x")
    client.set_tag(run, key, "x")
    wanted = "0.5" if kind == "metrics" else "'x'"

    assert [each.id for each in tracker.search_runs(f"{kind}.`{key}` = {wanted}")] == [run]
    assert [each.id for each in tracker.search_runs(f"{kind}.`{key}` is not null")] == [run]
    if kind == "metrics":
        assert [each.id for each in tracker.search_runs(order_by=f"metrics.`{key}`")] == [run]


@pytest.mark.parametrize("value", [1e-7, -1e-7, 1e22, 5e-324, -3, 0, 2**53 + 1, 10**400, math.inf])
def test_any_number_may_be_asked_for(tracker: MlflowTracker, value: float) -> None:
    with tracker.start_run("e") as run:
        run.log_metric("loss", value)

    assert len(tracker.search_runs(f"metrics.loss = {value!r}")) == 1
    assert len(tracker.search_runs(f"metrics.loss < {value!r}")) == 0


# What goes wrong.


def test_a_password_is_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.environ["MLOPSKIT_TEST_URI"] = f"http://me:pw9x5zz@127.0.0.1:{free_port()}"
    try:
        line = {"backend": "mlflow", "location": "${env:MLOPSKIT_TEST_URI}", "flush_timeout_s": 5}
        with Kit(tracking=line, home=tmp_path) as kit:
            with kit.tracker.start_run() as run:
                pass
            (status,) = run.delivery.values()
            with pytest.raises(Unavailable) as refused:
                kit.tracker.get_run(run.id)
            shown = [kit.tracker.sinks()[0].target, status.error, str(refused.value), caplog.text]
    finally:
        del os.environ["MLOPSKIT_TEST_URI"]

    assert "127.0.0.1" in shown[0]
    assert "failed" in caplog.text
    assert [text for text in shown if "pw9x5zz" in text] == []


def test_options_of_a_driver_are_not_part_of_what_is_shown() -> None:
    assert server.public_uri("postgresql://h:1/db?user=me&password=x") == "postgresql://h:1/db"
    assert server.public_uri("postgresql+psycopg://me:x@h/db") == "postgresql+psycopg://h/db"


@pytest.mark.parametrize("what", ["nobody listens", "no database"])
def test_a_database_that_cannot_be_had_is_said_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """MLflow would try for 102 s, and say so in its log."""
    (tmp_path / "text.db").write_text("no database at all" * 100)
    location = f"sqlite:///{tmp_path}/text.db"
    if what == "nobody listens":
        location = f"postgresql://me@127.0.0.1:{free_port()}/db"
    with Kit(tracking=f"mlflow:{location}", home=tmp_path / "home") as kit:
        for ask in (lambda: kit.tracker.get_run(OWN), kit.tracker.ping):
            with pytest.raises(Unavailable, match="cannot be reached"):
                ask()

    assert "will be retried" not in caplog.text


@pytest.mark.parametrize(
    ("said", "code", "meant"),
    [
        ("(psycopg.InterfaceError) the connection is closed", "BAD_REQUEST", Unavailable),
        ("QueuePool limit of size 5 overflow 10 reached", "BAD_REQUEST", Unavailable),
        ("(sqlite3.OperationalError) disk I/O error", "TEMPORARILY_UNAVAILABLE", Unavailable),
        (
            "API request to endpoint /x failed with error code 400 != 200",
            "BAD_REQUEST",
            Unavailable,
        ),
        ("(psycopg.errors.NumericValueOutOfRange) x", "BAD_REQUEST", InvalidInput),
        ("Invalid value", "INVALID_PARAMETER_VALUE", InvalidInput),
        ("No Run with id=x exists", "RESOURCE_DOES_NOT_EXIST", NotFound),
        ("who knows", "INTERNAL_ERROR", BackendError),
    ],
)
def test_trouble_is_told_from_a_refusal(said: str, code: str, meant: type[Exception]) -> None:
    """Only what is refused is given up; the rest comes again."""
    codes: Any = pytest.importorskip("mlflow.protos.databricks_pb2").ErrorCode
    with pytest.raises(meant) as raised, server.translated("mlflow:x", "r"):
        raise mlflow.MlflowException(said, error_code=codes.Value(code))

    assert type(raised.value) is meant
    assert isinstance(raised.value.__cause__, mlflow.MlflowException)


@pytest.mark.parametrize("location", ["mlruns", "./mlruns", "file:///tmp/mlruns", "/tmp/mlruns"])
def test_a_folder_is_refused_with_the_way_out(location: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///mlflow\.db.*mlflow migrate-filestore"):
        _ = Kit(tracking=f"mlflow:{location}").tracker


def test_a_relative_database_means_the_same_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Kit(tracking="mlflow:sqlite:///m.db", home=tmp_path / "home").tracker
    monkeypatch.chdir(tmp_path)

    assert tracker.target == f"mlflow:sqlite:///{tmp_path}/cwd/m.db"

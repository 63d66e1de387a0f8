"""W&B offline keeps what the tracking interface promises, in W&B's own files."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from mlopskit import plugins
from mlopskit.errors import ConfigError, NotFound, Unsupported
from mlopskit.kit import Kit, open_tracker
from mlopskit.testing.tracking import OPENING, TrackerContract
from mlopskit.tracking import wandb_layout
from mlopskit.tracking.entities import Ended, Started
from mlopskit.tracking.wandb_folders import by_id, find_runs
from mlopskit.tracking.wandb_kept import Kept

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.testing.tracking import Line
    from mlopskit.tool import Tool
    from mlopskit.tracking import RunRecord

wandb = pytest.importorskip("mlopskit.tracking.wandb")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B's service from reporting anywhere."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


class TestWandbOffline(TrackerContract):
    """The contract, on files."""

    processes: ClassVar[int] = 3  # each starts a service of W&B's, which takes a second of CPU

    @pytest.fixture
    def line(self, tmp_path: Path) -> Line:
        """Return the line of an empty folder."""
        return {
            "backend": "wandb",
            "location": "team/churn",
            "mode": "offline",
            "folder": str(tmp_path / "store"),
        }

    def test_the_table_is_read_without_importing_the_backend(self, tool: Tool) -> None:
        """The table is that of a server; offline it differs in the lines that say so."""
        table = plugins.declared("tracking", "wandb")["CAPABILITIES"]
        differing = {line.name for line in tool.capabilities if line.note not in table[line.name]}
        assert differing == set(wandb.OFFLINE) - {"offline"}


def test_what_offline_wandb_cannot_do_is_refused_when_it_is_opened(
    line: dict[str, Any], tmp_path: Path
) -> None:
    """Not in the middle of the run."""
    for capability in ("resume", "artifact_inputs"):
        with pytest.raises(Unsupported, match="offline W&B cannot"):
            open_tracker(line, require=[capability])
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        with pytest.raises(Unsupported, match="resume"):
            kit.tracker.start_run(run_id="ab" * 16, resume=True)
        with kit.tracker.start_run() as run, pytest.raises(Unsupported, match="artifact_inputs"):
            run.use_artifact("model:best")


def test_the_environment_speaks_where_the_line_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only there; neither is the environment written."""
    for key, value in (("PROJECT", "p"), ("ENTITY", "e"), ("MODE", "offline")):
        monkeypatch.setenv(f"WANDB_{key}", value)
    before = dict(os.environ)

    silent, told = wandb.WandbTracker(), wandb.WandbTracker("team/churn", mode="online")

    assert (silent.project, silent.entity, silent.mode) == ("p", "e", "offline")
    assert (told.project, told.entity, told.mode) == ("churn", "team", "online")
    assert dict(os.environ) == before
    for location, mode in (("a/b/c", "online"), ("a", "disabled")):
        with pytest.raises(ConfigError):
            wandb.WandbTracker(location, mode=mode)


def test_the_target_holds_no_secret() -> None:
    """Journals carry it."""
    tracker = wandb.WandbTracker(
        "team/churn", mode="online", base_url="https://me:pw9x@wandb.example", api_key="k" * 40
    )

    assert tracker.target == "wandb:wandb.example/team/churn"


def test_a_row_that_was_written_twice_is_read_once() -> None:
    """A server may have stored what it did not acknowledge."""
    rows = [
        (0.5, 1, "1000:aaaa:10", None),
        (0.5, 1, "1000:bbbb:10", None),
        (0.5, 1, "1000:aaaa:10", None),
        (9.2e18, 2, "1001:aaaa:20", '{"loss": 9223372036854775809, "": 36893488147419103232}'),
        (7.0, 3, None, None),
    ]

    points = list(wandb_layout.points_of(rows, "loss"))

    assert points == [(1, 1000, 0.5), (1, 1000, 0.5), (2**65, 1001, 2**63 + 1)]


@pytest.mark.parametrize(
    "key",
    ["loss", "val/loss", "acc@1", "größe %", "a.b", "_step", "-r", "mk_x", "mkh_x", "€" * 250],
)
def test_keys_that_wandb_shows_are_its_keys(key: str) -> None:
    """What it would nest, hide or change is another key, and no two keys are one."""
    stored = wandb_layout.key_to_wandb(key)

    assert (stored == key) == (key in ("loss", "val/loss", "acc@1", "größe %"))
    assert stored[0] not in "_-"
    assert "." not in stored
    assert len(stored) <= 250


def test_steps_are_the_axis_of_wandbs_charts(line: dict[str, Any], tmp_path: Path) -> None:
    """In any order: W&B's own step only counts rows, so that it drops none."""
    with Kit(tracking=line, home=tmp_path / "home") as kit, kit.tracker.start_run() as run:
        for step in (5, 3, 3, 8):
            run.log_metrics({"loss": step / 2, "acc@1": 1.0}, step=step)

    (found,) = (each.read() for each in find_runs(tmp_path / "store"))

    assert found.defined["*"].step_metric == "_mk/step"
    rows = found.history("loss", "_mk/step")
    assert (list(rows.steps), rows.beside["_mk/step"]) == ([0, 1, 2, 3], [5, 3, 3, 8])
    assert list(found.history("acc@1").values) == [1.0] * 4


def test_wandbs_pages_have_what_they_know(line: dict[str, Any], tmp_path: Path) -> None:
    """Names, groups, job types, notes and tags as W&B's own; params in the config as they are."""
    params = {"lr": 0.1, "deep": {"layers": [1, 2]}, "model": "cnn"}
    with (
        Kit(tracking=line, home=tmp_path / "home") as kit,
        kit.tracker.start_run(
            "e", name="n", params=params, group="g", job_type="train", notes="first"
        ) as run,
    ):
        run.set_tags({"team": "blue", "baseline": ""})
        run.set_notes("second")

    (found,) = (each.read() for each in find_runs(tmp_path / "store"))

    assert (found.name, found.group, found.job_type, found.notes) == ("n", "g", "train", "second")
    assert set(found.tags) == {"team:blue", "baseline"}
    assert {key: found.config[key] for key in params} == params
    assert found.exit_code == 0


def test_media_are_wandbs_own(line: dict[str, Any], tmp_path: Path) -> None:
    """Its pages draw images, tables, pages, sounds, histograms and curves."""
    np = pytest.importorskip("numpy")
    pixels = np.zeros((3, 3, 3), dtype=np.uint8)
    with Kit(tracking=line, home=tmp_path / "home") as kit, kit.tracker.start_run() as run:
        run.log_image(pixels, "one.png", caption="c", step=7)
        run.log_image([pixels, pixels], "many")
        run.log_table([{"a": 1, "picture": pixels}], "table")
        run.log_html("<p>x</p>", "page.html")
        run.log_audio(np.zeros(80), "sound.wav", rate=8000)
        run.log_histogram([1.0, 2.0], "histogram", bins=2)
        run.log_roc_curve([0, 1], [0.1, 0.9])
        run.log_confusion_matrix(["a", "b"], ["a", "a"])

    (found,) = (each.read() for each in find_runs(tmp_path / "store"))
    drawn = {each.key: each for each in found.media()}

    assert {key: each.type for key, each in drawn.items()} == {
        "one_png": "image-file",
        "many": "images/separated",
        "table": "table-file",
        "page_html": "html-file",
        "sound_wav": "audio-file",
        "histogram": "histogram",
        "roc_curve_table": "table-file",
        "confusion_matrix_table": "table-file",
    }
    assert drawn["one_png"].said["caption"] == "c"
    for each in drawn.values():
        for name in each.files:
            assert found.file(name).stat().st_size > 0


def test_artifacts_lie_in_the_runs_own_folder(line: dict[str, Any], tmp_path: Path) -> None:
    """A folder that is moved to another place, or machine, is read there."""
    with Kit(tracking=line, home=tmp_path / "home") as kit, kit.tracker.start_run() as run:
        run.log_text("hello", "deep/notes.txt")
        run.log_table([{"a": 1}], "table")

    (found,) = (each.read() for each in find_runs(tmp_path / "store"))
    for artifact in found.artifacts:
        for entry in artifact.entries():
            assert artifact.verified(entry).is_relative_to(found.folder)
    (tmp_path / "store").rename(tmp_path / "moved")
    moved = {**line, "folder": str(tmp_path / "moved")}
    with Kit(tracking=moved, home=tmp_path / "home") as kit:
        path = kit.tracker.download_artifact(run.id, "deep/notes.txt", tmp_path / "got")

    assert path.read_text() == "hello"


def test_equal_bytes_of_two_runs_are_two_artifacts(line: dict[str, Any], tmp_path: Path) -> None:
    """W&B would make one of two whose content is the same, and the second run would have none."""
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        for _ in range(2):
            with kit.tracker.start_run() as run:
                run.log_text("same", "notes.txt")

    digests = {each.read().artifacts[0].digest for each in find_runs(tmp_path / "store")}

    assert len(digests) == 2


def ended(kit: Kit, id: str) -> RunRecord:
    """Return a run of W&B's own, whose `finish` returns before its file is complete."""
    for _ in range(600):
        with suppress(NotFound):
            if (record := kit.tracker.get_run(id)).status == "finished":
                return record
        time.sleep(0.05)
    return kit.tracker.get_run(id)


def test_runs_that_others_wrote_are_read(line: dict[str, Any], tmp_path: Path) -> None:
    """The config as params, W&B's steps and files; and their runs are left to them."""
    sdk = pytest.importorskip("wandb")
    settings = sdk.Settings(mode="offline", console="off", silent=True)
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        with kit.tracker.start_run("e"):
            native = sdk.init(
                entity="team",
                project="churn",
                name="theirs",
                config={"lr": 0.5},
                tags=["fast"],
                dir=str(tmp_path / "store"),
                settings=settings,
                reinit="create_new",
            )
            for value in (1.0, 0.5):
                native.log({"loss": value})
        native.finish()
        record = ended(kit, native.id)
        history = kit.tracker.get_metric_history(native.id, "loss")

    assert (record.name, record.status, record.experiment) == ("theirs", "finished", "churn")
    assert (record.params, record.tags) == ({"lr": 0.5}, {"fast": ""})
    assert (record.metrics, record.last_steps) == ({"loss": 0.5}, {"loss": 1})
    assert (list(history.steps), list(history.values)) == ([0, 1], [1.0, 0.5])


def test_a_users_own_run_beside_ours_is_their_own(line: dict[str, Any], tmp_path: Path) -> None:
    """Who calls `wandb.init()` while our run is open gets a run of theirs, and may end it."""
    sdk = pytest.importorskip("wandb")
    settings = sdk.Settings(mode="offline", console="off", silent=True)
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        with kit.tracker.start_run("e") as run:
            run.log_metric("loss", 1.0, step=0)
            run.flush()
            theirs = sdk.init(project="theirs", dir=str(tmp_path / "theirs"), settings=settings)
            assert theirs is not run.native
            theirs.log({"other": 2.0})
            theirs.finish()
            run.log_metric("loss", 0.5, step=1)
        record = kit.tracker.get_run(run.id)

    assert (record.status, record.metrics) == ("finished", {"loss": 0.5})


def test_a_run_that_another_process_goes_on_with_is_one_run(
    line: dict[str, Any], tmp_path: Path
) -> None:
    """What a killed process left is in a second folder; W&B's steps go on, and none is twice."""
    program = (
        "run = tracker.start_run('e', params={'lr': 0.1})\n"
        "for step in range(100): run.log_metric('loss', step / 7, step=step)\n"
        "run.flush()\n"
        "for step in range(100, 200): run.log_metric('loss', step / 7, step=step)\n"
        "run.log_text('late', 'late.txt')\n"
        "print(run.id, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = _run(program, line, tmp_path / "home")
    run_id = ended.stdout.strip()
    for cursor in (tmp_path / "home").rglob("*.cursor"):
        cursor.unlink()  # As if it had died before it noted how far W&B was.

    with Kit(tracking=line, home=tmp_path / "home") as kit:
        kit.tracker.sync()
        record = kit.tracker.get_run(run_id)
        steps = list(kit.tracker.get_metric_history(run_id, "loss").steps)
        path = kit.tracker.download_artifact(run_id, "late.txt", tmp_path / "got")

    assert (record.status, record.params) == ("lost", {"lr": 0.1})
    assert steps == list(range(200))
    assert path.read_text() == "late"
    parts = by_id(each.read() for each in find_runs(tmp_path / "store"))[run_id]
    own = [step for part in parts[:-1] for step in part.history("loss").steps]
    assert len(parts) == 2
    assert own == list(range(len(own)))
    assert sum(len(part.history("loss").steps) for part in parts) == 200
    assert len(own) >= 100
    if len(own) < 200:
        assert next(iter(parts[1].history("loss").steps)) == len(own)


def test_what_wandbs_service_only_holds_in_memory_stays_in_the_journal(
    line: dict[str, Any], tmp_path: Path
) -> None:
    """It writes its file when it likes, here when a block is full, and dies with its program."""
    rare = {**line, "settings": {"x_transaction_log_flush_interval": 0.0}}
    program = (
        "run = tracker.start_run('e')\n"
        "for step in range(100): run.log_metric('loss', step / 7, step=step)\n"
        "run.flush(timeout_s=3)\n"
        "print(run.id, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    run_id = _run(program, rare, tmp_path / "home").stdout.strip()

    with Kit(tracking=line, home=tmp_path / "home") as kit:
        kit.tracker.sync()
        steps = list(kit.tracker.get_metric_history(run_id, "loss").steps)

    assert steps == list(range(100))


def test_a_run_that_was_taken_up_again_is_not_lost_for_its_first_process() -> None:
    """What the first one's journal says of its end comes late, and is void."""
    kept = Kept("ab" * 16)
    start = Started(1, 1000, "n", "e", None, "first")
    kept.apply(start, "aaaa")
    kept.apply(dataclasses.replace(start, position=2, owner="second", resumed=True), "bbbb")

    kept.apply(Ended(3, 1001, "lost", "first"), "aaaa")
    running = kept.record()
    kept.apply(Ended(4, 1002, "lost", "second"), "bbbb")

    assert (running.status, running.owner) == ("running", "second")
    assert kept.record().status == "lost"


def test_a_service_of_wandbs_that_dies_is_started_again(
    line: dict[str, Any], tmp_path: Path
) -> None:
    """What it had not written comes again, and nothing is there twice."""
    sdk = pytest.importorskip("wandb")
    with Kit(tracking=line, home=tmp_path / "home") as kit, kit.tracker.start_run() as run:
        for step in range(150):
            run.log_metric("loss", step / 7, step=step)
            if step in (50, 100):
                run.flush()
            if step == 100:
                os.kill(sdk.setup()._connection._proc._process.pid, signal.SIGKILL)
        run.finish()
        (status,) = run.delivery.values()
        steps = list(kit.tracker.get_metric_history(run.id, "loss").steps)

    assert (status.pending, status.error) == (0, "")
    assert steps == list(range(150))


def test_a_run_left_open_ends_with_its_program(line: dict[str, Any], tmp_path: Path) -> None:
    """W&B ends its service before it lets other hooks of the end run: ours comes first."""
    ended = _run(
        "run = tracker.start_run('e'); run.flush(); run.log_metric('loss', 1.0); print(run.id)",
        line,
        tmp_path / "home",
    )

    assert ended.returncode == 0, ended.stderr
    with Kit(tracking=line, home=tmp_path / "home") as kit:
        record = kit.tracker.get_run(ended.stdout.strip())
    assert (record.status, record.metrics) == ("finished", {"loss": 1.0})
    assert len(list(find_runs(tmp_path / "store"))) == 1
    assert list((tmp_path / "home").rglob("*.journal")) == []


@pytest.fixture
def line(tmp_path: Path) -> dict[str, Any]:
    """Return the line of an empty folder."""
    return {
        "backend": "wandb",
        "location": "team/churn",
        "mode": "offline",
        "folder": str(tmp_path / "store"),
    }


def _run(program: str, line: Line, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that has opened the same tracker."""
    return subprocess.run(
        [sys.executable, "-c", OPENING + program, json.dumps(line), str(home)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

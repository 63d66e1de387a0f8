"""Programs of several ranks: no second run by accident, and nobody waits."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import Conflict, InvalidInput, ParamConflict
from mlopskit.kit import Kit
from mlopskit.tracking.ranks import SilentRun, this_rank
from mlopskit.tracking.sweeps import Uniform, run_sweep

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("msgspec")

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "TORCHELASTIC_RUN_ID")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the tests themselves may be run under."""
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home."""
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"RANK": "3"}, 3),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}, 2),
        ({"RANK": "3", "WORLD_SIZE": "1"}, 0),
        ({"RANK": "3", "WORLD_SIZE": "4"}, 3),
        ({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "2"}, 0),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "2", "NODE_RANK": "0"}, 2),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "0", "NODE_RANK": "1"}, 4),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "0", "NODE_RANK": "0"}, 0),
        ({"RANK": "x", "WORLD_SIZE": "y"}, 0),
    ],
)
def test_the_rank_is_what_the_launcher_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert this_rank() == expected


def test_a_silent_run_takes_all_calls_and_stores_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "a.txt").write_text("hello")
    with Kit(tracking="local", home=home) as kit:
        with kit.tracker.start_run("e", params={"lr": 0.1}, tags={"a": "b"}) as run:
            assert isinstance(run, SilentRun)
            run.log_metrics({"loss": 0.5}, step=0)
            run.log_metric("loss", 0.25)
            run.log_params({"depth": 3})
            run.set_notes("n")
            run.alert("something")
            (artifact,) = run.log_artifact(tmp_path / "a.txt")
            assert (artifact.name, artifact.size, artifact.digest) == ("a.txt", 5, "")
            run.log_text("hello", "b.txt")
            run.log_dict({"a": 1}, "c.json")
            run.log_histogram([1.0, 2.0], "h")
            run.log_reference("s3://bucket/key", "far")
            run.log_dataset({"a": [1]}, "train")
            run.use_artifact("c.json")
            run.flush()
            assert (run.delivery, run.url) == ({}, None)
            assert "rank 0" in run._repr_html_()
        with pytest.raises(Conflict, match="is finished"):
            run.log_metric("loss", 1.0)
        assert kit.tracker.search_runs() == []
    assert not (home / "tracking" / "journal").exists()


def test_a_silent_run_refuses_what_a_run_refuses(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no rank goes on where rank 0 has failed."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    wrong: list[Any] = [
        lambda run: run.log_metric("loss", "x"),
        lambda run: run.log_metric("loss", 1.0, step=0.5),
        lambda run: run.log_params({"a": object()}),
        lambda run: run.set_tags({"a": 1}),
        lambda run: run.set_notes(None),
        lambda run: run.log_artifact("nowhere"),
        lambda run: run.log_text(None, "b.txt"),
    ]
    with Kit(tracking="local", home=home) as kit, kit.tracker.start_run() as run:
        for call in wrong:
            with pytest.raises(InvalidInput):
                call(run)
        run.log_params({"lr": 0.1})
        with pytest.raises(ParamConflict):
            run.log_params({"lr": 0.2})
        run.log_params({"lr": 0.2}, overwrite=True)


def test_a_sweep_is_refused_on_every_rank_alike(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The silent ones would win the search, and store nothing."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with Kit(tracking="local", home=home) as kit:
            with pytest.raises(InvalidInput, match="one process"):
                run_sweep(kit.tracker, lambda trial: 0.0, {"x": Uniform(0, 1)}, 1)
            assert kit.tracker.search_runs() == []


def test_ranks_that_nobody_knows_are_refused(home: Path) -> None:
    with pytest.raises(InvalidInput, match="it may be 'first', 'group', 'every'"):
        Kit(tracking={"backend": "local", "ranks": "some"}, home=home).tracker  # noqa: B018 - opens


PROGRAM = """
import sys
import torch.distributed as dist
from mlopskit.kit import Kit
dist.init_process_group("gloo")
with Kit(tracking={"backend": "local", "ranks": sys.argv[2]}, home=sys.argv[1]) as kit:
    with kit.tracker.start_run("ddp", name="train") as run:
        for step in range(20):
            run.log_metrics({"loss": step + dist.get_rank() / 10}, step=step)
        run.log_text("rank %d" % dist.get_rank(), "who.txt")
        dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("ranks", "names"),
    [("first", ["train"]), ("group", ["train 0", "train 1"]), ("every", ["train", "train"])],
)
def test_two_ranks_of_torchrun(home: Path, tmp_path: Path, ranks: str, names: list[str]) -> None:
    """Really started by it, with a process group."""
    pytest.importorskip("torch")
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *("program.py", str(home), ranks),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with Kit(tracking="local", home=home) as kit:
        runs = sorted(kit.tracker.search_runs(), key=lambda run: run.name)
        assert [run.name for run in runs] == names
        assert {run.status for run in runs} == {"finished"}
        for run in runs:
            assert len(kit.tracker.get_metric_history(run.id, "loss")) == 20
        if ranks == "first":
            assert runs[0].metrics == {"loss": 19.0}
        if ranks == "group":
            assert len({run.group for run in runs}) == 1
            assert runs[0].group

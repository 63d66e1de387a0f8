"""Ctrl-C: every command that takes long says how far it got, and how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from tests.programs import launched

import mlopskit as mk
from mlopskit.tracking import export
from mlopskit.tracking.local import LocalTracker
from mlopskit.tracking.transfer import _Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done

MLOPSKIT = [sys.executable, "-m", "mlopskit"]
SWEEP = """
method: grid
metric: {name: loss}
parameters: {x: {values: [1, 2, 3]}}
command: [sh, trial.sh, "${args_no_hyphens}"]
"""
TRIAL = (
    'if [ "$1" = x=2 ] && [ ! -e again ]; then echo now > fifo; exec sleep 600; fi; echo loss=1\n'
)
PROJECT = "name: slow\nentry_points: {main: {command: 'echo begun; sleep 600'}}"


@pytest.fixture
def runs() -> list[str]:
    """Log three runs with a file each, the oldest first."""
    pytest.importorskip("msgspec")
    with mk.open_tracker() as tracker:
        for name in "abc":
            with tracker.start_run("e", run_id=name * 32) as run:
                run.log_metric("loss", 0.5, step=0)
                run.log_text("hello", "a.txt")
    return [name * 32 for name in "abc"]


@pytest.fixture
def fifo() -> Path:
    """Make what a program that was started writes to when it has begun."""
    os.mkfifo("fifo")
    return Path("fifo")


def at_call(which: int, call: Callable[..., Any], *, times: int = 1) -> Callable[..., Any]:
    """Return a function that presses Ctrl-C at this call of it, or at so many from there on."""
    calls: list[object] = []

    def pressed(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if which <= len(calls) < which + times:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        return call(*arguments, **options)

    return pressed


def ended(program: list[str], has_begun: Callable[[IO[str]], object]) -> tuple[int, str]:
    """Start a program, press Ctrl-C when it has begun, and return its code and its errors.

    As on a terminal, what it has started gets the signal too.

    Args:
        program: Its words.
        has_begun: Is given its errors, and returns when it has begun.
    """
    with launched(
        program,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        assert started.stderr is not None
        has_begun(started.stderr)
        os.killpg(started.pid, signal.SIGINT)
        _, errors = started.communicate()
    return started.returncode, errors


def test_a_transfer_says_how_far_it_got_and_goes_on(
    cli: Callable[..., Done], tmp_path: Path, runs: list[str]
) -> None:
    there = f"local:{tmp_path / 'there'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Work, "copy", at_call(2, _Work.copy))
        done = cli("transfer", ".", there)
    with mk.open_tracker(there) as tracker:
        copied = [each.id for each in tracker.search_runs()]
    again = cli("transfer", ".", there)

    assert (done.code, done.out) == (130, "")
    assert done.err == (
        "Interrupted: 1 of 3 runs is done, and nothing is half-written. "
        "The same command goes on from here.\n"
    )
    assert copied == runs[:1]
    assert "Copied 2 runs; 1 was there already, and equal." in again.out


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_is_on_its_way_arrives_whole(
    cli: Callable[..., Done], tmp_path: Path, runs: list[str], times: int
) -> None:
    """Unless Ctrl-C is pressed again: then that is said."""
    there = f"local:{tmp_path / 'there'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalTracker, "write", at_call(2, LocalTracker.write, times=times))
        done = cli("transfer", ".", there)
    with mk.open_tracker(there) as tracker:
        whole = sorted(each.id for each in tracker.search_runs("metrics.loss = 0.5"))
    again = cli("transfer", ".", there)

    assert done.code == 130
    if times == 1:
        assert "1 of 3 runs is done, and nothing is half-written." in done.err
        assert whole == runs[:2]
    else:
        assert f"1 of 3 runs is done. Run {runs[1]} may be at {there} in part: " in done.err
        assert "Ctrl-C was pressed again. The same command goes on from here." in done.err
        assert whole == runs[:1]
    assert again.code == 0, again.err
    assert "Copied 1 run; 2 were there already, and equal." in again.out


@pytest.mark.usefixtures("runs")
def test_a_transfer_that_has_not_begun_says_so(cli: Callable[..., Done], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Work, "compared", at_call(1, _Work.compared))
        done = cli("transfer", ".", f"local:{tmp_path / 'there'}")

    assert done.code == 130
    assert done.err.startswith("Interrupted: no run was copied yet, and nothing is half-written.")


def test_an_import_says_how_far_it_got(
    cli: Callable[..., Done], tmp_path: Path, runs: list[str]
) -> None:
    out = str(tmp_path / "out")
    assert cli("run", "export", *runs, "--to", out).code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Work, "copy", at_call(2, _Work.copy))
        done = cli("--home", str(tmp_path / "other"), "run", "import", out)

    assert done.code == 130
    assert done.err.startswith("Interrupted: 1 of 3 runs is done, and nothing is half-written.")


def test_an_export_says_how_far_it_got(
    cli: Callable[..., Done], tmp_path: Path, runs: list[str]
) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export_run", at_call(2, export.export_run))
        done = cli("run", "export", *runs, "--to", str(out))
    again = cli("run", "export", *runs, "--to", str(out), "--force")

    assert done.code == 130
    assert "Interrupted: 1 of 3 runs exported; every folder that is there is whole." in done.err
    assert again.code == 0, again.err
    assert sorted(each.name for each in out.iterdir()) == runs


@pytest.mark.parametrize("name", ["mine", None])
def test_a_sweep_says_how_far_it_got_and_goes_on(
    process: Callable[..., Done], fifo: Path, name: str | None
) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("yaml")
    Path("sweep.yaml").write_text(SWEEP)
    Path("trial.sh").write_text(TRIAL)
    named = [] if name is None else ["--name", name]
    code, errors = ended([*MLOPSKIT, "sweep", "sweep.yaml", *named], lambda _: fifo.read_text())

    assert code == 130, errors
    assert "Traceback" not in errors
    assert "Interrupted: 1 trial done, and kept. The same command" in errors
    if name is None:
        assert "The same command with --name sweep-" in errors
        named = ["--name", errors.partition("--name ")[2].split()[0]]
    Path("again").touch()
    again = process("sweep", "sweep.yaml", *named)
    assert "3 complete, 0 pruned, 0 failed" in again.out, again.err


def test_a_project_says_which_run_has_its_output(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    Path("slow").mkdir()
    Path("slow", "MLproject").write_text(PROJECT)
    code, errors = ended([*MLOPSKIT, "run", "project", "slow"], lambda errors: errors.readline())

    assert code == 130, errors
    assert "Interrupted: the project's command was ended. Run " in errors
    run = errors.partition("ended. Run ")[2].split()[0]
    with mk.open_tracker() as tracker:
        assert tracker.get_run(run).status == "killed"
        kept = tracker.download_artifact(run, "output.log", tmp_path)
    assert kept.read_text() == "begun\n"


def test_a_comparison_says_that_nothing_was_written(tmp_path: Path) -> None:
    pytest.importorskip("msgspec")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with launched(
        [*MLOPSKIT, "compare", "registry", "local", "--html", "page.html"],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        until = time.monotonic() + 60
        while not list(scratch.glob("mlopskit-compare-*/home")) and time.monotonic() < until:
            time.sleep(0.02)
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate()

    assert program.returncode == 130, errors
    assert "Interrupted: nothing was written, and what was started has ended." in errors
    assert "Traceback" not in errors
    assert not Path("page.html").exists()
    assert list(scratch.glob("mlopskit-*")) == []

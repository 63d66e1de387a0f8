"""Bars are drawn where somebody asks and looks: on a real terminal, and in a real notebook."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from tests.programs import launched

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = """
import contextlib, os, sys, time
from mlopskit.kit import Kit, transfer
from mlopskit.tracking.progress import bar

def moved(**options):
    with Kit(tracking="local", home="one") as one, Kit(tracking="local", home="two") as two:
        for number in range(3):
            with one.tracker.start_run("e", name=f"[red] {number}"):
                pass
        return transfer(one.tracker, two.tracker, **options)
"""
SWEEP = """

from mlopskit.tracking.sweeps import Uniform, run_sweep

def swept(**options):
    def objective(trial):
        # One piece: threads print at once.
        print(f"trial {trial.number} {type(sys.stdout).__name__}\\n", end="")
        return 7 / (trial.number + 1)

    with Kit(tracking="local", home="sweeps") as kit:
        return run_sweep(kit.tracker, objective, {"x": Uniform(0, 1)}, 6, seed=1, **options)
"""


def on_terminal(code: str, *, stdout: int | None = None) -> str:
    """Run a program with a terminal of its own for what it prints; return what that was sent."""
    ours, theirs = pty.openpty()
    with launched(
        [sys.executable, "-c", BEGIN + textwrap.dedent(code)],
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as program:
        os.close(theirs)
        sent = b""
        try:
            while some := os.read(ours, 1 << 16):
                sent += some
        except OSError:
            pass  # So ends a terminal that nobody writes to any more.
        finally:
            os.close(ours)
    assert program.returncode == 0, sent.decode()
    return sent.decode()


def plain(sent: str) -> str:
    """Return what was sent without colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sent)


def test_a_transfer_draws_a_bar_on_a_terminal_if_it_is_asked_to() -> None:
    sent = on_terminal("moved(progress=True); moved(progress=True)")

    assert "3/3" in plain(sent)
    assert "6/6" in plain(sent)
    assert "━" in sent
    assert plain(sent).count("runs compared") > 0
    assert "[red] 0" in sent
    assert sent.endswith("\x1b[?25h")  # The cursor is there again.


def test_what_a_name_holds_does_nothing_to_the_terminal() -> None:
    """Stores of other programs may hold any."""
    sent = on_terminal(
        r"""
        with bar("runs", asked=True) as shown:
            shown.at(1, 1, "\x1b]0;evil\x07 [red]\r\n{x}" + "y" * 100)
        """
    )

    assert "\x1b]0;" not in sent
    assert f"?]0;evil? [red]??{{x}}{'y' * 20}…" in plain(sent)
    assert plain(sent).count("\n") == 1


def test_nothing_is_drawn_unasked_or_where_nobody_looks() -> None:
    assert on_terminal("moved()") == ""
    piped = subprocess.run(
        [sys.executable, "-c", f"{BEGIN}\nmoved(progress=True)"], capture_output=True, text=True
    )
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, "", "")


def test_a_transfer_that_fails_leaves_the_terminal_as_it_was() -> None:
    sent = on_terminal(
        """
        streams = sys.stdout, sys.stderr
        def told(done, total, run):
            if done == 2: raise KeyboardInterrupt
        with contextlib.suppress(KeyboardInterrupt):
            moved(progress=True, told=told)
        assert (sys.stdout, sys.stderr) == streams
        print("after")
        """
    )

    assert "2/3" in plain(sent)
    assert "\x1b[?25h" in sent
    assert sent.endswith("after\r\n")


def test_what_is_printed_goes_above_the_bar() -> None:
    pytest.importorskip("optuna")
    sent = on_terminal(SWEEP + "swept(progress=True)")

    assert "6/6" in plain(sent)
    assert "best value 1.16667" in sent
    for number in range(6):
        assert f"\r\x1b[2Ktrial {number} FileProxy\r\ntrials " in sent


def test_what_is_printed_to_a_file_goes_on_to_do_so(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    with (tmp_path / "printed").open("wb") as file:
        sent = on_terminal(SWEEP + "swept(progress=True)", stdout=file.fileno())

    assert "6/6" in plain(sent)
    assert "trial" not in sent.replace("trials", "")
    lines = (tmp_path / "printed").read_text().splitlines()
    assert lines == [f"trial {n} TextIOWrapper" for n in range(6)]


def test_a_forked_child_has_the_streams_of_before() -> None:
    """Workers print as they would without a bar, and their parent's goes on."""
    pytest.importorskip("optuna")
    sent = on_terminal(SWEEP + "swept(progress=True, workers=2)")

    assert "6/6" in plain(sent)
    for number in range(6):
        assert f"trial {number} TextIOWrapper" in sent


def test_bytes_are_shown_in_units() -> None:
    sent = on_terminal(
        """
        with bar("bytes", asked=True, sizes=True) as shown:
            shown.at(3 << 20, 5 << 30, "model.bin")
        """
    )

    assert "0.0/5.0 GiB" in plain(sent)
    assert "model.bin" in plain(sent)


def test_a_download_shows_its_bytes() -> None:
    sent = on_terminal(
        """
        with Kit(tracking="local", home="one") as kit:
            with kit.tracker.start_run("e") as run:
                os.mkdir("f")
                for name in "ab":
                    with open(f"f/{name}.bin", "w") as file: file.write("x" * 3072)
                run.log_artifact("f")
            kit.tracker.download_artifact(run.id, "f", "unasked")
            kit.tracker.download_artifact(run.id, "f", "got", progress=True)
        """
    )

    assert "6.0/6.0 KiB" in plain(sent)
    assert "f/a.bin" in plain(sent)
    assert plain(sent).count("6.0/6.0 KiB") == 1


def test_one_bar_is_shown_at_a_time() -> None:
    sent = on_terminal(
        """
        with bar("outer", asked=True) as outer:
            outer.at(1, 2)
            with bar("inner", asked=True) as inner:
                inner.at(1, 2)
            outer.at(2, 2)
        with bar("third", asked=True) as third:
            third.at(3, 3)
        """
    )

    assert "inner" not in sent
    assert "third" in sent
    assert plain(sent).count("\n") == 2  # The two that were shown stay.


SWEEP_FILE = """
method: random
metric: {name: loss, goal: minimize}
parameters: {x: {min: 0.0, max: 1.0}}
command: [sh, -c, "echo loss=3"]
"""


def test_the_command_line_draws_bars_beside_its_output(tmp_path: Path) -> None:
    """What it prints stays what a program can read."""
    pytest.importorskip("optuna")
    (tmp_path / "sweep.yaml").write_text(SWEEP_FILE)
    for words, shown, key in (
        (["transfer", "local:one/tracking", "local:two/tracking"], "3/3", "copied"),
        (["sweep", str(tmp_path / "sweep.yaml"), "--trials", "4"], "4/4", "trials"),
    ):
        with (tmp_path / "printed").open("wb") as file:
            sent = on_terminal(
                f"""
                from mlopskit.cli import main
                with Kit(tracking="local", home="one") as kit:
                    for number in range(3):
                        with kit.tracker.start_run("e"): pass
                main([*{words!r}, "--json"])
                """,
                stdout=file.fileno(),
            )

        assert shown in plain(sent)
        assert len(json.loads((tmp_path / "printed").read_text())[key]) == int(shown[0])


CELLS = (
    "import mlopskit",
    "import mlopskit.kit, mlopskit.tracking.sweeps, mlopskit.tracking.transfer",
    f"import os; os.chdir(FOLDER)\n{BEGIN}",
    "report = moved()",
    "report = moved(progress=True)",
    SWEEP,
    "result = swept(progress=True, workers=2)",
)


def test_a_notebook_shows_a_bar_below_the_cell_that_asks(tmp_path: Path) -> None:
    """Run by a real kernel, without ipywidgets; and nothing is printed on import."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("optuna")
    cells = [nbformat.v4.new_code_cell(each) for each in (f"FOLDER = {str(tmp_path)!r}", *CELLS)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs: list[list[Any]] = [each.outputs for each in cells]

    assert outputs[:5] == [[]] * 5
    compared, moved = outputs[5]
    assert "runs compared" in compared.data["text/plain"]
    assert "6/6" in moved.data["text/plain"]
    assert "<pre" in moved.data["text/html"]
    assert "━" in moved.data["text/html"]
    shown, *printed = outputs[7]
    assert "6/6" in shown.data["text/plain"]
    assert "best value 1.16667" in shown.data["text/plain"]
    assert {each.output_type for each in printed} == {"stream"}
    assert "trial 5" in "".join(each.text for each in printed)

"""``mlopskit transfer`` and ``mlopskit run import``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import mlopskit as mk
from mlopskit.cli.transfer import show
from mlopskit.tracking.transfer import TransferReport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

pytest.importorskip("msgspec")


def logged(value: float, folder: Path | None = None) -> str:
    """Log one run, and return its id."""
    line = None if folder is None else f"local:{folder}"
    with mk.open_tracker(line) as tracker, tracker.start_run("e", run_id="a" * 32) as run:
        run.log_metric("loss", value, step=0)
        run.log_text("hello", "a.txt")
    return run.id


def test_runs_are_copied_once(cli: Callable[..., Done], tmp_path: Path) -> None:
    run = logged(0.5)
    there = f"local:{tmp_path / 'there'}"

    first, second = cli("transfer", ".", there), cli("transfer", ".", there, "--json")

    assert (first.code, second.code) == (0, 0), first.err
    assert "Copied 1 run; 0 were there already, and equal." in first.out
    said = json.loads(second.out)
    assert (said["copied"], said["present"]) == ([], [run])
    ends = said["digests"][run]
    assert ends[0] == ends[1]


def test_a_run_that_differs_exits_with_1(cli: Callable[..., Done], tmp_path: Path) -> None:
    logged(0.5)
    logged(0.25, tmp_path / "there")
    there = f"local:{tmp_path / 'there'}"

    refused = cli("transfer", ".", there)
    replaced = cli("transfer", ".", there, "--replace")

    assert refused.code == 1
    assert "point 1 of 1: 0.5 at step 0" in refused.err
    assert "Pass --replace to replace them; nothing was copied." in refused.err
    assert "replace=True" not in refused.err
    assert (replaced.code, "Copied 1 run;" in replaced.out) == (0, True)


def test_what_is_left_out_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show(
        TransferReport(source="a", destination="b", copied=("x",), left_out={"x": ("h", "s")}),
        as_json=False,
    )

    said = capsys.readouterr().out
    assert "left out of run x: h, s (what a copy has no place for)" in said


def test_a_mistyped_source_is_no_success(cli: Callable[..., Done], tmp_path: Path) -> None:
    done = cli("transfer", f"local:{tmp_path}/nothere", ".")

    assert done.code == 1
    assert "There is no store of runs" in done.err
    assert not (tmp_path / "nothere").exists()


@pytest.mark.parametrize("metrics", ["csv", "parquet"])
def test_exported_runs_are_taken_in(cli: Callable[..., Done], tmp_path: Path, metrics: str) -> None:
    pytest.importorskip("pyarrow")
    run = logged(0.5)
    out = str(tmp_path / "out")
    assert cli("run", "export", run, "--to", out, "--metrics", metrics).code == 0

    taken = cli("--home", str(tmp_path / "other"), "run", "import", out)
    missing = cli("run", "import", str(tmp_path))

    assert taken.code == 0, taken.err
    assert "Copied 1 run;" in taken.out
    assert missing.code == 2
    assert "holds no exported run" in missing.err

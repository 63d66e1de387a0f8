"""``mlopskit compare``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from tests.programs import launched
from tests.tracking.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


def test_other_domains_show_what_is_declared(cli: Callable[..., Done], tmp_path: Path) -> None:
    """On the command line, with both files."""
    html, text = tmp_path / "a.html", tmp_path / "a.md"
    shown = cli("compare", "features", "--html", str(html), "--markdown", str(text))
    said = json.loads(cli("compare", "features", "local", "--json").out)

    assert shown.code == 0, shown.err
    assert "Capabilities" in shown.out
    assert "absent: aggregate before you push, or in the source" in shown.out
    assert html.read_text().startswith("<!doctype html>")
    assert "## Capabilities" in text.read_text()
    (tmp_path / "any").touch()
    for each in (html, text):
        assert each.stat().st_mode == (tmp_path / "any").stat().st_mode
    assert (said["domain"], said["results"]) == ("features", [])


def test_a_line_whose_server_is_away_is_an_error(cli: Callable[..., Done]) -> None:
    """Which names the server; a costs' count below one is a wrong use."""
    pytest.importorskip("mlflow")
    away = cli("compare", "tracking", f"mlflow:http://127.0.0.1:{free_port()}")
    never = cli("compare", "tracking", "--times", "0")

    assert (away.code, never.code) == (1, 2)
    assert "cannot be reached" in away.err
    assert away.out == ""


def test_a_comparison_ended_by_a_scheduler_leaves_nothing(tmp_path: Path) -> None:
    """No temporary folder; its exit code is that of SIGTERM."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with launched(
        [sys.executable, "-m", "mlopskit", "compare", "registry", "local"],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
    ) as program:
        until = time.monotonic() + 60
        while not list(scratch.glob("mlopskit-compare-*/home")) and time.monotonic() < until:
            time.sleep(0.02)
        program.terminate()
        program.communicate(timeout=60)

    assert program.returncode == 128 + signal.SIGTERM
    assert [each.name for each in scratch.glob("mlopskit-compare-*")] == []

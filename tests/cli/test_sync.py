"""``mlopskit sync``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

KILLED = """
import os, threading
import mlopskit as mk
tracker = mk.open_tracker()
tracker.write = lambda batch: threading.Event().wait()  # Nothing ever arrives.
run = tracker.start_run("churn", name="cut short")
run.log_metrics({"loss": 0.5}, step=1)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_run_logged_is_delivered_afterwards(cli: Callable[..., Done]) -> None:
    pytest.importorskip("msgspec")
    died = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, env={**os.environ})
    assert died.returncode == -9, died.stderr

    first, second = cli("sync", "--json"), cli("sync")

    assert (first.code, second.code) == (0, 0)
    assert json.loads(first.out)["delivered"] > 0
    assert second.out == "Delivered 0 records, 0 were refused for good.\n"
    (run,) = json.loads(cli("runs", "--json").out)["runs"]
    assert (run["name"], run["status"], run["metrics"]) == ("cut short", "lost", {"loss": 0.5})


def test_what_cannot_be_read_is_named_and_is_a_failure(
    cli: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("MLOPSKIT_HOME", str(home))
    subprocess.run([sys.executable, "-c", KILLED], capture_output=True, env={**os.environ})
    (segment,) = home.rglob("*.log")
    content = bytearray(segment.read_bytes())
    content[content.index(b'"loss"') + 2] ^= 1
    segment.write_bytes(content + content)  # Something whole behind it: else it might be cut short.

    done = cli("sync")

    assert done.code == 1
    assert "Could not be read" in done.out
    assert "checksum" in done.out


REFUSED = """
import os, sys, threading
import mlopskit as mk
tracker = mk.open_tracker()
run = tracker.start_run("churn", name="deleted meanwhile")
run.flush()
tracker.write = lambda batch: threading.Event().wait()
run.log_metrics({"loss": 0.5}, step=1)
print(run.id, flush=True)
os.kill(os.getpid(), 9)
"""


def test_where_refused_records_are_kept_is_told(cli: Callable[..., Done]) -> None:
    died = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True)
    with mk.load() as kit:
        kit.tracker.delete_run(died.stdout.strip())
        folder = kit.tracker.context.home / "tracking" / "rejected"

    done = cli("sync")

    assert done.code == 0, done.out
    assert " 0 were refused" not in done.out
    assert done.out.endswith(f"is kept, with the reasons, in {folder}\n")
    assert "loss" in "".join(path.read_text() for path in folder.iterdir())
    assert json.loads(cli("sync", "--json").out)["rejected_in"] == str(folder)

"""``mlopskit sync``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

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

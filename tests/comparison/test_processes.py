"""No program of a comparison outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from tests.programs import launched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("msgspec")

# It compares as a user does, and says nothing; its child writes to a file as long as it lives.
COMPARES = """
import sys
from pathlib import Path
import mlopskit as mk
from mlopskit.comparison import processes
processes.CHILD = "endless"
mk.compare("local", times=1)
"""
# Like the real one, with a child of its own.
ENDLESS = """
import subprocess, sys, time
from pathlib import Path
from mlopskit.comparison import lifeline
lifeline.hold(int(sys.argv[4]))
code = "import time\\nwhile True:\\n open('grandchild', 'a').write('.'); time.sleep(0.02)"
subprocess.Popen([sys.executable, "-c", code], cwd={folder!r})
while True:
    with open({folder!r} + "/child", "a") as file:
        file.write(".")
    time.sleep(0.02)
"""


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_ends_a_comparison_ends_its_children(tmp_path: Path, ended_by: signal.Signals) -> None:
    """Ctrl-C, a scheduler, or a kill that leaves it no time; grandchildren too."""
    files = [tmp_path / "child", tmp_path / "grandchild"]
    (tmp_path / "endless.py").write_text(ENDLESS.format(folder=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    with launched(
        [sys.executable, "-c", COMPARES], env=environment, stderr=subprocess.PIPE
    ) as program:
        wait_until(lambda: all(each.exists() for each in files) or program.poll() is not None)
        assert program.poll() is None
        program.send_signal(ended_by)
        program.communicate(timeout=60)

    wait_until(lambda: not grows(files))


def grows(files: list[Path]) -> bool:
    """Tell whether somebody still writes."""
    before = [each.stat().st_size for each in files]
    time.sleep(0.5)
    return [each.stat().st_size for each in files] != before


def wait_until(there: Callable[[], bool], limit_s: float = 60) -> None:
    """Wait for a condition; fail if it never comes."""
    until = time.monotonic() + limit_s
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)

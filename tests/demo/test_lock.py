from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mlopskit.demo.lock import only_one
from mlopskit.errors import Conflict, StorageError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.core


def test_a_second_demo_in_the_same_home_is_told_so(tmp_path: Path) -> None:
    with only_one(tmp_path / "demo"):
        code = (
            "import pathlib, sys; from mlopskit.demo.lock import only_one\n"
            "with only_one(pathlib.Path(sys.argv[1])): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "demo")], capture_output=True, text=True
        )
    assert other.returncode
    assert f"A demo is already running in {tmp_path} (process {os.getpid()})" in other.stderr


def test_the_lock_is_free_again_afterwards(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), only_one(tmp_path / "demo"):
        raise KeyboardInterrupt
    with only_one(tmp_path / "demo"), pytest.raises(Conflict), only_one(tmp_path / "demo"):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys; from mlopskit.demo.lock import only_one\n"
        "with only_one(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "demo")])
    assert killed.returncode == -9
    with only_one(tmp_path / "demo"):
        pass


def test_a_home_that_cannot_be_written_is_an_error_of_storage(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StorageError), only_one(tmp_path / "home" / "demo"):
        pass

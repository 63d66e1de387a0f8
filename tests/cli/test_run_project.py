"""``mlopskit run project``."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

PROJECT = """
name: counts
entry_points:
  main:
    parameters:
      n: {type: int, default: 2}
    command: "echo counted to {n}"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "MLproject").write_text(PROJECT)
    return folder


def test_a_project_runs_and_is_a_run(project: Path, cli: Callable[..., Done]) -> None:
    done = cli("run", "project", str(project), "-P", "n=7", "--json")

    assert done.code == 0, done.err
    assert "Warning" not in done.err
    found = json.loads(done.out[done.out.index("{") :])
    assert found["code"] == 0
    assert "counted to 7" in done.out + done.err


def test_a_revision_of_a_repository_runs(project: Path, cli: Callable[..., Done]) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(project), *who, *arguments], check=True)

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "first")
    git("tag", "old")
    (project / "MLproject").write_text(PROJECT.replace("counted", "went"))
    git("commit", "-qam", "second")

    done = cli("run", "project", project.as_uri(), "--revision", "old")
    assert done.code == 0, done.err
    assert "counted to 2" in done.out + done.err
    assert "mlopskit 0." not in done.out

"""A job of continuous integration hands on the version that it trained, and no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done

OTHER = "b" * 40


@pytest.fixture
def commit() -> str:
    """Make the working folder a repository, and return its commit."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(
            ["git", *identity, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    return git("rev-parse", "HEAD")


@pytest.fixture
def register(tmp_path: Path) -> Callable[..., None]:
    """Register a version for each of these revisions."""

    def registered(*codes: str | None) -> None:
        path = tmp_path / "weights.bin"
        path.write_bytes(b"weights")
        with mk.load() as kit:
            for code in codes:
                kit.registry.register("churn", path, code=code)

    return registered


def test_a_mark_is_the_highest_number(
    cli: Callable[..., Done], register: Callable[..., None]
) -> None:
    assert cli("ci", "mark", "churn").out == "0\n"
    register(OTHER, OTHER)
    assert cli("ci", "mark", "churn").out == "2\n"


def test_the_version_of_this_commit_is_handed_on_whatever_others_registered(
    cli: Callable[..., Done], register: Callable[..., None], commit: str
) -> None:
    register(commit, OTHER, f"{commit}-dirty", OTHER, "v1.2")

    done = cli("ci", "candidate", "churn", "--since", "1")
    assert (done.code, done.out) == (0, "3\n")


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        ((), "registered no versions of 'churn' from commit"),
        ((OTHER,), f"Registered since it began: 2 from {OTHER}."),
        (("", OTHER), "Registered since it began: 2 from no commit, 3 from"),
        (("HEAD", "HEAD"), "registered 2 versions of 'churn' from commit"),
    ],
)
def test_what_cannot_be_told_is_not_guessed(
    cli: Callable[..., Done],
    register: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    commit: str,
    codes: tuple[str, ...],
    says: str,
) -> None:
    register(commit)
    monkeypatch.setattr("mlopskit.registry.base.current_revision", lambda: None)
    register(*(commit if code == "HEAD" else code for code in codes))
    done = cli("ci", "candidate", "churn", "--since", "1")

    assert (done.code, done.out) == (1, "")
    assert says in done.err
    assert "write the number of its version to candidate.txt" in done.err


def test_without_a_commit_nothing_is_guessed(
    cli: Callable[..., Done], register: Callable[..., None]
) -> None:
    register(None)
    done = cli("ci", "candidate", "churn")

    assert (done.code, done.out) == (1, "")
    assert "where there is no commit or no Git" in done.err


@pytest.mark.parametrize(
    ("said", "number"),
    [("1\n", "1"), ("latest", "3"), ("@best\n\n", "2"), ("production", "1"), (" \n", "2")],
)
def test_what_training_wrote_is_resolved_to_a_number(
    cli: Callable[..., Done], register: Callable[..., None], commit: str, said: str, number: str
) -> None:
    register(OTHER, commit, OTHER)
    with mk.load() as kit:
        kit.registry.set_alias("churn", "best", 2)
        kit.registry.promote("churn", 1, "production")
    Path("candidate.txt").write_text(said)

    assert cli("ci", "candidate", "churn").out == f"{number}\n"
    Path("candidate.txt").write_text("9")
    assert cli("ci", "candidate", "churn").code == 1


TRAIN = """
import sys
import mlopskit as mk

with mk.load() as kit:
    for code in sys.argv[1:]:
        kit.registry.register("churn", "weights.bin", code=code or None)
"""


@pytest.fixture
def steps(
    cli: Callable[..., Done], tmp_path: Path, commit: str
) -> Callable[[str, str], dict[str, Any]]:
    """Write the workflows of a system, and return the scripts of a job, and what runs them."""
    program = tmp_path / "bin" / "mlopskit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlopskit "$@"\n')
    program.chmod(0o755)
    Path("train.py").write_text(TRAIN)
    Path("weights.bin").write_bytes(b"weights")
    Path("gates.py").write_text("def gate_fine(context): return True\n")

    def job(system: str, name: str) -> dict[str, Any]:
        # Another branch's job registers right after training, and its version is the latest.
        train = f'"{sys.executable}" train.py "" {OTHER}'
        cli("ci", "init", system, "--model", "churn", "--train", train, "--force")
        if system == "github":
            found = yaml.safe_load(Path(".github/workflows/models.yml").read_text())
            runs = [each["run"] for each in found["jobs"][name]["steps"] if "run" in each]
            script = "\n".join(each for each in runs if "pip install" not in each)
        else:
            found = yaml.safe_load(Path(".gitlab/mlopskit.yml").read_text())
            script = "\n".join(found[name]["script"])
        return {
            "args": ["bash", "-e", "-o", "pipefail", "-c", script],
            "env": {
                "PATH": f"{program.parent}:/usr/bin:/bin",
                "MODEL": "churn",
                "STAGE": "production",
                "GATES": "gates.py",
                "WHY": "CI",
                "GITHUB_STEP_SUMMARY": "summary.md",
                "CI_PIPELINE_SOURCE": "push",
                "CI_COMMIT_SHA": commit,
            },
        }

    return job


@pytest.mark.parametrize("system", ["github", "gitlab"])
def test_what_was_trained_is_promoted_though_others_registered_since(
    steps: Callable[[str, str], dict[str, Any]], register: Callable[..., None], system: str
) -> None:
    register(OTHER)
    Path("candidate.txt").write_text("1")  # Of a job before, in a folder that is used again.
    for name in ("train", "promote"):
        run = steps(system, name)
        if system == "github" and name == "train":
            run["args"][-1] = run["args"][-1].partition("version=")[0]  # Of a pull request alone.
        done = subprocess.run(**run, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        register(OTHER)
    told = Path("told" if system == "github" else "told/churn") / "candidate.txt"

    assert told.read_text() == "2\n"
    with mk.load() as kit:
        assert kit.registry.get_version("churn", "production").version == 2
        assert kit.registry.get_version("churn", "latest").version == 5


@pytest.mark.parametrize("system", ["github", "gitlab"])
def test_a_job_that_registered_nothing_fails(
    steps: Callable[[str, str], dict[str, Any]], register: Callable[..., None], system: str
) -> None:
    register(None)
    Path("train.py").write_text("")
    done = subprocess.run(**steps(system, "train"), capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "Training registered no versions of 'churn'" in done.stderr

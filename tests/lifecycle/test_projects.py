"""MLprojects run as MLflow runs them, tracked by whichever tracker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput, NotFound, Unavailable
from mlopskit.kit import Kit
from mlopskit.lifecycle.project_file import read_project
from mlopskit.lifecycle.projects import run_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.tracking.base import Tracker

pytest.importorskip("yaml")
pytest.importorskip("msgspec")

PROJECT = """
name: churn
entry_points:
  main:
    parameters:
      alpha: {type: float, default: 0.5}
      data: path
      label: {type: string, default: "it's; rm -rf /tmp/nothing"}
    command: "python train.py --alpha {alpha} --data {data} --label {label}"
  fail:
    command: "echo going; exit 3"
"""
TRAIN = """
import sys
print("arguments", sys.argv[1:])
"""


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    """Return an empty tracker."""
    with Kit(tracking="local", home=tmp_path / "home") as kit:
        yield kit.tracker


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "MLproject").write_text(PROJECT)
    (folder / "train.py").write_text(TRAIN)
    (folder / "data.csv").write_text("a")
    return folder


def output(tracker: Tracker, run_id: str, tmp_path: Path) -> str:
    """Return what a project printed."""
    return tracker.download_artifact(run_id, "output.log", tmp_path / run_id).read_text()


def test_a_project_runs_with_its_parameters(
    project: Path, tracker: Tracker, tmp_path: Path
) -> None:
    """Checked, quoted, and logged; one that is not declared is appended."""
    seen: list[bytes] = []
    ended = run_project(
        str(project), tracker, parameters={"data": "data.csv", "x y": "1"}, output=seen.append
    )
    run = tracker.get_run(ended.run_id)
    said = output(tracker, run.id, tmp_path)

    assert (ended.code, run.status, run.experiment) == (0, "finished", "churn")
    assert run.params == {
        "alpha": "0.5",
        "data": str(project / "data.csv"),
        "label": "it's; rm -rf /tmp/nothing",
        "x y": "1",
    }
    assert "\"it's; rm -rf /tmp/nothing\", '--x y', '1']" in said
    assert b"".join(seen).decode() == said
    assert run.tags["project.entry_point"] == "main"


def test_a_command_that_fails_is_a_failed_run(
    project: Path, tracker: Tracker, tmp_path: Path
) -> None:
    ended = run_project(str(project), tracker, "fail")
    run = tracker.get_run(ended.run_id)

    assert (ended.code, run.status, run.tags["project.exit_code"]) == (3, "failed", "3")
    assert output(tracker, run.id, tmp_path) == "going\n"


def test_a_script_is_an_entry_point(project: Path, tracker: Tracker, tmp_path: Path) -> None:
    ended = run_project(str(project), tracker, "train.py", {"a": "b"})

    assert "['--a', 'b']" in output(tracker, ended.run_id, tmp_path)
    with pytest.raises(NotFound, match="entry point"):
        run_project(str(project), tracker, "../outside.py")


def git(folder: Path, *arguments: str) -> None:
    """Run git with a name and an address."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_repository_runs_at_a_version(project: Path, tracker: Tracker, tmp_path: Path) -> None:
    """And in a folder of it; the revision is kept."""
    root = tmp_path / "root"
    root.mkdir()
    project.rename(root / "inside")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "one")
    git(root, "tag", "v1")
    (root / "inside" / "train.py").write_text("print('second')")
    git(root, "commit", "--quiet", "-am", "two")
    uri = f"file://{root}#inside"

    old = run_project(uri, tracker, "train.py", version="v1")
    new = run_project(uri, tracker, "train.py")

    assert "arguments" in output(tracker, old.run_id, tmp_path)
    assert output(tracker, new.run_id, tmp_path) == "second\n"
    revisions = [tracker.get_run(each.run_id).tags["project.revision"] for each in (old, new)]
    assert len(set(revisions)) == 2
    with pytest.raises(NotFound, match="version"):
        run_project(uri, tracker, "train.py", version="v9")
    with pytest.raises(InvalidInput, match="is no version"):
        run_project(uri, tracker, "train.py", version="--upload-pack=x")
    with pytest.raises(NotFound, match="folder"):
        run_project(f"file://{root}#../..", tracker, "train.py")
    with pytest.raises(Unavailable):
        run_project(f"file://{tmp_path}/nowhere.git", tracker)


def test_what_its_code_logs_with_mlflow_becomes_parts_of_the_run(
    project: Path, tracker: Tracker, tmp_path: Path
) -> None:
    """Points, params and files, in the configured tracker."""
    pytest.importorskip("mlflow")
    (project / "train.py").write_text(
        "import mlflow\n"
        "with mlflow.start_run(run_name='inner'):\n"
        "    mlflow.log_param('depth', 3)\n"
        "    for step in range(3): mlflow.log_metric('loss', step / 7, step=step)\n"
        "    mlflow.log_text('hello', 'notes.txt')\n"
    )
    ended = run_project(str(project), tracker, "train.py")
    (part,) = ended.parts
    inner = tracker.get_run(part)

    assert (inner.parent_id, inner.name, inner.experiment) == (ended.run_id, "inner", "churn")
    assert inner.params == {"depth": "3"}
    assert list(tracker.get_metric_history(part, "loss").values) == [0.0, 1 / 7, 2 / 7]
    path = tracker.download_artifact(part, "notes.txt", tmp_path / "got")
    assert path.read_text() == "hello"


def test_a_virtual_environment_is_made_once(
    project: Path, tracker: Tracker, tmp_path: Path
) -> None:
    """As python_env.yaml says, and kept for the next time."""
    version = ".".join(map(str, sys.version_info[:2]))
    (project / "python_env.yaml").write_text(f'python: "{version}"\ndependencies: []\n')
    (project / "train.py").write_text("import sys; print(sys.prefix)")
    ends = [
        run_project(str(project), tracker, "train.py", env_manager="virtualenv") for _ in range(2)
    ]
    prefixes = {output(tracker, each.run_id, tmp_path).strip() for each in ends}

    assert len(prefixes) == 1
    assert Path(prefixes.pop()).parent == tmp_path / "home" / "projects"
    (project / "python_env.yaml").write_text('python: "3.4"\n')
    with pytest.raises(Unavailable, match=r"Python 3\.4"):
        run_project(str(project), tracker, "train.py", env_manager="virtualenv")


def test_what_is_not_here_is_refused_clearly(
    project: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a run is begun."""
    monkeypatch.setenv("PATH", "/usr/nowhere")
    (project / "MLproject").write_text("docker_env: {image: python}\n")
    with pytest.raises(Unavailable, match="docker cannot be reached: it is not installed"):
        run_project(str(project), tracker, "train.py", env_manager="docker")
    (project / "MLproject").write_text("conda_env: c.yaml\n")
    (project / "c.yaml").write_text("name: x\n")
    with pytest.raises(Unavailable, match="conda cannot be reached: it is not installed"):
        run_project(str(project), tracker, "train.py", env_manager="conda")
    (project / "MLproject").write_text("")
    with pytest.raises(Unavailable, match="uv cannot be reached: it is not installed"):
        run_project(str(project), tracker, "train.py", env_manager="uv")
    with pytest.raises(InvalidInput, match="describes no conda environment"):
        run_project(str(project), tracker, "train.py", env_manager="conda")
    with pytest.raises(InvalidInput, match="env_manager is 'x'"):
        run_project(str(project), tracker, env_manager="x")  # type: ignore[arg-type]  # wrong
    assert tracker.search_runs() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "cannot be read"),
        ("- a", "holds no mapping"),
        ("entry_points: 3", "are no mapping"),
        ("entry_points: {main: {}}", "has no command"),
        ("entry_points: {main: {command: x, parameters: {a: {type: [int]}}}}", "which is no text"),
        ("entry_points: {main: {command: x, parameters: {a: 3}}}", "neither a type nor a mapping"),
        ("python_env: p.yaml", "there is no such file"),
        ("python_env: a\nconda_env: b", "more than one environment"),
        ("docker_env: {}", "names no image"),
        ("docker_env: x", "is no mapping"),
        ("docker_env: {image: --privileged}", "names no image: it has '--privileged'"),
        ("docker_env: {image: x, volumes: /a:/b}", "volumes of .* are no list of texts"),
        ("docker_env: {image: x, environment: A}", "a name, or a list of a name and a value"),
        ("docker_env: {image: x, environment: [[A, b, c]]}", "it may have a name"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "MLproject").write_text(text)

    with pytest.raises(InvalidInput, match=said):
        read_project(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs data"),
        ({"data": "nowhere.csv"}, "no such file"),
        ({"data": "data.csv", "alpha": "much"}, "must be a number"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(
    project: Path, tracker: Tracker, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        run_project(str(project), tracker, parameters=given)
    assert tracker.search_runs() == []

"""MLprojects run in Docker and in conda where these are, and are refused where they are not."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.lifecycle.programs import behave, calls, install

from mlopskit.errors import BackendError, InvalidInput, Unavailable
from mlopskit.kit import Kit
from mlopskit.lifecycle import projects
from mlopskit.lifecycle.projects import run_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.tracking.base import Tracker

pytest.importorskip("yaml")
pytest.importorskip("msgspec")

HOSTILE = "it's; rm -rf /tmp/nothing $(touch here) `touch there`"
DOCKER = f"""
name: churn
docker_env:
  image: "python:3.11"
  volumes: ["/data:/data:ro"]
  environment: [["MODE", "fast"], "TOKEN"]
entry_points:
  main:
    parameters:
      alpha: {{type: float, default: 0.5}}
      label: {{type: string, default: {json.dumps(HOSTILE)}}}
    command: "python train.py --alpha {{alpha}} --label {{label}}"
  fail: {{command: "echo going; exit 3"}}
  wait: {{command: "echo started; sleep 60"}}
"""
TRAIN = """
import json, os, sys
names = ("MODE", "TOKEN", "UNTOLD", "CONDA_PREFIX", "PYTHONUNBUFFERED")
print(json.dumps([sys.argv[1:], {name: os.environ.get(name) for name in names}]))
"""


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    """Return an empty tracker."""
    with Kit(tracking="local", home=tmp_path / "home") as kit:
        yield kit.tracker


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the stand-ins, which comes first."""
    folder = tmp_path / "programs"
    install(folder, "docker")
    install(folder, "conda")
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for name in ("CONDA_EXE", "MLFLOW_CONDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOKEN", "of-the-caller")
    monkeypatch.setenv("UNTOLD", "of-the-caller")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project that runs in Docker."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "MLproject").write_text(DOCKER)
    (folder / "train.py").write_text(TRAIN)
    return folder


def output(tracker: Tracker, run_id: str, tmp_path: Path) -> str:
    """Return what a project printed."""
    return tracker.download_artifact(run_id, "output.log", tmp_path / run_id).read_text()


def options(argv: list[str], name: str) -> list[str]:
    """Return the values of an option that may be repeated."""
    return [value for each, value in pairwise(argv) if each == name]


# Docker.


def test_docker_runs_the_image_with_the_project_in_it(
    project: Path, programs: Path, tracker: Tracker, tmp_path: Path
) -> None:
    """And with its volumes and variables, but nothing else of the environment here."""
    ended = run_project(str(project), tracker, env_manager="docker")
    run = tracker.get_run(ended.run_id)
    (info, argv) = calls(programs)

    assert (ended.code, run.status, run.params["label"]) == (0, "finished", HOSTILE)
    assert info == ["info"]
    at = argv.index("python:3.11")
    command = f"python train.py --alpha 0.5 --label {shlex.quote(HOSTILE)}"
    assert argv[at + 1 :] == ["sh", "-c", command]
    assert argv[:3] == ["run", "--rm", "--name"]
    assert options(argv, "-w") == ["/mlflow/projects/code"]
    first, *_, last = options(argv, "-v")
    assert (first, last) == (f"{project}:/mlflow/projects/code", "/data:/data:ro")
    variables = [each for each in options(argv, "-e") if "MLFLOW" not in each]
    assert variables == ["PYTHONUNBUFFERED", "MODE=fast", "TOKEN"]
    words, inside = json.loads(output(tracker, run.id, tmp_path))
    assert words == ["--alpha", "0.5", "--label", HOSTILE]
    assert inside == {
        "MODE": "fast",
        "TOKEN": "of-the-caller",
        "UNTOLD": None,
        "CONDA_PREFIX": None,
        "PYTHONUNBUFFERED": "1",
    }
    assert sorted(each.name for each in project.iterdir()) == ["MLproject", "train.py"]


def test_what_a_container_logs_with_mlflow_becomes_parts_of_the_run(
    project: Path, programs: Path, tracker: Tracker, tmp_path: Path
) -> None:
    """Its store is where the container finds it, and its files are where this program does."""
    pytest.importorskip("mlflow")
    (project / "train.py").write_text(
        "import mlflow\nmlflow.log_metric('loss', 0.5)\nmlflow.log_text('hello', 'notes.txt')\n"
    )
    ended = run_project(str(project), tracker, "train.py", env_manager="docker")
    (argv,) = [each for each in calls(programs) if each[0] == "run"]
    (part,) = ended.parts

    assert tracker.get_run(part).parent_id == ended.run_id
    assert tracker.get_run(part).metrics == {"loss": 0.5}
    path = tracker.download_artifact(part, "notes.txt", tmp_path / "got")
    assert path.read_text() == "hello"
    _, store, _ = options(argv, "-v")
    outside, inside = store.split(":")
    assert outside == inside
    assert {"MLFLOW_TRACKING_URI", "_MLFLOW_SERVER_ARTIFACT_ROOT"} <= set(options(argv, "-e"))
    assert not (project / "mlruns").exists()
    assert not Path(outside).exists()


def test_a_container_that_fails_is_a_failed_run(
    project: Path, programs: Path, tracker: Tracker, tmp_path: Path
) -> None:
    """So is one that Docker cannot start, and its reason is kept."""
    ended = run_project(str(project), tracker, "fail", env_manager="docker")
    (project / "MLproject").write_text(DOCKER.replace("python:3.11", "nowhere:1"))
    unknown = run_project(str(project), tracker, env_manager="docker")

    assert (ended.code, tracker.get_run(ended.run_id).status) == (3, "failed")
    assert output(tracker, ended.run_id, tmp_path) == "going\n"
    assert (unknown.code, tracker.get_run(unknown.run_id).status) == (125, "failed")
    assert "pull access denied for nowhere:1" in output(tracker, unknown.run_id, tmp_path)


def test_an_engine_that_does_not_answer_is_refused_before_a_run_is_begun(
    project: Path, programs: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    behave(programs, "down")
    with pytest.raises(Unavailable, match="does not answer: Cannot connect to the Docker daemon"):
        run_project(str(project), tracker, env_manager="docker")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="docker cannot be reached: it is not installed"):
        run_project(str(project), tracker, env_manager="docker")
    assert tracker.search_runs() == []


def test_what_docker_would_take_for_something_else_is_refused(
    project: Path, programs: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKEN")
    with pytest.raises(InvalidInput, match="takes TOKEN from the environment"):
        run_project(str(project), tracker, env_manager="docker")
    odd = project.rename(project.with_name("a:b"))
    with pytest.raises(InvalidInput, match="there is a colon in its path"):
        run_project(str(odd), tracker, env_manager="docker")
    assert tracker.search_runs() == []


def interrupt(said: bytes) -> None:
    """Do as Python does where a person sees what is printed, and presses ctrl-C."""
    if b"started" in said:
        raise KeyboardInterrupt


def test_ctrl_c_ends_the_container_too(
    project: Path,
    programs: Path,
    tracker: Tracker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one that heeds no signal, as most do; the run is ``killed``."""
    monkeypatch.setattr(projects, "ASIDE_S", 0.5)
    with pytest.raises(KeyboardInterrupt):
        run_project(str(project), tracker, "wait", env_manager="docker", output=interrupt)
    (run,) = tracker.search_runs()
    *_, argv, end = calls(programs)

    assert run.status == "killed"
    assert output(tracker, run.id, tmp_path) == "started\n"
    assert end == ["rm", "--force", argv[argv.index("--name") + 1]]
    assert list((programs / "containers").iterdir()) == []


class Engine(http.server.BaseHTTPRequestHandler):
    """As much of Docker's engine as MLflow asks of it."""

    def do_GET(self) -> None:
        image = {"Id": "sha256:abc", "RepoTags": ["python:3.11"]}
        answer: Any = [image] if "/images/json" in self.path else image
        if self.path.endswith("/version"):
            answer = {"ApiVersion": "1.44", "Version": "25.0"}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.network
def test_docker_is_given_what_mlflow_gives_it(
    project: Path, programs: Path, tracker: Tracker, tmp_path: Path
) -> None:
    """The same image, words, volumes and variables, beside those that lead to its own store."""
    pytest.importorskip("mlflow")
    run_project(str(project), tracker, env_manager="docker")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine) as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        done = subprocess.run(
            [sys.executable, "-c", f"import mlflow; mlflow.projects.run({str(project)!r})"],
            env={
                **os.environ,
                "DOCKER_HOST": f"tcp://127.0.0.1:{engine.server_port}",
                "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/theirs.db",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            capture_output=True,
            text=True,
        )
        engine.shutdown()
    info, ours, their_info, theirs, *_ = calls(programs)

    assert (info, their_info) == (["info"], ["info"]), done.stderr
    one, other = ours.index("python:3.11"), theirs.index("python:3.11")
    assert shlex.split(ours[-1]) == theirs[other + 1 :]
    assert ours[one + 1 :] == ["sh", "-c", ours[-1]]
    assert "/data:/data:ro" in options(ours, "-v")
    assert "/data:/data:ro" in options(theirs, "-v")
    own = {"MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"}
    named = [each.partition("=")[0] for each in options(theirs, "-e")]
    assert set(named) - own == {"MODE", "TOKEN"}
    assert {"MODE", "TOKEN"} <= {each.partition("=")[0] for each in options(ours, "-e")}
    assert "of-the-caller" in str(theirs)
    assert "of-the-caller" not in str(ours)  # A value would be in the list of processes.


# Conda.


@pytest.fixture
def conda_project(project: Path) -> Path:
    """Return a project that needs conda."""
    (project / "MLproject").write_text(
        DOCKER.replace(DOCKER[DOCKER.index("docker_env") : DOCKER.index("entry")], "")
    )
    (project / "conda.yaml").write_text("dependencies: [python=3.11]\n")
    return project


def test_conda_makes_an_environment_once_and_runs_in_it(
    conda_project: Path, programs: Path, tracker: Tracker, tmp_path: Path
) -> None:
    """Another file is another environment."""
    ends = [run_project(str(conda_project), tracker, env_manager="conda") for _ in range(2)]
    made, *runs = calls(programs)
    (folder,) = (tmp_path / "home" / "projects").glob("conda-*")

    file = str(conda_project / "conda.yaml")
    assert made == ["env", "create", "--quiet", "-p", str(folder), "-f", file]
    command = f"python train.py --alpha 0.5 --label {shlex.quote(HOSTILE)}"
    run = ["run", "--no-capture-output", "-p", str(folder), "bash", "-c", command]
    assert runs == [run, run]
    words, inside = json.loads(output(tracker, ends[1].run_id, tmp_path))
    assert words[-1] == HOSTILE
    assert (inside["CONDA_PREFIX"], inside["UNTOLD"]) == (str(folder), "of-the-caller")
    (conda_project / "conda.yaml").write_text("dependencies: [python=3.12]\n")
    run_project(str(conda_project), tracker, env_manager="conda")
    assert len(list((tmp_path / "home" / "projects").glob("conda-*"))) == 2


def test_an_environment_that_was_left_half_made_is_made_again(
    conda_project: Path, programs: Path, tracker: Tracker
) -> None:
    """What conda says is told, and no run is begun."""
    behave(programs, "broken")
    with pytest.raises(BackendError, match="nosuchpackage=9"):
        run_project(str(conda_project), tracker, env_manager="conda")
    assert tracker.search_runs() == []
    behave(programs, "")
    assert run_project(str(conda_project), tracker, env_manager="conda").code == 0


def test_a_command_that_fails_in_conda_is_a_failed_run(
    conda_project: Path, programs: Path, tracker: Tracker
) -> None:
    ended = run_project(str(conda_project), tracker, "fail", env_manager="conda")
    assert (ended.code, tracker.get_run(ended.run_id).status) == (3, "failed")


def test_ctrl_c_ends_what_conda_runs(conda_project: Path, programs: Path, tracker: Tracker) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_project(str(conda_project), tracker, "wait", env_manager="conda", output=interrupt)
    assert [each.status for each in tracker.search_runs()] == ["killed"]


@pytest.mark.parametrize("name", ["CONDA_EXE", "MLFLOW_CONDA_HOME"])
def test_conda_need_not_be_on_the_path(
    conda_project: Path,
    programs: Path,
    tracker: Tracker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Its shell function is no program; MLflow finds it by these, too."""
    (programs / "conda").unlink()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    with pytest.raises(Unavailable, match="conda cannot be reached: it is not installed"):
        run_project(str(conda_project), tracker, env_manager="conda")
    assert tracker.search_runs() == []
    (tmp_path / "miniconda").mkdir()
    program = install(tmp_path / "miniconda" / "bin", "conda")
    value = program if name == "CONDA_EXE" else tmp_path / "miniconda"
    monkeypatch.setenv(name, str(value))

    assert run_project(str(conda_project), tracker, env_manager="conda").code == 0
    assert len(calls(program.parent)) == 2


def test_an_environment_of_another_kind_is_refused(
    project: Path, conda_project: Path, programs: Path, tracker: Tracker
) -> None:
    with pytest.raises(InvalidInput, match="names no image"):
        run_project(str(conda_project), tracker, env_manager="docker")
    with pytest.raises(InvalidInput, match="describes a conda environment"):
        run_project(str(conda_project), tracker, env_manager="virtualenv")
    (project / "MLproject").write_text(DOCKER)
    with pytest.raises(InvalidInput, match="names more than one"):
        (project / "MLproject").write_text(f"conda_env: conda.yaml\n{DOCKER}")
        run_project(str(project), tracker, env_manager="conda")

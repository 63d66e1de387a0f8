"""Runs an MLproject, tracked by whichever tracker is configured.

The run of the project holds its parameters, where it came from, and what it printed. What its code
logs with MLflow goes to a store of its own, and from there, as runs that are parts of this one, to
the tracker; code that uses mlopskit finds its tracker by its own configuration.

In Docker the project's folder is mounted where MLflow copies it to in an image that it builds, and
the store at the place that it has here, so that what the container writes is found.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from mlopskit.errors import BackendError, InvalidInput, NotFound, Unavailable
from mlopskit.kit import open_tracker
from mlopskit.lifecycle.project_file import read_project, read_python_env
from mlopskit.storage import make_private_folder
from mlopskit.tracking.transfer import transfer_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlopskit.lifecycle.project_file import Project
    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Artifact, MetricHistory, RunRecord

Manager = Literal["local", "virtualenv", "uv", "conda", "docker"]
MANAGERS: Final = ("local", "virtualenv", "uv", "conda", "docker")
OUTPUT: Final = "output.log"
INSIDE: Final = "/mlflow/projects/code"
ASIDE_S: Final = 10.0
_GIT = re.compile(r"(git@|ssh://|git\+|https?://|git://|file://)|\.git(#|$)")


@dataclasses.dataclass(frozen=True, slots=True)
class ProjectRun:
    """How the run of a project ended.

    Attributes:
        run_id: The run, in the tracker.
        code: The exit code of its command.
        parts: The runs that its code logged with MLflow, as parts of that one.
    """

    run_id: str
    code: int
    parts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Command:
    """What to execute.

    Attributes:
        argv: The command.
        end: What ends it for certain where it was interrupted.
    """

    argv: Sequence[str]
    end: Sequence[str] = ()


def run_project(
    uri: str,
    tracker: Tracker,
    entry: str = "main",
    parameters: Mapping[str, str] | None = None,
    *,
    version: str | None = None,
    env_manager: Manager = "local",
    experiment: str | None = None,
    output: Callable[[bytes], object] | None = None,
) -> ProjectRun:
    """Run an entry point of a project, and track it.

    Args:
        uri: A folder, or the address of a Git repository; ``#folder`` behind it is a folder inside.
        tracker: Where the run is tracked.
        entry: An entry point of the MLproject file, or a ``.py`` or ``.sh`` file of the project.
        parameters: Texts by name; those that the entry point does not declare are appended.
        version: A branch, tag or commit of the repository.
        env_manager: ``local`` runs in this environment, ``virtualenv`` and ``uv`` make the one that
            ``python_env.yaml`` describes and keep it for the next time, ``conda`` and ``docker``
            need these programs.
        experiment: Of the run; the project's name if left out.
        output: Is given what the command prints, as it prints it.

    Returns:
        How it ended. A command that fails is no error here: its run is ``failed``.

    Raises:
        NotFound: If there is no such project, entry point or version.
        InvalidInput: If the project cannot be read, or a parameter is wrong.
        Unavailable: If a program that it needs is not here, or a repository cannot be reached.
        MissingDependency: If PyYAML is not installed.
    """
    if env_manager not in MANAGERS:
        raise InvalidInput(f"env_manager is {env_manager!r}; it may be {', '.join(MANAGERS)}.")
    # What a container wrote may belong to another user, who alone can remove it.
    with tempfile.TemporaryDirectory(
        prefix="mlopskit-project-", ignore_cleanup_errors=True
    ) as work:
        folder, revision = _fetched(uri, version, Path(work))
        project = read_project(folder)
        command, values = project.command(entry, dict(parameters or {}))
        store = Path(work, "mlflow")
        variables = _variables(store)
        around = _around(project, command, env_manager, tracker.context.home, variables)
        tags = {
            "project.uri": uri,
            "project.entry_point": entry,
            "project.env_manager": env_manager,
            **({"project.revision": revision} if revision else {}),
        }
        with tracker.start_run(
            experiment or project.name, name=f"{project.name} {entry}", params=values, tags=tags
        ) as run:
            log = Path(work, OUTPUT)
            try:
                code = _ran(around, folder, variables, log, output)
            finally:
                if log.exists() and log.stat().st_size:
                    run.log_text(log.read_text("utf-8", errors="replace"), OUTPUT)
            run.set_tags({"project.exit_code": str(code)})
            run.finish("finished" if code == 0 else "failed")
        parts = _gathered(store, tracker, run.id, run.experiment)
    return ProjectRun(run.id, code, parts)


def _fetched(uri: str, version: str | None, work: Path) -> tuple[Path, str]:
    """Return the folder of a project, and the revision of its repository if it is of one."""
    place, _, inside = uri.partition("#")
    if Path(place).is_dir() and version is None:
        root, revision = Path(place).resolve(), _revision(Path(place))
    elif Path(place).is_dir() or _GIT.search(place):
        root = work / "repository"
        _git("clone", "--quiet", "--", place.removeprefix("git+"), str(root), what=place)
        if version is not None:
            if version.startswith("-"):
                raise InvalidInput(f"{version!r} is no version.")
            try:
                _git("-C", str(root), "checkout", "--quiet", version, "--", what=place)
            except Unavailable as exc:
                raise NotFound(f"version of {place}", version) from exc
        revision = _revision(root)
    else:
        raise NotFound("project", uri)
    folder = (root / inside).resolve()
    if not folder.is_relative_to(root.resolve()) or not folder.is_dir():
        raise NotFound(f"folder of {place}", inside)
    return folder, revision


def _git(*arguments: str, what: str) -> str:
    if shutil.which("git") is None:
        raise Unavailable(what, "git is not installed")
    done = subprocess.run(  # noqa: S603 - no shell, and what begins with "-" was refused
        ["git", *arguments],  # noqa: S607 - the user's own git
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
    )
    if done.returncode != 0:
        raise Unavailable(what, done.stderr.strip() or f"git ended with {done.returncode}")
    return done.stdout.strip()


def _revision(folder: Path) -> str:
    with suppress(Unavailable):
        return _git("-C", str(folder), "rev-parse", "HEAD", what=str(folder))
    return ""


def _variables(store: Path) -> dict[str, str]:
    """Return what leads the project's MLflow to a store of its own, where MLflow is installed."""
    if find_spec("mlflow") is None:
        return {}
    make_private_folder(store)
    return {
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db",
        # Else files would go to ./mlruns, which is in the project, and elsewhere in a container.
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (store / "artifacts").as_uri(),
    }


def _around(
    project: Project, command: str, manager: Manager, home: Path, variables: Mapping[str, str]
) -> _Command:
    """Return what to execute, so that a command has the environment that it needs."""
    kind = project.environment.kind
    if manager == "docker" or (kind == "docker" and manager != "local"):
        return _in_docker(project, command, variables)
    if manager == "conda":
        return _in_conda(project, command, home)
    if manager == "local":
        return _with_path(Path(sys.executable).parent, command)
    if kind == "conda":
        raise InvalidInput(
            f"{project.name!r} describes a conda environment: use env_manager='conda' or 'local'."
        )
    return _with_path(_python_env(project, manager, home) / "bin", command)


def _with_path(folder: Path, command: str) -> _Command:
    return _Command(["bash", "-c", f'export PATH={shlex.quote(str(folder))}:"$PATH"; {command}'])


def _python_env(project: Project, manager: Manager, home: Path) -> Path:
    """Make the environment that ``python_env.yaml`` describes, unless it is there."""
    file = project.environment.file
    version, wanted = ("", []) if file is None else read_python_env(file)
    said = [manager, version or f"{sys.version_info.major}.{sys.version_info.minor}", *wanted]
    for each in wanted:
        if each.startswith("-r "):
            path = project.folder / each[3:].strip()
            said.append(path.read_text() if path.is_file() else "")
    name = sha256("\0".join(said).encode()).hexdigest()[:16]
    folder = make_private_folder(home / "projects") / name
    if (folder / "ready").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    if manager == "uv":
        _need("uv", "https://docs.astral.sh/uv/")
        _made(["uv", "venv", "--quiet", *(["--python", version] if version else []), str(folder)])
        install = ["uv", "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    else:
        _made([_python(version), "-m", "venv", str(folder)])
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    if wanted:
        words = [word for each in wanted for word in each.split(maxsplit=1)]
        _made([*install, *words], cwd=project.folder)
    (folder / "ready").touch()
    return folder


def _python(version: str) -> str:
    """Return a Python of a version, such as ``3.11`` or ``3.11.7``."""
    here = ".".join(map(str, sys.version_info[:3]))
    short = ".".join(version.split(".")[:2])
    if not version or here == version or here.startswith(f"{version}."):
        return sys.executable
    if short == ".".join(here.split(".")[:2]) and version.count(".") == 2:
        raise Unavailable(f"Python {version}", f"this is {here}; use env_manager='uv'")
    found = shutil.which(f"python{short}")
    if found is None:
        raise Unavailable(f"Python {version}", "it is not on the PATH; use env_manager='uv'")
    return found


def _in_docker(project: Project, command: str, variables: Mapping[str, str]) -> _Command:
    environment = project.environment
    if not environment.image:
        raise InvalidInput(f"{project.name!r} names no image: its MLproject has no docker_env.")
    if ":" in str(project.folder):
        raise InvalidInput(f"Docker cannot mount {project.folder}: there is a colon in its path.")
    absent = [
        name
        for name, value in environment.variables.items()
        if value is None and name not in os.environ
    ]
    if absent:
        raise InvalidInput(
            f"The docker_env of {project.name!r} takes {', '.join(absent)} from the environment, "
            "where it is not set."
        )
    _need("docker", "https://docs.docker.com/engine/install/")
    done = subprocess.run(["docker", "info"], check=False, capture_output=True, text=True)  # noqa: S607
    if done.returncode != 0:
        said = done.stderr.strip() or f"'docker info' ended with {done.returncode}"
        raise Unavailable("Docker", f"its engine does not answer: {said}")
    store = variables.get("MLFLOW_TRACKING_URI", "").removeprefix("sqlite:///")
    place = str(Path(store).parent)
    volumes = [f"{project.folder}:{INSIDE}", *([f"{place}:{place}"] if store else [])]
    # A name alone stands for the value that the program has: it is in no list of processes.
    names = ["PYTHONUNBUFFERED", *variables]
    names += [
        name if value is None else f"{name}={value}"
        for name, value in environment.variables.items()
    ]
    container = f"mlopskit-{secrets.token_hex(8)}"
    argv = ["docker", "run", "--rm", "--name", container, "-w", INSIDE]
    for each in (*volumes, *environment.volumes):
        argv += ["-v", each]
    for each in names:
        argv += ["-e", each]
    argv += [environment.image, "sh", "-c", command]  # Small images have no bash.
    return _Command(argv, ["docker", "rm", "--force", container])


def _in_conda(project: Project, command: str, home: Path) -> _Command:
    file = project.environment.file
    if project.environment.kind != "conda" or file is None:
        raise InvalidInput(f"{project.name!r} describes no conda environment.")
    conda = _conda()
    name = sha256(file.read_bytes()).hexdigest()[:16]
    folder = make_private_folder(home / "projects") / f"conda-{name}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _made([conda, "env", "create", "--quiet", "-p", str(folder), "-f", str(file)])
        (folder / "ready").touch()
    return _Command([conda, "run", "--no-capture-output", "-p", str(folder), "bash", "-c", command])


def _conda() -> str:
    """Return the program, which need not be on the PATH: a shell has a function of that name."""
    home = os.environ.get("MLFLOW_CONDA_HOME")
    for place in (os.environ.get("CONDA_EXE"), home and os.path.join(home, "bin", "conda")):
        if place and os.access(place, os.X_OK):
            return place
    _need("conda", "https://docs.conda.io/")
    return "conda"


def _need(program: str, where: str) -> None:
    if shutil.which(program) is None:
        raise Unavailable(program, f"it is not installed; see {where}, or use env_manager='local'")


def _made(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(  # noqa: S603 - what the project says to install is what is asked for
        command, check=False, capture_output=True, text=True, cwd=cwd
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise BackendError(f"The environment cannot be made: {' '.join(command[:4])}: {said}")


def _ran(
    around: _Command,
    folder: Path,
    variables: Mapping[str, str],
    log: Path,
    output: Callable[[bytes], object] | None,
) -> int:
    """Execute a command, show and keep what it prints; return its exit code."""
    with (
        log.open("wb") as kept,
        subprocess.Popen(  # noqa: S603 - to run the project's command is what is asked for
            around.argv,
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            while some := process.stdout.read1(1 << 16):  # type: ignore[union-attr]  # it is a pipe
                kept.write(some)
                if output is not None:
                    output(some)
            return process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            with suppress(subprocess.TimeoutExpired):
                process.wait(ASIDE_S)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            if around.end:
                subprocess.run(around.end, check=False, capture_output=True)  # noqa: S603 - ours
            raise


class _Parts:
    """The runs that a project's code logged with MLflow, as parts of the project's own."""

    def __init__(self, tracker: Tracker, parent_id: str, experiment: str) -> None:
        self._tracker = tracker
        self._parent_id = parent_id
        self._experiment = experiment

    @property
    def target(self) -> str:
        return self._tracker.target

    def search_runs(
        self, where: str = "", experiment: str | None = None, *, limit: int | None = 100
    ) -> list[RunRecord]:
        found = self._tracker.search_runs(where, experiment, limit=limit)
        return [
            run.model_copy(
                update={
                    "parent_id": run.parent_id or self._parent_id,
                    "experiment": self._experiment,
                }
            )
            for run in found
        ]

    def get_metric_history(self, id: str, key: str) -> MetricHistory:
        return self._tracker.get_metric_history(id, key)

    def list_artifacts(self, id: str) -> list[Artifact]:
        return self._tracker.list_artifacts(id)

    def fetch_artifact(self, id: str, artifact: Artifact, path: Path) -> None:
        self._tracker.fetch_artifact(id, artifact, path)


def _gathered(store: Path, tracker: Tracker, run_id: str, experiment: str) -> tuple[str, ...]:
    if not (store / "mlflow.db").exists():
        return ()
    with open_tracker(f"mlflow:sqlite:///{store}/mlflow.db") as theirs:
        return transfer_runs(_Parts(theirs, run_id, experiment), tracker).copied

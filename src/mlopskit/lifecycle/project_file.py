"""Reads an MLproject file, and says what to run.

The format is MLflow's (https://mlflow.org/docs/latest/ml/projects/): a name, entry points with
typed parameters and a command, and at most one environment.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from mlopskit.errors import InvalidInput, MissingDependency, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE: Final = "MLproject"
PYTHON_ENV: Final = "python_env.yaml"
CONDA_ENV: Final = "conda.yaml"
# MLflow checks these; it passes values of any other type, such as ``int``, as they are.
TYPES: Final = ("string", "float", "path", "uri")
_RUNNERS: Final = {".py": "python", ".sh": "bash"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an entry point.

    Attributes:
        type: ``string``, ``float``, ``path`` (a file here) or ``uri``.
        default: None where it must be given.
    """

    type: str = "string"
    default: str | None = None


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """One thing that a project can do: a shell command with ``{parameter}`` in it."""

    command: str
    parameters: Mapping[str, Parameter]


@dataclass(frozen=True, slots=True)
class Environment:
    """What a project needs around it.

    Attributes:
        kind: ``python`` and ``conda`` name a file, ``docker`` an image.
        file: The file, or None for a Python environment without one.
        image: The image.
        volumes: What Docker mounts, as its ``--volume`` takes it.
        variables: What is set in the container, by name; None is what is set here.
    """

    kind: Literal["python", "conda", "docker"] = "python"
    file: Path | None = None
    image: str = ""
    volumes: tuple[str, ...] = ()
    variables: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Project:
    """A project as its file describes it.

    Attributes:
        folder: Where it lies.
        name: Its name; that of the folder where the file has none.
        entry_points: By their names.
        environment: What it needs.
    """

    folder: Path
    name: str
    entry_points: Mapping[str, EntryPoint]
    environment: Environment

    def command(self, entry: str, given: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """Return the shell command of an entry point, and all of its parameters.

        A parameter that the entry point does not declare is appended as ``--name value``, and a
        file ``*.py`` or ``*.sh`` of the project is an entry point too, as with ``mlflow run``.

        Raises:
            NotFound: If there is no such entry point.
            InvalidInput: If a parameter is missing, or is not of its type.
        """
        point = self._entry(entry)
        values: dict[str, str] = {}
        missing = []
        for name, parameter in point.parameters.items():
            value = given.get(name, parameter.default)
            if value is None:
                missing.append(name)
            else:
                values[name] = _checked(name, parameter.type, value, self.folder)
        if missing:
            raise InvalidInput(
                f"The entry point {entry!r} needs {', '.join(missing)}: give -P {missing[0]}=VALUE."
            )
        extra = {name: value for name, value in given.items() if name not in point.parameters}
        command = _filled(entry, point.command, values | extra)
        for name, value in extra.items():
            if f"{{{name}}}" not in point.command:
                command += f" {shlex.quote(f'--{name}')} {shlex.quote(value)}"
        return command, values | extra

    def _entry(self, entry: str) -> EntryPoint:
        if entry in self.entry_points:
            return self.entry_points[entry]
        runner = _RUNNERS.get(Path(entry).suffix)
        inside = (self.folder / entry).resolve()
        if runner and inside.is_file() and inside.is_relative_to(self.folder.resolve()):
            return EntryPoint(f"{runner} {shlex.quote(entry)}", {})
        raise NotFound(f"entry point of {self.name!r}", entry, self.entry_points)


def read_project(folder: Path) -> Project:
    """Read the project in a folder; one without a file has its scripts as entry points.

    Raises:
        NotFound: If there is no such folder.
        InvalidInput: If its file cannot be read.
        MissingDependency: If PyYAML is not installed.
    """
    if not folder.is_dir():
        raise NotFound("project", str(folder))
    path = next((each for each in folder.iterdir() if each.name.lower() == FILE.lower()), None)
    said: Any = ({} if path is None else _yaml(path)) or {}
    if not isinstance(said, dict):
        raise InvalidInput(f"{path} is no MLproject file: it holds no mapping.")
    points = said.get("entry_points") or {}
    if not isinstance(points, dict):
        raise InvalidInput(f"The entry_points of {path} are no mapping.")
    return Project(
        folder=folder,
        name=str(said.get("name") or folder.resolve().name),
        entry_points={str(name): _entry_point(path, name, each) for name, each in points.items()},
        environment=_environment(folder, path, said),
    )


def read_python_env(path: Path) -> tuple[str, list[str]]:
    """Return the version of Python that a ``python_env.yaml`` asks for, and what pip is to install.

    Raises:
        InvalidInput: If it cannot be read.
    """
    said = _yaml(path)
    if not isinstance(said, dict):
        raise InvalidInput(f"{path} holds no mapping.")
    wanted: list[str] = []
    for name in ("build_dependencies", "dependencies"):
        some = said.get(name) or []
        if not isinstance(some, list) or not all(isinstance(each, str) for each in some):
            raise InvalidInput(f"{name} of {path} is no list of texts.")
        wanted += some
    return str(said.get("python") or ""), wanted


def _yaml(path: Path) -> Any:
    try:
        import yaml  # noqa: PLC0415 - only who runs projects needs it
    except ImportError as exc:
        raise MissingDependency("MLproject", "pyyaml", "pip install pyyaml") from exc
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise InvalidInput(f"{path} cannot be read: {exc}.") from exc


def _entry_point(path: Path | None, name: object, said: Any) -> EntryPoint:
    if not isinstance(said, dict) or not isinstance(said.get("command"), str):
        raise InvalidInput(f"The entry point {name!r} of {path} has no command.")
    parameters: dict[str, Parameter] = {}
    for key, each in (said.get("parameters") or {}).items():
        if isinstance(each, str):
            parameters[str(key)] = Parameter(_type(path, key, each))
        elif isinstance(each, dict):
            default = each.get("default")
            kind = _type(path, key, each.get("type", "string"))
            parameters[str(key)] = Parameter(kind, None if default is None else str(default))
        else:
            raise InvalidInput(f"The parameter {key!r} of {path} is neither a type nor a mapping.")
    return EntryPoint(said["command"], parameters)


def _type(path: Path | None, key: object, said: object) -> str:
    if not isinstance(said, str):
        raise InvalidInput(
            f"The parameter {key!r} of {path} has the type {said!r}, which is no text."
        )
    return said if said in TYPES else "string"


def _environment(folder: Path, path: Path | None, said: Mapping[str, Any]) -> Environment:
    named = [key for key in ("python_env", "conda_env", "docker_env") if key in said]
    if len(named) > 1:
        raise InvalidInput(f"{path} names more than one environment: {', '.join(named)}.")
    if "docker_env" in said:
        return _docker_env(path, said["docker_env"] or {})
    kinds: tuple[tuple[Literal["python", "conda"], str, str], ...] = (
        ("python", "python_env", PYTHON_ENV),
        ("conda", "conda_env", CONDA_ENV),
    )
    for kind, key, default in kinds:
        file = folder / str(said.get(key) or default)
        if file.is_file():
            return Environment(kind, file)
        if key in said:
            raise InvalidInput(f"{path} names {key} {said[key]!r}, and there is no such file.")
    return Environment()


def _docker_env(path: Path | None, said: Any) -> Environment:
    if not isinstance(said, dict):
        raise InvalidInput(f"The docker_env of {path} is no mapping.")
    image = said.get("image")
    if not isinstance(image, str) or not image or image.startswith("-"):
        raise InvalidInput(f"The docker_env of {path} names no image: it has {image!r}.")
    volumes = said.get("volumes") or []
    if not isinstance(volumes, list) or not all(isinstance(each, str) for each in volumes):
        raise InvalidInput(f"The volumes of {path} are no list of texts.")
    environment = said.get("environment") or []
    variables: dict[str, str | None] = {}
    for each in environment if isinstance(environment, list) else [None]:
        match each:
            case str(name) | [str(name)]:
                variables[name] = None
            case [str(name), value]:
                variables[name] = str(value)
            case _:
                raise InvalidInput(
                    f"The environment of {path} has {each!r}; it may have a name, or a list of a "
                    "name and a value."
                )
    return Environment("docker", None, image, tuple(volumes), variables)


def _checked(name: str, kind: str, value: str, folder: Path) -> str:
    if kind == "float":
        try:
            float(value)
        except ValueError:
            raise InvalidInput(
                f"The parameter {name!r} is {value!r}; it must be a number."
            ) from None
    if kind == "path":
        place = Path(value).expanduser()
        if not place.exists() and not (folder / value).exists():
            raise InvalidInput(f"The parameter {name!r} is {value!r}, and there is no such file.")
        return str(place.resolve() if place.exists() else (folder / value).resolve())
    if kind == "uri" and ":" not in value and not Path(value).exists():
        raise InvalidInput(f"The parameter {name!r} is {value!r}; it must be an address.")
    return value


def _filled(entry: str, command: str, values: Mapping[str, str]) -> str:
    quoted = {name: shlex.quote(value) for name, value in values.items()}
    try:
        return command.format_map(quoted)
    except (KeyError, IndexError, ValueError, AttributeError) as exc:
        raise InvalidInput(
            f"The command of the entry point {entry!r} cannot be filled in: {exc!r} of {command!r}."
        ) from exc

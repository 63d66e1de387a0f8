"""The command lines that look into what a demo left, and the tools it was run with."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlopskit.config import DOMAINS, HOME_NAME

if TYPE_CHECKING:
    from mlopskit.config import Line, Settings


def tools(settings: Settings) -> dict[str, str]:
    """Return the backend of each domain; several are joined by ``+``."""
    return {domain: "+".join(line.backend for line in settings.lines[domain]) for domain in DOMAINS}


def commands(settings: Settings, experiment: str, model: str) -> tuple[str, ...]:
    """Return commands that show the runs, the models and the features, with the same settings."""
    options = shlex.join(_options(settings))
    start = f"{_program()} {options}".rstrip()
    return (
        f"{start} runs --experiment {experiment}",
        f"{start} models {model}",
        f"{start} features",
    )


def _program() -> str:
    """Return what to type: the bare command where the shell finds it, else where it lies."""
    if shutil.which("mlopskit"):
        return "mlopskit"
    beside = Path(sys.executable).with_name("mlopskit")
    if not beside.is_file():
        return shlex.join([sys.executable, "-m", "mlopskit"])
    near = beside.is_relative_to(Path.cwd())
    return shlex.quote(str(beside.relative_to(Path.cwd()) if near else beside))


def _options(settings: Settings) -> list[str]:
    """Return what has to be said on the command line again, since no file says it."""
    options = []
    if settings.home != Path.cwd() / HOME_NAME and settings.origins.get("home") != "MLOPSKIT_HOME":
        options += ["--home", str(settings.home)]
    for domain in DOMAINS:
        lines = settings.lines[domain]
        if settings.origins.get(domain) == "command line" and len(lines) == 1:
            options += ["-c", f"{domain}={_written(lines[0])}"]
    return options


def _written(line: Line) -> str:
    return line.backend if line.location is None else f"{line.backend}:{line.location}"

"""The command line, run in this process and in one of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from mlopskit.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable


TRACKER = """
from mlopskit.capabilities import Capabilities
from mlopskit.hookspecs import hookimpl
from mlopskit.tool import Tool

CAPABILITIES = {"artifacts": "native", "resume": "absent: it has no memory"}
TOOL = {
    "package": "pluggy",
    "requires": {"pluggy": ">=1.0,<9"},
    "telemetry": "counts your runs; ACME_TELEMETRY=0 switches it off",
}

class AcmeTracker(Tool):
    domain = "tracking"

    def __init__(self, location=None, *, mode="fast"):
        self.location = location

    @property
    def capabilities(self):
        return Capabilities("tracking", "acme", CAPABILITIES)

    @property
    def native(self):
        return self

    def ping(self, timeout_s=5.0):
        %s

    def close(self):
        pass

@hookimpl
def make_tracker(location, options):
    return AcmeTracker(location, **options)
"""

BROKEN = """
def prepare():
    raise ValueError("no \\x1b[31mflux\\x1b[0m capacitor")

prepare()
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[list[str]]:
        """The lines below the header, split where two blanks or more separate cells."""
        lines = self.out.splitlines()
        return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[1:]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command line in this process, as into a pipe."""

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Done(code, out, err)

    return run


@pytest.fixture
def process() -> Callable[..., Done]:
    """Run the command line in a process of its own, with an environment if one is given."""

    def run(*arguments: str, environ: dict[str, str] | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "mlopskit", *arguments],
            capture_output=True,
            text=True,
            env=environ,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def acme(install: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    """Install a third party's tracker whose ping does what it is told, and another distribution.

    Returns a function of the line of Python that is the ping, and whether a broken backend ``bad``
    stands beside ``acme``; it returns the environment to start a process with.
    """

    def installed(ping: str = "return None", *, broken: bool = False) -> dict[str, str]:
        modules = {"acme": TRACKER % ping, "acme_bad": BROKEN}
        backends = {"acme": "acme"} | ({"bad": "acme_bad"} if broken else {})
        return install("acme-tracking", modules, {"mlopskit.tracking": backends})

    return installed

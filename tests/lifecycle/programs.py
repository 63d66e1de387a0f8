"""Stand-ins for ``docker`` and ``conda``, which read their command lines as the real ones do.

Each writes what it was called with to ``calls.jsonl`` beside it. A container is a process of a
session of its own, without the environment of its caller, which ignores SIGTERM as the first
process of a real one does, and ends when it is removed.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

COMMON = """#!{python}
import argparse, json, os, pathlib, signal, subprocess, sys, time
here = pathlib.Path(__file__).resolve().parent
with (here / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(sys.argv) + "\\n")
mode = (here / "mode").read_text() if (here / "mode").exists() else ""

def end(code, said=""):
    sys.stderr.write(said)
    sys.stderr.flush()
    os._exit(code)
"""

DOCKER = """
command, *rest = sys.argv[1:]
if command == "info":
    end(*((1, "Cannot connect to the Docker daemon.\\n") if mode == "down" else (0,)))
if command == "rm":
    kept = here / "containers" / rest[-1]
    if not kept.exists():
        end(1, "No such container\\n")
    os.killpg(int(kept.read_text()), signal.SIGKILL)
    kept.unlink()
    end(0)
if command != "run":
    end(1, "docker: not a command\\n")
options = argparse.ArgumentParser(allow_abbrev=False)
options.add_argument("--rm", action="store_true")
options.add_argument("--name")
options.add_argument("-w")
options.add_argument("-v", action="append", default=[])
options.add_argument("-e", action="append", default=[])
# Docker's own options end at the image.
at = 0
while at < len(rest) and rest[at].startswith("-"):
    at += 1 if rest[at] == "--rm" else 2
given = options.parse_args(rest[:at])
image, *words = rest[at:]
if image != "python:3.11":
    end(125, f"docker: Error response from daemon: pull access denied for {image}\\n")
inside = {"PATH": os.environ["PATH"]}
for each in given.e:
    name, equals, value = each.partition("=")
    if equals or name in os.environ:
        inside[name] = value if equals else os.environ[name]
mounted = dict(each.split(":")[1::-1] for each in given.v)
kept = here / "containers" / (given.name or "unnamed")
kept.parent.mkdir(exist_ok=True)

def enter():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kept.write_text(str(os.getpid()))

signal.signal(signal.SIGTERM, lambda *_: None)  # Passed on, and ignored.
container = subprocess.Popen(
    words, cwd=mounted[given.w], env=inside, start_new_session=True, preexec_fn=enter
)
code = container.wait()
kept.unlink(missing_ok=True)
end(code)
"""

CONDA = """
if sys.argv[1:3] == ["env", "create"]:
    options = argparse.ArgumentParser()
    options.add_argument("--quiet", action="store_true")
    options.add_argument("-p")
    options.add_argument("-f", "--file")
    given = options.parse_args(sys.argv[3:])
    folder = pathlib.Path(given.p)
    if folder.exists():
        end(1, f"CondaValueError: prefix already exists: {folder}\\n")
    (folder / "conda-meta").mkdir(parents=True)
    if mode == "broken":
        end(1, "ResolvePackageNotFound:\\n  - nosuchpackage=9\\n")
    (folder / "made").write_text(pathlib.Path(given.file).read_text())
    end(0)
if sys.argv[1] != "run":
    end(2, f"conda: error: {sys.argv[1]}\\n")
options = argparse.ArgumentParser()
options.add_argument("--no-capture-output", action="store_true")
options.add_argument("-p")
options.add_argument("words", nargs=argparse.REMAINDER)
given = options.parse_args(sys.argv[2:])
if not (pathlib.Path(given.p) / "made").exists():
    end(1, f"EnvironmentLocationNotFound: {given.p}\\n")
os.execvpe(given.words[0], given.words, {**os.environ, "CONDA_PREFIX": given.p})
"""


def install(folder: Path, name: str) -> Path:
    """Put a stand-in into a folder; return it."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(COMMON.replace("{python}", sys.executable, 1) + globals()[name.upper()])
    program.chmod(0o755)
    return program


def behave(folder: Path, mode: str) -> None:
    """Let the stand-ins of a folder be ``down`` or ``broken``."""
    (folder / "mode").write_text(mode)


def calls(folder: Path) -> list[list[str]]:
    """Return what the stand-ins of a folder were called with, without their own names."""
    path = folder / "calls.jsonl"
    lines: list[Any] = [json.loads(each) for each in path.read_text().splitlines()]
    return [each[1:] for each in lines]

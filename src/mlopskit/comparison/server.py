"""A server that a comparison kills, and starts again on the same storage.

MLflow's is its own application. W&B's is the one of `mlopskit.testing`, which writes what it has to
a file before it answers.
"""

from __future__ import annotations

import time
import urllib.request
from contextlib import closing, contextmanager, suppress
from socket import create_connection, create_server
from typing import TYPE_CHECKING, Final

from mlopskit.comparison.place import Place
from mlopskit.comparison.processes import kill, started
from mlopskit.config import Line
from mlopskit.testing.wandb_server import KEY

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

STARTS_S: Final = 120.0
QUESTION: Final = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"


class Failed(Exception):
    """A server did not start; the text says why."""


def place_at(tool: str, port: int) -> Place:
    """Return the place that a server is."""
    url = f"http://127.0.0.1:{port}"
    line = Line(backend=tool, location=url)
    if tool == "wandb":
        options = {"base_url": url, "api_key": KEY, "mode": "online"}
        line = Line(backend=tool, location="team/compare", options=options)
    return Place(line=line, label=tool, name="compare")


@contextmanager
def served(tool: str, folder: Path, port: int) -> Iterator[int]:
    """Run a server of a tool on a port; yield its process, which leads a group of its own.

    Raises:
        Failed: If it does not start.
    """
    environment = {}
    if tool == "mlflow":
        environment = {
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/server.db",
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "server-files"),
        }
    args = ("mlopskit.comparison.server_child", tool, str(port), str(folder))
    with (
        (folder / "server.log").open("w+", encoding="utf-8", errors="replace") as log,
        started(*args, cwd=folder, environment=environment, output=log) as process,
    ):
        try:
            _wait(port, process)
            if tool == "mlflow":
                # It makes its database at the first question; killed then, it never works again.
                _ask(f"http://127.0.0.1:{port}{QUESTION}")
        except Failed as exc:
            log.seek(0)
            said = [each for each in log.read().splitlines() if each.strip()]
            raise Failed(f"{exc}: {said[-1]}" if said else str(exc)) from None
        yield process.pid
        kill(process)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with closing(create_server(("127.0.0.1", 0))) as probe:
        port: int = probe.getsockname()[1]
        return port


def _ask(url: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=STARTS_S) as answer:  # noqa: S310 - it is ours
            answer.read()
    except OSError as exc:
        raise Failed(f"its server does not work: {exc}") from exc


def _wait(port: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + STARTS_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Failed(f"its server ended with {process.returncode}")
        with suppress(OSError), closing(create_connection(("127.0.0.1", port), 1)):
            return
        time.sleep(0.05)
    raise Failed(f"its server did not answer within {STARTS_S:.0f} s")

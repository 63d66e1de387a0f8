"""Real servers for the tests, on the loopback interface and in temporary folders."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator


LATE_S = 3.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for a listener, or say that its process has ended."""
    while True:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)):
            return
        assert process.poll() is None, "the server has ended"
        time.sleep(0.05)


@contextmanager
def mlflow_server(store: str, folder: Path, port: int = 0) -> Iterator[tuple[int, Any]]:
    """Run MLflow's server without its command line, which would take half a minute to start."""
    port = port or free_port()
    code = f"import uvicorn; uvicorn.run('mlflow.server.fastapi_app:app', port={port})"
    environment = {
        **os.environ,
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
    }
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=log, stderr=log
        )
        try:
            wait_until_it_answers(port, process)
            yield port, process
        finally:
            process.kill()
            process.wait()


def postgres_folder() -> Path | None:
    """Return where PostgreSQL's programs lie, if they are installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    there = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return there[-1].parent if there else None


@contextmanager
def postgres() -> Iterator[str]:
    """Run PostgreSQL with an empty database; yield its URI."""
    programs = postgres_folder()
    assert programs is not None
    # The folders of pytest are for their owner only, who may be another user than its.
    folder, port = Path(tempfile.mkdtemp(prefix="mlopskit-postgres-")), free_port()
    data = folder / "data"
    folder.chmod(0o755)
    data.mkdir()
    # It refuses to run as root.
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        account = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if _is_there(name))
        shutil.chown(data, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid}
    start = [str(programs / "initdb"), "-D", str(data), "-U", "test", "-A", "trust", "-N"]
    start += ["-E", "UTF8", "--locale=C"]
    subprocess.run(start, check=True, capture_output=True, cwd="/", **user)
    options = ["-p", str(port), "-k", "", "-h", "127.0.0.1", "-c", "fsync=off"]
    with (folder / "postgres.log").open("wb") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd="/", **user
        )
        try:
            wait_until_it_answers(port, process)
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGQUIT)  # At once: nobody needs its data.
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _is_there(name: str) -> bool:
    with suppress(KeyError):
        pwd.getpwnam(name)
        return True
    return False


class Proxy:
    """Passes connections on to a port of this machine, and misbehaves when it is told to.

    Attributes:
        mode: ``pass``; ``refuse`` closes a connection at once; ``hang`` reads and never answers;
            ``drop`` passes a request on and closes before the answer; ``late`` answers after
            `LATE_S`, when nobody waits any more; ``error`` answers 500.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.mode = "pass"
        self.seen = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Close every connection, as a server that dies does."""
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), closing(client):
            while request := _message(client):
                self.seen += 1
                if self.mode == "refuse":
                    return
                if self.mode == "hang":
                    client.recv(1)
                    return
                if self.mode == "error":
                    client.sendall(
                        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}"
                    )
                    continue
                with closing(socket.create_connection(("127.0.0.1", self._to))) as server:
                    server.sendall(request)
                    answer = _message(server)
                if self.mode == "drop":
                    return
                if self.mode == "late":
                    time.sleep(LATE_S)
                client.sendall(answer)


def _message(end: socket.socket) -> bytes:
    """Read one HTTP message whole."""
    data = b""
    while b"\r\n\r\n" not in data:
        some = end.recv(65536)
        if not some:
            return b""
        data += some
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(x.split(b":")[1]) for x in lines if x.startswith(b"content-length")), None)
    if length is None and any(b"chunked" in x for x in lines):
        while not body.endswith(b"0\r\n\r\n"):
            body += end.recv(65536)
        return head + b"\r\n\r\n" + body
    while length is not None and len(body) < length:
        body += end.recv(65536)
    return head + b"\r\n\r\n" + body

"""A W&B server on the loopback interface, for tests of what logs to W&B.

::

    with WandbServer() as server:
        environment = {**os.environ, **server.environment(folder)}
        subprocess.run([sys.executable, "train.py"], env=environment, check=True)
        assert server.runs["my-run"]["state"] == "finished"
        assert server.unknown == []

The SDK is the real one. The server knows runs, resuming, histories, filters, files, artifacts,
links, sweeps and what ``wandb sync`` uploads; it keeps all of it in memory, and misbehaves when it
is told to. What it answers is true for the versions of the SDK that `SDK` names: other ones may ask
for more, which `WandbServer.unknown` lists.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import unquote

from mlopskit.testing.wandb_answers import Conflicting
from mlopskit.testing.wandb_registry_answers import RegistryAnswers

if TYPE_CHECKING:
    from pathlib import Path

SDK: Final = ">=0.31,<0.32"
KEY: Final = "a" * 40
Kind = Literal["error", "busy", "down", "conflict", "refuse", "hang", "drop", "late"]
_ANSWERS: Final = {"error": 500, "busy": 429, "down": 503, "conflict": 409}


@dataclass
class Fault:
    """What is wrong with the next requests whose path or operation holds a text.

    Attributes:
        kind: ``error`` answers 500, ``busy`` 429, ``down`` 503, ``conflict`` 409; ``refuse`` closes
            the connection at once, ``hang`` does so after `seconds`; ``drop`` stores what was sent
            and closes without an answer, ``late`` stores it and answers after `seconds`.
        times: How many requests it spoils, `math.inf` for all.
        match: The text; empty for every request.
        seconds: How long to wait.
    """

    kind: Kind
    times: float = 1
    match: str = ""
    seconds: float = 1.0


class WandbServer(RegistryAnswers):
    """The server. Start it with ``with``, or with `start` and `stop`; it keeps what it has.

    Args:
        port: Where to listen; 0 for any free port.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self.port = port
        self._faults: list[Fault] = []
        self._http: _Http | None = None

    @property
    def url(self) -> str:  # type: ignore[override]  # an attribute for the answers
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the variables that lead the SDK here, and its files into a folder."""
        folders = ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_SILENT": "true",
            "WANDB_CONSOLE": "off",
            "WANDB_SERVICE": "",  # A child starts its own; this process's may be gone by then.
            **{name: str(folder) for name in folders},
        }

    def fail(self, kind: Kind, times: float = 1, *, match: str = "", seconds: float = 1.0) -> None:
        """Misbehave, as `Fault` says, from the next request on."""
        with self.lock:
            self._faults.append(Fault(kind, times, match, seconds))

    def mend(self) -> None:
        """Behave again, to every request that comes from now on."""
        with self.lock:
            self._faults.clear()

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._http = _Http(("127.0.0.1", self.port), _handler(self))
        self.port = int(self._http.server_address[1])
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more, and hang up. Stopping twice is fine."""
        http, self._http = self._http, None
        if http is not None:
            http.shutdown()
            http.server_close()
            http.hang_up()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def fault(self, *names: str) -> Fault | None:
        """Return what is to go wrong with a request of these names, and count it."""
        with self.lock:
            for fault in self._faults:
                if fault.times > 0 and any(fault.match in name for name in names):
                    fault.times -= 1
                    return fault
        return None


class _Http(ThreadingHTTPServer):
    """Knows its connections: W&B's service opens some for every run, and keeps them."""

    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went, or was hung up on."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    """Return the HTTP side of a server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        fault: Fault | None = None

        def do_POST(self) -> None:
            body = self._body()
            said = json.loads(body or b"{}") if self.path == "/graphql" else {}
            name = said.get("operationName") or _name_of(said.get("query", ""))
            if not self._goes_on(self.path, name):
                return
            given = base64.b64decode(self.headers.get("Authorization", "").partition(" ")[2])
            if self.path == "/graphql" and given != f"api:{KEY}".encode():
                self._say(401, b'{"errors": [{"message": "no such key"}]}')
            elif self.path == "/graphql":
                code = 200
                try:
                    with server.lock:
                        found = server.answer(name, said.get("variables") or {})
                    answer = {"data": found}
                except (LookupError, Conflicting) as exc:
                    answer = {"data": None, "errors": [{"message": str(exc)}]}
                    code = 409 if isinstance(exc, Conflicting) else 200
                self._say(code, json.dumps(answer).encode())
            elif self.path.endswith("/file_stream"):
                with server.lock:
                    server.stream(self.path.split("/")[-2], json.loads(body))
                self._say(200, b"{}")
            else:
                self._say(200, b"{}")  # What the service measures of itself.

        def do_PUT(self) -> None:
            body = self._body()
            if not self._goes_on(self.path):
                return
            path, digest = unquote(self.path), hashlib.md5(body, usedforsecurity=False)
            if path.startswith("/storage/blob/") and not self._is_signed(digest.digest()):
                self._say(403, b"the signature is for other headers")
                return
            with server.lock:
                server.files[path] = body
                if path.startswith("/storage/blob/"):
                    server.files[f"md5:{digest.hexdigest()}"] = body
                    server.births.setdefault(digest.hexdigest(), path.split("/")[3])
            self._say(200, b"")

        def do_GET(self) -> None:
            if not self._goes_on(self.path):
                return
            path = unquote(self.path)
            found = server.files.get(path)
            if path.startswith("/artifacts"):  # .../<md5 in hex>[/<name>]
                blobs = (server.files.get(f"md5:{part}") for part in path.split("/"))
                found = next((each for each in blobs if each is not None), None)
            if found is None:
                self._say(404, b"no such file")
            else:
                self._say(200, found, "application/octet-stream")

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _is_signed(self, digest: bytes) -> bool:
            """Tell whether an upload has the headers that its address was given with, and no type.

            Object stores sign both.
            """
            given = self.headers.get("Content-MD5")
            return given == base64.b64encode(digest).decode() and "Content-Type" not in self.headers

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _goes_on(self, *names: str) -> bool:
            """Tell whether a request is answered; if it is spoiled, do that."""
            self.fault = fault = server.fault(*names)
            if fault is None or fault.kind in ("drop", "late"):
                return True
            if fault.kind == "hang":
                time.sleep(fault.seconds)
            if fault.kind in _ANSWERS:
                self._say(_ANSWERS[fault.kind], b"{}")
            else:
                self._cut()
            return False

        def _say(self, code: int, content: bytes, kind: str = "application/json") -> None:
            if self.fault is not None and self.fault.kind == "drop":
                self._cut()
                return
            if self.fault is not None and self.fault.kind == "late":
                time.sleep(self.fault.seconds)
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.close()

    return Handler


def _name_of(query: str) -> str:
    words = query.replace("(", " ").replace("{", " ").split()
    kinds = [word in ("query", "mutation") for word in words]
    return words[kinds.index(True) + 1] if True in kinds else ""

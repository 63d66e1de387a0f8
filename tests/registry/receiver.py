"""A server on the loopback interface that receives webhooks and answers as it is told."""

from __future__ import annotations

import base64
import socket
import struct
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from mlopskit.registry.webhooks import verify

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass(frozen=True)
class Message:
    """What was received."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def said(self) -> dict[str, Any]:
        return verify(self.headers, self.body, SECRET)


class Receiver:
    """Keeps every message, and gives one answer after the other; 204 when there are no more.

    An answer is a status, with headers if it is a pair; or ``"reset"``, which ends the connection;
    ``"hang"``, which waits for `release`; ``"drip"``, which sends one byte now and then.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.answers: list[Any] = []
        self.release = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # Whoever gave up waiting is gone.

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks/token-in-path?k=v"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.messages.append(Message(handler.path, headers, body))
        answer = self.answers.pop(0) if self.answers else 204
        if answer == "reset":
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()
            return
        if answer == "hang":
            self.release.wait(60)
            answer = 204
        status, more = answer if isinstance(answer, tuple) else (answer, {})
        if status == "drip":
            for char in b"HTTP/1.1 204 No Content\r\nx: " + b"y" * 400:
                handler.wfile.write(bytes([char]))
                time.sleep(0.02)
            handler.wfile.write(b"\r\n\r\n")
            return
        handler.send_response(status)
        for name, value in more.items():
            handler.send_header(name, value)
        handler.end_headers()

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)

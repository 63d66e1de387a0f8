"""The HTTP door: uvicorn on a thread of its own, with limits and a drain that loses nothing.

uvicorn has no limit on headers and on slow clients, and at shutdown it closes connections that look
idle without reading what has already arrived (seen in 0.34 to 0.54). `Connection` and `Listener`
add just that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import threading
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlopskit.errors import BackendError, Unavailable

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from mlopskit.serving.http import App, Limits

logger = logging.getLogger(__name__)

LINGER_S: Final = 0.25  # How long a drain waits for a request that may be on its way.
BACKLOG: Final = 1024


class Connection(HttpToolsProtocol):
    """One connection, with limits on its headers, its slowness and the number of its kind."""

    def __init__(self, limits: Limits, **rest: Any) -> None:
        super().__init__(**rest)
        self.access_log = False
        self.deadline: float | None = None
        self._limits = limits
        self._began = 0.0
        self._receiving = False
        self._in_head = False
        self._head_bytes = 0
        self._head_lines = 0
        self._late_bytes = 0
        self._leaving = False
        self._deaf = False
        self._lingering = False
        self._reason = (400, "This is no valid HTTP request.")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Let the connection in, unless there are too many."""
        super().connection_made(transport)
        self.deadline = time.monotonic() + self._limits.header_s
        if len(self.connections) > self._limits.connections:
            self.refuse(503, "Too many connections are open.")

    def data_received(self, data: bytes) -> None:
        """Parse what came, and watch what does not end."""
        if self._deaf or self.transport.is_closing():
            return
        was_in_head = self._in_head
        super().data_received(data)
        if self._in_head and was_in_head:
            self._late_bytes += len(data)
            if self._late_bytes > self._limits.header_bytes:
                self.refuse(431, "The headers are too long.")
        if not self._receiving and self.deadline is None and not self._unanswered():
            # Blank lines between requests stop uvicorn's own clock.
            self.deadline = time.monotonic() + self._limits.header_s

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        super().on_message_begin()
        self._began = time.monotonic()
        self.deadline = self._began + self._limits.header_s
        self._receiving = self._in_head = True
        self._head_bytes = self._head_lines = self._late_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        super().on_url(url)
        self._count(len(url), 414, "The address is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        super().on_header(name, value)
        self._head_lines += 1
        self._count(len(name) + len(value) + 4, 431, "The headers are too long.")

    def on_headers_complete(self) -> None:
        """Give the body its time."""
        if self.parser.should_upgrade() and self.parser.get_method() not in (b"GET", b"HEAD"):
            # The parser stops at the offer, and the body behind it would be lost.
            self._reason = (400, "Changing the protocol is not offered: speak plain HTTP/1.1.")
            raise ValueError(self._reason[1])
        self._in_head = False
        self.deadline = self._began + self._limits.body_s
        super().on_headers_complete()
        # The application runs later; until then its way out can still be exchanged.
        self.cycle.transport = cast("Any", _Gathered(self.transport, self))
        if self._leaving:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Stop the clock: the request is here."""
        self._receiving = False
        self.deadline = None
        super().on_message_complete()
        if self._lingering:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Say what was wrong, as the protocol's clients read it."""
        del msg
        self.refuse(*self._reason)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's returns nothing
        """Answer a client that has said all it will, before the connection ends."""
        cycle = self._unanswered()
        if cycle is None or self._receiving:
            return False  # Nothing to answer: asyncio closes the transport.
        cycle.keep_alive = False
        return True

    def refuse(self, status: int, text: str) -> None:
        """Answer with an error, and hang up."""
        cycle = self._unanswered()
        in_body = self._receiving and not self._in_head
        if cycle is not None and not in_body:
            # What is wrong came behind a good request: that one is answered, then it ends.
            cycle.keep_alive = False
            self._deaf = True
            return
        if cycle is not None and (cycle.response_started or self.pipeline):
            self.transport.close()
            return
        if cycle is not None:
            cycle.disconnected = True  # The application may neither read nor write any more.
            cycle.message_event.set()
        if self.transport.is_closing() or self._lingering:
            return
        self.transport.write(_raw(status, text))
        self._deaf = True
        if status == 503:
            self.transport.close()
        else:
            self._linger()

    def hang_up(self) -> None:
        """Close; after an answer that came early, only when the client has stopped sending.

        A socket that is closed with unread bytes makes the kernel throw away the answer.
        """
        if self._lingering or self.transport.is_closing():
            return
        if self._receiving:
            self._linger()
        else:
            self.transport.close()

    def expire(self) -> None:
        """Hang up on a client that took too long."""
        self.deadline = None
        if self._receiving and not self._lingering:
            self.refuse(408, "The request took too long to arrive.")
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """Finish what was begun, and take what has arrived already; then hang up."""
        self._leaving = True
        cycle = self._unanswered()
        if cycle is not None:
            cycle.keep_alive = False
        self.loop.call_later(LINGER_S, self._leave)

    def _linger(self) -> None:
        self._lingering = True
        self.deadline = time.monotonic() + self._limits.header_s
        self.transport.write_eof()

    def _leave(self) -> None:
        if self.transport.is_closing() or self._receiving or self._unanswered():
            return
        if _readable(self.transport.get_extra_info("socket")):
            self.loop.call_later(LINGER_S, self._leave)  # It will be read before that.
        else:
            self.transport.close()

    def _unanswered(self) -> RequestResponseCycle | None:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request.
        return None if cycle is None or cycle.response_complete else cycle

    def _count(self, size: int, status: int, text: str) -> None:
        self._head_bytes += size
        limits = self._limits
        if self._head_bytes > limits.header_bytes or self._head_lines > limits.header_lines:
            self._reason = (status, text)
            raise ValueError(text)  # The parser stops, and `send_400_response` tells the client.

    def _unsupported_upgrade_warning(self) -> None:
        # The request is answered as if it had not asked to change the protocol; the parser has
        # stopped behind it, so that the connection cannot be used again.
        cycle = self._unanswered()
        if cycle is not None:
            cycle.keep_alive = False


class _Gathered:
    """A transport that sends head and body of an answer as one packet."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._connection.loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._connection.hang_up()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()


class Listener(uvicorn.Server):
    """uvicorn's server, with a sweep for slow clients and a drain in the right order."""

    def __init__(self, app: App, drain_s: float) -> None:
        super().__init__(
            uvicorn.Config(
                cast("Any", app),
                http=cast("Any", partial(Connection, app.limits)),
                ws="none",
                lifespan="off",
                log_config=None,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=max(1, round(drain_s)),
            )
        )
        self._app = app
        self.opened = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell who waits for it."""
        await super().startup(sockets)
        self.opened.set()

    async def on_tick(self, counter: int) -> bool:
        """Hang up on clients that are too slow, ten times a second."""
        self._sweep()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what the kernel has already accepted, answer everything, then close."""
        self._app.draining = True
        end = time.monotonic() + 1.0
        while any(_readable(each) for each in sockets or ()) and time.monotonic() < end:
            await asyncio.sleep(0.005)
        sweeping = asyncio.ensure_future(self._keep_sweeping())
        try:
            await super().shutdown(sockets)
        finally:
            sweeping.cancel()
            for connection in list(self.server_state.connections):
                cast("Connection", connection).transport.abort()
            await asyncio.sleep(0)

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self._sweep()

    def _sweep(self) -> None:
        now = time.monotonic()
        for each in list(self.server_state.connections):
            connection = cast("Connection", each)
            if connection.deadline is not None and now > connection.deadline:
                connection.expire()


class Door:
    """An open address: the socket, the listener, and the thread that it runs on."""

    def __init__(self, app: App, host: str, port: int, drain_s: float) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._pid = os.getpid()
        self._drain_s = drain_s
        self._listener = Listener(app, drain_s)
        self._thread = threading.Thread(target=self._run, name="mlopskit-serving", daemon=True)
        self._socket: socket.socket | None = None

    @property
    def here(self) -> bool:
        """Whether the door belongs to this process: a fork has the object and not the thread."""
        return self._pid == os.getpid()

    @property
    def url(self) -> str:
        """The address that clients use."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def open(self) -> None:
        """Bind, listen and answer.

        Raises:
            BackendError: If the address cannot be bound, or the thread does not come up.
        """
        try:
            self._socket = _bound(self._host, self._port)
        except OSError as exc:
            raise BackendError(
                f"{self._host}:{self._port} cannot be bound: {exc.strerror or exc}. Give another "
                "port, or 0 for any free one."
            ) from exc
        self._port = self._socket.getsockname()[1]
        self._app.draining = False
        self._thread.start()
        while not self._listener.opened.wait(0.05):
            if not self._thread.is_alive():
                self._socket.close()
                raise BackendError("The HTTP door did not open; the log says why.")

    def ping(self, timeout_s: float) -> None:
        """Connect once.

        Raises:
            Unavailable: If nobody listens.
        """
        try:
            socket.create_connection((self._host, self._port), timeout_s).close()
        except OSError as exc:
            raise Unavailable(self.url, exc.strerror or exc) from exc

    def close(self) -> None:
        """Answer what was accepted, and close."""
        self._listener.should_exit = True
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                runner.run(self._listener.serve(sockets=[cast("socket.socket", self._socket)]))
        except Exception:
            logger.exception("The HTTP door at %s failed.", self.url)


def _bound(host: str, port: int) -> socket.socket:
    family, kind, number, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, number)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _readable(sock: Any) -> bool:
    """Tell whether bytes or connections wait at a socket, without taking them."""
    try:
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return False


def _raw(status: int, text: str) -> bytes:
    body = msgspec.json.encode({"error": text})
    retry = b"retry-after: 1\r\n" if status == 503 else b""
    return (
        (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            "content-type: application/json\r\nx-content-type-options: nosniff\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n"
        ).encode()
        + retry
        + b"\r\n"
        + body
    )

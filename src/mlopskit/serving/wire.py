"""One kept HTTP/1.1 connection of a client: a request in one packet, an answer read to its end.

The standard library's client parses headers as if they were mail and sends twice; on small requests
that is most of the cost. Answers may be of known length, chunked, or end with the connection.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

LONGEST_LINE: Final = 65536
MOST_HEADERS: Final = 256


class Broken(OSError):
    """The connection ended or spoke something else before the answer was complete.

    Attributes:
        early: Whether not one byte of an answer had come.
    """

    def __init__(self, reason: str, *, early: bool) -> None:
        super().__init__(reason)
        self.early = early


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection, for one thread at a time.

    Args:
        host: The server's name or address.
        port: Its port.
        timeout_s: How long each wait for the network may take, in seconds.
        secure: The TLS settings, or None for plain HTTP.

    Raises:
        OSError: If the server cannot be reached.
    """

    def __init__(
        self, host: str, port: int, timeout_s: float, secure: ssl.SSLContext | None = None
    ) -> None:
        plain = socket.create_connection((host, port), timeout_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = secure.wrap_socket(plain, server_hostname=host) if secure else plain
        except BaseException:
            plain.close()
            raise
        self._reader = self._socket.makefile("rb", 65536)
        self.used = False
        self.open = True

    def exchange(self, request: bytes) -> Response:
        """Send one request, and return its answer. `open` tells whether another may follow.

        Raises:
            Broken: If the connection ends before the answer does.
            OSError: If the network fails, or takes longer than the timeout.
        """
        try:
            self._socket.sendall(request)
        except (BrokenPipeError, ConnectionResetError) as exc:
            # The server may have answered before it hung up: too large a body is such a case.
            try:
                return self._response()
            except OSError:
                raise Broken(str(exc), early=True) from exc
        return self._response()

    def close(self) -> None:
        """Hang up."""
        self.open = False
        self._reader.close()
        self._socket.close()

    def _response(self) -> Response:
        self.open = False  # Until the answer is complete.
        while True:
            status, version = self._status()
            headers = self._headers()
            if status >= 200:
                break  # What came before was "100 Continue".
        keep = headers.get("connection", "").lower() != "close" and version != "HTTP/1.0"
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = self._chunks()
        elif "content-length" in headers:
            body = self._exactly(_number(headers["content-length"], 10))
        elif status in (204, 304):
            body = b""
        else:
            body, keep = self._reader.read(), False
        self.open = keep
        self.used = True
        return Response(status, headers, body)

    def _status(self) -> tuple[int, str]:
        try:
            line = self._reader.readline(LONGEST_LINE)
        except ConnectionResetError as exc:
            raise Broken(str(exc), early=True) from exc
        if not line:
            raise Broken("it closed the connection without an answer", early=True)
        parts = line.split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            raise Broken("it does not speak HTTP/1.1", early=False)
        return int(parts[1]), parts[0].decode("ascii", "replace")

    def _headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for _ in range(MOST_HEADERS):
            line = self._reader.readline(LONGEST_LINE)
            if line in (b"\r\n", b"\n"):
                return found
            name, colon, value = line.partition(b":")
            if not colon:
                break
            found[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
        raise Broken("its headers do not end", early=False)

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        while True:
            size = _number(self._reader.readline(LONGEST_LINE).partition(b";")[0].decode(), 16)
            if size == 0:
                self._headers()
                return b"".join(parts)
            parts.append(self._exactly(size))
            self._exactly(2)

    def _exactly(self, size: int) -> bytes:
        body: bytes = self._reader.read(size)
        if len(body) != size:
            raise Broken("it closed the connection within its answer", early=False)
        return body


def _number(text: str, base: int) -> int:
    try:
        return int(text.strip(), base)
    except ValueError as exc:
        raise Broken("a length in its answer is no number", early=False) from exc

"""One try to post a message: to one address that was looked up once, and within one time."""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mlopskit._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlopskit.registry.webhooks.config import Webhook

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Beside the link-local ones: where clouds tell a machine its own credentials. In this order:
# Alibaba, Oracle, Azure, AWS (instances, and pods of EKS), Google, Scaleway.
METADATA: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "100.100.100.200/32",
        "192.0.0.192/32",
        "168.63.129.16/32",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
        "fd00:42::42/128",
    )
)
# Prefixes of addresses of version 6 that end with one of version 4: NAT64, and the oldest form.
_ENDS_WITH_V4: Final = tuple(
    ipaddress.IPv6Network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")
)
# So much of an answer is read, so that the server can finish it. Nothing is done with it.
_READ: Final = 1 << 16
LONGEST_PAUSE_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a try.

    Attributes:
        status: The status of the answer; 0 if there was none.
        error: Why it counts as failed; nothing if it was taken.
        retry_after_s: How long the other side asks to be left alone.
    """

    status: int = 0
    error: str = ""
    retry_after_s: float = 0.0


def post(webhook: Webhook, headers: Mapping[str, str], body: bytes) -> Answer:
    """Post a body once. Redirects are not followed, and no proxy is asked."""
    deadline = time.monotonic() + webhook.timeout_s
    try:
        return _posted(webhook, headers, body, deadline)
    except TimeoutError:
        return Answer(error=f"no answer within {webhook.timeout_s:g} seconds")
    except Exception as exc:  # noqa: BLE001 - whatever happened on the way, it was not delivered
        if isinstance(exc, http.client.HTTPException) and not isinstance(exc, OSError):
            # These quote the answer, and an answer may quote the path, which may be a secret.
            return Answer(error=f"the answer is not HTTP ({type(exc).__name__})")
        return Answer(error=f"{type(exc).__name__}: {exc}"[:300])


def _posted(webhook: Webhook, headers: Mapping[str, str], body: bytes, deadline: float) -> Answer:
    parts = urlsplit(webhook.url)
    host, secure = str(parts.hostname), parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    addresses = [found[4] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    refused = [str(each[0]) for each in addresses if not webhook.allow_link_local and _is_own(each)]
    if refused:
        return Answer(
            error=f"the host is at {refused[0]}, a link-local or metadata address; "
            "allow_link_local = true would allow it"
        )
    context = ssl.create_default_context() if secure else None
    connection = (
        http.client.HTTPSConnection(host, port, context=context)
        if context
        else http.client.HTTPConnection(host, port)
    )
    plain = _connected(addresses, deadline)
    try:
        connection.sock = plain
        if context:
            plain.settimeout(_left(deadline))  # Of the whole handshake.
            connection.sock = context.wrap_socket(plain, server_hostname=host)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {
            "content-type": "application/json",
            "user-agent": f"mlopskit/{__version__}",
            "connection": "close",
            **headers,
        }
        connection.sock.settimeout(_left(deadline))
        connection.request("POST", path, body, sent)
        timed = _Timed(connection.sock, deadline)
        answer: Any = http.client.HTTPResponse(timed, method="POST")  # type: ignore[arg-type]
        answer.begin()
        with suppress(OSError, http.client.HTTPException):
            answer.read(_READ)
        return _answer(answer.status, answer.getheader("retry-after"))
    finally:
        connection.close()
        plain.close()


def _answer(status: int, retry_after: str | None) -> Answer:
    if 200 <= status < 300:
        return Answer(status)
    why = "; redirects are not followed" if 300 <= status < 400 else ""
    return Answer(status, f"HTTP {status}{why}", _pause(retry_after))


def _pause(retry_after: str | None) -> float:
    """Return the seconds that a Retry-After header asks for: a number, or a date."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_PAUSE_S)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max((when - datetime.now(UTC)).total_seconds(), 0.0), LONGEST_PAUSE_S)


def _connected(addresses: list[Any], deadline: float) -> socket.socket:
    failed: OSError = OSError("the host has no address")
    for address in addresses:
        family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.settimeout(_left(deadline))
            found.connect(address)
        except OSError as exc:
            found.close()
            failed = exc
        else:
            return found
    raise failed


def _is_own(address: tuple[Any, ...]) -> bool:
    """Tell whether an address leads to the machine's neighbours or its cloud's metadata."""
    plain = ipaddress.ip_address(str(address[0]).partition("%")[0])
    return any(
        each.is_link_local or any(each in network for network in METADATA) for each in _meant(plain)
    )


def _meant(address: Address) -> Iterator[Address]:
    """Yield an address, and the one of version 4 that it stands for."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour]
        if any(address in prefix for prefix in _ENDS_WITH_V4):
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        yield from (each for each in inner if each is not None)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed(io.RawIOBase):
    """What a socket receives until a time; a server that sends a byte a second gains nothing."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - what http.client calls
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)

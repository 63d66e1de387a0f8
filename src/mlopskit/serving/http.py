"""The Open Inference Protocol over HTTP, as an ASGI application without a framework.

It routes, guards and limits; what a request means is `protocol`'s business, who answers it is
`traffic`'s. Decoding, the model and encoding run in one hop on a few threads, so that the event
loop always has time for health checks.
"""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlopskit._version import __version__
from mlopskit.errors import InvalidInput, NotFound
from mlopskit.serving import pages, protocol
from mlopskit.serving.tensors import shown
from mlopskit.serving.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from mlopskit.serving.traffic import Traffic

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Headers = dict[bytes, bytes]

logger = logging.getLogger(__name__)

JSON: Final = (b"content-type", b"application/json")
OCTETS: Final = (b"content-type", b"application/octet-stream")
NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
# What a web page can send anywhere without asking first. None of them is an inference request.
FROM_FORMS: Final = (b"text/plain", b"multipart/", b"application/x-www-form-urlencoded")
EXTENSIONS: Final = ["binary_tensor_data", "model_configuration", "statistics"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask for.

    Attributes:
        body_bytes: The largest body.
        buffered_bytes: The most bytes of bodies held at once, over all requests.
        header_bytes: The longest request line and headers.
        header_lines: The most headers.
        header_s: How long the headers may take, in seconds.
        body_s: How long the whole request may take to arrive, in seconds.
        request_s: How long an answer may take once the request is there, in seconds.
        connections: The most open connections.
        threads: How many requests are inside models at once.
        queue: How many more may wait.
    """

    body_bytes: int = 16 * 1024 * 1024
    buffered_bytes: int = 256 * 1024 * 1024
    header_bytes: int = 16 * 1024
    header_lines: int = 100
    header_s: float = 5.0
    body_s: float = 30.0
    request_s: float = 30.0
    connections: int = 256
    threads: int = 2
    queue: int = 256


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer."""

    status: int
    pieces: list[bytes]
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)


class Refused(Exception):
    """A request that is not answered, with the status and the text that say so."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.reply = refusal(status, text, *headers)


class App:
    """The ASGI application of one server.

    Args:
        traffic: The models.
        limits: What a client may ask for.
        token: What requests must carry as a bearer token; None lets every request in.
        host: The address that the server binds: beside the names of loopback the only one that a
            request may name as its host, unless there is a token.
    """

    def __init__(
        self, traffic: Traffic, limits: Limits, *, token: str | None = None, host: str = ""
    ) -> None:
        self.limits = limits
        self.draining = False
        self._traffic = traffic
        self._token = None if token is None else f"Bearer {token}".encode()
        self._hosts = {b"localhost", b"127.0.0.1", b"::1", host.encode()}
        self._workers = Workers(limits.threads)
        self._inside = 0
        self._buffered = 0

    def close(self) -> None:
        """Let the threads go."""
        self._workers.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _not_http(scope["type"], receive, send)
            return
        headers: Headers = dict(scope["headers"])
        try:
            self._guard(scope, headers)
            reply = await self._routed(scope, headers, receive)
        except Refused as exc:
            reply = exc.reply
        except _Gone:
            return
        except Exception:
            logger.exception("The server failed on %s.", ascii(scope["path"]))
            reply = refusal(500, "the server failed")
        body = b"".join(reply.pieces)
        await send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": [
                    *reply.headers,
                    NOSNIFF,
                    (b"content-length", str(len(body)).encode()),
                    *([(b"connection", b"close")] if self.draining else []),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    def _guard(self, scope: Message, headers: Headers) -> None:
        """Refuse who may not ask at all."""
        host = headers.get(b"host", b"")
        if self._token is not None:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._token):
                challenge = (b"www-authenticate", b"Bearer")
                raise Refused(401, "A bearer token is needed, and it must be right.", challenge)
        elif _name_of(host) not in self._hosts:
            # Without a token a name that a web page's owner made point here must not open the door.
            raise Refused(403, "This host name is not served.")
        origin = headers.get(b"origin")
        if origin is not None and origin not in (b"http://" + host, b"https://" + host):
            raise Refused(403, "Requests from other web pages are not answered.")
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").strip().lower()
            if kind.startswith(FROM_FORMS):
                raise Refused(415, "Send application/json or application/octet-stream.")
            if headers.get(b"content-encoding", b"identity") not in (b"identity", b""):
                raise Refused(415, "Compressed bodies are not taken.")

    async def _routed(self, scope: Message, headers: Headers, receive: Receive) -> Reply:
        method, parts = scope["method"], scope["path"].removesuffix("/").split("/")
        if parts[:2] == ["", "v2"]:
            if method == "POST":
                return await self._posted(parts[2:], headers, receive)
            if method in ("GET", "HEAD"):
                return self._got(parts[2:])
            raise Refused(405, "This address answers GET or POST.", (b"allow", b"GET, HEAD, POST"))
        raise Refused(404, "There is nothing at this address.")

    async def _posted(self, parts: list[str], headers: Headers, receive: Receive) -> Reply:
        match parts:
            case ["models", name, "infer"]:
                return await self._infer(name, None, headers, receive)
            case ["models", name, "versions", version, "infer"]:
                return await self._infer(name, version, headers, receive)
            case ["repository", "index"]:
                return self._index(await self._body(headers, receive))
            case ["repository", "models", _, "load" | "unload"]:
                raise Refused(403, "Loading and unloading over the network is off.")
        raise Refused(404, "There is nothing to post to at this address.")

    def _got(self, parts: list[str]) -> Reply:
        match parts:
            case []:
                return page({"name": "mlopskit", "version": __version__, "extensions": EXTENSIONS})
            case ["health", "live"]:
                return page({"live": True})
            case ["health", "ready"]:
                return page({"ready": not self.draining}, 503 if self.draining else 200)
            case ["models", "stats"]:
                return page(pages.all_stats(self._traffic))
            case ["models", name, "versions", version, *rest]:
                return self._about(name, version, rest)
            case ["models", name, *rest]:
                return self._about(name, None, rest)
        raise Refused(404, "There is nothing at this address.")

    async def _infer(
        self, name: str, version: str | None, headers: Headers, receive: Receive
    ) -> Reply:
        if not self._traffic.knows(name, version):
            raise _unknown(name, version)
        if self._inside >= self.limits.threads + self.limits.queue:
            raise Refused(503, "Too many requests are waiting.", (b"retry-after", b"1"))
        self._inside += 1
        try:
            body = await self._body(headers, receive)
            length = headers.get(protocol.HEADER_LENGTH.encode())
            text = None if length is None else length.decode("latin-1")
            reply: Reply = await self._workers.run(
                self.limits.request_s, self._answer, name, version, body, text
            )
        except TimeoutError:
            raise Refused(504, "The model did not answer in time.") from None
        else:
            return reply
        finally:
            self._inside -= 1

    def _answer(self, name: str, version: str | None, body: bytes, length: str | None) -> Reply:
        """Decode, predict and encode, on a thread of the pool."""
        request_id = ""
        try:
            request = protocol.decode_request(body, length)
            request_id = request.id
            with self._traffic.borrowed(name, version, request_id) as served:
                outputs = served.answer(request.inputs)
                pieces, head = protocol.encode_response(name, served.version, request, outputs)
        except InvalidInput as exc:
            return refusal(400, str(exc))
        except NotFound:
            return _unknown(name, version).reply
        except BaseException:
            # What left the model, SystemExit too: told in the log, where callers cannot read it.
            logger.exception("Request %s to %s failed.", ascii(request_id), name)
            return refusal(500, "the model failed")
        if head is None:
            return Reply(200, pieces)
        where = (protocol.HEADER_LENGTH.encode(), str(head).encode())
        return Reply(200, pieces, (OCTETS, where))

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """Read a body, counting while it comes."""
        limit = self.limits.body_bytes
        too_large = f"The body is larger than {limit} bytes."
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            raise Refused(413, too_large)
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                part: bytes = message.get("body", b"")
                size += len(part)
                self._buffered += len(part)
                if size > limit:
                    raise Refused(413, too_large)
                if self._buffered > self.limits.buffered_bytes:
                    raise Refused(503, "Too much is being sent at once.", (b"retry-after", b"1"))
                parts.append(part)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            self._buffered -= size

    def _index(self, body: bytes) -> Reply:
        try:
            ask = msgspec.json.decode(body, type=dict[str, bool | str]) if body.strip() else {}
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise Refused(400, "This is no request for the index.") from None
        del ask  # It can only leave out what is not ready, and all that is here is.
        return page(pages.index(self._traffic))

    def _about(self, name: str, version: str | None, rest: list[str]) -> Reply:
        if not self._traffic.knows(name, version):
            raise _unknown(name, version)
        try:
            match rest:
                case []:
                    return page(pages.metadata(self._traffic, name, version))
                case ["ready"]:
                    return page({"name": name, "ready": True})
                case ["config"]:
                    return page(pages.config(self._traffic, name, version))
                case ["stats"]:
                    return page(pages.stats(self._traffic, name, version))
        except NotFound:
            raise _unknown(name, version) from None  # It has just been taken out of service.
        if rest == ["infer"]:
            raise Refused(405, "This address answers POST.", (b"allow", b"POST"))
        raise Refused(404, "There is nothing at this address.")


class _Gone(Exception):
    """The client went away before its request was complete."""


def page(content: Any, status: int = 200) -> Reply:
    """Return an answer in JSON."""
    return Reply(status, [msgspec.json.encode(content)])


def refusal(status: int, text: str, *headers: tuple[bytes, bytes]) -> Reply:
    """Return an error as the protocol's clients read it."""
    return Reply(status, [msgspec.json.encode({"error": text})], (JSON, *headers))


def _unknown(name: str, version: str | None) -> Refused:
    of = "" if version is None else f" with a version {shown(version)}"
    return Refused(404, f"There is no model {shown(name)}{of}.")


def _name_of(host: bytes) -> bytes:
    """Return the name in a Host header, in lower case and without its port."""
    if host.startswith(b"["):
        return host[1:].partition(b"]")[0].lower()
    return host.partition(b":")[0].lower()


async def _not_http(kind: str, receive: Receive, send: Send) -> None:
    """Play along where another server mounts the application."""
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1000})
        return
    while kind == "lifespan":
        phase = (await receive())["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{phase}.complete"})
        if phase == "shutdown":
            return

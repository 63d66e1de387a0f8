"""A small client of the Open Inference Protocol v2: any server, raw tensors, kept connections."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlsplit

import msgspec

from mlopskit.errors import BackendError, ConfigError, InvalidInput, NotFound, Unavailable
from mlopskit.serving import protocol, tensors
from mlopskit.serving.wire import Broken, Response, Wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import numpy as np

    Array = np.ndarray[Any, Any]

_BUSY: Final = (408, 429, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a server.

    Attributes:
        name: The model that answered.
        version: The version that answered; empty where the server does not say.
        request_id: The id that the request carried.
        outputs: Arrays by output name.
    """

    name: str
    version: str
    request_id: str
    outputs: dict[str, Array]


class InferenceClient:
    """Asks a model server over HTTP, with binary tensors. Threads may share it.

    Args:
        url: Where the server is, such as ``http://127.0.0.1:8080``.
        token: What it wants as a bearer token.
        timeout_s: How long one request may take, in seconds.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no address of a server. Write http://host:port.")
        self.url = url.rstrip("/")
        self._secure = ssl.create_default_context() if parts.scheme == "https" else None
        self._address = (parts.hostname, parts.port or (443 if self._secure else 80))
        self._base = parts.path.rstrip("/")
        self._headers = f"Host: {parts.netloc.rpartition('@')[2]}\r\n"
        if token is not None:
            if not token.isascii() or not token.isprintable():
                raise ConfigError("A token is printable ASCII.")
            self._headers += f"Authorization: Bearer {token}\r\n"
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._free: list[Wire] = []

    def live(self) -> bool:
        """Tell whether the server works."""
        return self._asked("/v2/health/live")

    def ready(self, name: str | None = None) -> bool:
        """Tell whether the server, or one of its models, answers requests."""
        where = "/v2/health/ready" if name is None else f"/v2/models/{quote(name, safe='')}/ready"
        return self._asked(where)

    def metadata(self, name: str) -> dict[str, Any]:
        """Return the server's page about a model.

        Raises:
            NotFound: If it has no such model.
        """
        response = self._checked("GET", f"/v2/models/{quote(name, safe='')}", name)
        try:
            found: dict[str, Any] = msgspec.json.decode(response.body, type=dict[str, Any])
        except msgspec.MsgspecError as exc:
            raise BackendError(f"{self.url} answered with something that is no JSON.") from exc
        return found

    def predict(
        self, name: str, inputs: Mapping[str, Any], version: str | None = None
    ) -> dict[str, Array]:
        """Return the model's outputs. Takes and raises what `infer` does."""
        return self.infer(name, inputs, version).outputs

    def infer(
        self,
        name: str,
        inputs: Mapping[str, Any],
        version: str | None = None,
        *,
        request_id: str = "",
        outputs: Sequence[str] | None = None,
    ) -> Answer:
        """Ask a model, and return the whole answer.

        Args:
            name: The model.
            inputs: Arrays, or what numpy makes an array of, by input name.
            version: The version to ask; by default the one that the server chooses.
            request_id: A word that comes back with the answer, and keeps the choice sticky.
            outputs: The outputs to return; all by default.

        Raises:
            NotFound: If the server has no such model or version.
            InvalidInput: If it refuses the request, with its own words.
            Unavailable: If it cannot be reached, or is too busy.
            BackendError: If it fails.
        """
        arrays = {each: tensors.as_array(each, value, copy=False) for each, value in inputs.items()}
        pieces, length = protocol.encode_request(arrays, request_id, outputs)
        path = f"/v2/models/{quote(name, safe='')}"
        if version is not None:
            path += f"/versions/{quote(str(version), safe='')}"
        headers = (
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {length}\r\n"
        )
        response = self._checked("POST", f"{path}/infer", name, headers, pieces)
        try:
            message, found = protocol.decode_response(
                response.body, response.headers.get(protocol.HEADER_LENGTH)
            )
        except InvalidInput as exc:
            raise BackendError(f"{self.url} gave an answer that cannot be read: {exc}") from exc
        return Answer(message.model_name, message.model_version, message.id, found)

    def close(self) -> None:
        """Close the kept connections. The client may be used again."""
        with self._lock:
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _asked(self, path: str) -> bool:
        try:
            return self._exchange("GET", path).status == 200
        except Unavailable:
            return False

    def _checked(
        self, method: str, path: str, name: str, headers: str = "", pieces: Sequence[bytes] = ()
    ) -> Response:
        response = self._exchange(method, path, headers, pieces)
        status = response.status
        if status == 200:
            return response
        said = _error(response.body)
        if status == 404:
            raise NotFound("model", name) from BackendError(f"{self.url} says: {said}")
        if status in (400, 413, 415, 422):
            raise InvalidInput(f"{self.url} refused the request: {said}")
        if status in _BUSY:
            raise Unavailable(self.url, said)
        raise BackendError(f"{self.url} answered {status}: {said}")

    def _exchange(
        self, method: str, path: str, headers: str = "", pieces: Sequence[bytes] = ()
    ) -> Response:
        """Send one request; once more where a kept connection turns out to be closed."""
        if method == "POST":
            headers += f"Content-Length: {sum(map(len, pieces))}\r\n"
        head = f"{method} {self._base}{path} HTTP/1.1\r\n{self._headers}{headers}\r\n".encode()
        request = b"".join([head, *pieces])
        while True:
            with self._lock:
                wire = self._free.pop() if self._free else None
            try:
                if wire is None:
                    wire = Wire(*self._address, self._timeout_s, self._secure)
                response = wire.exchange(request)
            except OSError as exc:
                if wire is not None:
                    wire.close()
                    if wire.used and isinstance(exc, Broken) and exc.early:
                        continue  # Each round uses up one kept connection, so that this ends.
                raise Unavailable(self.url, exc) from exc
            except BaseException:
                if wire is not None:
                    wire.close()  # Interrupted: what comes next on it would answer this request.
                raise
            if wire.open:
                with self._lock:
                    self._free.append(wire)
            else:
                wire.close()
            return response


def _error(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any])["error"])[:500]
    except (msgspec.MsgspecError, ValueError, KeyError):
        return "it gave no reason"

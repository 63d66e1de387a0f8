"""A small client of the Open Inference Protocol v2: any server, raw tensors, kept connections."""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlsplit

import msgspec

from mlopskit.errors import BackendError, ConfigError, InvalidInput, NotFound, Unavailable
from mlopskit.serving import protocol, tensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import numpy as np

    Array = np.ndarray[Any, Any]

# What a kept connection raises when the server has closed it in the meantime.
_STALE: Final = (http.client.RemoteDisconnected, ConnectionError, http.client.BadStatusLine)
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
        self._secure = parts.scheme == "https"
        self._address = (parts.hostname, parts.port)
        self._base = parts.path.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._free: list[http.client.HTTPConnection] = []

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
        body, _ = self._checked("GET", f"/v2/models/{quote(name, safe='')}", name)
        try:
            found: dict[str, Any] = msgspec.json.decode(body)
        except msgspec.DecodeError as exc:
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
        arrays = {each: tensors.as_array(each, value) for each, value in inputs.items()}
        pieces, length = protocol.encode_request(arrays, request_id, outputs)
        path = f"/v2/models/{quote(name, safe='')}"
        if version is not None:
            path += f"/versions/{quote(str(version), safe='')}"
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(length),
        }
        body, head = self._checked("POST", f"{path}/infer", name, b"".join(pieces), headers)
        try:
            message, found = protocol.decode_response(body, head)
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
            status, _, _ = self._exchange("GET", path, b"", {})
        except Unavailable:
            return False
        return status == 200

    def _checked(
        self,
        method: str,
        path: str,
        name: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, str | None]:
        status, found, head = self._exchange(method, path, body, headers or {})
        if status == 200:
            return found, head
        said = _error(found)
        if status == 404:
            raise NotFound("model", name) from BackendError(f"{self.url} says: {said}")
        if status in (400, 413, 415, 422):
            raise InvalidInput(f"{self.url} refused the request: {said}")
        if status in _BUSY:
            raise Unavailable(self.url, said)
        raise BackendError(f"{self.url} answered {status}: {said}")

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes, str | None]:
        """Send one request; once more where a kept connection turns out to be closed."""
        while True:
            with self._lock:
                kept = self._free.pop() if self._free else None
            connection = kept or self._connection()
            try:
                connection.request(
                    method, self._base + path, body or None, {**self._headers, **headers}
                )
                response = connection.getresponse()
                found = response.read()
            except _STALE as exc:
                connection.close()
                if kept is None:
                    raise Unavailable(self.url, exc) from exc
                continue  # Each round uses up one kept connection, so that this ends.
            except (OSError, http.client.HTTPException) as exc:
                connection.close()
                raise Unavailable(self.url, exc) from exc
            except BaseException:
                connection.close()
                raise
            if not response.will_close:
                with self._lock:
                    self._free.append(connection)
            else:
                connection.close()
            return response.status, found, response.headers.get(protocol.HEADER_LENGTH)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._address
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(host, port, timeout=self._timeout_s)


def _error(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any])["error"])[:500]
    except (msgspec.MsgspecError, ValueError, KeyError):
        return "it gave no reason"

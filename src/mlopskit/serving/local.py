"""The embedded model server: in process, and over HTTP from a thread of its own."""

from __future__ import annotations

import inspect
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from mlopskit.capabilities import Capabilities
from mlopskit.errors import ConfigError, Unavailable, Unsupported
from mlopskit.hookspecs import hookimpl
from mlopskit.serving import tensors
from mlopskit.serving.base import Server
from mlopskit.serving.door import Door
from mlopskit.serving.http import App, Limits
from mlopskit.serving.predictor import as_predictor
from mlopskit.serving.traffic import Served, Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from mlopskit.serving.entities import Deployment, ModelMetadata, ServerStats
    from mlopskit.serving.rehearsal import Rehearsal

logger = logging.getLogger(__name__)

TOOL = {
    "package": "mlopskit",
    "extra": "local",
    "requires": {
        "httptools": ">=0.6,<1",
        "msgspec": ">=0.19,<1",
        "numpy": ">=2.0,<3",
        "uvicorn": ">=0.53,<1",
    },
}
CAPABILITIES = {
    "http": "native",
    "binary": "native",
    "grpc": "absent: the embedded server has an HTTP door only; use binary tensors over HTTP",
    "bytes": "native",
    "versions": "native",
    "traffic": "native",
    "sticky": "native",
    "shadow": "absent: the embedded server copies no requests; call predict for both versions",
    "drain": "native",
    "token": "native",
    "batching": "absent: every request reaches the model by itself; send several rows in one",
    "stats": "native",
    "repository": "absent: only the process that holds the server can deploy to it",
    "predict_batch": "absent: score a table by calling predict for pieces of it",
}
LOOPBACK = frozenset(["127.0.0.1", "::1", "localhost"])


class LocalServer(Server):
    """Serves models from this process, with nothing else installed or started.

    Without `start` it answers `predict` in process. Started, it answers the Open Inference Protocol
    on its address as well, from threads of its own, until `stop` or `close`.

    Args:
        location: ``host:port``, instead of the next two.
        host: The address to bind. Any other than loopback needs a token.
        port: The port to bind; 0 takes any free one, which `url` then names.
        grpc_port: Must be None: there is no gRPC door.
        token: What every HTTP request must carry as ``Authorization: Bearer``.
        threads: How many requests are inside models at once; the rest wait.
        queue: How many requests may wait; more get 503.
        max_body_bytes: The largest body that is read.
        max_connections: The most connections held open at once; more get 503.
        request_timeout_s: After how long a request gets 504, in seconds.
        drain_timeout_s: How long `stop`, `undeploy` and a replacing `deploy` wait for requests that
            have begun, in seconds.
    """

    def __init__(
        self,
        location: str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        grpc_port: int | None = None,
        token: str | None = None,
        threads: int = 2,
        queue: int = 256,
        max_body_bytes: int = 16 * 1024 * 1024,
        max_connections: int = 256,
        request_timeout_s: float = 30.0,
        drain_timeout_s: float = 30.0,
    ) -> None:
        self._host, self._port = _address(location, host, port)
        if grpc_port is not None:
            reason = CAPABILITIES["grpc"].partition(": ")[2]
            raise Unsupported(self.domain, "local", "grpc", reason)
        if token is not None and (len(token) < 8 or not token.isascii() or " " in token):
            raise ConfigError("The token is 8 or more ASCII characters without blanks.")
        if self._host not in LOOPBACK and token is None:
            raise ConfigError(
                f"{self._host!r} can be reached from other machines, so a token is needed: write "
                "token = '${env:NAME}', or stay on 127.0.0.1."
            )
        self._drain_s = drain_timeout_s
        self._traffic = Traffic()
        limits = Limits(
            body_bytes=max_body_bytes,
            connections=max_connections,
            request_s=request_timeout_s,
            threads=threads,
            queue=queue,
        )
        self._app = App(self._traffic, limits, token=token, host=self._host)
        self._lock = threading.Lock()
        self._door: Door | None = None
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        """What the embedded server can do."""
        return Capabilities(self.domain, "local", CAPABILITIES)

    @property
    def native(self) -> App:
        """The ASGI application, to be mounted in any other server."""
        return self._app

    @property
    def url(self) -> str | None:
        """Where the HTTP door is; None while it is closed."""
        door = self._open_door()
        return None if door is None else door.url

    @property
    def grpc_url(self) -> str | None:
        """Always None: the embedded server has no gRPC door."""
        return None

    def ping(self, timeout_s: float = 5.0) -> None:
        """Check that the server was not closed, and that its door answers where it is open.

        Raises:
            Unavailable: If it was closed, or its door does not answer within the time.
        """
        if self._closed:
            raise Unavailable("The embedded model server", "it was closed")
        door = self._open_door()
        if door is not None:
            door.ping(timeout_s)

    def live(self) -> bool:
        """Tell whether the server works: it does until it is closed."""
        return not self._closed

    def ready(self, name: str | None = None) -> bool:
        """Tell whether requests are answered; with a name, by any version of that model."""
        if self._closed:
            return False
        return name is None or any(each.name == name for each in self._traffic.deployments())

    def models(self) -> list[Deployment]:
        """List every version in service, by name, the last deployed at the end."""
        return self._traffic.deployments()

    def metadata(self, name: str) -> ModelMetadata:
        """Return what the version of a model that was deployed last declares."""
        return self._traffic.metadata(name)

    def stats(self, name: str) -> ServerStats:
        """Return what the versions of a model have done, through every door."""
        return self._traffic.stats(name)

    def start(self) -> None:
        """Open the HTTP door. Starting a started server changes nothing.

        Raises:
            Unavailable: If the server was closed.
            BackendError: If the address cannot be bound.
        """
        with self._lock:
            if self._closed:
                raise Unavailable("The embedded model server", "it was closed")
            if self._door is None or not self._door.here:
                door = Door(self._app, self._host, self._port, self._drain_s)
                door.open()
                self._door = door

    def stop(self) -> None:
        """Close the HTTP door when every accepted request has been answered."""
        with self._lock:
            door, self._door = self._door, None
        if door is not None and door.here:
            door.close()

    def close(self) -> None:
        """Stop, and take every model out of service. Closing twice is fine."""
        self.stop()
        self._closed = True
        for name in {each.name for each in self.models()}:
            self._undeploy(name, None)
        self._app.close()

    def _deploy(
        self,
        name: str,
        source: Any,
        version: str,
        options: Mapping[str, Any],
        rehearsal: Rehearsal,
    ) -> Deployment:
        if self._closed:
            raise Unavailable("The embedded model server", "it was closed")
        predictor = as_predictor(source, options)
        served = Served(name, version, predictor, owned=inspect.isclass(source))
        rehearsal.ask(name, version, partial(_answer, served))
        deployment, replaced = self._traffic.add(served)
        if replaced is not None:
            self._retire(replaced)
        return deployment

    def _undeploy(self, name: str, version: str | None) -> None:
        for served in self._traffic.remove(name, version):
            self._retire(served)

    def _predict(
        self, name: str, inputs: Mapping[str, Any], version: str | None, request_id: str | None
    ) -> dict[str, np.ndarray[Any, Any]]:
        with self._traffic.borrowed(name, version, request_id) as served:
            return _answer(served, inputs)

    def _set_traffic(self, name: str, weights: Mapping[str, float], shadow: str | None) -> None:
        del shadow  # Refused before, by the table of capabilities.
        self._traffic.share(name, weights)

    def _retire(self, served: Served) -> None:
        if not self._traffic.drained(served, self._drain_s):
            logger.warning(
                "Version %r of %r still had requests after %g s; it is left to finish them.",
                served.version,
                served.name,
                self._drain_s,
            )
        elif served.owned:
            try:
                served.predictor.close()
            except Exception:
                logger.exception("Version %r of %r failed to close.", served.version, served.name)

    def _open_door(self) -> Door | None:
        door = self._door
        return door if door is not None and door.here else None


def _answer(served: Served, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return what a version answers to what numpy makes arrays of."""
    specs = {spec.name: spec for spec in served.predictor.inputs or ()}
    arrays = {
        each: tensors.as_array(each, value, specs.get(each)) for each, value in inputs.items()
    }
    return served.answer(arrays)


def _address(location: str | None, host: str, port: int) -> tuple[str, int]:
    """Return host and port; those of the location outrank the other two."""
    if location is not None:
        head, colon, tail = location.rpartition(":")
        if not colon or not head or not tail.isdigit():
            raise ConfigError(f"{location!r} is no address. Write host:port, as 127.0.0.1:8080.")
        host, port = head.removeprefix("[").removesuffix("]"), int(tail)
    if not 0 <= port <= 65535:
        raise ConfigError(f"There is no port {port}. Use 0 for any free one, or up to 65535.")
    return host, port


@hookimpl
def make_server(location: str | None, options: Mapping[str, Any]) -> Server:
    """Build the embedded model server."""
    return LocalServer(location, **options)

"""The model server's interface: what every backend can do, and nothing else.

Names are checked here, once; a backend implements the methods that begin with an underscore.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mlopskit.errors import InvalidInput
from mlopskit.names import check_identifier
from mlopskit.serving.rehearsal import Rehearsal
from mlopskit.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from mlopskit.serving.entities import Deployment, ModelMetadata, ServerStats

CAPABILITIES: Final[Mapping[str, str]] = {
    "http": "The Open Inference Protocol v2 over HTTP, with JSON tensors.",
    "binary": "Tensors travel as raw bytes: exact, and far cheaper than JSON.",
    "grpc": "The Open Inference Protocol v2 over gRPC.",
    "bytes": "Inputs and outputs may be texts or bytes.",
    "versions": "Several versions of a model answer at the same time.",
    "traffic": "Requests are shared out among versions by weight.",
    "sticky": "The same request id always reaches the same version.",
    "shadow": "A version sees copies of requests while another one answers.",
    "drain": "A version that is replaced or removed first finishes what it has begun.",
    "token": "Every request must carry a bearer token.",
    "batching": "Requests that wait at the same time reach the model as one batch.",
    "stats": "Requests, failures and time are counted by version.",
    "repository": "Models are loaded and unloaded over the network.",
    "predict_batch": "A whole table is scored, in pieces and resumably.",
}


class Server(Tool):
    """Holds versions of models and answers requests, in process and over the network."""

    domain: ClassVar[str] = "serving"

    # What callers use.

    def deploy(
        self,
        name: str,
        source: Any,
        version: str | int = "1",
        *,
        example: Any = None,
        **options: Any,
    ) -> Deployment:
        """Load a version and let it answer. When this returns, it is ready.

        A version of that name is replaced: requests it has begun are finished, none is dropped. As
        long as `set_traffic` was not called for the model, requests that name no version go to the
        version that was deployed last.

        Args:
            name: The model's name; it appears in URLs.
            source: A `Predictor`, a subclass of it, or an object with ``predict_proba`` or
                ``predict`` over a two-dimensional array.
            version: The version's name; a number becomes its text.
            example: What the version is asked before it answers anybody: inputs by name, or a pair
                of these and the outputs that they should have, as `Registry.example` returns it.
            options: ``path``, which is handed to the predictor's ``load``, and the backend's own.

        Raises:
            InvalidName: If a name cannot be part of a URL.
            InvalidInput: If the source is nothing that can be served, or an option is unknown.
            BackendError: If loading fails, or the version does not answer its example as it should;
                what was deployed before stays as it was.
        """
        check_identifier("model", name)
        return self._deploy(name, source, _version(version), options, Rehearsal(example))

    def undeploy(self, name: str, version: str | int | None = None) -> None:
        """Take a version, or every version of a model, out of service.

        Requests that it has begun are finished first.

        Raises:
            NotFound: If there is no such model or version.
        """
        self._undeploy(name, None if version is None else _version(version))

    def predict(
        self,
        name: str,
        inputs: Mapping[str, Any],
        version: str | int | None = None,
        *,
        request_id: str | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return the model's outputs for one request.

        Args:
            name: The model's name.
            inputs: Arrays, or what numpy makes an array of, by input name. Texts become UTF-8.
            version: The version to ask; by default the one that the traffic rules choose.
            request_id: What makes the choice among versions sticky.

        Returns:
            Arrays by output name. Texts and bytes come back as an array of objects, all ``bytes``.

        Raises:
            NotFound: If there is no such model or version.
            InvalidInput: If an input is missing, unknown, or has the wrong type or shape.
            BackendError: If the model itself fails; its own exception is the cause.
        """
        return self._predict(
            name, inputs, None if version is None else _version(version), request_id
        )

    def set_traffic(
        self,
        name: str,
        weights: Mapping[str, float],
        shadow: str | None = None,
    ) -> None:
        """Share out the requests that name no version. It takes effect at once.

        Args:
            name: The model's name.
            weights: Non-negative weights by version; they need not add up to one. Versions that
                are not named get nothing.
            shadow: A version that sees copies of all requests and answers none.

        Raises:
            NotFound: If there is no such model or version.
            InvalidInput: If no weight is positive, or one is negative or not finite.
            Unsupported: If the backend has no traffic rules, or no shadow.
        """
        self.capabilities.require(["traffic"] if shadow is None else ["traffic", "shadow"])
        shares = {_version(version): float(weight) for version, weight in weights.items()}
        for version, share in shares.items():
            if not math.isfinite(share) or share < 0:
                raise InvalidInput(f"Version {version!r} cannot have the weight {share}.")
        if not any(shares.values()):
            raise InvalidInput(f"No version of {name!r} has a positive weight: {shares}.")
        self._set_traffic(name, shares, shadow)

    # What a backend implements.

    @abstractmethod
    def live(self) -> bool:
        """Tell whether the server works at all."""

    @abstractmethod
    def ready(self, name: str | None = None) -> bool:
        """Tell whether requests are answered: by one model, or by the server as a whole."""

    @abstractmethod
    def models(self) -> list[Deployment]:
        """List every version of every model, by name, oldest first."""

    @abstractmethod
    def metadata(self, name: str) -> ModelMetadata:
        """Return what is known of a model: its versions, inputs and outputs.

        Raises:
            NotFound: If there is no such model.
        """

    @abstractmethod
    def stats(self, name: str) -> ServerStats:
        """Return what the versions of a model have done since they were deployed.

        Raises:
            NotFound: If there is no such model.
        """

    @abstractmethod
    def start(self) -> None:
        """Open the doors. Starting a started server changes nothing.

        Raises:
            BackendError: If the address cannot be used.
        """

    @abstractmethod
    def stop(self) -> None:
        """Close the doors when every accepted request has been answered.

        Models stay deployed; the server can be started again.
        """

    @property
    @abstractmethod
    def url(self) -> str | None:
        """Where the HTTP door is, such as ``http://127.0.0.1:8080``; None while it is closed."""

    @property
    @abstractmethod
    def grpc_url(self) -> str | None:
        """Where the gRPC door is, such as ``127.0.0.1:8081``; None while there is none."""

    @abstractmethod
    def _deploy(
        self,
        name: str,
        source: Any,
        version: str,
        options: Mapping[str, Any],
        rehearsal: Rehearsal,
    ) -> Deployment:
        """Load a version, let the rehearsal ask it, and only then put it in service."""

    @abstractmethod
    def _undeploy(self, name: str, version: str | None) -> None: ...

    @abstractmethod
    def _predict(
        self, name: str, inputs: Mapping[str, Any], version: str | None, request_id: str | None
    ) -> dict[str, np.ndarray[Any, Any]]: ...

    @abstractmethod
    def _set_traffic(self, name: str, weights: Mapping[str, float], shadow: str | None) -> None: ...


def _version(version: str | int) -> str:
    return check_identifier("version", str(version) if isinstance(version, int) else version)

"""Which version of a model answers a request, and when a version has answered its last one.

Every change of the table is one step under one lock: a request sees the table before or after it,
never between. A version that leaves the table gets no new request, and is closed when the last
one that it had begun is answered.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import contextmanager, nullcontext
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from mlopskit.errors import BackendError, InvalidInput, NotFound
from mlopskit.serving import tensors
from mlopskit.serving.entities import Deployment, ModelMetadata, ServerStats, VersionStats

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from mlopskit.serving.predictor import Predictor

    Array = np.ndarray[Any, Any]

logger = logging.getLogger(__name__)


class ModelFailed(BackendError):
    """The model raised, or answered with something that cannot be an answer."""

    def __init__(self, name: str, version: str, reason: object) -> None:
        super().__init__(f"Version {version!r} of the model {name!r} failed: {reason}")
        self.name = name
        self.version = version


class Served:
    """One version in service: its predictor, its counts, and the requests inside it."""

    def __init__(self, name: str, version: str, predictor: Predictor, *, owned: bool) -> None:
        self.name = name
        self.version = version
        self.predictor = predictor
        self.owned = owned
        self.retired = False
        self.requests = 0
        self.failures = 0
        self.in_flight = 0
        self.seconds = 0.0
        self._one_by_one = nullcontext() if predictor.concurrent else threading.Lock()

    def answer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Return the model's checked outputs for arrays of protocol dtypes.

        Raises:
            InvalidInput: If the inputs are not what the model declares, or it says so itself.
            ModelFailed: If the model raises anything else, or gives no valid answer.
        """
        tensors.check(inputs, self.predictor.inputs, "Input")
        try:
            with self._one_by_one:
                given = self.predictor.predict(inputs)
        except InvalidInput:
            raise  # The model blames the request.
        except Exception as exc:
            reason = f"{type(exc).__name__}: {exc}"
            raise ModelFailed(self.name, self.version, reason) from exc
        try:
            outputs = {
                name: tensors.as_array(name, value, kind="Output") for name, value in given.items()
            }
            tensors.check(outputs, self.predictor.outputs, "Output")
        except (InvalidInput, AttributeError) as exc:
            raise ModelFailed(self.name, self.version, exc) from exc
        if not outputs:
            raise ModelFailed(self.name, self.version, "it gave no outputs")
        return outputs

    def stats(self) -> VersionStats:
        """Return the counts as they are now."""
        return VersionStats(
            requests=self.requests,
            failures=self.failures,
            in_flight=self.in_flight,
            seconds=self.seconds,
        )


class Traffic:
    """The table of models, versions and weights. Every method may be called by any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._models: dict[str, dict[str, Served]] = {}
        self._weights: dict[str, dict[str, float]] = {}

    @contextmanager
    def borrowed(
        self, name: str, version: str | None = None, key: str | None = None
    ) -> Iterator[Served]:
        """Choose a version and count one request in and out of it.

        Args:
            name: The model.
            version: The version, or None to choose by weight.
            key: What makes the choice sticky; without it, it is random.

        Raises:
            NotFound: If there is no such model or version.
        """
        with self._changed:
            served = self._chosen(name, version, key)
            served.in_flight += 1
        failed, start = True, time.perf_counter()
        try:
            yield served
            failed = False
        finally:
            spent = time.perf_counter() - start
            with self._changed:
                served.in_flight -= 1
                served.seconds += spent
                if failed:
                    served.failures += 1
                else:
                    served.requests += 1
                if served.retired and not served.in_flight:
                    self._changed.notify_all()

    def add(self, served: Served) -> tuple[Deployment, Served | None]:
        """Put a version into service.

        Returns:
            Its description, and the version of the same name that it replaces.
        """
        with self._changed:
            versions = self._models.setdefault(served.name, {})
            replaced = versions.pop(served.version, None)
            if replaced is not None:
                replaced.retired = True
            versions[served.version] = served  # At the end: the last deployed gets the traffic.
            return self._deployment(served.name, served.version), replaced

    def remove(self, name: str, version: str | None = None) -> list[Served]:
        """Take versions out of service, and return them; requests may still be inside.

        Raises:
            NotFound: If there is no such model or version.
        """
        with self._changed:
            versions = self._versions(name)
            if version is not None and version not in versions:
                raise NotFound(f"version of {name!r}", version, versions)
            removed = [versions.pop(each) for each in ([version] if version else list(versions))]
            for each in removed:
                each.retired = True
            weights = self._weights.get(name, {})
            for each in removed:
                weights.pop(each.version, None)
            if not any(weights.values()):
                self._weights.pop(name, None)  # Nobody is left to share with.
            if not versions:
                del self._models[name]
            return removed

    def drained(self, served: Served, timeout_s: float) -> bool:
        """Wait until a retired version is empty; tell whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not served.in_flight, timeout_s)

    def idle(self, timeout_s: float) -> bool:
        """Wait until no version has a request; tell whether that is so."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            everything = [each for versions in self._models.values() for each in versions.values()]
        return all(self.drained(each, max(0.0, deadline - time.monotonic())) for each in everything)

    def share(self, name: str, weights: Mapping[str, float]) -> None:
        """Set the weights of a model's versions, all at once.

        Raises:
            NotFound: If there is no such model or version.
        """
        with self._changed:
            versions = self._versions(name)
            for version in weights:
                if version not in versions:
                    raise NotFound(f"version of {name!r}", version, versions)
            self._weights[name] = {each: share for each, share in weights.items() if share > 0}

    def deployments(self) -> list[Deployment]:
        """List every version in service."""
        with self._changed:
            return [
                self._deployment(name, version)
                for name, versions in sorted(self._models.items())
                for version in versions
            ]

    def knows(self, name: str, version: str | None) -> bool:
        """Tell whether a model, or one version of it, is in service."""
        with self._changed:
            versions = self._models.get(name)
            return versions is not None and (version is None or version in versions)

    def metadata(self, name: str, version: str | None = None) -> ModelMetadata:
        """Describe a model by one of its versions: the given one, or the last deployed.

        Raises:
            NotFound: If there is no such model or version.
        """
        with self._changed:
            versions = self._versions(name)
            newest = version if version is not None else next(reversed(versions))
            if newest not in versions:
                raise NotFound(f"version of {name!r}", newest, versions)
            predictor = versions[newest].predictor
            return ModelMetadata(
                name=name,
                versions=tuple(versions),
                platform="python",
                inputs=predictor.inputs or (),
                outputs=predictor.outputs or (),
            )

    def stats(self, name: str) -> ServerStats:
        """Return the counts of a model's versions.

        Raises:
            NotFound: If there is no such model.
        """
        with self._changed:
            versions = self._versions(name)
            return ServerStats(
                name=name, versions={each: served.stats() for each, served in versions.items()}
            )

    def _versions(self, name: str) -> dict[str, Served]:
        versions = self._models.get(name)
        if versions is None:
            raise NotFound("model", name, self._models)
        return versions

    def _chosen(self, name: str, version: str | None, key: str | None) -> Served:
        versions = self._versions(name)
        if version is not None:
            served = versions.get(version)
            if served is None:
                raise NotFound(f"version of {name!r}", version, versions)
            return served
        weights = self._weights.get(name)
        if not weights:
            return versions[next(reversed(versions))]
        point = _point(key) * sum(weights.values())
        for each, share in weights.items():
            point -= share
            if point < 0:
                return versions[each]
        return versions[next(reversed(weights))]  # Rounding may leave a sliver at the end.

    def _deployment(self, name: str, version: str) -> Deployment:
        versions = self._models[name]
        weights = self._weights.get(name) or {next(reversed(versions)): 1.0}
        share = weights.get(version, 0.0) / sum(weights.values())
        return Deployment(name=name, version=version, ready=True, weight=share)


def _point(key: str | None) -> float:
    """Return a number in [0, 1): of the key, always the same; without one, a random one."""
    if not key:
        return random.random()  # noqa: S311 - it shares out requests
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56

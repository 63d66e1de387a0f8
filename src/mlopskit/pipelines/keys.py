"""The key of a step's call: digests of its code, its inputs and its environment."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import StorageError
from mlopskit.pipelines.files import Unstorable
from mlopskit.pipelines.promises import Promise
from mlopskit.pipelines.values import Encoder, digest, only_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.pipelines.fingerprint import CodeReader
    from mlopskit.pipelines.graph import Node, Step

logger = logging.getLogger(__name__)

LAYOUT: Final = 1  # raised when keys or documents change their meaning


class Keys:
    """Computes the keys of one run: what a step's code is, is asked once for all its calls."""

    def __init__(self, reader: CodeReader, *, cache: bool) -> None:
        self._reader = reader
        self._cache = cache
        self._steps: dict[Step[..., Any], list[Any] | str] = {}

    def key(self, node: Node, document_of: Callable[[Promise], Any]) -> tuple[str | None, str]:
        """Return the key of a call, or None and the reason why it has none."""
        step = node.step
        if not (self._cache and step.cache):
            return None, "caching is switched off"
        if step not in self._steps:
            self._steps[step] = self._described(step)
        described = self._steps[step]
        if isinstance(described, str):
            return None, described
        encoder = Encoder(only_digest, lambda promise: _digest_of(promise, document_of))
        try:
            inputs = encoder.document(dict(node.arguments.arguments))
        except (Unstorable, StorageError) as exc:
            return None, f"an input has no digest: {exc}"
        return digest([LAYOUT, described, inputs]), ""

    def _described(self, step: Step[..., Any]) -> list[Any] | str:
        """Return all of a step that is the same for every call, or why that is not known."""
        try:
            code = self._reader.digest(step.function)
        except Exception as exc:
            logger.exception("The code of step %r could not be read.", step.name)
            return f"its code could not be read: {type(exc).__name__}: {exc}"
        environment = [[name, _version(name)] for name in sorted(step.environment)]
        return [step.name, step.version, code, list(sys.version_info[:2]), environment]


def _digest_of(promise: Promise, document_of: Callable[[Promise], Any]) -> Any:
    try:
        return {"$digest": digest(document_of(promise))}
    except KeyError:
        # An item that the document does not show: the whole, and which item.
        whole = document_of(Promise(promise.node))
        return {"$digest": [digest(whole), repr(promise.path)]}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None

"""Values on their way from step to step: whoever may change one in place gets one of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from mlopskit.pipelines import frames
from mlopskit.pipelines.files import Unstorable
from mlopskit.pipelines.promises import Promise, find_promises, resolve
from mlopskit.pipelines.values import part_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.pipelines.graph import Graph, Node
    from mlopskit.pipelines.store import Stored
    from mlopskit.pipelines.values import Decoder

GONE: Final = object()  # stands for a value that is not in memory


@dataclass
class _Made:
    """The value of a step that has finished.

    Attributes:
        stored: Its document, if it could be stored.
        live: The value itself, until nobody needs it any more.
        waiting: How many calls, the output included, have not been given it yet.
    """

    stored: Stored | None
    live: Any
    waiting: int


class Handover:
    """Keeps the values of one run while they are needed, and hands them on."""

    def __init__(self, graph: Graph, decoder: Decoder) -> None:
        self._decoder = decoder
        self._made: dict[str, _Made] = {}
        self._takers: Counter[str] = Counter()
        self._shared: set[Any] = set()
        seen: set[Any] = set()
        for node in graph.nodes:
            self._takers.update(node.parents)
            names = [promise.node for promise in find_promises(node.arguments.arguments)]
            given = [*names, *map(id, _changeable(node.arguments.arguments))]
            for each in given:
                # A step that is tried again must not see what its first try did.
                if each in seen or node.step.retries:
                    self._shared.add(each)
                seen.add(each)
        for promise in find_promises(graph.output):
            if promise.node in seen:
                self._shared.add(promise.node)
            seen.add(promise.node)
            self._takers[promise.node] += 1

    def keep(self, name: str, stored: Stored | None, live: Any) -> None:
        """Take the value of a step; `GONE` if it only has a document."""
        takers = self._takers[name]
        self._made[name] = _Made(stored, live if takers else GONE, takers)

    def given(self, node: Node) -> None:
        """Let go of what only this call needed."""
        for parent in node.parents:
            made = self._made[parent]
            made.waiting -= 1
            if not made.waiting:
                made.live = GONE

    def arguments(self, node: Node) -> dict[str, Any]:
        """Return the arguments of a call by parameter, as its own to change."""
        return {name: self._own(value) for name, value in node.arguments.arguments.items()}

    def output(self, graph: Graph) -> Any:
        """Return the output of a graph."""
        return resolve(graph.output, self.value)

    def document(self, promise: Promise) -> Any:
        """Return the document of a promise's value, for keys and for the output.

        Raises:
            Unstorable: If the value has none.
            KeyError: If the document of the whole does not show this part.
        """
        made = self._made[promise.node]
        if made.stored is None:
            raise Unstorable(f"the value of step {promise.node!r} cannot be stored")
        return part_of(made.stored.document, promise.path)

    def value(self, promise: Promise) -> Any:
        """Return the value of a promise; of one that others use too, a new one every time."""
        made = self._made[promise.node]
        stored, live = made.stored, made.live
        shared = promise.node in self._shared
        if stored is not None and (live is GONE or stored.files or (stored.mutable and shared)):
            try:
                return self._decoder.value(part_of(stored.document, promise.path))
            except KeyError:
                live = self._decoder.value(stored.document)
        for index in promise.path:
            live = live[index]
        return live

    def _own(self, value: Any) -> Any:
        if isinstance(value, Promise):
            return self.value(value)
        kind = type(value)
        if kind in (list, tuple):
            return kind(self._own(item) for item in value)
        if kind is dict:
            return {key: self._own(item) for key, item in value.items()}
        if isinstance(value, list | tuple | dict):
            return resolve(value, self.value)
        shared = id(value) in self._shared
        if shared and isinstance(value, BaseModel):
            return value.model_copy(deep=True)
        return value.copy() if shared or kind is set else value


def _changeable(value: Any) -> Iterator[Any]:
    """Find what is given to a call and could be changed in place, containers aside."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        if isinstance(value, BaseModel) or frames.is_mutable(value):
            yield value
        return
    for item in value:
        yield from _changeable(item)

"""One more callback in the call of a training function, wherever that call has its callbacks."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def and_callback(
    train: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    callback: Any,
    *,
    first: bool = False,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call of `train`, with a callback after those that it has.

    Args:
        train: What is called; it has a parameter ``callbacks``.
        args: The arguments by place.
        kwargs: The arguments by name.
        callback: The callback.
        first: Put it before those that are there.
    """

    def joined(given: Any) -> list[Any]:
        several = list(given) if isinstance(given, list | tuple | set) else [given]
        there = [] if given is None else several
        return [callback, *there] if first else [*there, callback]

    at = list(inspect.signature(train).parameters).index("callbacks")
    if at < len(args):
        return (*args[:at], joined(args[at]), *args[at + 1 :]), kwargs
    return args, {**kwargs, "callbacks": joined(kwargs.get("callbacks"))}

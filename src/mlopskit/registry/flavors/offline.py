"""Work that opens no connection to the network, in the thread that does it."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import UntrustedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVENTS: Final = frozenset(["socket.connect", "socket.getaddrinfo", "socket.gethostbyname"])


class _Thread(threading.local):
    """What this thread is about to load, and the hosts it was kept from."""

    label: str | None = None
    hosts: tuple[str, ...] = ()


_thread = _Thread()


@contextmanager
def offline(label: str) -> Iterator[None]:
    """Refuse what this thread does if it looks up a host, or connects to one.

    The attempt fails where it is made. A caller of it that goes on without is refused at the end.
    Other threads are not concerned, nor connections that are open already, nor libraries that
    open their own outside Python.

    Args:
        label: The model, for the error's message.

    Raises:
        UntrustedModel: If there was an attempt.
    """
    _listen()
    before = _thread.label, _thread.hosts
    _thread.label, _thread.hosts = label, ()
    try:
        yield
    except Exception as exc:
        if _thread.hosts:
            raise _refusal(label) from exc
        raise
    else:
        if _thread.hosts:
            raise _refusal(label)
    finally:
        _thread.label, _thread.hosts = before


def _refusal(label: str) -> UntrustedModel:
    return UntrustedModel(label, f"it reaches for {_thread.hosts[0]} while it is loaded")


@cache
def _listen() -> None:
    # Python has no way to take a hook away; outside the block above it does nothing.
    sys.addaudithook(_heard)


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if event not in _EVENTS or _thread.label is None:
        return
    host = args[1] if event == "socket.connect" else args[0]
    if event == "socket.connect" and not isinstance(host, tuple):  # A socket of this machine.
        return
    _thread.hosts += (str(host[0] if isinstance(host, tuple) else host),)
    raise _refusal(_thread.label)

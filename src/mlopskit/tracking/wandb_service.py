"""W&B's service, the process ``wandb-core`` of this process, and its errors as ours."""

from __future__ import annotations

import atexit
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import wandb
from wandb.errors import AuthenticationError, CommError, UsageError
from wandb.sdk import wandb_setup
from wandb.sdk.lib.service import service_connection
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from mlopskit.errors import InvalidInput, Unavailable
from mlopskit.tracking import exits

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKEN: Final = (
    CommError,
    HandleAbandonedError,
    MailboxClosedError,
    TimeoutError,
    ConnectionError,
    service_connection.WandbAttachFailedError,
)
_service_lock = threading.Lock()
_hooked: set[int] = set()
_open: set[str] = set()


def opening(id: str) -> None:
    """Remember that a run is open at the service from now on, or being opened."""
    _open.add(id)


def closed(id: str) -> None:
    """Forget a run that the service has ended."""
    _open.discard(id)


def service(exit_s: float) -> None:
    """Start W&B's service of this process, unless it runs.

    Never the one of another process, which ``WANDB_SERVICE`` would offer: it ends with that one.
    """
    setup = wandb_setup.singleton()
    with _service_lock, translated("W&B's service"):
        connection: Any = setup._connection
        if connection is not None and _has_ended(connection):
            connection._cleanup()
            setup._connection = connection = None
        if connection is None:
            with setup._connection_lock:
                if setup._connection is None:
                    setup._connection = service_connection._start_and_connect_service(
                        setup.asyncer, setup.settings
                    )
        if os.getpid() not in _hooked:
            # After W&B's own hook, and so before it: what is open ends while the service lives.
            _hooked.add(os.getpid())
            atexit.register(_leave, os.getpid(), exit_s)


def lives() -> bool:
    """Tell whether the service of this process runs."""
    connection: Any = wandb_setup.singleton()._connection
    return connection is not None and not _has_ended(connection)


def _has_ended(connection: Any) -> bool:
    return connection._proc is not None and connection._proc._process.poll() is not None


def _leave(pid: int, exit_s: float) -> None:
    """End what is open at the end of the program, and do not wait for what cannot be sent."""
    if pid != os.getpid():
        return
    deadline = time.monotonic() + exit_s
    exits.end_all()
    setup = wandb_setup.singleton()
    connection: Any = setup._connection
    if connection is None or connection._proc is None:
        return
    while _open and time.monotonic() < deadline:
        time.sleep(0.02)
    foreign = [run for run in setup._active_runs if run.id not in _open]
    if _open and not foreign:
        # The journals keep what the service has not sent.
        connection._cleanup()
        # Its thread would print a traceback when it no longer finds the service.
        connection._finalizer._queue.put(None)
        connection._finalizer._thread.join(1.0)
        connection._proc._process.kill()
        setup._connection = None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn W&B's errors into ours."""
    try:
        yield
    except AuthenticationError as exc:
        raise Unavailable(what, f"{exc} Set WANDB_API_KEY, or run 'wandb login'.") from exc
    except BROKEN as exc:
        raise Unavailable(what, f"{type(exc).__name__}: {exc}") from exc
    except UsageError as exc:
        if "api_key" in str(exc) or "login" in str(exc):
            raise Unavailable(what, f"{exc} Set WANDB_API_KEY.") from exc
        raise InvalidInput(f"W&B does not take it: {exc}") from exc
    except wandb.Error as exc:
        raise Unavailable(what, f"{type(exc).__name__}: {exc}") from exc
    except (ValueError, TypeError) as exc:
        raise InvalidInput(f"W&B does not take it: {exc}") from exc

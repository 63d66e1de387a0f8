"""The way to MLflow: where it is, whether it can be reached, and what its errors mean.

Tracking and the registry are two stores behind one address.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import weakref
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException

try:
    from mlflow.utils.credentials import get_default_host_creds
except ImportError:  # MLflow 2.9 has it elsewhere.
    from mlflow.tracking._tracking_service.utils import (  # type: ignore[no-redef,attr-defined]
        _get_default_host_creds as get_default_host_creds,
    )
from mlflow.utils.rest_utils import http_request
from requests import HTTPError, RequestException
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlopskit.errors import (
    BackendError,
    ConfigError,
    Conflict,
    InvalidInput,
    NotFound,
    Unavailable,
)
from mlopskit.redaction import Redactor
from mlopskit.storage import disk_errors, make_private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from sqlalchemy import Engine

PORTS: Final = {"sqlite": None, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
REFUSED: Final = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
AWAY: Final = ("TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED")
SQL_STORES: Final = (
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
)
# What MLflow's SQL store calls a bad request, and is a database in trouble.
TROUBLE: Final = (
    "QueuePool limit",
    "Can't reconnect",
    "InterfaceError)",
    "InternalError)",
    "DatabaseError)",
    "DisconnectionError)",
)


def checked_uri(uri: str | None) -> str:
    """Return the URI of a store that means the same from every folder.

    Raises:
        ConfigError: If it is a folder.
    """
    uri = uri or "sqlite:///mlflow.db"
    scheme = uri.partition(":")[0].lower() if ":" in uri else ""
    if scheme in ("", "file") or len(scheme) == 1:
        raise ConfigError(
            f"MLflow no longer keeps its records in folders, so {uri!r} cannot be its location. "
            "Use mlflow:sqlite:///mlflow.db, or a server's address; 'mlflow migrate-filestore' "
            "moves what is in the folder."
        )
    if scheme == "sqlite":
        head, _, path = uri.partition(":///")
        return f"{head}:///{Path(path).absolute()}" if path else uri
    return uri.rstrip("/")


def public_uri(uri: str) -> str:
    """Return a tracking URI without a user, a password or the options of its driver."""
    scheme, _, rest = uri.partition("://")
    return uri if scheme == "sqlite" else f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


@contextmanager
def store_lock(uri: str) -> Iterator[None]:
    """Let one process at a time make a database: MLflow's migrations fail when two run at once."""
    path = Path(uri.partition(":///")[2])
    if not uri.startswith("sqlite:///"):
        yield
        return
    make_private_folder(path.parent)
    with disk_errors(path):
        fd = os.open(
            path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def reach(uri: str, target: str, timeout_s: float) -> None:
    """See that somebody answers at a tracking URI: for a database, that its port is open.

    MLflow's own client tries a server for 275 s, and only the environment of the whole process can
    change that.

    Raises:
        Unavailable: If nobody does within the time.
    """
    if uri.startswith(("http://", "https://")):
        with translated(target):
            answer = http_request(  # type: ignore[no-untyped-call]  # MLflow has no types here
                get_default_host_creds(uri),  # type: ignore[no-untyped-call]  # nor here
                "/health",
                "GET",
                max_retries=0,
                timeout=timeout_s,
                raise_on_status=False,
            )
        if answer.status_code >= 500:
            raise Unavailable(target, f"it answers {answer.status_code} {answer.reason}")
        return
    port = PORTS.get(_dialect(uri))
    try:
        place = urlsplit(uri)
        if port is not None and place.hostname:
            address = (place.hostname, place.port or port)
            with closing(socket.create_connection(address, timeout_s)):
                pass
    except (OSError, ValueError) as exc:
        raise Unavailable(target, exc) from exc


def look_into(uri: str) -> None:
    """Connect to a database once, before MLflow does: that tries ten times in 102 s.

    Raises:
        SQLAlchemyError: If it is not to be had, or is none.
        ImportError: If its driver is not installed.
    """
    if _dialect(uri) in PORTS:
        engine = create_engine(uri, poolclass=NullPool)
        inspect(engine).get_table_names()
        engine.dispose()


def remember(client: MlflowClient, *, registry: bool = False) -> None:
    """See that a forked child gets connections of its own to the database of a client.

    Args:
        client: MLflow's.
        registry: Whether it is used for models too, whose store has connections of its own.
    """
    stores = [client._tracking_client.store]
    if registry:
        stores.append(client._get_registry_client().store)  # type: ignore[no-untyped-call]
    for store in stores:
        for name in ("engine", "read_engine"):
            if (engine := getattr(store, name, None)) is not None:
                _engines.add(engine)


def _let_go_in_child() -> None:
    """Forget what a forked child inherited: two processes on one connection get mixed answers.

    MLflow keeps one engine for each address, which may be older than any client of ours.
    """
    engines = set(_engines)
    for name in SQL_STORES:
        store = getattr(sys.modules.get(name), "SqlAlchemyStore", None)
        engines |= set(getattr(store, "_engine_map", {}).values())
    for engine in engines:
        engine.dispose(close=False)


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def translated(target: str, kind: str = "", name: object = "") -> Iterator[None]:
    """Turn the exceptions of MLflow, and of what it stands on, into ours.

    Args:
        target: What cannot be reached if that is the reason.
        kind: What was asked for: a run, a model.
        name: Which one.
    """
    try:
        yield
    except MlflowException as exc:
        raise _translation(exc, target, kind, name) from exc
    except (SQLAlchemyError, RequestException) as exc:
        raise Unavailable(target, Redactor().text(str(exc))) from exc


def _translation(exc: MlflowException, target: str, kind: str, name: object) -> Exception:
    said, code = Redactor().text(str(exc)), exc.error_code
    # So begins what is not the server's own answer: nobody there, or something in between.
    if said.startswith("API request to") or code in AWAY or any(each in said for each in TROUBLE):
        return Unavailable(target, said)
    if code == "RESOURCE_DOES_NOT_EXIST":
        return NotFound(kind, name)
    if code == "RESOURCE_ALREADY_EXISTS" or "Changing param values" in said:
        return Conflict(said)
    return InvalidInput(said) if code in REFUSED else BackendError(said)


def _dialect(uri: str) -> str:
    return uri.partition(":")[0].partition("+")[0]


def is_missing(exc: Exception) -> bool:
    """Tell whether a store of artifacts said, in its own way, that a file is not there."""
    if isinstance(exc, HTTPError):
        return exc.response is not None and exc.response.status_code == 404
    if isinstance(exc, MlflowException):
        return bool(exc.error_code == "RESOURCE_DOES_NOT_EXIST")
    said: Any = getattr(exc, "response", None)  # Of S3's client.
    code = said.get("Error", {}).get("Code") if isinstance(said, dict) else None
    return isinstance(exc, FileNotFoundError) or code in ("404", "NoSuchKey")

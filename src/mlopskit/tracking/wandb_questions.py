"""What a W&B server can be asked of a filter, and asked at all: one question, without retries."""

from __future__ import annotations

import base64
import json
import netrc
import os
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mlopskit.errors import BackendError, Unavailable
from mlopskit.filters import Both, Comparison, In
from mlopskit.tracking import wandb_kept

if TYPE_CHECKING:
    from mlopskit.filters import Filter

REACHED_FOR_S: Final = 5.0
VIEWER: Final = "query Viewer { viewer { id entity username } }"


@dataclass(frozen=True, slots=True)
class Server:
    """Where runs go: a server, and a project of it.

    Attributes:
        base_url: The server.
        api_key: The key; that of the environment or of ``~/.netrc`` if None.
        entity: W&B's entity; None for the default one.
        project: W&B's project.
    """

    base_url: str
    api_key: str | None
    entity: str | None
    project: str


class Asking:
    """A server that answers one question at a time.

    Args:
        server: The server and the project.
        timeout_s: How long it may take to answer before it counts as down.
    """

    def __init__(self, server: Server, timeout_s: float) -> None:
        self.name = f"W&B at {server.base_url.rpartition('@')[2]}"
        self._server = server
        self._timeout_s = timeout_s
        self._reached = -REACHED_FOR_S

    def reach(self) -> None:
        """Make sure that it is there, so that nobody waits for the SDK's retries.

        Raises:
            Unavailable: If it is not.
        """
        if time.monotonic() - self._reached > REACHED_FOR_S:
            self.ask(VIEWER, {})

    def ask(
        self, query: str, variables: dict[str, Any], timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Ask one question, without W&B's retries."""
        name = query.split("(", 1)[0].split("{", 1)[0].split()[1]
        body = json.dumps({"operationName": name, "query": query, "variables": variables})
        auth = base64.b64encode(f"api:{self.key() or ''}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - the address is the user's own
            f"{self._server.base_url}/graphql",
            body.encode(),
            {"Content-Type": "application/json", "Authorization": f"Basic {auth}"},
        )
        try:
            with urllib.request.urlopen(  # noqa: S310 - likewise
                request, timeout=timeout_s or self._timeout_s
            ) as answer:
                said = json.load(answer)
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code in (401, 403):
                why = f"it refuses the key ({exc.code}); set WANDB_API_KEY, or run 'wandb login'"
                raise Unavailable(self.name, why) from exc
            raise Unavailable(self.name, exc) from exc
        except (OSError, ValueError) as exc:
            raise Unavailable(self.name, exc) from exc
        if said.get("errors"):
            raise BackendError(f"W&B does not answer {name}: {said['errors']}")
        self._reached = time.monotonic()
        data: dict[str, Any] = said["data"]
        return data

    def key(self) -> str | None:
        """Return the key that was given, or that of the environment or of ``~/.netrc``."""
        if self._server.api_key or os.environ.get("WANDB_API_KEY"):
            return self._server.api_key or os.environ["WANDB_API_KEY"]
        with suppress(OSError, netrc.NetrcParseError):
            found = netrc.netrc(os.environ.get("NETRC")).authenticators(
                urlsplit(self._server.base_url).hostname or ""
            )
            return found[2] if found else None
        return None


def pushed_down(where: Filter | None) -> list[dict[str, Any]]:
    """Return what W&B's server is asked of a filter: conditions that every match fulfils."""
    if isinstance(where, Both) and where.word == "and":
        return [each for part in where.parts for each in pushed_down(part)]
    if isinstance(where, Comparison) and where.sign == "=" and isinstance(where.value, str):
        return [{_path(where): where.value}] if _path(where) else []
    if isinstance(where, In) and _path(where) and all(isinstance(v, str) for v in where.values):
        return [{_path(where): {"$in": list(where.values)}}]
    return []


def _path(where: Comparison | In) -> str:
    """Return where W&B has a field as we compare it; empty if it may hold it in another form."""
    field = where.field
    values = where.values if isinstance(where, In) else (where.value,)
    plain = all(wandb_kept.is_plain(value) for value in values)
    if field.kind == "params" and field.key.isidentifier() and field.key[0] != "_" and plain:
        return f"config.{field.key}"
    if (field.kind, field.key) == ("attributes", "id"):
        return "name"
    return ""

"""W&B's API over plain HTTP: one question, one answer, no process of W&B's, no retries for minutes.

The questions are those that W&B's SDK asks. Every request has a connection of its own, so that
threads share nothing and a forked child inherits nothing.
"""

from __future__ import annotations

import base64
import http.client
import json
import netrc
import os
import random
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from mlopskit.errors import BackendError, IntegrityError, StorageError, Unavailable
from mlopskit.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TAKEN: Final = 409
BUSY: Final = 429
BUSY_TRIES: Final = 6
LONGEST_PAUSE_S: Final = 5.0
# Of one piece of a file, not of a whole one.
TRANSFER_S: Final = 60.0
CHUNK: Final = 1 << 20
_BROKEN: Final = (OSError, http.client.HTTPException, ValueError)


class Refused(BackendError):
    """The server answered that it does not do what it was asked."""


class Clash(BackendError):
    """Another writer was given what this one asked for: the server answered 409."""


class _Upload(urllib.request.Request):
    """A request with no header that nobody asked for.

    `urllib` adds a type of the content where there is none, and a signed address refuses what it
    was not signed for.
    """

    def has_header(self, header_name: str) -> bool:
        return header_name == "Content-type" or super().has_header(header_name)


class Api:
    """A server that answers one question at a time.

    Args:
        base_url: The server.
        api_key: The key; that of the environment or of ``~/.netrc`` if None.
        timeout_s: How long it may take to answer before it counts as down.
    """

    def __init__(self, base_url: str, api_key: str | None, timeout_s: float) -> None:
        self.name = f"W&B at {base_url.rpartition('@')[2]}"
        self.base_url = base_url
        self._api_key = api_key
        self._timeout_s = timeout_s

    def ask(
        self, query: str, variables: Mapping[str, Any] | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Ask one question.

        Raises:
            Unavailable: If the server cannot be reached, fails, or does not know the key.
            Refused: If it answers with errors.
            Clash: If another writer was quicker.
        """
        name = query.split("(", 1)[0].split("{", 1)[0].split()[1]
        body = {"operationName": name, "query": query, "variables": variables or {}}
        request = urllib.request.Request(  # noqa: S310 - the address is the user's own
            f"{self.base_url}/graphql",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        self._sign(request)
        with self._opened(request, timeout_s or self._timeout_s) as answer:
            try:
                said = json.load(answer)
            except _BROKEN as exc:
                raise Unavailable(self.name, f"its answer to {name} is cut short: {exc}") from exc
        if not isinstance(said, dict):
            raise Unavailable(self.name, f"its answer to {name} is none of W&B's: {said!r:.100}")
        if said.get("errors"):
            whys = "; ".join(_message(each) for each in said["errors"])
            raise Refused(f"{self.name} refuses {name}: {Redactor().text(whys)}")
        data = said.get("data")
        if not isinstance(data, dict):
            raise Unavailable(self.name, f"its answer to {name} has no data")
        return data

    def send(self, url: str, headers: list[str], pieces: Iterator[bytes], size: int) -> None:
        """Upload bytes to an address that the server gave, with the headers that it gave.

        Raises:
            Unavailable: If they do not arrive.
        """
        parts = (each.partition(":") for each in headers)
        given = {name.strip(): value.strip() for name, _, value in parts}
        request = _Upload(
            _escaped(url),
            data=pieces,
            headers={**given, "Content-Length": str(size)},
            method="PUT",
        )
        with self._opened(request, TRANSFER_S) as answer:
            answer.read()

    def fetch(self, url: str, what: str) -> Iterator[bytes]:
        """Yield the bytes at an address that the server gave.

        Raises:
            IntegrityError: If there are none.
            Unavailable: If they do not come whole.
        """
        # Signed addresses refuse a key; those of the server itself may ask for it.
        own = urlsplit(url).netloc == urlsplit(self.base_url).netloc
        request = urllib.request.Request(  # noqa: S310 - the address is the server's
            _escaped(url)
        )
        if own:
            self._sign(request)
        with self._opened(request, TRANSFER_S, what) as answer:
            try:
                while piece := answer.read(CHUNK):
                    yield piece
                # `http.client` does not say that a body ended early.
                left = answer.length
            except _BROKEN as exc:
                raise Unavailable(self.name, f"{what} is cut short: {exc}") from exc
        if left:
            raise Unavailable(self.name, f"{what} is cut short by {left} bytes")

    def key(self) -> str | None:
        """Return the key that was given, or that of the environment or of ``~/.netrc``."""
        found = self._api_key or os.environ.get("WANDB_API_KEY")
        if found:
            return found
        with suppress(OSError, netrc.NetrcParseError):
            host = urlsplit(self.base_url).hostname or ""
            known = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
            return known[2] if known else None
        return None

    def _sign(self, request: urllib.request.Request) -> None:
        """Add the key to a request, and not to where the server may lead it."""
        given = base64.b64encode(f"api:{self.key() or ''}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {given}")

    def _opened(
        self, request: urllib.request.Request, timeout_s: float, what: str = ""
    ) -> http.client.HTTPResponse:
        """Send a request; only one that a busy server has turned away is sent again.

        Args:
            request: The request.
            timeout_s: How long the next bytes may take.
            what: What is missing if there is nothing at the address.
        """
        if request.type not in ("http", "https"):  # `urlopen` would read files of this machine.
            raise BackendError(f"{self.name} is no server, or leads to none: {request.type!r}.")
        number = 0
        while True:
            try:
                answer: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310 - as above
                    request, timeout=timeout_s
                )
            except urllib.error.HTTPError as exc:
                number += 1
                whole = isinstance(request.data, bytes | None)
                if exc.code != BUSY or number == BUSY_TRIES or not whole:
                    raise self._error(exc, what) from exc
                exc.close()
                time.sleep(random.uniform(0.5, 1) * min(LONGEST_PAUSE_S, 0.25 * 2**number))  # noqa: S311 - no secret
            except _BROKEN as exc:
                raise Unavailable(self.name, Redactor().text(str(exc))) from exc
            else:
                return answer

    def _error(self, exc: urllib.error.HTTPError, what: str) -> BackendError | StorageError:
        said = ""
        with exc, suppress(*_BROKEN):
            said = Redactor().text(exc.read(1000).decode(errors="replace"))
        if exc.code in (404, 410) and what:
            return IntegrityError(what, "what was stored", "missing")
        if exc.code in (401, 403) and not what:
            why = f"it refuses the key ({exc.code}); set WANDB_API_KEY, or run 'wandb login'"
            return Unavailable(self.name, why)
        if exc.code == TAKEN:
            return Clash(f"{self.name} answers {exc.code} {exc.reason}: {said}")
        if exc.code < 500 and exc.code not in (408, BUSY):
            return Refused(f"{self.name} answers {exc.code} {exc.reason}: {said}")
        return Unavailable(self.name, f"it answers {exc.code} {exc.reason}")


def _message(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)


def save(pieces: Iterator[bytes], path: Path) -> None:
    """Write bytes to a new file."""
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)


def _escaped(url: str) -> str:
    """Return an address in ASCII; what is escaped in it already stays as it is."""
    return quote(url, safe="%/:?&=+,;@!$'()*~#[]")

"""A webhook as the configuration has it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args
from urllib.parse import SplitResult, urlsplit

from mlopskit.errors import ConfigError, InvalidInput, UnknownOption
from mlopskit.registry.entities import Action
from mlopskit.registry.webhooks.headers import secret_bytes

EVENTS: Final = frozenset(["registered", "promoted", "rolled_back", "alias_set"])
KEYS: Final = ("url", "secret", "events", "tries", "timeout_s", "allow_link_local")


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told what.

    Attributes:
        id: A short name that does not show the URL.
        url: Where messages are posted.
        keys: What signs them.
        events: The actions of the history that are told.
        tries: How often a message is tried before it is set aside.
        timeout_s: How long one try may take.
        allow_link_local: Whether the address may be link-local, or that of a cloud's metadata.
    """

    id: str
    url: str = field(repr=False)
    keys: tuple[bytes, ...] = field(repr=False)
    events: frozenset[str] = EVENTS
    tries: int = 10
    timeout_s: float = 10.0
    allow_link_local: bool = False

    @property
    def shown(self) -> str:
        """The URL without what could be a secret in it: its path and its query."""
        parts = urlsplit(self.url)
        rest = "/..." if parts.path.strip("/") or parts.query else ""
        return f"{parts.scheme}://{parts.netloc}{rest}"


def webhooks_of(given: Any) -> tuple[Webhook, ...]:
    """Read the option ``webhooks``: a table, or a list of tables.

    Raises:
        ConfigError: If one is not complete, or cannot be read.
        UnknownOption: If it has a key that nothing reads.
    """
    if given is None:
        return ()
    tables = [given] if isinstance(given, Mapping) else given
    if not isinstance(tables, Sequence) or isinstance(tables, str | bytes):
        raise ConfigError(
            "webhooks is a list of tables: write [[registry.webhooks]] with url and secret."
        )
    found = tuple(_webhook(each) for each in tables)
    if len({each.id for each in found}) < len(found):
        raise ConfigError("Two webhooks have one URL. Put the events of both into one of them.")
    return found


def _webhook(table: Any) -> Webhook:
    if not isinstance(table, Mapping):
        raise ConfigError("A webhook is a table with url and secret.")
    for key in table:
        if key not in KEYS:
            raise UnknownOption("option", str(key), KEYS, "a webhook")
    url = _url(table.get("url"))
    return Webhook(
        id=hashlib.sha256(url.encode()).hexdigest()[:12],
        url=url,
        keys=_keys(table.get("secret")),
        events=_events(table.get("events")),
        tries=int(_number(table, "tries", 10, 1, 1000)),
        timeout_s=_number(table, "timeout_s", 10.0, 0.01, 600),
        allow_link_local=_yes(table, "allow_link_local"),
    )


def _url(given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise ConfigError("A webhook needs a url, such as 'https://example.com/hooks'.")
    parts = _split(given)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("A webhook's url begins with https:// or http:// and a host.")
    if not given.isascii() or not given.isprintable() or " " in given:
        raise ConfigError(
            "A webhook's url holds a character that no URL can have. Write it escaped, such as %20."
        )
    if "@" in parts.netloc:
        raise ConfigError(
            "A webhook's url has a user or password in it. Messages are signed with the secret; "
            "leave it out."
        )
    return given.partition("#")[0]


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # A port that is no number, or a bracket that is not closed.
        return None
    return parts


def _keys(given: Any) -> tuple[bytes, ...]:
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, Sequence) or not listed:
        raise ConfigError("A webhook needs a secret. Write secret = '${env:NAME}'.")
    try:
        return tuple(secret_bytes(each) for each in listed)
    except InvalidInput as exc:
        raise ConfigError(str(exc)) from exc


def _events(given: Any) -> frozenset[str]:
    if given is None:
        return EVENTS
    known = get_args(Action)
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ConfigError(f"events is {given!r}. Write a list of: {', '.join(known)}.")
    for each in given:
        if each not in known:
            raise UnknownOption("event", str(each), known, "a webhook")
    return frozenset(given)


def _yes(table: Mapping[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} of a webhook is {value!r}. Write true or false, without quotes.")
    return value


def _number(table: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigError(
            f"{key} of a webhook is {value!r}. Write a number from {least} to {most}."
        )
    return value

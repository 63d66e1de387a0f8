"""Keeps secrets out of everything that is stored or shown.

A value is a secret by the name of its key (``api_key``, ``db_password``), by its own look (a URL
with a password, a known token prefix, a private key), or because the configuration fetched it with
``${env:...}`` or ``${file:...}``. Redaction happens before anything is stored, and says so once in
the log: the rest of the value is kept.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

logger = logging.getLogger(__name__)

REDACTED = "[redacted]"
# What stands for a secret in its place; some libraries write <HUB_TOKEN> themselves.
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*>")

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+")
_SECRET_WORDS = frozenset(
    [
        "password",
        "passwd",
        "pwd",
        "passphrase",
        "secret",
        "secrets",
        "credential",
        "credentials",
        "authorization",
        "cookie",
        "apikey",
        "privatekey",
        "accesskey",
        "authtoken",
    ]
)
_SECRET_PAIRS = frozenset(
    {
        ("access", "key"),
        ("account", "key"),
        ("api", "key"),
        ("conn", "str"),
        ("connection", "string"),
        ("private", "key"),
        ("secret", "key"),
        ("signing", "key"),
    }
)
# "token" alone is a secret in a key such as `hub_token`, and a plain word of language models in
# `pad_token`. Only what people really write before it in a secret counts.
_TOKEN_OWNERS = frozenset(
    [
        "access",
        "api",
        "auth",
        "bearer",
        "bot",
        "ci",
        "csrf",
        "gh",
        "git",
        "github",
        "gitlab",
        "hf",
        "hub",
        "id",
        "jwt",
        "mlflow",
        "oauth",
        "refresh",
        "secret",
        "session",
        "slack",
        "wandb",
    ]
)
_LOOKS_SECRET = re.compile(
    r"""
      -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----[\s\S]*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | \b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{20,}\b
    | \bgithub_pat_[A-Za-z0-9_]{20,}\b
    | \bglpat-[A-Za-z0-9_-]{16,}
    | \bhf_[A-Za-z0-9]{20,}\b
    | \bsk-[A-Za-z0-9_-]{20,}
    | \bxox[abposr]-[A-Za-z0-9-]{10,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \bAIza[A-Za-z0-9_-]{35}\b
    | \beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}
    | \bpypi-[A-Za-z0-9_-]{40,}
    | \bdapi[0-9a-f]{32}\b
    """,
    re.VERBOSE,
)
_URL_PASSWORD = re.compile(
    r"(?P<head>\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@]*:)(?P<secret>[^\s/@]+)(?=@)"
)
_HEADER = re.compile(r"\b(?P<head>(?:Bearer|Basic)\s+)(?P<secret>[A-Za-z0-9._~+/=-]{8,})")


def is_secret_key(key: str) -> bool:
    """Tell whether a key names a secret: ``api_key`` does, ``pad_token`` does not."""
    words = [word.lower() for word in _WORDS.findall(key)]
    if _SECRET_WORDS.intersection(words):
        return True
    pairs = set(pairwise(words))
    if pairs & _SECRET_PAIRS:
        return True
    return words == ["token"] or any(b == "token" and a in _TOKEN_OWNERS for a, b in pairs)


def has_url_password(text: str) -> bool:
    """Tell whether a text holds a URL with a password in it."""
    return _URL_PASSWORD.search(text) is not None


def _stands_in(value: str | bytes) -> bool:
    if isinstance(value, bytes):
        return False
    return value == REDACTED or _PLACEHOLDER.fullmatch(value) is not None


class Redactor:
    """Takes secrets out of values. Knows the secrets that the configuration fetched."""

    def __init__(self, secrets: frozenset[str] = frozenset()) -> None:
        # Longest first, so that a secret inside another secret leaves no tail behind.
        # A very short "secret" would blot out ordinary text.
        self._secrets = sorted((s for s in secrets if len(s) >= 6), key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a text with every secret in it replaced by ``[redacted]``."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, REDACTED)
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\g<head>{REDACTED}", text)
        if len(text) < 12:
            return text
        return _HEADER.sub(rf"\g<head>{REDACTED}", _LOOKS_SECRET.sub(REDACTED, text))

    def value(self, value: Any, key: str = "") -> Any:
        """Return a copy of nested mappings, lists and texts without the secrets in them.

        Only texts and bytes are secrets: a number, a bool or None stays, whatever its key. So does
        what stands for a secret: ``[redacted]``, or a placeholder such as ``<HUB_TOKEN>``.
        """
        if isinstance(value, Mapping):
            return {self._key(k): self.value(v, str(k)) for k, v in value.items()}
        if isinstance(value, tuple):
            return tuple(self.value(item, key) for item in value)
        if isinstance(value, list):
            return [self.value(item, key) for item in value]
        if isinstance(value, (str, bytes)):
            if key and value and not _stands_in(value) and is_secret_key(key):
                return self._logged(key, REDACTED)
            if isinstance(value, str):
                clean = self.text(value)
                return value if clean == value else self._logged(key, clean)
        return value

    def _key(self, key: Any) -> Any:
        return self.text(key) if isinstance(key, str) else key

    @staticmethod
    def _logged(key: str, clean: str) -> str:
        logger.warning("A secret in %r was replaced by %s before it was stored.", key, REDACTED)
        return clean

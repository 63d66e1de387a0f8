"""What signs a webhook's message and what verifies it, as the Standard Webhooks specification says.

See https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
PREFIX: Final = "whsec_"
SHORTEST: Final = 24
LONGEST: Final = 64
_SECONDS = re.compile(r"[0-9]{1,12}\Z")
# A rotation needs two; more are not looked at.
_MOST: Final = 16


def secret_bytes(secret: Any) -> bytes:
    """Return the key that a secret such as ``whsec_...`` holds.

    Raises:
        InvalidInput: If it is none; the message does not show it.
    """
    what = (
        f"A webhook's secret is {PREFIX} and {SHORTEST} to {LONGEST} random bytes in base64. Make "
        "one: python -c \"import base64, os; print('whsec_' + "
        'base64.b64encode(os.urandom(32)).decode())"'
    )
    if not isinstance(secret, str) or not secret.startswith(PREFIX):
        raise InvalidInput(f"The secret does not begin with {PREFIX}. {what}")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"The secret is not base64. {what}") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise InvalidInput(f"The secret has {len(key)} bytes. {what}")
    return key


def headers(id: str, body: bytes, keys: Sequence[bytes], seconds: int) -> dict[str, str]:
    """Return the headers that sign a message: one signature for each key."""
    stamp = str(seconds)
    signatures = [_signature(key, id, stamp, body) for key in keys]
    return {ID: id, TIMESTAMP: stamp, SIGNATURE: " ".join(signatures)}


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secret: str | Sequence[str],
    tolerance_s: float = 300.0,
    *,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Verify a message that a webhook received, and return what it says.

    A message may come twice: drop one whose ``webhook-id`` is known already, and keep the ids for
    at least as long as `tolerance_s`. Within that time the signature does not tell a message that
    was sent again by somebody who has seen it.

    Args:
        headers: Of the request, in upper or lower case. A request that has one of the three headers
            twice is refused, since it is not known which of them the receiver looks at.
        body: Of the request, byte by byte as it was received.
        secret: The webhook's secret; several while one takes the place of another.
        tolerance_s: How old the message may be, or how far the sender's clock ahead.
        clock: The time in seconds since 1970.

    Raises:
        InvalidInput: If it is not signed with the secret, or too old.
    """
    if not isinstance(body, bytes | bytearray | memoryview):
        raise InvalidInput(
            f"The body is a {type(body).__name__}. What is signed are the bytes of the request, "
            "before anything decodes them."
        )
    keys = [secret_bytes(each) for each in ([secret] if isinstance(secret, str) else secret)]
    given = _once(headers)
    stamp = given[TIMESTAMP]
    if not _SECONDS.match(stamp):
        raise InvalidInput("The message's webhook-timestamp is no number of seconds.")
    known = [_signature(key, given[ID], stamp, body).encode() for key in keys]
    offered = [each.encode(errors="replace") for each in given[SIGNATURE].split(" ")[:_MOST]]
    # Every pair is compared, so that the time taken tells nothing.
    matches = [hmac.compare_digest(one, other) for one in known for other in offered]
    if not any(matches):
        raise InvalidInput("The message is not signed with the secret.")
    apart = clock() - int(stamp)
    if not abs(apart) <= tolerance_s:  # Nothing is within a tolerance of NaN.
        when = "ago" if apart > 0 else "ahead of this clock"
        raise InvalidInput(f"The message was sent {abs(apart):.0f} seconds {when}.")
    try:
        said = json.loads(body)
    except ValueError as exc:
        raise InvalidInput(f"The message is signed, and is no JSON: {exc}.") from exc
    if not isinstance(said, dict):
        raise InvalidInput("The message is signed, and is no JSON object.")
    return said


def _once(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the three headers by their names. Some mappings yield one that came twice, twice."""
    found: dict[str, list[str]] = {ID: [], TIMESTAMP: [], SIGNATURE: []}
    for name, value in headers.items():
        if (lower := str(name).lower()) in found:
            found[lower].append(str(value))
    missing = [name for name, values in found.items() if not any(values)]
    if missing:
        raise InvalidInput(f"The message has no {' and no '.join(missing)}.")
    for name, values in found.items():
        if len(values) > 1:
            raise InvalidInput(f"The message has {len(values)} headers {name}, and may have one.")
    return {name: values[0] for name, values in found.items()}


def _signature(key: bytes, id: str, stamp: str, body: bytes) -> str:
    content = f"{id}.{stamp}.".encode(errors="surrogatepass") + body
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()

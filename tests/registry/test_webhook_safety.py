"""What webhooks keep secret, where they connect to, and how receivers verify them."""

from __future__ import annotations

import base64
import math
import os
import shutil
import socket
import ssl
import subprocess
import time
from datetime import UTC, datetime
from email.message import Message
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry.receiver import SECRET, Receiver, until

from mlopskit import Kit
from mlopskit.errors import ConfigError, InvalidInput, UnknownOption
from mlopskit.registry.entities import HistoryEntry
from mlopskit.registry.local import LocalRegistry
from mlopskit.registry.webhooks import verify
from mlopskit.registry.webhooks.config import webhooks_of
from mlopskit.registry.webhooks.delivery import message
from mlopskit.registry.webhooks.headers import headers, secret_bytes
from mlopskit.registry.webhooks.outbox import Tried
from mlopskit.registry.webhooks.post import post

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.core, pytest.mark.network]

OTHER = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()


@pytest.fixture
def registry(opened: Callable[..., LocalRegistry]) -> LocalRegistry:
    return opened()


# Secrets and addresses.


def test_no_secret_is_stored_logged_or_shown(
    home: Path,
    source: Path,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setenv("HOOK_URL", receiver.url)
    hook = {"url": "${env:HOOK_URL}", "secret": "${env:HOOK_SECRET}"}
    line = {"backend": "local", "location": str(home), "webhooks": [hook]}
    receiver.answers = [500]
    with Kit(registry=line) as kit:
        kit.registry.register("churn", source)
        until(lambda: kit.registry.webhooks()[0].tries == 1)
        shown = repr(kit.registry.webhooks()) + repr(
            webhooks_of([{"url": receiver.url, "secret": SECRET}])
        )
        shown += str([value.value for value in kit.settings.values()])
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())

    for secret in (SECRET, SECRET.removeprefix("whsec_"), "token-in-path", str(bytes(range(32)))):
        assert secret not in caplog.text
        assert secret not in shown
        assert secret.encode() not in stored
    assert bytes(range(32)) not in stored
    assert "churn" in caplog.text, "the failure was logged"


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[fd00:ec2::23]",
        "[fd20:ce::254]",
        "[fd00:42::42]",
        "100.100.100.200",
        "168.63.129.16",
        "[64:ff9b:1::a9fe:a9fe]",
        "[::169.254.169.254]",
    ],
)
def test_a_link_local_address_is_not_even_connected_to(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: tried.append(address))
    (hook,) = webhooks_of([{"url": f"http://{host}/latest/meta-data", "secret": SECRET}])

    answer = post(hook, {}, b"{}")

    assert "allow_link_local" in answer.error
    assert tried == []


def test_a_link_local_address_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: Any, address: Any) -> None:
        raise ConnectionRefusedError("tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    hook = {"url": "http://169.254.169.254/", "secret": SECRET, "allow_link_local": True}
    assert post(webhooks_of([hook])[0], {}, b"{}").error == "ConnectionRefusedError: tried"


def test_a_host_is_looked_up_once_and_that_address_is_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = socket.getaddrinfo, []

    def rebinding(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "169.254.169.254", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = receiver.url.replace("127.0.0.1", "rebinding.example")
    (hook,) = webhooks_of([{"url": url, "secret": SECRET}])

    assert post(hook, {}, b"{}").status == 204
    assert asked == ["rebinding.example"]
    assert receiver.messages[0].headers["host"].startswith("rebinding.example:")


def test_proxies_of_the_environment_are_not_asked(
    registry: LocalRegistry, receiver: Receiver, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    registry.register("churn", source)
    until(lambda: receiver.messages)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
@pytest.mark.parametrize("trusted", [False, True])
def test_a_server_is_told_only_if_its_certificate_is_trusted(
    tmp_path: Path, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "own.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=own", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        capture_output=True,
    )
    assert made.returncode == 0
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = Receiver()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    (hook,) = webhooks_of([{"url": server.url.replace("http:", "https:"), "secret": SECRET}])
    answer = post(hook, {}, b"{}")
    server.close()

    assert len(server.messages) == trusted
    assert ("CERTIFICATE_VERIFY_FAILED" in answer.error) is not trusted
    assert answer.status == (204 if trusted else 0)


# The configuration.


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": None}, "needs a url"),
        ({"url": "ftp://x/"}, "https:// or http://"),
        ({"url": "file:///etc/passwd"}, "https:// or http://"),
        ({"url": "https://"}, "https:// or http://"),
        ({"url": "http://x:port/"}, "https:// or http://"),
        ({"url": "http://[::1/"}, "https:// or http://"),
        ({"url": "https://x/\r\nhost: y"}, "no URL can have"),
        ({"url": "https://x/a b"}, "no URL can have"),
        ({"url": "https://u:hunter2hunter2@x/"}, "has a user or password"),
        ({"secret": None}, "needs a secret"),
        ({"secret": ""}, "whsec_"),
        ({"secret": "hunter2hunter2"}, "whsec_"),
        ({"secret": "whsec_hunter2!"}, "not base64"),
        ({"secret": "whsec_c2hvcnQ="}, "has 5 bytes"),
        ({"events": []}, "events is"),
        ({"events": "promoted"}, "events is"),
        ({"tries": 0}, "tries of a webhook is 0"),
        ({"tries": True}, "tries of a webhook is True"),
        ({"timeout_s": math.nan}, "timeout_s of a webhook is nan"),
        ({"allow_link_local": "false"}, "allow_link_local of a webhook is 'false'"),
    ],
)
def test_a_webhook_that_cannot_work_is_refused_when_the_registry_is_opened(
    home: Path, change: dict[str, Any], says: str
) -> None:
    hook = {"url": "https://example.com/", "secret": SECRET, **change}
    with pytest.raises(ConfigError, match=says) as refused:
        LocalRegistry(home, webhooks=[hook])
    assert "hunter2" not in str(refused.value)


def test_an_unknown_word_is_told_the_nearest_right_one(home: Path) -> None:
    hook = {"url": "https://example.com/", "secret": SECRET}
    with pytest.raises(UnknownOption, match="Did you mean 'timeout_s'"):
        LocalRegistry(home, webhooks=[{**hook, "timeout": 3}])
    with pytest.raises(UnknownOption, match="Did you mean 'promoted'"):
        LocalRegistry(home, webhooks=[{**hook, "events": ["promote"]}])
    with pytest.raises(ConfigError, match="Two webhooks have one URL"):
        LocalRegistry(home, webhooks=[hook, hook])


# Verifying, as receivers do.


def signed(body: bytes, *secrets: str, at: float | None = None) -> dict[str, str]:
    seconds = int(time.time() if at is None else at)
    return headers("churn:1:2", body, [secret_bytes(each) for each in secrets], seconds)


def test_the_signature_is_that_of_the_specification() -> None:
    # The example of the specification's own libraries.
    found = headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        [secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        1614265330,
    )
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_either_secret_verifies_while_one_takes_the_place_of_the_other() -> None:
    both = signed(b"{}", SECRET, OTHER)
    assert verify(both, b"{}", SECRET) == verify(both, b"{}", OTHER) == {}
    assert verify(signed(b"{}", OTHER), b"{}", [SECRET, OTHER]) == {}
    upper = {name.upper(): value for name, value in both.items()}
    assert verify(upper, b"{}", SECRET) == {}


@pytest.mark.parametrize(
    ("change", "body", "says"),
    [
        ({}, b"{ }", "not signed"),
        ({"webhook-id": "churn:1:3"}, b"{}", "not signed"),
        ({"webhook-timestamp": "1"}, b"{}", "not signed"),
        ({"webhook-timestamp": "-1"}, b"{}", "no number"),
        ({"webhook-timestamp": "\u0661"}, b"{}", "no number"),
        ({"webhook-timestamp": "9" * 5000}, b"{}", "no number"),
        ({"webhook-signature": "v1,"}, b"{}", "not signed"),
        ({"webhook-signature": "v1,\u00e9"}, b"{}", "not signed"),
        ({"webhook-signature": ""}, b"{}", "no webhook-signature"),
        ({"webhook-id": ""}, b"{}", "no webhook-id"),
    ],
)
def test_a_message_that_was_changed_is_refused(
    change: dict[str, str], body: bytes, says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        verify({**signed(b"{}", SECRET), **change}, body, SECRET)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_comes_twice_is_refused(name: str) -> None:
    # A receiver that drops known ids would look at the first one, and the signature is of the last.
    true = signed(b"{}", SECRET)
    given: Any = Message()
    given[name.upper()] = "fresh"
    for each, value in true.items():
        given[each] = value
    assert given[name] == "fresh"
    with pytest.raises(InvalidInput, match=f"2 headers {name}"):
        verify(given, b"{}", SECRET)


def test_a_body_that_was_decoded_is_refused_with_what_to_pass() -> None:
    body: Any = "{}"
    with pytest.raises(InvalidInput, match="The body is a str"):
        verify(signed(b"{}", SECRET), body, SECRET)


def test_no_message_is_within_a_tolerance_that_is_no_number() -> None:
    with pytest.raises(InvalidInput, match="was sent"):
        verify(signed(b"{}", SECRET, at=0), b"{}", SECRET, math.nan)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-signature"])
def test_a_header_that_no_text_can_be_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="not signed"):
        verify({**signed(b"{}", SECRET), name: "v1,\udce9"}, b"{}", SECRET)


def test_another_secret_does_not_verify() -> None:
    with pytest.raises(InvalidInput, match="not signed"):
        verify(signed(b"{}", SECRET), b"{}", OTHER)


@pytest.mark.parametrize(
    ("off", "accepted"), [(0, True), (290, True), (-290, True), (310, False), (-310, False)]
)
def test_a_message_of_another_time_is_refused(off: float, accepted: bool) -> None:
    sent = signed(b"{}", SECRET, at=1_800_000_000)
    clock = lambda: 1_800_000_000.0 + off  # noqa: E731
    if accepted:
        assert verify(sent, b"{}", SECRET, clock=clock) == {}
        return
    with pytest.raises(InvalidInput, match=r"310 seconds (ago|ahead)"):
        verify(sent, b"{}", SECRET, clock=clock)
    assert verify(sent, b"{}", SECRET, 3600.0, clock=clock) == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
def test_what_is_signed_and_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="is signed, and is no JSON"):
        verify(signed(body, SECRET), body, SECRET)


def test_a_clock_that_was_set_back_does_not_stop_delivery() -> None:
    tried = Tried("churn", 1, 1, at=1000.0, pause=60.0, error="x")
    assert [tried.wait_s(now) for now in (1000.0, 1059.0, 1060.0, 5000.0)] == [60.0, 1.0, 0.0, 0.0]
    assert tried.wait_s(999.0) == 0.0


def test_a_message_is_the_same_whenever_it_is_made() -> None:
    entry = HistoryEntry(
        id=3, name="a", version=1, action="registered", at=datetime.now(UTC), after="none"
    )
    assert message(entry) == message(HistoryEntry.model_validate_json(entry.model_dump_json()))
    assert os.linesep.encode() not in message(entry)

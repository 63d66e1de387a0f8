"""``mlopskit sign`` and ``mlopskit verify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done

pytest.importorskip("model_signing")
pytest.importorskip("OpenSSL")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

LOCKED = serialization.BestAvailableEncryption(b"sesame")


@pytest.fixture(autouse=True)
def _model(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"a")
    with mk.load() as kit:
        kit.registry.register("churn", file)


def write_key(name: str, locked: serialization.KeySerializationEncryption | None = None) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    Path(f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            locked or serialization.NoEncryption(),
        )
    )
    Path(f"{name}.pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def test_what_is_signed_is_verified(cli: Callable[..., Done]) -> None:
    write_key("release")
    done = cli("sign", "churn", "latest", "--key", "release.key", "--why", "3.1")
    assert done.code == 0, done.err
    assert done.records[0][:2] == ["churn", "1"]

    done = cli("verify", "churn", "1", "--key", "release.pub")
    assert done.code == 0, done.err
    found = json.loads(cli("verify", "churn", "1", "--key", "release.pub", "--json").out)
    assert found["key"] == done.records[0][3]
    assert "signed" in cli("models", "log", "churn").out


def test_what_is_not_signed_by_the_key_fails_with_1(cli: Callable[..., Done]) -> None:
    write_key("release")
    write_key("other")
    done = cli("verify", "churn", "1", "--key", "release.pub")
    assert (done.code, done.out) == (1, "")
    assert "it has none" in done.err

    assert cli("sign", "churn", "1", "--key", "other.key").code == 0
    done = cli("verify", "churn", "1", "--key", "release.pub")
    assert (done.code, done.out) == (1, "")
    assert cli("verify", "churn", "1", "--key", "release.pub", "--key", "other.pub").code == 0


def test_the_configuration_names_the_keys_that_are_accepted(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    write_key("release")
    Path("mlopskit.toml").write_text(
        '[registry]\nrequire_signature = "${file:release.pub}"\n', encoding="utf-8"
    )
    assert cli("verify", "churn", "1").code == 1
    assert cli("models", "download", "churn", "1", "out").code == 1
    assert cli("sign", "churn", "1", "--key", "release.key").code == 0
    assert cli("verify", "churn", "1").code == 0
    assert cli("models", "download", "churn", "1", "out").code == 0


def test_the_password_comes_from_a_file_or_the_environment(
    cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_key("release", LOCKED)
    sign = ("sign", "churn", "1", "--key", "release.key")
    done = cli(*sign)
    assert done.code == 2
    assert "is encrypted: pass its password" in done.err

    Path("password").write_text("sesame\n")
    assert cli(*sign, "--password-file", "password").code == 0
    monkeypatch.setenv("KEY_PASSWORD", "sesame")
    assert cli(*sign, "--password-env", "KEY_PASSWORD").code == 0
    assert cli(*sign, "--password-env", "KEY_PASSWORT").code == 2
    assert cli(*sign, "--password-file", "gone").code == 2
    assert cli(*sign, "--password-file", "a", "--password-env", "b").code == 2
    monkeypatch.setenv("KEY_PASSWORD", "open")
    done = cli(*sign, "--password-env", "KEY_PASSWORD")
    assert done.code == 2
    assert "may be wrong" in done.err

"""Signatures of versions, with the real model-signing."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import (
    IntegrityError,
    InvalidInput,
    InvalidSignature,
    UntrustedModel,
)
from mlopskit.registry import blobs
from mlopskit.registry.local import LocalRegistry
from mlopskit.registry.seals import seal_of
from mlopskit.registry.signing import bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("model_signing")
pytest.importorskip("OpenSSL")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.registry.signers import Authority, public, write_key


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(home: Path, source: Path) -> Iterator[LocalRegistry]:
    with LocalRegistry(home) as opened:
        opened.register("churn", source)
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights")
    (folder / "deep" / ".hidden").write_bytes(b"")
    (folder / ".gitignore").write_bytes(b"*")
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "release.key")


def attached(home: Path, name: str = "churn", version: int = 1) -> bytes:
    with sqlite3.connect(home / "registry.db") as db:
        (row,) = db.execute(
            "select content from attachments where name = ? and version = ?", [name, version]
        ).fetchall()
    return bytes(row[0])


def put(home: Path, content: bytes, name: str = "churn", version: int = 1) -> None:
    """Write a signature as somebody does who may write to the registry's folder."""
    with sqlite3.connect(home / "registry.db") as db:
        db.execute(
            "insert or replace into attachments values (?, ?, 'signature', ?, ?)",
            [name, version, content, seal_of([content])],
        )


def test_a_signed_version_is_verified_and_the_history_says_who_signed(
    registry: LocalRegistry, key: Path
) -> None:
    signed = registry.sign("churn", "latest", key=key, why="release 3")

    assert registry.verify("churn", 1, keys=public(key)) == signed
    assert (signed.name, signed.version) == ("churn", 1)
    assert signed.digest == registry.get_version("churn", 1).digest
    last = registry.history("churn")[-1]
    assert (last.action, last.version, last.why) == ("signed", 1, "release 3")
    assert last.details == {"key": signed.key}
    # The way in which the signature itself names the key.
    hint = json.loads(
        attached(Path(registry.native.execute("pragma database_list").fetchone()[2]).parent)
    )
    assert signed.key == "sha256:" + hint["verificationMaterial"]["publicKey"]["hint"]


def test_the_signature_is_one_that_model_signing_verifies_itself(
    registry: LocalRegistry, home: Path, key: Path, tmp_path: Path
) -> None:
    registry.sign("churn", 1, key=key)
    folder = tmp_path / "laid-out"
    registry.download("churn", 1, folder / "model")
    (folder / "manifest.json").write_bytes(registry.manifest("churn", 1).canonical)
    (folder / "version.json").write_bytes(bundle.statement(registry.get_version("churn", 1)))
    (tmp_path / "signature").write_bytes(attached(home))

    def verdict() -> int:
        command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
        command += ["--signature", str(tmp_path / "signature"), "--public_key", public(key)]
        return subprocess.run(command, capture_output=True).returncode

    assert verdict() == 0
    (folder / "model" / ".gitignore").write_bytes(b"!")
    assert verdict() == 1


@pytest.mark.parametrize("trusted", [False, True])
def test_a_registry_that_requires_signatures_hands_out_nothing_unsigned(
    registry: LocalRegistry, home: Path, key: Path, tmp_path: Path, trusted: bool
) -> None:
    with LocalRegistry(home, require_signature=public(key)) as strict:
        with pytest.raises(InvalidSignature, match=r"version 1 of 'churn' .* it has none"):
            strict.load("churn", 1, trusted=trusted)
        with pytest.raises(UntrustedModel):
            strict.download("churn", 1, tmp_path / "out")
        with pytest.raises(InvalidSignature):
            strict.verify("churn", 1)
        assert not (tmp_path / "out").exists()

        strict.sign("churn", 1, key=key)

        assert (strict.download("churn", 1, tmp_path / "out") / "weights.bin").is_file()


def test_what_is_pickled_is_not_even_read_before_its_signature(
    registry: LocalRegistry, home: Path, key: Path, tmp_path: Path
) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(b"\x80\x04cbuiltins\nexec\n(S'raise SystemExit(3)'\ntR.")
    registry.register("risky", file)
    registry.sign("risky", 1, key=write_key(tmp_path / "other.key"))

    with LocalRegistry(home, require_signature=[public(key)]) as strict:
        with pytest.raises(InvalidSignature):
            strict.load("risky", 1, trusted=True)
        with pytest.raises(InvalidSignature, match="only what mlopskit registered"):
            strict.load("runs:/0f0f/net", trusted=True)


def test_an_example_is_refused_like_the_model(home: Path, key: Path, source: Path) -> None:
    numpy = pytest.importorskip("numpy")
    with LocalRegistry(home, require_signature=public(key)) as strict:
        strict.register("churn", source, input_example={"x": numpy.zeros((1, 2))})
        with pytest.raises(InvalidSignature):
            strict.example("churn", 1)
        strict.sign("churn", 1, key=key)
        assert strict.example("churn", 1)[0]["x"].shape == (1, 2)


def test_one_of_several_keys_is_enough(registry: LocalRegistry, home: Path, tmp_path: Path) -> None:
    keys = [
        write_key(tmp_path / f"{i}.key", curve=c)
        for i, c in enumerate([ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
    ]
    with LocalRegistry(home, require_signature=[public(each) for each in keys]) as strict:
        for each in keys:
            made = strict.sign("churn", 1, key=each)
            assert strict.verify("churn", 1) == made
    assert len({entry.details.get("key") for entry in registry.history("churn")}) == 4


def test_another_key_is_refused_and_both_are_named(
    registry: LocalRegistry, key: Path, tmp_path: Path
) -> None:
    other = write_key(tmp_path / "other.key")
    registry.sign("churn", 1, key=other)

    with pytest.raises(InvalidSignature, match=r"release\.pub.*Key mismatch"):
        registry.verify("churn", 1, keys=public(key))


def test_a_signature_of_another_key_with_a_forged_hint_is_refused(
    registry: LocalRegistry, home: Path, key: Path, tmp_path: Path
) -> None:
    registry.sign("churn", 1, key=key)
    hint = json.loads(attached(home))["verificationMaterial"]
    registry.sign("churn", 1, key=write_key(tmp_path / "other.key"))
    put(home, json.dumps(json.loads(attached(home)) | {"verificationMaterial": hint}).encode())

    with pytest.raises(InvalidSignature, match="does not match"):
        registry.verify("churn", 1, keys=public(key))


def test_an_encrypted_key_needs_its_password(registry: LocalRegistry, tmp_path: Path) -> None:
    locked = write_key(tmp_path / "locked.key", b"s\xc3\xa9same")

    with pytest.raises(InvalidInput, match="is encrypted: pass its password"):
        registry.sign("churn", 1, key=locked)
    with pytest.raises(InvalidInput, match="password may be wrong") as wrong:
        registry.sign("churn", 1, key=locked, password="sesame")
    assert "sesame" not in str(wrong.value)
    registry.sign("churn", 1, key=locked, password="sésame")
    assert registry.verify("churn", 1, keys=public(locked)).version == 1
    assert "sésame" not in str(registry.history("churn"))


def test_a_password_that_is_not_needed_is_told(registry: LocalRegistry, key: Path) -> None:
    with pytest.raises(InvalidInput, match="has no password"):
        registry.sign("churn", 1, key=key, password="x")


@pytest.mark.parametrize("password", [None, b"secret"])
def test_a_certificate_is_trusted_by_the_root_of_its_chain(
    registry: LocalRegistry, home: Path, tmp_path: Path, password: bytes | None
) -> None:
    authority = Authority(tmp_path / "ours")
    key, chain = authority.signer("ada", password)
    text = password.decode() if password else None
    made = registry.sign("churn", 1, key=key, certificate=chain, password=text)

    assert made.certificate == "CN=ada"
    with LocalRegistry(home, require_signature=str(authority.root_file)) as strict:
        assert strict.verify("churn", 1) == made
    last = registry.history("churn")[-1]
    assert last.details == {"key": made.key, "certificate": "CN=ada"}


def test_a_certificate_of_another_root_is_refused(registry: LocalRegistry, tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    key, chain = theirs.signer("ada")
    registry.sign("churn", 1, key=key, certificate=chain)

    with pytest.raises(InvalidSignature, match="does not match"):
        registry.verify("churn", 1, keys=str(ours.root_file))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:model_signing.*")
def test_a_certificate_that_is_not_for_signing_is_refused(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ours")
    key = authority.root_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    registry.sign("churn", 1, key=key.decode(), certificate=authority.root_file)

    with pytest.raises(InvalidSignature, match="cannot be used for signing"):
        registry.verify("churn", 1, keys=authority.root_file)


def test_another_certificate_beside_a_true_signature_is_refused(
    registry: LocalRegistry, home: Path, tmp_path: Path
) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    key, chain = ours.signer("ada")
    registry.sign("churn", 1, key=key, certificate=chain)
    trusted = json.loads(attached(home))["verificationMaterial"]
    key, chain = theirs.signer("ada")
    registry.sign("churn", 1, key=key, certificate=chain)
    put(home, json.dumps(json.loads(attached(home)) | {"verificationMaterial": trusted}).encode())

    with pytest.raises(InvalidSignature, match="does not match"):
        registry.verify("churn", 1, keys=ours.root_file)


def test_a_key_does_not_accept_a_certificate_nor_the_other_way_round(
    registry: LocalRegistry, key: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ours")
    own, chain = authority.signer("ada")
    registry.sign("churn", 1, key=own, certificate=chain)
    with pytest.raises(InvalidSignature, match="made with a certificate, and none is accepted"):
        registry.verify("churn", 1, keys=public(key))
    registry.sign("churn", 1, key=key)
    with pytest.raises(InvalidSignature, match="made with a key, and none is accepted"):
        registry.verify("churn", 1, keys=str(authority.root_file))


def test_a_certificate_of_another_key_is_refused_before_anything_is_signed(
    registry: LocalRegistry, key: Path, tmp_path: Path
) -> None:
    _, chain = Authority(tmp_path / "ours").signer("ada")
    with pytest.raises(InvalidInput, match="is of another key"):
        registry.sign("churn", 1, key=key, certificate=chain)
    assert registry.history("churn")[-1].action == "registered"


@pytest.mark.parametrize("act", ["sign", "verify"])
def test_a_changed_byte_is_found(registry: LocalRegistry, home: Path, key: Path, act: str) -> None:
    registry.sign("churn", 1, key=key)
    (blob,) = [
        path
        for path in (home / "blobs").rglob("*")
        if path.is_file() and path.read_bytes() == b"weights"
    ]
    blob.chmod(0o600)
    blob.write_bytes(b"Weights")

    with pytest.raises(IntegrityError):
        if act == "sign":
            registry.sign("churn", 1, key=key)
        else:
            registry.verify("churn", 1, keys=public(key))


def exchange(home: Path, change: Any) -> None:
    """Put another manifest in the place of version 1's, with all digests and seals right."""
    with LocalRegistry(home) as registry:
        found = registry.get_version("churn", 1)
        store = registry._blobs
        manifest = change(registry.manifest("churn", 1), store)
        digest, _ = store.put(manifest.canonical)
        with registry._ledger.db.transaction() as db:
            from mlopskit.registry.seals import reseal

            db.execute(
                "update versions set digest = ? where name = 'churn' and version = 1", [digest]
            )
            reseal(db, "versions", "churn", 1)
        assert registry.get_version("churn", 1).digest == digest != found.digest


def add_a_file(manifest: blobs.Manifest, store: Any) -> blobs.Manifest:
    digest, size = store.put(b"extra")
    extra = blobs.ManifestFile(path="extra.bin", size=size, sha256=digest)
    return manifest.model_copy(update={"files": (*manifest.files, extra)})


def take_a_file(manifest: blobs.Manifest, store: Any) -> blobs.Manifest:
    return manifest.model_copy(update={"files": manifest.files[1:]})


def swap_the_bytes(manifest: blobs.Manifest, store: Any) -> blobs.Manifest:
    digest, size = store.put(b"theirs")
    swapped = manifest.files[-1].model_copy(update={"sha256": digest, "size": size})
    return manifest.model_copy(update={"files": (*manifest.files[:-1], swapped)})


def call_it_otherwise(manifest: blobs.Manifest, store: Any) -> blobs.Manifest:
    return manifest.model_copy(update={"flavor": "pickle"})


@pytest.mark.parametrize("change", [add_a_file, take_a_file, swap_the_bytes, call_it_otherwise])
def test_an_exchanged_manifest_is_refused_though_every_digest_fits(
    registry: LocalRegistry, home: Path, key: Path, change: Any, tmp_path: Path
) -> None:
    registry.sign("churn", 1, key=key)
    exchange(home, change)

    registry.download("churn", 1, tmp_path / "unasked")  # Nothing but the signature tells.
    with LocalRegistry(home, require_signature=public(key)) as strict:
        with pytest.raises(InvalidSignature, match="Signature mismatch"):
            strict.download("churn", 1, tmp_path / "out")
        with pytest.raises(InvalidSignature, match="Signature mismatch"):
            strict.verify("churn", 1)


@pytest.mark.parametrize("name", ["churn", "other"])
def test_a_signature_is_of_one_version_even_where_the_bytes_are_equal(
    registry: LocalRegistry, home: Path, key: Path, source: Path, name: str
) -> None:
    registry.sign("churn", 1, key=key)
    again = registry.register(name, source)
    assert again.digest == registry.get_version("churn", 1).digest
    put(home, attached(home), name, again.version)

    with pytest.raises(InvalidSignature, match=r"version\.json"):
        registry.verify(name, again.version, keys=public(key))
    assert registry.verify("churn", 1, keys=public(key)).version == 1


def test_a_part_of_a_signature_is_refused_wherever_it_ends(
    registry: LocalRegistry, home: Path, key: Path
) -> None:
    registry.sign("churn", 1, key=key)
    whole = attached(home)
    for end in [0, 1, *range(2, len(whole), max(1, len(whole) // 25)), len(whole) - 1]:
        put(home, whole[:end])
        with pytest.raises(InvalidSignature):
            registry.verify("churn", 1, keys=public(key))
    put(home, whole)
    assert registry.verify("churn", 1, keys=public(key)).version == 1


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"verificationMaterial": {}}',
        b'{"verificationMaterial": {"publicKey": {}}}',
        b'{"verificationMaterial": {"publicKey": {"hint": 3}}}',
        b'{"verificationMaterial": {"publicKey": {"hint": "x"}}}',
        b'{"verificationMaterial": {"x509CertificateChain": 3}}',
    ],
)
def test_what_is_no_signature_is_refused(
    registry: LocalRegistry,
    home: Path,
    key: Path,
    tmp_path: Path,
    content: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(home, content)
    root = Authority(tmp_path / "ours").root_file
    with pytest.raises(InvalidSignature):
        registry.verify("churn", 1, keys=[public(key), str(root)])
    assert capsys.readouterr() == ("", "")


def test_a_huge_signature_is_refused_without_being_parsed(
    registry: LocalRegistry, home: Path, key: Path
) -> None:
    registry.sign("churn", 1, key=key)
    put(home, attached(home) + b" " * (1 << 20))

    with pytest.raises(InvalidSignature, match="bytes, and one of these files at most"):
        registry.verify("churn", 1, keys=public(key))


def test_a_changed_byte_of_the_signature_is_refused(
    registry: LocalRegistry, home: Path, key: Path
) -> None:
    registry.sign("churn", 1, key=key)
    bundle = json.loads(attached(home))
    text = bundle["dsseEnvelope"]["payload"]
    bundle["dsseEnvelope"]["payload"] = text[:-8] + ("A" if text[-8] != "A" else "B") + text[-7:]
    put(home, json.dumps(bundle).encode())

    with pytest.raises(InvalidSignature):
        registry.verify("churn", 1, keys=public(key))

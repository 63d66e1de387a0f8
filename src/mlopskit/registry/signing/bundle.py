"""Signatures as the package model-signing makes and reads them: Sigstore bundles of a folder.

What is signed is a folder that holds the version's files in ``model``, its manifest in
``manifest.json``, and in ``version.json`` which version of which model it is. It need not be laid
out: the digests are known.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidSignature
from mlopskit.registry.signing import keys as key_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.entities import ModelVersion
    from mlopskit.registry.signing.keys import Signer, TrustedKey

FILES: Final = "model"
MANIFEST: Final = "manifest.json"
VERSION: Final = "version.json"
# What a signature holds beside the names and digests: certificates, mostly.
_ROOM: Final = 1 << 18


def statement(version: ModelVersion) -> bytes:
    """Return what a signature says it is of, so that no other version can pass for it."""
    said = {"digest": version.digest, "name": version.name, "version": version.version}
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def sign(version: ModelVersion, manifest: Manifest, signer: Signer) -> bytes:
    """Sign a version by the digests in its manifest, and return the signature."""
    from model_signing import signing  # noqa: PLC0415

    config = signing.Config()  # type: ignore[no-untyped-call]
    config.set_hashing_config(_digests(version, manifest))
    with (
        key_files.handed(signer.key) as key,
        TemporaryDirectory(prefix="mlopskit-") as name,
    ):
        aside = Path(name)
        if signer.certificates:
            own, between = aside / "own.pem", aside / "between.pem"
            own.write_bytes(signer.certificates[0])
            # It cannot take an empty chain; the signer's own certificate in it changes nothing.
            between.write_bytes(b"".join(signer.certificates[1:] or signer.certificates))
            config.use_certificate_signer(
                private_key=key, signing_certificate=own, certificate_chain=[between]
            )
        else:
            config.use_elliptic_key_signer(private_key=key)
        config.sign(aside, aside / "signature")
        return (aside / "signature").read_bytes()


def check(
    content: bytes,
    version: ModelVersion,
    manifest: Manifest,
    keys: Sequence[TrustedKey],
) -> tuple[str, str]:
    """Check that one of the keys has signed this version with this manifest.

    The files are not read: they are verified by the digests in the manifest.

    Returns:
        The id of the key that signed, and the subject of its certificate if there is one.

    Raises:
        InvalidSignature: If none has.
    """
    what = f"version {version.version} of {version.name!r}"
    signed_by = _material(content, manifest, what)
    able = [key for key in keys if key.kind == signed_by]
    if not able:
        other = "a certificate" if signed_by == "certificate" else "a key"
        raise InvalidSignature(what, f"it was made with {other}, and none is accepted here")
    digests = _digests(version, manifest)
    reasons = []
    for key in able:
        try:
            _verify(content, digests, key)
        except Exception as exc:  # noqa: BLE001 - whatever cannot be verified is refused
            reasons.append(f"{key.name} ({_reason(exc)})")
        else:
            return _signer(content, key)
    raise InvalidSignature(what, f"it does not match {'; '.join(reasons)}")


def _material(content: bytes, manifest: Manifest, what: str) -> str:
    """Return what a signature says that it was made with, having looked at its outside only."""
    longest = _ROOM + 4 * len(manifest.canonical)
    if len(content) > longest:
        raise InvalidSignature(
            what, f"it has {len(content)} bytes, and one of these files at most {longest}"
        )
    try:
        material = json.loads(content)["verificationMaterial"]
        if material.get("x509CertificateChain"):
            return "certificate"
        # Without it model-signing prints a warning, and goes on.
        if isinstance(material["publicKey"]["hint"], str) and material["publicKey"]["hint"]:
            return "key"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise InvalidSignature(what, f"it is no Sigstore bundle ({_reason(exc)})") from exc
    raise InvalidSignature(what, "it does not say which key made it")


def _expected(version: ModelVersion, manifest: Manifest) -> dict[str, str]:
    """Return the paths that have to be signed, with their digests in hexadecimal."""
    found = {f"{FILES}/{file.path}": file.sha256.rpartition(":")[2] for file in manifest.files}
    found[MANIFEST] = hashlib.sha256(manifest.canonical).hexdigest()
    found[VERSION] = hashlib.sha256(statement(version)).hexdigest()
    return found


def _digests(version: ModelVersion, manifest: Manifest) -> Any:
    """Return what model-signing takes for a way to hash a folder: digests that are known."""
    from model_signing import hashing  # noqa: PLC0415
    from model_signing import manifest as manifests  # noqa: PLC0415
    from model_signing._hashing.hashing import Digest  # noqa: PLC0415

    items = [
        manifests.FileManifestItem(
            path=PurePosixPath(path), digest=Digest("sha256", bytes.fromhex(digest))
        )
        for path, digest in _expected(version, manifest).items()
    ]
    way = manifests.SerializationType.from_args(
        {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    )
    known = manifests.Manifest(f"{version.name}-{version.version}", items, way)

    class Known(hashing.Config):
        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> manifests.Manifest:  # noqa: ARG002
            return known

    return Known()  # type: ignore[no-untyped-call]


def _verify(content: bytes, digests: Any, key: TrustedKey) -> None:
    from model_signing import verifying  # noqa: PLC0415

    with TemporaryDirectory(prefix="mlopskit-") as name:
        signature, pem = Path(name, "signature"), Path(name, "key.pem")
        signature.write_bytes(content)
        pem.write_bytes(key.pem)
        config = verifying.Config()  # type: ignore[no-untyped-call]
        config.set_hashing_config(digests)
        if key.kind == "certificate":
            config.use_certificate_verifier(certificate_chain=[pem])
        else:
            config.use_elliptic_key_verifier(public_key=pem)
        config.verify(Path(name), signature)


def _signer(content: bytes, key: TrustedKey) -> tuple[str, str]:
    from cryptography import x509  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra

    if key.kind == "key":
        public: Any = serialization.load_pem_public_key(key.pem)
        return key_files.key_id(public), ""
    chain = json.loads(content)["verificationMaterial"]["x509CertificateChain"]["certificates"]
    own = x509.load_der_x509_certificate(base64.b64decode(chain[0]["rawBytes"]))
    public = own.public_key()
    return key_files.key_id(public), own.subject.rfc4514_string()


def _reason(error: BaseException) -> str:
    """Return what an exception says, shortened to what fits a message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."

"""Keys and certificates of signatures, read from PEM files."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from mlopskit.errors import ConfigError, InvalidInput, MissingDependency

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

logger = logging.getLogger(__name__)

# A path of a PEM file, or its text.
Pem = str | os.PathLike[str]
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_LONGEST: Final = 1 << 20
# What a key looks like whose first and last line were lost; hardly any path does.
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9+/=\s]{80,}\Z")


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """What a signature is accepted from.

    Attributes:
        name: The file it was read from.
        pem: Its text, as it was when the registry was opened.
        kind: A public key; or certificates, one of which has signed that of the signer.
    """

    name: str
    pem: bytes
    kind: Literal["key", "certificate"]


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, in the clear, and its certificate with those between it and the root."""

    key: bytes
    id: str
    certificates: tuple[bytes, ...] = ()
    subject: str = ""


def check_installed() -> None:
    """Refuse to go on without the package that signs.

    Raises:
        MissingDependency: If it, or what it needs beside it, is not installed.
    """
    # It imports pyOpenSSL, and does not say so in its own requirements.
    for module, package in (("model_signing", "model-signing"), ("OpenSSL", "pyopenssl")):
        if find_spec(module) is None:
            raise MissingDependency("Signing of models", package, "pip install 'mlopskit[sign]'")


def trusted_keys(
    given: Pem | Sequence[Pem] | None, option: str = "require_signature"
) -> tuple[TrustedKey, ...]:
    """Read public keys and certificates.

    Args:
        given: The path of a PEM file, the text of one, or a list of either.
        option: What the caller calls it.

    Raises:
        ConfigError: If a file cannot be read, or holds neither.
        MissingDependency: If the package that verifies is not installed.
    """
    if given is None:
        return ()
    several = not isinstance(given, str | os.PathLike)
    listed = list(given) if several and isinstance(given, Sequence) else [given]
    if not listed or not all(isinstance(each, str | os.PathLike) and each for each in listed):
        # A key in a list that is wrong otherwise may be a private one.
        shown = (
            f"a {type(given).__name__} with a key in it" if "-----" in str(given) else repr(given)
        )
        raise ConfigError(
            f"{option} is {shown}. Write the path of a public key or of certificates, or a list "
            "of paths. A registry that is opened without require_signature accepts unsigned "
            "versions."
        )
    check_installed()
    return tuple(_trusted(each) for each in listed if isinstance(each, str | os.PathLike))


def signer(key: Pem, certificate: Pem | None, password: str | None) -> Signer:
    """Read a private key, and the certificate that goes with it.

    Raises:
        ConfigError: If a file cannot be read, or is of another kind.
        InvalidInput: If the password is wrong or missing, or the certificate is another key's.
        MissingDependency: If the package that signs is not installed.
    """
    check_installed()
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an extra

    name, pem = _read(key, "private key")
    _warn_if_open_to_all(name)
    secret = password.encode() if password else None
    try:
        private = serialization.load_pem_private_key(pem, secret)
    except TypeError as exc:
        missing = "is encrypted: pass its password" if secret is None else "has no password"
        raise InvalidInput(f"The private key {name} {missing}.") from exc
    except ValueError as exc:
        hint = " The password may be wrong." if secret else ""
        raise InvalidInput(f"{name} is no private key that can be read: {exc}.{hint}") from exc
    except UnsupportedAlgorithm as exc:
        raise InvalidInput(f"{name} is a key of another kind: {exc}. {_MAKE_ONE}") from exc
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise InvalidInput(f"{name} is no elliptic-curve key. {_MAKE_ONE}")
    identity = key_id(_checked_curve(private.public_key(), name))
    plain = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    if certificate is None:
        return Signer(plain, identity)
    certificates, subject, owner = _certificates(certificate)
    if owner != identity:
        raise InvalidInput(
            f"The first certificate of {_read(certificate, 'certificate')[0]} is of another key "
            f"than {name}. Put the signer's own certificate first, those that signed it after it."
        )
    return Signer(plain, identity, certificates, subject)


def key_id(public: EllipticCurvePublicKey) -> str:
    """Return the digest of a public key, as signatures name it."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra

    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256:" + hashlib.sha256(pem).hexdigest()


@contextmanager
def handed(secret: bytes) -> Iterator[str]:
    """Yield a path from which a short secret can be read once; it is never on a disk."""
    reader, writer = os.pipe()
    try:
        try:
            os.write(writer, secret)
        finally:
            os.close(writer)
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)


_MAKE_ONE: Final = "Make one: openssl ecparam -name prime256v1 -genkey -noout -out release.key"


def _trusted(given: Pem) -> TrustedKey:
    from cryptography import x509  # noqa: PLC0415 - an extra
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an extra

    name, pem = _read(given, "key")
    if b"PRIVATE KEY-----" in pem:
        raise ConfigError(
            f"{name} is a private key. Verifying takes the public one: "
            f"openssl ec -in {name} -pubout -out release.pub"
        )
    if (several := pem.count(b"-----BEGIN PUBLIC KEY-----")) > 1:
        raise ConfigError(
            f"{name} holds {several} public keys, and only the first one would be read. Put each "
            "into a file of its own, and write a list of the paths."
        )
    try:
        if b"-----BEGIN CERTIFICATE-----" in pem:
            x509.load_pem_x509_certificates(pem)
            return TrustedKey(name, pem, "certificate")
        public = serialization.load_pem_public_key(pem)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise InvalidInput(f"{name} is no elliptic-curve key. {_MAKE_ONE}")
        _checked_curve(public, name)
    except (ValueError, UnsupportedAlgorithm) as exc:  # InvalidInput is the first one too.
        raise ConfigError(f"{name} is no public key and no certificate: {exc}") from exc
    return TrustedKey(name, pem, "key")


def _certificates(given: Pem) -> tuple[tuple[bytes, ...], str, str]:
    """Return the certificates of a file, the subject of the first one, and the id of its key."""
    from cryptography import x509  # noqa: PLC0415 - an extra
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an extra

    name, pem = _read(given, "certificate")
    try:
        found = x509.load_pem_x509_certificates(pem)
        public = found[0].public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigError(f"{name} holds no certificate that can be used: {exc}.") from exc
    owner = key_id(public) if isinstance(public, ec.EllipticCurvePublicKey) else ""
    encoded = tuple(each.public_bytes(serialization.Encoding.PEM) for each in found)
    return encoded, found[0].subject.rfc4514_string(), owner


def _checked_curve(public: EllipticCurvePublicKey, name: str) -> EllipticCurvePublicKey:
    if public.curve.name not in CURVES:
        raise InvalidInput(
            f"{name} is a key on the curve {public.curve.name}; signatures know "
            f"{', '.join(CURVES)}. {_MAKE_ONE}"
        )
    return public


def _read(given: Pem, what: str) -> tuple[str, bytes]:
    """Return the name and the bytes of a PEM file, or of a text that is one already."""
    if isinstance(given, str) and "-----BEGIN " in given:
        return f"the {what} given as text", given.encode()
    if isinstance(given, str) and _BARE_KEY.match(given) and not os.path.exists(given):
        raise ConfigError(
            f"The {what} is no path and no PEM text: {len(given)} characters, which are not shown "
            "since they look like a key. A PEM text keeps its lines -----BEGIN and -----END."
        )
    path = Path(given).expanduser().absolute()
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise ConfigError(f"The {what} {path} cannot be read: {reason}.") from exc
    if len(content) > _LONGEST:
        raise ConfigError(f"The {what} {path} is larger than {_LONGEST} bytes: no PEM file.")
    return str(path), content


def _warn_if_open_to_all(name: str) -> None:
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):  # A key that was given as text.
        return
    if mode & stat.S_IROTH:
        logger.warning(
            "Everybody on this machine can read the private key %s: chmod 600 %s", name, name
        )

"""Keys, and an authority with a root, for tests of signatures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path


def write_key(path: Path, password: bytes | None = None, curve: Any = None) -> Path:
    """Write a private key to a path and its public key beside it, and return the path."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    hidden: Any = serialization.NoEncryption()
    if password:
        hidden = serialization.BestAvailableEncryption(password)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    )
    path.with_suffix(".pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return path


class Authority:
    """A certificate authority with a root, one between, and those that it signs for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._certificate("root", self.root_key, None, None, authority=True)
        self.between_key = ec.generate_private_key(ec.SECP384R1())
        self.between = self._certificate(
            "between", self.between_key, self.root, self.root_key, authority=True
        )
        self.root_file = folder / "root.pem"
        self.root_file.write_bytes(pem(self.root))

    def signer(self, name: str, password: bytes | None = None) -> tuple[Path, Path]:
        """Return the files of a key, and of its certificate with the one between."""
        file = write_key(self.folder / f"{name}.key", password)
        key: Any = serialization.load_pem_private_key(file.read_bytes(), password)
        own = self._certificate(name, key, self.between, self.between_key, authority=False)
        chain = self.folder / f"{name}.pem"
        chain.write_bytes(pem(own) + pem(self.between))
        return file, chain

    def _certificate(
        self, name: str, key: Any, above: Any, above_key: Any, *, authority: bool
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        usage = dict.fromkeys(
            [
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ],
            False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(above.subject if above else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not authority,
                    key_cert_sign=authority,
                    crl_sign=authority,
                    **usage,
                ),
                critical=True,
            )
            .sign(above_key or key, hashes.SHA256())
        )


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def public(key: Path) -> str:
    return str(key.with_suffix(".pub"))

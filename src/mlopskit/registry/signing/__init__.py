"""Signatures: who vouches for a version, and the refusal of one that nobody vouches for."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel

from mlopskit.errors import InvalidInput, InvalidSignature
from mlopskit.registry import blobs
from mlopskit.registry.details import check_text
from mlopskit.registry.entities import FROZEN
from mlopskit.registry.lines import Line
from mlopskit.registry.signing import bundle
from mlopskit.registry.signing import keys as key_files
from mlopskit.registry.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.entities import ModelVersion
    from mlopskit.registry.references import Ref
    from mlopskit.registry.signing.keys import Pem, TrustedKey

KIND: Final = "signature"


class Verified(BaseModel):
    """A version whose signature was accepted.

    Attributes:
        name: The model's name.
        version: Its number.
        digest: The digest of its manifest.
        key: The digest of the public key that signed.
        certificate: The subject of its certificate, where it was signed with one.
    """

    model_config = FROZEN

    name: str
    version: int
    digest: str
    key: str
    certificate: str = ""


class Signing(Upkeep):
    """The part of the registry's interface that signs versions and verifies signatures.

    A signature is of a version's files, of its manifest, and of its name and number. It is a
    Sigstore bundle, made by the package model-signing.
    """

    # Whose signatures are accepted by `load`; with none of them, unsigned versions are, too.
    required_keys: tuple[TrustedKey, ...] = ()

    def sign(
        self,
        name: str,
        ref: Ref,
        *,
        key: Pem,
        certificate: Pem | None = None,
        password: str | None = None,
        why: str = "",
    ) -> Verified:
        """Sign a version, in the place of an earlier signature. Every byte of it is verified first.

        Args:
            name: The model's name.
            ref: Which version.
            key: The path of a PEM file with a private key on an elliptic curve, or its text.
            certificate: The path of a PEM file, or its text: the certificate of the key, and after
                it those that lead to one that is trusted.
            password: Of the key, if it is encrypted.
            why: A reason for the history.

        Raises:
            NotFound: If there is no such version.
            InvalidInput: If the password or the certificate does not fit the key, or the key is of
                another kind.
            ConfigError: If a file cannot be read.
            IntegrityError: If the bytes are not those that were registered.
            MissingDependency: If the package that signs is not installed.
        """
        signer = key_files.signer(key, certificate, password)
        why = self.context.redactor.text(check_text("why", why))
        found = self.get_version(name, ref)
        manifest = self._read_manifest(found)
        self._check_bytes(found, manifest)
        content = bundle.sign(found, manifest, signer)
        details = {"key": signer.id}
        if signer.subject:
            details["certificate"] = signer.subject
        line = Line(found.name, found.version, "signed", why=why, details=details)
        self._attach(found, KIND, content, line)
        return _verified(found, signer.id, signer.subject)

    def verify(self, name: str, ref: Ref, *, keys: Pem | Sequence[Pem] | None = None) -> Verified:
        """Check the signature of a version and every byte of it, and return who signed it.

        Args:
            name: The model's name.
            ref: Which version.
            keys: Public keys, or certificates that have signed the signer's: a path of a PEM file,
                its text, or a list. Those of the option ``require_signature`` if left out.

        Raises:
            NotFound: If there is no such version.
            InvalidSignature: If it is not signed by one of the keys, or is another's signature.
            IntegrityError: If the bytes are not those that were registered.
            InvalidInput: If there are no keys to verify with.
            ConfigError: If a key cannot be read, or `keys` holds none.
            MissingDependency: If the package that verifies is not installed.
        """
        trusted = self.required_keys if keys is None else key_files.trusted_keys(keys, "keys")
        if not trusted:
            raise InvalidInput(
                "There is no key to verify with. Pass keys=, or open the registry with "
                "require_signature."
            )
        found = self.get_version(name, ref)
        manifest = self._read_manifest(found)
        verified = self._checked(found, manifest, trusted)
        self._check_bytes(found, manifest)
        return verified

    # Steps that the parts of the interface share.

    def _require_signatures(self, given: Pem | Sequence[Pem] | None) -> None:
        """Take the option ``require_signature`` of a backend's constructor.

        Raises:
            ConfigError: If a key cannot be read, so that opening the registry fails.
        """
        self.required_keys = key_files.trusted_keys(given)

    def _check_signature(self, version: ModelVersion, manifest: Manifest) -> None:
        """Refuse a version without a signature, where the registry asks for one."""
        if self.required_keys:
            self._checked(version, manifest, self.required_keys)

    def _refuse_unsigned(self, what: str) -> None:
        """Refuse what cannot have a signature, where the registry asks for one."""
        if self.required_keys:
            raise InvalidSignature(what, "only what mlopskit registered can have one")

    def _check_bytes(self, version: ModelVersion, manifest: Manifest) -> None:
        with TemporaryDirectory(prefix="mlopskit-") as scratch:
            self._fetch(version, manifest, Path(scratch))
            blobs.check_folder(Path(scratch), manifest, names_only=self.fetch_verifies)

    def _checked(
        self, version: ModelVersion, manifest: Manifest, keys: Sequence[TrustedKey]
    ) -> Verified:
        content = self._attachment(version, KIND)
        if content is None:
            raise InvalidSignature(f"version {version.version} of {version.name!r}", "it has none")
        key, subject = bundle.check(content, version, manifest, keys)
        return _verified(version, key, subject)


def _verified(version: ModelVersion, key: str, subject: str) -> Verified:
    return Verified(
        name=version.name,
        version=version.version,
        digest=version.digest,
        key=key,
        certificate=subject,
    )

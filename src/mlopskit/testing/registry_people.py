"""What every model registry keeps of people's words: approvals, events and signatures."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import (
    Conflict,
    InvalidInput,
    InvalidSignature,
    NotFound,
)
from mlopskit.registry.gates import approved
from mlopskit.registry.lines import Line
from mlopskit.tool import Context

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry import GateContext, ModelVersion, Registry

NOTHING = timedelta(0)


def _key_pair(folder: Path) -> tuple[Path, Path]:
    """Write a private and a public key, and return where."""
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an extra

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


class RegistryPeople:
    """A part of `RegistryContract`, which gives `registry` and `source`."""

    # Approval.

    def test_a_request_is_approved_by_another_person(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source)
        asked = registry.request_approval("churn", 1, "production", why="it is better", by="ada")

        assert (asked.status, asked.by, asked.version, asked.stage) == (
            "pending",
            "ada",
            1,
            "production",
        )
        assert registry.pending() == registry.pending("churn") == [asked]
        with pytest.raises(Conflict, match="Another person"):
            registry.approve("churn", asked.id, by="ada")
        approved = registry.approve("churn", asked.id, by="grace", why="agreed")
        assert (approved.status, approved.decided_by, approved.decided_why) == (
            "approved",
            "grace",
            "agreed",
        )
        assert registry.pending() == []
        assert registry.requests("churn") == [approved]

    def test_a_request_is_decided_once(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        asked = registry.request_approval("churn", 1, "production", why="w", by="ada")
        with pytest.raises(Conflict, match="pending"):
            registry.request_approval("churn", 1, "production", why="again", by="bob")
        registry.reject("churn", asked.id, by="grace")
        for decide in (registry.approve, registry.reject):
            with pytest.raises(Conflict, match="rejected by 'grace'"):
                decide("churn", asked.id, by="eve")
        again = registry.request_approval("churn", 1, "production", why="again", by="ada")
        assert again.id > asked.id
        with pytest.raises(NotFound):
            registry.approve("churn", again.id + 1000, by="eve")

    def test_an_approval_is_good_for_one_promotion(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        asked = registry.request_approval("churn", 1, "staging", why="w", by="ada")
        registry.approve("churn", asked.id, by="grace")
        registry.promote("churn", 1, "staging", [lambda _: False])
        assert registry.requests("churn")[0].status == "approved"
        registry.promote("churn", 1, "staging")
        assert registry.requests("churn")[0].status == "used"

    def test_a_request_expires(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        soon = timedelta(microseconds=1)
        asked = registry.request_approval(
            "churn", 1, "production", why="w", by="ada", expires_in=soon
        )
        assert registry.requests("churn")[0].status == "expired"
        with pytest.raises(Conflict, match="expired"):
            registry.approve("churn", asked.id, by="grace")
        again = registry.request_approval("churn", 1, "production", why="w", by="ada")
        assert again.status == "pending"

    def test_an_approval_that_expires_while_gates_are_asked_lets_nothing_pass(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source)
        soon = timedelta(seconds=2)
        asked = registry.request_approval(
            "churn", 1, "production", why="w", by="ada", expires_in=soon
        )
        registry.approve("churn", asked.id, by="grace")

        def slow(_: GateContext) -> bool:
            while datetime.now(UTC) <= asked.expires_at:
                time.sleep(0.05)
            return True

        assert not registry.promote("churn", 1, "production", [approved(), slow])
        assert registry.requests("churn")[0].status == "expired"
        assert registry.get_version("churn", 1).stage == "none"

    def test_who_asked_is_known_however_it_is_written(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source)
        asked = registry.request_approval("churn", 1, "production", why="w", by="Ada")
        for name in ("ada", "ADA ", "\uff41da", registry.actor):
            with pytest.raises(Conflict, match="Another person"):
                registry.approve("churn", asked.id, by=name)

    def test_a_request_ends_with_its_version(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        registry.register("churn", source)
        asked = registry.request_approval("churn", 2, "production", why="w", by="ada")
        registry.delete_version("churn", 2, consent=True)

        assert registry.pending("churn") == []
        assert registry.requests("churn")[0].status == "outdated"
        with pytest.raises(Conflict, match="no longer there"):
            registry.approve("churn", asked.id, by="grace")

    def test_a_bad_request_is_refused(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        unreadable: Any = 5
        for expires_in in (unreadable, timedelta.max):
            with pytest.raises(InvalidInput, match="expire"):
                registry.request_approval("churn", 1, "production", why="w", expires_in=expires_in)
        with pytest.raises(InvalidInput, match="reason"):
            registry.request_approval("churn", 1, "production", why=" ")
        with pytest.raises(InvalidInput):
            registry.request_approval("churn", 1, "production", why="w", expires_in=NOTHING)
        with pytest.raises(InvalidInput, match="Nobody"):
            registry.request_approval("churn", 1, "production", why="w", by=" ")
        with pytest.raises(NotFound):
            registry.request_approval("churn", 1, "prodution", why="w")
        with pytest.raises(Conflict):
            registry.request_approval("churn", 1, "none", why="w")
        assert len(registry.history("churn")) == 1

    def test_the_history_tells_of_requests(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        asked = registry.request_approval("churn", 1, "production", why="w ghp_" + "a" * 36)
        registry.approve("churn", asked.id, by="grace")

        first, second = registry.history("churn")[1:]
        assert (first.action, first.before, first.after) == ("requested", "none", "production")
        assert first.id == asked.id
        assert "ghp_" not in first.why
        assert (second.action, second.details["request"], second.details["by"]) == (
            "approved",
            asked.id,
            "grace",
        )

    # Events.

    def test_listeners_hear_of_versions_and_aliases(self, registry: Registry, source: Path) -> None:
        heard: list[tuple[str, int, str | None]] = []

        def notify(event: str, **details: Any) -> None:
            version: ModelVersion = details["version"]
            heard.append((event, version.version, details.get("alias")))

        old = registry.context
        registry.context = Context(home=old.home, redactor=old.redactor, notify=notify)
        registry.register("churn", source)
        registry.set_alias("churn", "champion", 1)
        with pytest.raises(NotFound):
            registry.register("churn", source.with_name("absent"))

        assert heard == [("model_registered", 1, None), ("alias_set", 1, "champion")]

    # Signatures.

    def test_a_version_is_signed_and_verified(
        self, registry: Registry, source: Path, tmp_path: Path
    ) -> None:
        private, public = _key_pair(tmp_path)
        registry.register("churn", source)
        registry.register("churn", source, tags={"team": "a"})
        with pytest.raises(InvalidSignature):
            registry.verify("churn", 1, keys=public)
        registry.sign("churn", 1, key=private, why="release")

        assert registry.verify("churn", 1, keys=public).version == 1
        entry = registry.history("churn")[-1]
        assert (entry.action, entry.version, entry.why) == ("signed", 1, "release")
        with pytest.raises(InvalidSignature):
            registry.verify("churn", 2, keys=public)

    def test_a_signature_of_another_version_is_refused(
        self, registry: Registry, source: Path, tmp_path: Path
    ) -> None:
        private, public = _key_pair(tmp_path)
        first = registry.register("churn", source)
        second = registry.register("churn", source)
        registry.sign("churn", 1, key=private)
        copied = registry._attachment(first, "signature")
        assert copied is not None
        registry._attach(second, "signature", copied, Line("churn", 2, "signed"))

        with pytest.raises(InvalidSignature):
            registry.verify("churn", 2, keys=public)

    def test_what_must_be_signed_is_not_handed_out_unsigned(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        private, public = _key_pair(tmp_path)
        path = tmp_path / "model.pkl"
        path.write_bytes(b"\x80\x04K\x07.")  # The pickle of 7.
        registry.register("churn", path)
        registry._require_signatures(str(public))

        with pytest.raises(InvalidSignature):
            registry.load("churn", 1, trusted=True)
        with pytest.raises(InvalidSignature):
            registry.download("churn", 1, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        registry.sign("churn", 1, key=private)
        assert registry.load("churn", 1, trusted=True) == 7

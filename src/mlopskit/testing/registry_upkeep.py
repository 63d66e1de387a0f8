"""What every model registry keeps beside promotions: upkeep, approval, lineage, collection."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import (
    Conflict,
    InvalidInput,
    InvalidModel,
    InvalidName,
    InvalidSignature,
    NotFound,
)
from mlopskit.registry import ModelVersion, Registry, Signature, TensorSpec
from mlopskit.registry.gates import approved
from mlopskit.registry.lines import Line
from mlopskit.tool import Context

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry import GateContext

NOTHING = timedelta(0)


def _key_pair(folder: Path) -> tuple[Path, Path]:
    """Write a private and a public key, and return where."""
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

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


class RegistryUpkeep:
    """A part of `RegistryContract`, which gives `registry` and `source`."""

    # Editing.

    def test_a_version_is_edited_and_the_rest_stays(self, registry: Registry, source: Path) -> None:
        given: dict[str, Any] = {
            "tags": {"team": "a", "old": "x", "stays": "y"},
            "metrics": {"auc": 0.5},
            "description": "before",
        }
        made = registry.register("churn", source, **given)
        registry.register("churn", source)
        edited = registry.update_version("churn", 1, tags={"team": "späti", "old": None, "n": ""})

        assert edited.tags == {"team": "späti", "stays": "y", "n": ""}
        assert edited.model_copy(update={"tags": made.tags}) == made
        assert registry.update_version("churn", "1", description="").description == ""
        assert registry.get_version("churn", 1).tags == edited.tags
        assert registry.get_version("churn", 2).tags == {}

    def test_a_model_is_edited(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        registry.register("other", source)
        registry.update_model("churn", description="who leaves", tags={"team": "a", "x": "1"})
        registry.update_model("churn", tags={"x": None, "long": "y" * 9000})

        model = registry.get_model("churn")
        assert (model.description, model.tags) == ("who leaves", {"team": "a", "long": "y" * 9000})
        assert registry.get_model("other").tags == {}
        assert registry.list_models()[0] == model

    def test_an_edit_is_in_the_history_without_secrets(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source)
        registry.update_version("churn", 1, tags={"db_password": "hunter2!"}, why="asked")
        registry.update_model("churn", description="key ghp_" + "a" * 36)

        first, second = registry.history("churn")[1:]
        assert (first.action, first.version, first.why) == ("edited", 1, "asked")
        assert list(first.details["tags"]) == ["db_password"]
        assert (second.action, second.version) == ("edited", None)
        kept = str(registry.history("churn")) + str(registry.list_versions("churn"))
        assert "hunter2!" not in kept
        assert "ghp_" not in kept

    def test_a_bad_edit_is_refused(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source, tags={"team": "a"})
        bad: list[dict[str, Any]] = [{}, {"tags": {}}, {"tags": {"n": 3}}, {"description": 7}]
        for each in bad:
            with pytest.raises(InvalidInput):
                registry.update_version("churn", 1, **each)
            with pytest.raises(InvalidInput):
                registry.update_model("churn", **each)
        with pytest.raises(InvalidName):
            registry.update_version("churn", 1, tags={"a\0b": None})
        for name, ref in (("absent", 1), ("churn", 9)):
            with pytest.raises(NotFound):
                registry.update_version(name, ref, description="x")
        with pytest.raises(NotFound):
            registry.update_model("absent", description="x")
        assert len(registry.history("churn")) == 1

    # Finding and comparing.

    def test_versions_are_found_by_the_filter_language(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source, metrics={"auc": 0.8}, tags={"team": "a"})
        registry.register("churn", source, metrics={"auc": 0.9}, description="it's best")
        registry.register("other", source, metrics={"auc": 0.7, "acc@1": 1})
        registry.promote("churn", 1, "production")

        def found(where: str, name: str | None = None, **how: Any) -> list[tuple[str, int]]:
            versions = registry.search_versions(where, name, **how)
            return [(each.name, each.version) for each in versions]

        assert found("metrics.auc > 0.75") == [("churn", 1), ("churn", 2)]
        assert found("metrics.auc > 0.75 and not stage = 'production'") == [("churn", 2)]
        assert found("tags.team = 'a' or metrics.`acc@1` = 1") == [("churn", 1), ("other", 1)]
        assert found("description like '%it''s%'") == [("churn", 2)]
        assert found("version >= 2", "churn") == [("churn", 2)]
        assert found("", order_by="metrics.auc desc", limit=2) == [("churn", 2), ("churn", 1)]
        with pytest.raises(InvalidInput, match=r"column 1 .*\n.*params"):
            registry.search_versions("params.lr > 1")
        with pytest.raises(NotFound):
            registry.search_versions("", "absent")

    def test_models_are_found_by_the_filter_language(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source)
        registry.register("other", source)
        registry.register("other", source)
        registry.update_model("churn", tags={"team": "a"})

        assert [m.name for m in registry.search_models("versions > 1 or tags.team = 'a'")] == [
            "churn",
            "other",
        ]
        assert [m.name for m in registry.search_models("tags.team is null")] == ["other"]
        assert registry.search_models(order_by="latest desc", limit=1)[0].name == "other"

    def test_the_best_version_is_found(self, registry: Registry, source: Path) -> None:
        for metrics in ({"auc": 0.8}, {"auc": 0.9}, {"auc": math.nan}, {"loss": 1}, {"auc": 0.9}):
            registry.register("churn", source, metrics=metrics)

        assert registry.best_version("churn", "auc").version == 5
        assert registry.best_version("churn", "auc", where="version < 5").version == 2
        assert registry.best_version("churn", "auc", higher_is_better=False).version == 1
        with pytest.raises(NotFound, match="auc"):
            registry.best_version("churn", "f1")

    def test_two_versions_are_compared(self, registry: Registry, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "same").write_bytes(b"1")
        (folder / "weights").write_bytes(b"2")
        inputs = (TensorSpec(name="age", dtype="int64"),)
        common: dict[str, Any] = {"code": "c1", "tags": {"team": "a"}}
        registry.register(
            "churn",
            folder,
            metrics={"auc": 0.8, "n": 3},
            data="d1",
            signature=Signature(inputs=inputs),
            **common,
        )
        (folder / "weights").write_bytes(b"3")
        (folder / "more").write_bytes(b"4")
        wider = Signature(inputs=(*inputs, TensorSpec(name="x", dtype="str")))
        registry.register("churn", folder, metrics={"auc": 0.9, "n": 3}, signature=wider, **common)

        found = registry.compare_versions("churn", 1, "latest")
        assert (found.a.version, found.b.version) == (1, 2)
        assert found.metrics == {"auc": (0.8, 0.9)}
        assert found.tags == {}
        assert found.lineage == {"data": ("d1", None)}
        assert sorted(found.files) == ["more", "weights"]
        assert found.files["more"][0] is None
        assert found.signature is not None
        assert found.signature.breaks == ("The input 'x' is new.",)
        same = registry.compare_versions("churn", 1, 1)
        assert (same.metrics, same.files, same.lineage) == ({}, {}, {})

    def test_the_manifest_says_what_a_version_consists_of(
        self, registry: Registry, source: Path
    ) -> None:
        made = registry.register("churn", source)
        manifest = registry.manifest("churn", 1)

        assert manifest.digest == made.digest
        assert [(file.path, file.size) for file in manifest.files] == [("weights.bin", 256)]

    # Lineage and examples.

    def test_the_lineage_of_a_version_is_kept(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source, run_id="a" * 32, data="sha256:00", code="v1-dirty")
        found = registry.get_version("churn", 1)

        assert (found.run_id, found.lineage.data, found.lineage.code) == (
            "a" * 32,
            "sha256:00",
            "v1-dirty",
        )
        assert found.lineage.python.count(".") == 2

    def test_an_example_is_kept_beside_the_files(
        self, registry: Registry, source: Path, tmp_path: Path
    ) -> None:
        numpy = pytest.importorskip("numpy")
        inputs = {
            "age": numpy.array([[1, 2]], "int32"),
            "flag": numpy.array([True]),
            "word": numpy.array(["späti"], object),
        }
        made = registry.register(
            "churn", source, input_example=inputs, output_example=numpy.array([0.1 + 0.2])
        )
        asked, answered = registry.example("churn", 1)

        assert {key: value.tolist() for key, value in asked.items()} == {
            "age": [[1, 2]],
            "flag": [True],
            "word": ["späti"],
        }
        assert asked["age"].dtype == "int32"
        assert answered["output"].tolist() == [0.1 + 0.2]
        assert made.signature is not None
        assert [(spec.name, spec.dtype) for spec in made.signature.inputs] == [
            ("age", "int32"),
            ("flag", "bool"),
            ("word", "str"),
        ]
        registry.register("churn", source)
        with pytest.raises(NotFound, match="example"):
            registry.example("churn", 2)

    def test_an_example_does_not_hinder_loading(self, registry: Registry, tmp_path: Path) -> None:
        pytest.importorskip("numpy")
        path = tmp_path / "model.pkl"
        path.write_bytes(b"\x80\x04K\x07.")  # The pickle of 7.
        registry.register("churn", path, input_example=[[1.5]])
        assert registry.load("churn", 1, trusted=True) == 7

    @pytest.mark.parametrize("example", [3, {}, {"x": 1.0}, {"x": [object()]}])
    def test_a_bad_example_is_refused(self, registry: Registry, source: Path, example: Any) -> None:
        pytest.importorskip("numpy")
        with pytest.raises(InvalidInput):
            registry.register("churn", source, input_example=example)
        assert registry.list_models() == []

    def test_progress_is_told(self, registry: Registry, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "a").write_bytes(bytes(3 << 20))
        (folder / "b").write_bytes(b"x" * 10)
        told: list[tuple[int, int]] = []
        registry.register("churn", folder, told=lambda done, total: told.append((done, total)))

        assert told[-1] == ((3 << 20) + 10,) * 2
        assert told == sorted(told)

    def test_an_empty_path_is_no_path(
        self, registry: Registry, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(source.parent)
        with pytest.raises(InvalidInput, match="empty"):
            registry.register("churn", "")
        assert registry.list_models() == []

    # Deleting.

    def test_a_version_is_deleted_and_its_number_stays_taken(
        self, registry: Registry, source: Path
    ) -> None:
        for _ in range(3):
            registry.register("churn", source)
        registry.delete_version("churn", 3, consent=True, why="wrong data")
        registry.delete_version("churn", 1, consent=True)

        assert [each.version for each in registry.list_versions("churn")] == [2]
        for ref in (1, 3, "3"):
            with pytest.raises(NotFound):
                registry.get_version("churn", ref)
        assert registry.get_version("churn", "latest").version == 2
        assert registry.register("churn", source).version == 4
        (model,) = registry.list_models()
        assert (model.versions, model.latest) == (2, 4)
        entry = next(e for e in registry.history("churn") if e.action == "deleted")
        assert (entry.version, entry.before, entry.why) == (3, "none", "wrong data")

    def test_deleting_needs_consent(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        anything: Any
        for anything in (False, 1, "yes"):
            with pytest.raises(InvalidInput, match="consent=True"):
                registry.delete_version("churn", 1, consent=anything)
            with pytest.raises(InvalidInput, match="consent=True"):
                registry.delete_model("churn", consent=anything)
        assert registry.get_version("churn", 1).version == 1

    def test_what_is_in_use_is_not_deleted(self, registry: Registry, source: Path) -> None:
        for _ in range(3):
            registry.register("churn", source)
        registry.promote("churn", 1, "production")
        registry.set_alias("churn", "champion", 2)

        with pytest.raises(Conflict, match="production"):
            registry.delete_version("churn", 1, consent=True)
        with pytest.raises(Conflict, match="champion"):
            registry.delete_version("churn", "@champion", consent=True)
        with pytest.raises(Conflict):
            registry.delete_model("churn", consent=True)
        assert [each.version for each in registry.list_versions("churn")] == [1, 2, 3]
        registry.promote("churn", 1, "archived")
        registry.delete_version("churn", 1, consent=True)

    def test_a_deleted_model_is_gone_and_its_history_stays(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source)
        registry.register("churn", source)
        registry.delete_model("churn", consent=True)

        assert registry.list_models() == []
        with pytest.raises(NotFound):
            registry.list_versions("churn")
        with pytest.raises(NotFound):
            registry.get_version("churn", "latest")
        actions = [entry.action for entry in registry.history("churn")]
        assert actions == ["registered", "registered", "deleted", "deleted"]
        assert registry.register("churn", source).version == 3

    def test_a_rollback_passes_over_a_deleted_version(
        self, registry: Registry, source: Path
    ) -> None:
        for number in (1, 2, 3):
            registry.register("churn", source)
            registry.promote("churn", number, "production")
        registry.delete_version("churn", 2, consent=True)

        assert registry.rollback("churn", "production").version == 1

    # Collecting.

    def test_bytes_are_collected_when_nothing_needs_them(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        if "gc" not in registry.capabilities:
            pytest.skip(registry.capabilities["gc"].note)
        path = tmp_path / "weights.bin"
        for content in (b"a" * 100, b"b" * 100, b"c" * 100):
            path.write_bytes(content)
            registry.register("churn", path)
        registry.delete_version("churn", 2, consent=True)

        assert registry.gc(dry_run=False).removed == ()  # Deleted within the last month.
        planned = registry.gc(window=NOTHING)
        assert planned.dry_run
        assert planned.size >= 100
        done = registry.gc(window=NOTHING, dry_run=False)
        assert done.removed == planned.removed
        assert registry.gc(window=NOTHING, dry_run=False).removed == ()
        assert registry.gc(dry_run=False).removed == ()  # In a longer window again.
        for number, letter in ((1, b"a"), (3, b"c")):
            out = registry.download("churn", number, tmp_path / str(number))
            assert (out / "weights.bin").read_bytes() == letter * 100

    def test_equal_bytes_of_another_version_are_not_collected(
        self, registry: Registry, source: Path, tmp_path: Path
    ) -> None:
        if "gc" not in registry.capabilities:
            pytest.skip(registry.capabilities["gc"].note)
        registry.register("churn", source)
        registry.register("other", source, metrics={"auc": 1})
        registry.delete_model("churn", consent=True)
        registry.gc(window=NOTHING, dry_run=False)

        assert (registry.download("other", 1, tmp_path / "out") / "weights.bin").is_file()

    def test_a_dry_run_tells_all_that_would_go(self, registry: Registry, tmp_path: Path) -> None:
        if "gc" not in registry.capabilities:
            pytest.skip(registry.capabilities["gc"].note)
        path = tmp_path / "weights.bin"
        for letter in (b"a", b"b", b"c", b"b", b"d", b"e"):
            path.write_bytes(letter * 100)
            registry.register("churn", path)
        registry.register("other", path)
        registry.promote("churn", 2, "production")
        registry.delete_version("churn", 5, consent=True)

        for keep_last in (2, 1, 0):
            planned = registry.gc(window=NOTHING, keep_last=keep_last)
            done = registry.gc(window=NOTHING, keep_last=keep_last, dry_run=False)
            assert done.versions == planned.versions
            assert done.removed == planned.removed
            assert (keep_last == 2) == ("churn/1" in done.versions)
        out = registry.download("churn", 2, tmp_path / "out")
        assert (out / "weights.bin").read_bytes() == b"b" * 100

    def test_what_is_held_is_not_collected(self, registry: Registry, source: Path) -> None:
        if "gc" not in registry.capabilities:
            pytest.skip(registry.capabilities["gc"].note)
        for _ in range(6):
            registry.register("churn", source)
        registry.promote("churn", 1, "production")
        registry.promote("churn", 2, "production")
        registry.set_alias("churn", "champion", 3)

        kept = registry.gc(keep_last=0)
        assert kept.versions == ()  # All are younger than the window.
        planned = registry.gc(window=NOTHING, keep_last=1)
        assert planned.versions == ("churn/1", "churn/4", "churn/5")
        assert len(registry.list_versions("churn")) == 6
        registry.gc(window=NOTHING, keep_last=1, dry_run=False)
        assert [each.version for each in registry.list_versions("churn")] == [2, 3, 6]
        with pytest.raises(InvalidInput):
            registry.gc(keep_last=-1)
        with pytest.raises(InvalidInput):
            registry.gc(window=-timedelta(days=1))

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

    # Manifests.

    def test_a_changed_manifest_is_noticed(self, registry: Registry, source: Path) -> None:
        made = registry.register("churn", source)
        text = registry._manifest(made)
        registry._manifest = lambda version: text.replace(b'"size":256', b'"size":255')  # type: ignore[method-assign]
        with pytest.raises(InvalidModel, match="digest"):
            registry.load("churn", 1, trusted=True)

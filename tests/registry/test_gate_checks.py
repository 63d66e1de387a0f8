"""Gates that ask what a version is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("skops")

from sklearn.linear_model import LinearRegression

import mlopskit as mk
from mlopskit.errors import InvalidInput, UnknownOption
from mlopskit.registry import (
    Decision,
    GateContext,
    Signature,
    TensorSpec,
    approved,
    card_complete,
    digest_verified,
    environment_known,
    fresh,
    signature_compatible,
    smaller_than,
    write_card,
)
from mlopskit.registry.gates import Gate, rehearse
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry import ModelVersion, Registry


def sloped(slope: float) -> LinearRegression:
    """Return a model that answers `slope` times what it is asked."""
    x = np.array([[0.0], [1.0]])
    return LinearRegression(fit_intercept=False).fit(x, slope * x[:, 0])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with mk.open_registry(f"local:{tmp_path / 'registry'}") as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    return path


def evidence(decision: Decision) -> Any:
    (found,) = decision.evidence.values()
    return found


# What a version is.


def signed(*inputs: str, outputs: tuple[str, ...] = ("y",)) -> Signature:
    def specs(names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=name, dtype="float64") for name in names)

    return Signature(inputs=specs(inputs), outputs=specs(outputs))


@pytest.mark.parametrize(
    ("held", "candidate", "passes", "says"),
    [
        (signed("a"), signed("a"), True, "can ask the candidate"),
        (signed("a"), signed("a", outputs=("y", "z")), True, "can ask"),
        (signed("a"), signed("a", "b"), False, "The input 'b' is new."),
        (signed("a"), None, False, "no signature to compare"),
        (None, None, False, "no signature to compare"),
        (None, signed("a"), True, "has no signature; the candidate has one"),
    ],
)
def test_who_asks_the_holder_can_ask_the_candidate(
    registry: Registry,
    file: Path,
    held: Signature | None,
    candidate: Signature | None,
    passes: bool,
    says: str,
) -> None:
    registry.register("net", file, signature=held)
    assert registry.promote("net", 1, "production", [signature_compatible()]), "nobody breaks"
    registry.register("net", file, signature=candidate)
    decision = registry.promote("net", 2, "production", [signature_compatible()])

    assert bool(decision) is passes
    assert says in decision.reasons[0]


def test_every_byte_is_verified(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"alpha")
    (folder / "deep" / "b.bin").write_bytes(b"beta")
    version = registry.register("net", folder)
    decision = rehearse(registry, "net", 1, "production", (digest_verified(),))
    assert decision
    assert evidence(decision) == {"digest": version.digest, "files": 2, "bytes": 9}

    assert isinstance(registry, LocalRegistry)
    (blob,) = (
        path
        for path in (tmp_path / "registry").rglob("*")
        if path.is_file() and path.read_bytes() == b"beta"
    )
    blob.chmod(0o600)
    blob.write_bytes(b"bets")
    decision = rehearse(registry, "net", 1, "production", (digest_verified(),))
    assert not decision
    assert decision.reasons[0].startswith("IntegrityError: ")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_where_there_are_no_digests_nothing_is_verified(uri: str, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "w.txt").write_text("w")
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("net")
    client.create_model_version("net", str(folder))
    with mk.open_registry(f"mlflow:{uri}") as theirs:
        decision = rehearse(theirs, "net", 1, "production", digest_verified())

    assert not decision
    assert "Version 1 has no digests to verify" in decision.reasons[0]
    assert evidence(decision) == {"digest": None}


def test_a_limit_of_bytes_is_not_reached(registry: Registry, file: Path) -> None:
    registry.register("net", file)
    assert rehearse(registry, "net", 1, "production", (smaller_than(8),))
    assert not rehearse(registry, "net", 1, "production", (smaller_than(7),))


def test_a_version_ages(registry: Registry, file: Path) -> None:
    registry.register("net", file)
    assert rehearse(registry, "net", 1, "production", (fresh(timedelta(hours=1)),))
    decision = rehearse(registry, "net", 1, "production", (fresh(timedelta(microseconds=1)),))
    assert not decision
    assert evidence(decision)["too_old"] == ["registered"]


@pytest.mark.parametrize(
    ("days", "passes"), [(6.9, True), (7.1, False)], ids=["young data", "old data"]
)
def test_data_age_too(registry: Registry, file: Path, days: float, passes: bool) -> None:
    until = datetime.now(UTC) - timedelta(days=days)
    for said in (until.isoformat(), until.replace(tzinfo=None).isoformat()):
        number = registry.register("net", file, tags={"data_until": said}).version
        decision = rehearse(registry, "net", number, "production", (fresh(timedelta(days=7)),))
        assert bool(decision) is passes, said


def test_young_data_make_no_version_younger(registry: Registry, file: Path) -> None:
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    registry.register("net", file, tags={"data_until": until})
    decision = rehearse(registry, "net", 1, "production", (fresh(timedelta(microseconds=1)),))

    assert evidence(decision)["too_old"] == ["registered"]
    assert evidence(decision)["data_age_s"] < 0 < evidence(decision)["registered_age_s"]


def test_data_of_the_future_are_a_mistake_and_not_fresh(registry: Registry, file: Path) -> None:
    registry.register("net", file, tags={"data_until": "2962-05-01"})
    decision = rehearse(registry, "net", 1, "production", (fresh(timedelta(days=7)),))

    assert not decision
    assert evidence(decision)["ahead"] == ["data"]
    assert evidence(decision)["too_old"] == []
    assert "ahead of this clock" in decision.reasons[0]


def test_clocks_may_differ_by_hours(registry: Registry, file: Path) -> None:
    until = (datetime.now(UTC) + timedelta(hours=14)).isoformat()
    registry.register("net", file, tags={"data_until": until})
    assert rehearse(registry, "net", 1, "production", (fresh(timedelta(days=7)),))


def test_an_age_that_cannot_be_read_is_not_taken_for_young(registry: Registry, file: Path) -> None:
    registry.register("net", file, tags={"data_until": "yesterday"})
    assert not rehearse(registry, "net", 1, "production", (fresh(timedelta(days=7)),))
    with pytest.raises(InvalidInput):
        fresh(timedelta(0))


@pytest.fixture
def asked(registry: Registry, file: Path) -> Callable[..., Decision]:
    """Register a version, let Ada ask for production, and ask the gate."""
    registry.register("net", file)

    def ask(*gates: Gate) -> Decision:
        return rehearse(registry, "net", 1, "production", gates)

    return ask


def request(registry: Registry, **more: Any) -> int:
    return registry.request_approval("net", 1, "production", why="May", by="ada", **more).id


def test_nobody_asked(asked: Callable[..., Decision]) -> None:
    assert "Nobody asked for the approval of version 1" in asked(approved()).reasons[0]


def test_a_person_has_to_approve(asked: Callable[..., Decision], registry: Registry) -> None:
    number = request(registry)
    assert "is pending" in asked(approved()).reasons[0]
    registry.approve("net", number, by="grace")

    decision = asked(approved())
    assert decision
    assert evidence(decision)["approved_by"] == "grace"
    assert asked(approved(by="grace"), approved(by=["bob", "grace"]))
    refused = asked(approved(by=["bob"]))
    assert "grace approved it, who is not one of ['bob']" in refused.reasons[0]


def test_the_approval_of_the_right_person_counts_whoever_approved_later(
    asked: Callable[..., Decision], registry: Registry
) -> None:
    registry.approve("net", request(registry), by="grace")
    registry.approve("net", request(registry), by="bob")

    decision = asked(approved(by="grace"))
    assert decision
    assert evidence(decision)["approved_by"] == "grace"


def test_an_approval_by_who_asked_counts_for_nothing_wherever_it_came_from(
    asked: Callable[..., Decision], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.approve("net", request(registry), by="grace")
    forged = [
        each.model_copy(update={"decided_by": by})
        for each in registry.requests("net")
        for by in ("ada", None)
    ]
    for each in forged:
        monkeypatch.setattr(registry, "requests", lambda name=None, each=each: [each])
        assert "ada asked, and cannot be the one who approves." in asked(approved()).reasons


def test_a_rejection_is_told_with_its_author(
    asked: Callable[..., Decision], registry: Registry
) -> None:
    registry.reject("net", request(registry), by="grace")
    assert "is rejected by grace" in asked(approved()).reasons[0]


def test_an_approval_is_for_its_version_and_stage(
    asked: Callable[..., Decision], registry: Registry, file: Path
) -> None:
    registry.register("net", file)
    registry.approve("net", request(registry), by="grace")
    assert not rehearse(registry, "net", 1, "staging", (approved(),))
    assert not rehearse(registry, "net", 2, "production", (approved(),))


def test_an_approval_ends(asked: Callable[..., Decision], registry: Registry) -> None:
    number = request(registry, expires_in=timedelta(milliseconds=300))
    registry.approve("net", number, by="grace")
    end = next(each for each in registry.requests("net") if each.id == number).expires_at
    while datetime.now(UTC) <= end:
        pass
    assert "is expired" in asked(approved()).reasons[0]


def test_an_approval_is_good_for_one_promotion(
    asked: Callable[..., Decision], registry: Registry, file: Path
) -> None:
    registry.approve("net", request(registry), by="grace")
    assert registry.promote("net", 1, "production", [approved()])

    def gate(context: GateContext) -> bool:
        return context.approval is None

    context = GateContext(registry, registry.get_version("net", 1), "production", None)
    assert gate(context)
    assert not approved()(context)


def test_a_context_knows_the_approval(asked: Callable[..., Decision], registry: Registry) -> None:
    number = request(registry)
    registry.approve("net", number, by="grace")

    def gate(context: GateContext) -> bool:
        return context.approval is not None and context.approval.id == number

    assert asked(gate)


def test_a_card_has_to_be_filled_in(registry: Registry, file: Path) -> None:
    registry.register("net", file, metrics={"auc": 0.7})
    decision = rehearse(registry, "net", 1, "production", (card_complete(),))
    assert evidence(decision)["missing"] == ["owner", "use_case", "data", "limits"]

    write_card(registry, "net", owner="ada", use_case="churn", data="2025")
    write_card(registry, "net", 1, limits=" ")
    decision = rehearse(registry, "net", 1, "production", (card_complete(),))
    assert evidence(decision)["missing"] == ["limits"]
    write_card(registry, "net", 1, limits="Not for new customers.")
    assert rehearse(registry, "net", 1, "production", (card_complete(),))
    slices = rehearse(registry, "net", 1, "production", (card_complete("owner", "slices"),))
    assert evidence(slices)["missing"] == ["slices"]


def test_a_field_that_no_card_has_is_refused_at_once() -> None:
    with pytest.raises(UnknownOption, match="owner"):
        card_complete("onwer")


def test_the_environment_has_to_be_known(registry: Registry, file: Path) -> None:
    registry.register("net", sloped(1.0), code="abc")
    registry.register("net", file, code="abc-dirty")
    decision = rehearse(registry, "net", 1, "production", (environment_known(clean_code=True),))
    assert decision, decision.reasons
    assert "scikit-learn" in evidence(decision)["known"]
    assert rehearse(registry, "net", 2, "production", (environment_known(),))
    decision = rehearse(registry, "net", 2, "production", (environment_known(clean_code=True),))
    assert evidence(decision)["missing"] == ["a revision without changes to it"]


def test_an_unknown_environment_is_named(registry: Registry, file: Path) -> None:
    version: ModelVersion = registry.register("net", sloped(1.0))
    bare = version.model_copy(
        update={"lineage": version.lineage.model_copy(update={"python": "", "libraries": {}})}
    )
    result = environment_known(clean_code=True)(GateContext(registry, bare, "production", None))
    assert not isinstance(result, bool)
    assert not result
    assert result.evidence["missing"][:2] == [
        "the version of Python",
        "the versions of libraries",
    ]

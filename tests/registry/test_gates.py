"""Gates together, and the decision they come to; gates that ask for slices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("skops")

from sklearn.linear_model import LinearRegression

import mlopskit as mk
from mlopskit.errors import InvalidInput, InvalidName, NotFound, UntrustedModel
from mlopskit.registry import (
    Decision,
    GateContext,
    GateResult,
    Signature,
    TensorSpec,
    all_of,
    any_of,
    at_least,
    at_most,
    better_than,
    by_slice,
    compare_on,
    paired_bootstrap,
    slice_floors,
    smaller_than,
)
from mlopskit.registry.entities import HistoryEntry
from mlopskit.registry.gates import Gate, rehearse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry import Registry

RANDOM = np.random.default_rng(11)
ROWS = RANDOM.normal(size=(400, 1))
# The truth is 2x with noise that both models meet alike.
TRUTH = 2 * ROWS[:, 0] + RANDOM.normal(scale=3.0, size=400)


def sloped(slope: float) -> LinearRegression:
    """Return a model that answers `slope` times what it is asked."""
    x = np.array([[0.0], [1.0]])
    return LinearRegression(fit_intercept=False).fit(x, slope * x[:, 0])


def error(truth: Any, answers: Any) -> float:
    return float(np.mean((np.asarray(truth) - np.asarray(answers)) ** 2))


def answers(model: Any) -> Any:
    return model.predict(ROWS)


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


# The context and the decision.


def test_candidate_and_holder_are_loaded_once_for_all_gates(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slope in (1.0, 2.0):
        registry.register("net", sloped(slope))
    registry.promote("net", 1, "production")
    loaded: list[int] = []
    load = registry.load

    def counting(name: str, ref: Any = None, trusted: bool = False) -> Any:
        loaded.append(ref)
        return load(name, ref, trusted)

    monkeypatch.setattr(registry, "load", counting)
    gates = [
        compare_on(lambda model: {"error": error(TRUTH, answers(model))}, "error"),
        paired_bootstrap(answers, TRUTH, error, higher_is_better=False),
        lambda context: context.load() is context.load(context.candidate),
    ]

    assert not registry.promote("net", 2, "production", gates)
    assert sorted(loaded) == [1, 2]


def test_what_trust_has_loaded_is_not_handed_to_who_does_not_trust(
    registry: Registry, tmp_path: Path
) -> None:
    import pickle

    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    registry.register("net", path)

    def gate(context: GateContext) -> bool:
        assert context.load(trusted=True) == {"a": 1}
        with pytest.raises(UntrustedModel):
            context.load()
        return context.load(trusted=True) is context.load(context.candidate, trusted=True)

    assert registry.promote("net", 1, "production", [gate])


def test_a_context_shows_what_its_candidate_registered(registry: Registry, file: Path) -> None:
    signature = Signature(inputs=(TensorSpec(name="x", dtype="float64"),))
    registry.register("net", file, metrics={"auc": 0.5}, signature=signature)

    def gate(context: GateContext) -> bool:
        return context.metrics == {"auc": 0.5} and context.signature == signature

    assert registry.promote("net", 1, "production", [gate])


def test_a_decision_names_the_gates_that_refused(registry: Registry, file: Path) -> None:
    registry.register("net", file, metrics={"auc": 0.7})

    def broken(context: GateContext) -> bool:
        raise KeyError("f1")

    gates = [at_least("auc", 0.6), at_least("auc", 0.8), broken, any_of(broken, smaller_than(99))]
    decision = registry.promote("net", 1, "production", gates)

    assert decision.failed == ("at_least(auc)#2", "broken")
    assert list(decision.evidence) == ["at_least(auc)", "at_least(auc)#2", "broken", "any_of"]
    assert decision.evidence["any_of"]["broken"] == {"passed": False}
    assert decision.evidence["any_of"]["smaller_than"]["passed"] is True
    assert registry.history("net")[-1].decision == decision


def test_a_rehearsal_decides_as_a_promotion_would_and_changes_nothing(
    registry: Registry, file: Path
) -> None:
    for auc in (0.7, 0.8):
        registry.register("net", file, metrics={"auc": auc})
    registry.promote("net", 1, "production")
    before = registry.history("net")
    gates = (at_least("auc", 0.75),)

    decision = rehearse(registry, "net", 2, "production", gates)

    assert registry.history("net") == before
    assert registry.get_version("net", 2).stage == "none"
    assert decision.holder == 1
    assert registry.promote("net", 2, "production", gates) == decision
    with pytest.raises(NotFound):
        rehearse(registry, "net", 2, "produktion", gates)


@pytest.mark.parametrize(
    "gate", [at_least("zz", 1), at_most("zz", 1), better_than("production", "zz")]
)
def test_a_metric_that_nobody_measured_refuses_with_those_there_are(
    registry: Registry, file: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register("net", file, metrics={"loss": 0.3, "auc": 0.7})
    decision = registry.promote("net", 1, "production", [gate])

    assert decision.reasons == ("zz was not measured for version 1; there is: auc, loss.",)
    assert evidence(decision)["registered"] == ["auc", "loss"]
    assert caplog.records == []


def test_a_metric_that_the_holder_lacks_names_the_holder(registry: Registry, file: Path) -> None:
    registry.register("net", file)
    registry.promote("net", 1, "production")
    registry.register("net", file, metrics={"auc": 0.7})
    decision = registry.promote("net", 2, "production", [better_than("production", "auc")])

    assert decision.reasons == ("auc was not measured for version 1; no metric was.",)


def test_only_what_mlopskit_did_not_foresee_leaves_a_trace(
    registry: Registry, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register("net", file)

    def lost(context: GateContext) -> bool:
        return bool(registry.get_version("nte", 1))

    def broken(context: GateContext) -> bool:
        raise KeyError("f1")

    decision = registry.promote("net", 1, "production", [lost, broken])
    assert decision.reasons[0].startswith("lost: There is no model 'nte'.")
    assert decision.reasons[1] == "broken raised KeyError: 'f1'"
    (record,) = caplog.records
    assert record.getMessage() == "The gate broken raised."
    assert record.exc_info


NOTHING: Any = None


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("nothing to say")


class Shapeless:
    def __repr__(self) -> str:
        raise RuntimeError("nothing to show")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def raising(error: Exception) -> Gate:
    def gate(context: GateContext) -> bool:
        raise error

    return gate


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        (raising(ValueError("bad \udce9 \0 name")), r"raised ValueError: bad \udce9 \x00 name"),
        (raising(Speechless()), "raised Speechless: what it says cannot be shown"),
        (raising(ValueError("y" * 1_000_000)), "raised ValueError: yyy"),
        (lambda context: Shapeless(), "raised RuntimeError: nothing to show"),
        (lambda context: GateResult(passed=False, reason="\udce9\0"), r"\udce9\x00"),
        (lambda context: GateResult(passed=True, evidence={"a": 10**5000}), "of 16610 bits"),
        (lambda context: GateResult(passed=True, evidence={"a": nested(300)}), "nested more than"),
        (lambda context: GateResult.model_construct(passed=True, reason=NOTHING), "raised"),
    ],
    ids=["surrogate", "speechless", "long", "shapeless", "text", "integer", "deep", "unchecked"],
)
def test_whatever_a_gate_does_is_a_refusal_that_can_be_kept_and_told(
    registry: Registry, file: Path, gate: Gate, says: str
) -> None:
    registry.register("net", file)
    decision = registry.promote("net", 1, "production", gate)

    assert not decision
    assert says in decision.reasons[0]
    assert len(decision.reasons[0]) < 3000
    last = registry.history("net")[-1]
    assert last.decision == decision
    assert HistoryEntry.model_validate_json(last.model_dump_json()) == last


def test_evidence_with_texts_that_no_store_can_keep_is_kept_escaped(
    registry: Registry, file: Path
) -> None:
    registry.register("net", file)
    found = {"\udce9": ["a\0b", {"c": "\ud800"}, 2**70, 0.5, None]}
    decision = registry.promote(
        "net", 1, "production", lambda context: GateResult(passed=True, evidence=found)
    )
    assert decision
    assert evidence(decision) == {r"\udce9": [r"a\x00b", {"c": r"\ud800"}, 2**70, 0.5, None]}
    assert registry.history("net")[-1].decision == decision


def test_a_gate_cannot_say_in_its_evidence_that_it_passed(registry: Registry, file: Path) -> None:
    registry.register("net", file)

    def sly(context: GateContext) -> GateResult:
        return GateResult(passed=False, reason="no", evidence={"passed": True, "rows": 3})

    decision = registry.promote("net", 1, "production", [any_of(sly), all_of(sly)])
    assert decision.evidence["any_of"]["sly"] == {"passed": False, "rows": 3}
    assert decision.evidence["all_of"]["sly"] == {"passed": False, "rows": 3}


def test_no_evidence_hides_behind_another_of_its_name(registry: Registry, file: Path) -> None:
    registry.register("net", file)

    def called(name: str, value: int) -> Gate:
        def gate(context: GateContext) -> GateResult:
            return GateResult(passed=False, evidence={"value": value})

        gate.__name__ = name
        return gate

    decision = registry.promote(
        "net", 1, "production", [called("a", 1), called("a#2", 2), called("a", 3)]
    )
    assert [each["value"] for each in decision.evidence.values()] == [1, 2, 3]
    assert len(set(decision.failed)) == 3


def test_one_gate_needs_no_list(registry: Registry, file: Path) -> None:
    registry.register("net", file, metrics={"auc": 0.7})
    refusing, gate = at_least("auc", 0.8), at_least("auc", 0.6)

    assert rehearse(registry, "net", 1, "production", refusing).failed == ("at_least(auc)",)
    assert registry.promote("net", 1, "production", refusing).failed == ("at_least(auc)",)
    assert list(registry.promote("net", 1, "production", gate).evidence) == ["at_least(auc)"]


@pytest.mark.parametrize(
    ("metric", "value"), [(3, 4), ("", 4), ("a", "x"), ("a", None), ("a", True), ("a", math.nan)]
)
def test_a_bound_on_no_metric_or_by_no_number_is_refused_when_made(metric: Any, value: Any) -> None:
    for maker in (at_least, at_most):
        with pytest.raises(InvalidInput, match=maker.__name__):
            maker(metric, value)
    with pytest.raises(InvalidInput, match="better_than"):
        better_than("production", metric, value)
    with pytest.raises(InvalidInput, match="compare_on"):
        compare_on(lambda model: {}, metric, value)


def test_a_bound_may_be_a_number_of_numpy(registry: Registry, file: Path) -> None:
    registry.register("net", file, metrics={"auc": 0.7})
    limit: Any = np.float32(0.5)
    assert registry.promote("net", 1, "production", [at_least("auc", limit)])


@pytest.mark.parametrize(
    ("held", "auc", "by", "passes"),
    [
        (0.8, 0.8002, 0.0002, True),
        (0.8, 0.8002, 0.0002 + 1e-15, False),
        (0.1, 0.3, 0.2, True),
        (1e6 + 0.1, 1e6 + 0.3, 0.2, True),
        (0.3, 0.3, 0.0, True),
        (0.1 + 0.2, 0.3, 0.0, False),  # What is asked for exactly is not rounded.
        (0.7002, 0.7, -0.0002, True),
        (math.inf, math.inf, 0.0, True),
        (math.inf, math.inf, 0.1, False),
        (0.5, math.inf, 0.1, True),
    ],
)
def test_a_gain_is_not_short_by_rounding(
    registry: Registry, file: Path, held: float, auc: float, by: float, passes: bool
) -> None:
    for value in (held, auc):
        registry.register("net", file, metrics={"auc": value, "loss": -value})
    registry.promote("net", 1, "production")
    gates = (
        better_than("production", "auc", by),
        better_than("production", "loss", by, higher_is_better=False),
    )
    for gate in gates:
        assert bool(rehearse(registry, "net", 2, "production", gate)) is passes


# Slices.


@pytest.fixture
def sliced(registry: Registry, file: Path) -> Callable[[Gate], Decision]:
    metrics = by_slice("auc", {"DE": 0.8, "FR": 0.7, "LI": 0.1}, {"DE": 500, "FR": 300, "LI": 4})
    registry.register(
        "net", file, metrics={"auc": 0.79, **metrics, "f1[DE]": math.nan, "mcc[ES]": 0.1}
    )
    return lambda gate: rehearse(registry, "net", 1, "production", (gate,))


def test_every_slice_with_enough_rows_has_to_hold(sliced: Callable[[Gate], Decision]) -> None:
    assert not sliced(slice_floors("auc", 0.7))
    decision = sliced(slice_floors("auc", 0.7, least_rows=50))
    assert decision
    assert evidence(decision)["slices"]["FR"] == {"value": 0.7, "floor": 0.7, "rows": 300}
    assert evidence(decision)["too_small"] == ["LI"]

    decision = sliced(slice_floors("auc", 0.71, least_rows=50))
    assert not decision
    assert evidence(decision)["failed"] == ["FR"]
    assert "FR is 0.7, below 0.71" in decision.reasons[0]


def test_a_slice_may_have_a_floor_of_its_own(sliced: Callable[[Gate], Decision]) -> None:
    assert sliced(slice_floors("auc", {"DE": 0.8, "FR": 0.65}))
    assert not sliced(slice_floors("auc", {"DE": 0.8, "FR": 0.75}))


def test_a_slice_that_nobody_measured_does_not_hold(sliced: Callable[[Gate], Decision]) -> None:
    decision = sliced(slice_floors("auc", {"DE": 0.8, "ES": 0.1}))
    assert "ES was not registered" in decision.reasons[0]
    few_rows = sliced(slice_floors("mcc", {"ES": 0.1, "LI": 0.1}, least_rows=50))
    assert "LI was not registered" in few_rows.reasons[0]
    assert not sliced(slice_floors("recall", 0.0))


def test_a_slice_that_is_no_number_does_not_hold(sliced: Callable[[Gate], Decision]) -> None:
    assert not sliced(slice_floors("f1", 0.0))
    assert not sliced(slice_floors("f1", 0.0, higher_is_better=False))


def test_a_slice_of_nobody_knows_how_many_rows_decides(sliced: Callable[[Gate], Decision]) -> None:
    decision = sliced(slice_floors("mcc", 0.2, least_rows=50))
    assert "ES is 0.1, below 0.2" in decision.reasons[0]
    assert sliced(slice_floors("mcc", 0.1, least_rows=50))


def test_slices_of_a_loss_have_ceilings(sliced: Callable[[Gate], Decision]) -> None:
    assert sliced(slice_floors("auc", 0.8, higher_is_better=False))
    assert not sliced(slice_floors("auc", 0.75, higher_is_better=False))


def test_nothing_passes_where_every_slice_is_too_small(sliced: Callable[[Gate], Decision]) -> None:
    decision = sliced(slice_floors("auc", 0.0, least_rows=1000))
    assert not decision
    assert decision.reasons == ("No slice of auc has enough rows to decide.",)


@pytest.mark.parametrize(
    "floors", [math.nan, {}, {"DE": math.nan}, "0.7", {"DE": "0.7"}, True, None], ids=str
)
def test_a_floor_is_a_number(floors: Any) -> None:
    with pytest.raises(InvalidInput):
        slice_floors("auc", floors)


def test_a_slice_is_named_so_that_it_reads_back() -> None:
    assert by_slice("auc", {"city=[Bonn]": 1}) == {"auc[city=[Bonn]]": 1.0}
    for metric in ("auc[DE]", ""):
        with pytest.raises(InvalidName):
            by_slice(metric, {"DE": 1})


def test_gates_join_with_those_of_ones_own(registry: Registry, file: Path) -> None:
    registry.register("net", file, metrics={"auc": 0.7})
    gate = all_of(smaller_than(99), any_of(at_least("auc", 0.9), lambda context: True))
    assert registry.promote("net", 1, "production", [gate])

"""The gate that asks whether a candidate is better, or was lucky with its rows."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("skops")

from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

import mlopskit as mk
from mlopskit.errors import InvalidInput
from mlopskit.registry import (
    Decision,
    paired_bootstrap,
)
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
def duel(registry: Registry) -> Callable[..., Decision]:
    """Let a model with one slope try to replace one with another."""

    def fight(slope: float, holder: float | None, gate: Gate) -> Decision:
        if holder is not None:
            first = registry.register("net", sloped(holder)).version
            registry.promote("net", first, "production")
        second = registry.register("net", sloped(slope)).version
        return registry.promote("net", second, "production", [gate])

    return fight


def evidence(decision: Decision) -> Any:
    (found,) = decision.evidence.values()
    return found


def test_a_model_that_is_better_passes_with_its_interval(duel: Callable[..., Decision]) -> None:
    decision = duel(2.0, 1.0, paired_bootstrap(answers, TRUTH, error, higher_is_better=False))

    assert decision, decision.reasons
    found = evidence(decision)
    low, high = found["interval"]
    assert 0 < low < found["gain"] < high
    assert found["gain"] == pytest.approx(found["holder"] - found["candidate"])
    assert found["candidate"] == pytest.approx(error(TRUTH, 2 * ROWS[:, 0]))
    settings = {"rows": 400, "seed": 0, "n_resamples": 2000, "confidence": 0.95, "undefined": 0}
    assert {key: found[key] for key in settings} == settings
    assert found["holder_version"] == 1


def test_a_model_that_was_lucky_is_refused(duel: Callable[..., Decision]) -> None:
    truth = TRUTH[:40]
    gate = paired_bootstrap(
        lambda model: model.predict(ROWS[:40]), truth, error, higher_is_better=False
    )
    best = float(ROWS[:40, 0] @ truth / (ROWS[:40, 0] @ ROWS[:40, 0]))
    decision = duel(best, 2.0, gate)

    found = evidence(decision)
    assert found["gain"] > 0, "it is better on these rows"
    assert found["interval"][0] < 0
    assert not decision


def test_rows_are_drawn_in_pairs(duel: Callable[..., Decision]) -> None:
    # The noise of either score is many times the gain; that of the difference is not.
    decision = duel(2.0, 1.5, paired_bootstrap(answers, TRUTH, error, higher_is_better=False))

    low, high = evidence(decision)["interval"]
    errors = (TRUTH - 2 * ROWS[:, 0]) ** 2
    alone = 2 * 1.96 * float(np.std(errors)) / math.sqrt(len(errors))
    assert high - low < alone / 2


@pytest.mark.parametrize(("by", "passes"), [(0.0, True), (-0.1, True), (1e-9, False)])
def test_a_twin_is_not_worse_and_not_better(
    duel: Callable[..., Decision], by: float, passes: bool
) -> None:
    decision = duel(1.0, 1.0, paired_bootstrap(answers, TRUTH, error, by))

    assert bool(decision) is passes
    assert evidence(decision)["interval"] == [0.0, 0.0]


def test_the_seed_decides_the_draws(registry: Registry) -> None:
    for slope in (1.9, 2.0):
        registry.register("net", sloped(slope))
    registry.promote("net", 1, "production")

    def interval(seed: int) -> Any:
        gate = paired_bootstrap(answers, TRUTH, error, seed=seed, n_resamples=200)
        return evidence(rehearse(registry, "net", 2, "production", (gate,)))["interval"]

    assert interval(3) == interval(3)
    assert interval(3) != interval(4)


def test_rows_that_belong_together_are_drawn_together(registry: Registry) -> None:
    # Ten copies of every row are no ten times the evidence.
    for slope in (1.5, 2.0):
        registry.register("net", sloped(slope))
    registry.promote("net", 1, "production")
    rows, truth = ROWS[:60], TRUTH[:60]
    customers = np.tile([f"customer {at}" for at in range(60)], 10)

    def width(copies: int, groups: Any) -> float:
        gate = paired_bootstrap(
            lambda model: model.predict(np.tile(rows, (copies, 1))),
            np.tile(truth, copies),
            error,
            groups=groups,
        )
        found = evidence(rehearse(registry, "net", 2, "production", (gate,)))
        assert found["groups"] == (None if groups is None else 60)
        low, high = found["interval"]
        return float(high - low)

    once = width(1, None)
    assert width(10, None) < once / 2
    assert width(10, customers) == pytest.approx(once, rel=0.15)


def test_draws_of_one_class_are_left_out(duel: Callable[..., Decision]) -> None:
    labels = np.zeros(40, int)
    labels[:3] = 1
    rows = np.linspace(1, -1, 40).reshape(-1, 1)
    gate = paired_bootstrap(
        lambda model: model.predict(rows), labels, roc_auc_score, n_resamples=300
    )
    decision = duel(1.0, -1.0, gate)

    assert decision, decision.reasons
    assert 0 < evidence(decision)["undefined"] < 30
    assert evidence(decision)["candidate"] == 1.0
    assert evidence(decision)["holder"] == 0.0


def test_no_draw_without_a_value_warns(duel: Callable[..., Decision]) -> None:
    labels = np.zeros(40, int)
    labels[:3] = 1
    rows = np.linspace(1, -1, 40).reshape(-1, 1)
    gate = paired_bootstrap(
        lambda model: model.predict(rows), labels, roc_auc_score, n_resamples=300
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        decision = duel(1.0, -1.0, gate)

    assert evidence(decision)["undefined"] > 0
    assert [each.message for each in told] == []


def test_a_gain_is_not_short_by_the_rounding_of_floats(duel: Callable[..., Decision]) -> None:
    def score(truth: Any, found: Any) -> float:
        return 0.8002 if found[0] > truth[0] else 0.8

    def predict(model: Any) -> Any:
        return np.where(model.coef_[0] > 1, TRUTH + 1, TRUTH)

    assert duel(2.0, 1.0, paired_bootstrap(predict, TRUTH, score, by=0.0002))
    assert not duel(2.0, 1.0, paired_bootstrap(predict, TRUTH, score, by=0.0002001))


def test_too_many_draws_without_a_value_refuse(duel: Callable[..., Decision]) -> None:
    labels = np.zeros(40, int)
    labels[0] = 1
    rows = np.linspace(1, -1, 40).reshape(-1, 1)
    gate = paired_bootstrap(
        lambda model: model.predict(rows), labels, roc_auc_score, n_resamples=300
    )
    decision = duel(1.0, -1.0, gate)

    assert not decision
    assert "has no value on" in decision.reasons[0]


def test_answers_that_are_no_numbers_refuse(duel: Callable[..., Decision]) -> None:
    def holed(model: Any) -> Any:
        found = model.predict(ROWS)
        found[[3, 5]] = math.nan if model.coef_[0] > 1 else 0.0
        return found

    decision = duel(2.0, 1.0, paired_bootstrap(holed, TRUTH, error))

    assert decision.reasons == ("2 of 400 answers of the candidate are not a number.",)
    assert evidence(decision)["nan"] == 2


def test_a_score_that_is_no_number_refuses(duel: Callable[..., Decision]) -> None:
    decision = duel(2.0, 1.0, paired_bootstrap(answers, TRUTH, lambda *_: math.inf))

    assert not decision
    assert "cannot be compared" in decision.reasons[0]


@pytest.mark.parametrize("count", [1, 29])
def test_a_few_rows_cannot_tell(duel: Callable[..., Decision], count: int) -> None:
    gate = paired_bootstrap(
        lambda model: model.predict(ROWS[:count]), TRUTH[:count], error, higher_is_better=False
    )
    decision = duel(2.0, -50.0, gate)

    assert decision.reasons == (f"{count} rows are too few to tell: at least 30 are needed.",)


def test_the_first_in_a_stage_only_needs_a_score(duel: Callable[..., Decision]) -> None:
    assert not duel(2.0, None, paired_bootstrap(answers, TRUTH, lambda *_: math.nan))
    decision = duel(2.0, None, paired_bootstrap(answers, TRUTH, error))

    assert decision
    assert evidence(decision)["holder"] is None


def test_answers_to_other_rows_refuse(duel: Callable[..., Decision]) -> None:
    decision = duel(2.0, 1.0, paired_bootstrap(answers, TRUTH[:-1], error))

    assert "399 rows have labels" in decision.reasons[0]
    assert "(400,)" in decision.reasons[0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"by": math.nan},
        {"confidence": 1.0},
        {"confidence": 95},
        {"confidence": 0.4},
        {"n_resamples": 99},
        {"confidence": 0.999, "n_resamples": 1999},
        {"least_rows": 1},
        {"seed": -1},
        {"seed": None},
        {"seed": True},
    ],
    ids=str,
)
def test_a_bootstrap_that_could_not_tell_is_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        paired_bootstrap(answers, TRUTH, error, **arguments)


@pytest.mark.parametrize(("confidence", "fewest"), [(0.5, 100), (0.95, 100), (0.99, 200)])
def test_there_is_a_draw_outside_on_either_side(confidence: float, fewest: int) -> None:
    paired_bootstrap(answers, TRUTH, error, confidence=confidence, n_resamples=fewest)
    with pytest.raises(InvalidInput, match="n_resamples"):
        paired_bootstrap(answers, TRUTH, error, confidence=confidence, n_resamples=fewest - 1)


@pytest.mark.parametrize("column", ["answers", "labels", "both"])
def test_a_column_of_answers_is_one_answer_a_row(
    duel: Callable[..., Decision], column: str
) -> None:
    # Compared every row with every other, the model without any slope would have less error.
    truth = TRUTH.reshape(-1, 1) if column != "answers" else TRUTH

    def shaped(model: Any) -> Any:
        found = model.predict(ROWS)
        return found.reshape(-1, 1) if column != "labels" else found

    decision = duel(0.0, 2.0, paired_bootstrap(shaped, truth, error, higher_is_better=False))
    assert not decision
    assert evidence(decision)["holder"] == pytest.approx(error(TRUTH, 2 * ROWS[:, 0]))


def test_draws_on_which_the_candidate_is_infinitely_worse_count(
    duel: Callable[..., Decision],
) -> None:
    # One draw in twenty has none of the first three rows. Those are what the candidate is good at,
    # and without them its error is infinite.
    def odd(labels: Any, found: Any) -> float:
        bad = found[-1] == 0.0 and labels.max() < 1e6
        return math.inf if bad else error(labels, found)

    truth = TRUTH.copy()
    truth[:3] = 1e6

    def extreme(model: Any) -> Any:
        found = model.predict(ROWS)
        found[:3] = 1e6 if not model.coef_[0] else 0.0
        return found

    decision = duel(0.0, 2.0, paired_bootstrap(extreme, truth, odd, higher_is_better=False))
    assert not decision
    assert evidence(decision)["undefined"] == 0
    low, high = evidence(decision)["interval"]
    assert low == -math.inf
    assert high > 1e9


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_rows_of_no_known_group_are_no_group(
    duel: Callable[..., Decision], unknown: float | None
) -> None:
    groups: Any = [float(at) for at in range(400)]
    groups[3] = groups[7] = unknown
    decision = duel(2.0, 1.0, paired_bootstrap(answers, TRUTH, error, groups=groups))
    assert "2 of 400 rows have no group" in decision.reasons[0]

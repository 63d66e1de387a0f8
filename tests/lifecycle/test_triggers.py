from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from mlopskit.errors import InvalidInput
from mlopskit.lifecycle import (
    Drift,
    Evidence,
    Performance,
    TriggerDecision,
    all_of,
    any_of,
    cool_down,
    on_drift,
    on_performance,
    on_schedule,
    on_volume,
)
from mlopskit.monitoring.entities import ColumnDrift, DriftReport

pytestmark = pytest.mark.core

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def evidence(**known: Any) -> Evidence:
    return Evidence(now=NOON, **known)


def test_drift_fires_at_the_limit_and_not_below_it() -> None:
    trigger = on_drift(share=0.3)
    at = trigger(evidence(drift=Drift(share_drifted=0.3, columns=("age", "income", "zip"))))
    below = trigger(evidence(drift=Drift(share_drifted=0.29)))

    assert at.fire
    assert at.reasons == (
        "30.0% of the columns drifted (age, income, zip), at or above the limit of 30.0%.",
    )
    assert not below.fire
    assert below.reasons == ("29.0% of the columns drifted, below the limit of 30.0%.",)


def test_drift_of_the_watched_columns_counts_their_share_alone() -> None:
    drift = Drift(share_drifted=0.9, columns=("a", "b", "noise"))

    assert not on_drift(share=0.6, columns=["a", "c"])(evidence(drift=drift))
    assert on_drift(share=0.5, columns=["a", "c", "a"])(evidence(drift=drift))


def test_a_drift_report_is_taken_as_it_is() -> None:
    column: Any = ColumnDrift
    whole: Any = DriftReport
    columns = {
        name: column.model_construct(drifted=drifted)
        for name, drifted in {"age": True, "zip": False}.items()
    }
    report = whole.model_construct(share_drifted=0.5, columns=columns)

    assert evidence(drift=report).drift == Drift(share_drifted=0.5, columns=("age",))


def test_many_drifted_columns_are_counted_and_not_all_named() -> None:
    names = tuple(f"c{number}" for number in range(500))
    decision = on_drift(share=0.1)(evidence(drift=Drift(share_drifted=1, columns=names)))

    assert decision.reasons[0].startswith(
        "100.0% of the columns drifted (c0, c1, c2, c3, c4 and 495"
    )


def test_what_is_not_known_is_no_reason_to_fire() -> None:
    nothing = evidence(last_trained_at=NOON)
    for trigger in (on_drift(share=0.1), on_performance("auc", floor=0.9), on_volume(1)):
        decision = trigger(nothing)
        assert not decision
        assert decision.reasons[0].startswith("Nothing is known about ")


def test_performance_fires_below_its_floor_and_not_on_it() -> None:
    trigger = on_performance("auc", floor=0.85)

    assert not trigger(evidence(performance={"auc": 0.85}))
    assert trigger(evidence(performance={"auc": 0.8499})).reasons == (
        "auc is 0.8499, below the floor of 0.85.",
    )


@pytest.mark.parametrize(("baseline", "current"), [(0.9, 0.85), (0.8, 0.75), (1.05, 1.0)])
def test_a_drop_by_just_the_limit_fires_whatever_the_rounding(
    baseline: float, current: float
) -> None:
    trigger = on_performance("auc", drop=0.05)

    assert trigger(evidence(performance={"auc": (current, baseline)}))
    assert not trigger(evidence(performance={"auc": (current + 1e-6, baseline)}))
    assert not trigger(evidence(performance={"auc": (baseline, current)}))


def test_a_change_for_the_better_is_told_as_one() -> None:
    drop, rise = on_performance("auc", drop=0.05), on_performance("rmse", rise=2)

    assert drop(evidence(performance={"auc": (0.9, 0.8)})).reasons == (
        "auc rose from 0.8 to 0.9; a fall by 0.05 would count.",
    )
    assert drop(evidence(performance={"auc": (0.8, 0.8)})).reasons == (
        "auc stayed at 0.8; a fall by 0.05 would count.",
    )
    assert rise(evidence(performance={"rmse": (5, 6.5)})).reasons == (
        "rmse fell from 6.5 to 5; a rise by 2 would count.",
    )


def test_errors_have_a_ceiling_and_may_rise() -> None:
    trigger = on_performance("rmse", ceiling=10, rise=2)
    decision = trigger(evidence(performance={"rmse": Performance(current=9, baseline=6.5)}))

    assert decision.fire
    assert decision.reasons == (
        "rmse is 9, not above the ceiling of 10.",
        "rmse rose by 2.5, from 6.5 to 9, at least the limit of 2.",
    )
    assert trigger(evidence(performance={"rmse": 10.1}))
    assert not trigger(evidence(performance={"rmse": (6.5, 9)}))


def test_without_a_baseline_a_drop_is_unknown() -> None:
    decision = on_performance("auc", drop=0.1)(evidence(performance={"auc": 0.2}))

    assert not decision
    assert decision.reasons == ("auc is 0.2; without a baseline no change is known.",)


def test_a_schedule_fires_on_the_hour_and_when_nothing_was_ever_trained() -> None:
    trigger = on_schedule(timedelta(days=7))

    assert trigger(evidence()).reasons == ("No model has been trained yet.",)
    assert trigger(evidence()).fire
    assert trigger(evidence(last_trained_at=NOON - timedelta(days=7))).reasons == (
        "The model is 7 d old, due every 7 d.",
    )
    almost = trigger(evidence(last_trained_at=NOON - timedelta(days=7) + HOUR))
    assert not almost.fire
    assert almost.reasons == ("The model is 6 d 23 h old, not yet due: every 7 d.",)


def test_times_of_different_zones_are_compared_as_moments() -> None:
    tokyo = timezone(timedelta(hours=9))
    trained = (NOON - HOUR).astimezone(tokyo)

    assert on_schedule(HOUR)(evidence(last_trained_at=trained))
    assert not on_schedule(2 * HOUR)(evidence(last_trained_at=trained))


def test_volume_fires_at_its_limit() -> None:
    trigger = on_volume(10_000)

    assert trigger(evidence(new_rows=10_000)).fire
    assert trigger(evidence(new_rows=9_999)).reasons == (
        "9,999 new rows, below the limit of 10,000.",
    )


def test_combinations_keep_every_reason_of_every_part() -> None:
    some = evidence(new_rows=5, performance={"auc": 0.5})
    rows, auc = on_volume(10), on_performance("auc", floor=0.9)

    assert any_of(rows, auc)(some).fire
    assert not all_of(rows, auc)(some).fire
    assert any_of(rows, auc)(some).reasons == (
        "5 new rows, below the limit of 10.",
        "auc is 0.5, below the floor of 0.9.",
    )
    assert any_of(rows, auc)(some).reasons == all_of(rows, auc)(some).reasons
    assert all_of(auc, any_of(rows, auc))(some).fire


def test_a_cool_down_holds_back_what_would_fire_too_soon() -> None:
    trigger = cool_down(on_volume(1), every=24 * HOUR)

    held = trigger(evidence(new_rows=1, last_fired_at=NOON - 23 * HOUR))
    assert not held
    assert held.reasons == (
        "1 new rows, at or above the limit of 1.",
        "It last fired 23 h ago; the cool-down holds it back for 1 d.",
    )
    assert trigger(evidence(new_rows=1, last_fired_at=NOON - 24 * HOUR)).fire
    assert trigger(evidence(new_rows=1)).fire
    assert trigger(evidence(new_rows=0, last_fired_at=NOON)).reasons == (
        "0 new rows, below the limit of 1.",
    )


def test_a_clock_that_was_set_back_lets_nothing_fire_early() -> None:
    ahead = evidence(new_rows=1, last_fired_at=NOON + HOUR, last_trained_at=NOON + HOUR)

    assert not cool_down(on_volume(1), every=HOUR)(ahead)
    assert not on_schedule(HOUR)(ahead)
    assert "-1 h" in on_schedule(HOUR)(ahead).reasons[0]


def test_a_decision_carries_its_evidence_and_survives_json() -> None:
    decision = on_performance("auc", drop=0.1)(
        evidence(performance={"auc": (0.7, 0.9)}, drift=Drift(share_drifted=0.1, columns=("a",)))
    )

    assert TriggerDecision.model_validate_json(decision.model_dump_json()) == decision


def test_the_same_evidence_yields_the_same_decision() -> None:
    trigger = any_of(on_schedule(HOUR), on_drift(share=0.5))
    some = evidence(last_trained_at=NOON - HOUR)

    assert trigger(some) == trigger(some)


@pytest.mark.parametrize(
    "known",
    [
        {"drift": {"share_drifted": 1.01}},
        {"drift": {"share_drifted": float("nan")}},
        {"performance": {"auc": float("nan")}},
        {"performance": {"auc": True}},
        {"new_rows": -1},
        {"last_trained_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - without a zone on purpose
    ],
)
def test_evidence_that_cannot_be_is_refused(known: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        evidence(**known)


@pytest.mark.parametrize(
    "build",
    [
        lambda: on_drift(share=0),
        lambda: on_drift(share=1.1),
        lambda: on_drift(share=float("nan")),
        lambda: on_drift(share=0.5, columns="age"),
        lambda: on_drift(share=0.5, columns=[]),
        lambda: on_performance("auc"),
        lambda: on_performance("auc", drop=0),
        lambda: on_performance("auc", rise=-1),
        lambda: on_schedule(timedelta(0)),
        lambda: on_schedule(3600),  # type: ignore[arg-type]  # what people will write
        lambda: on_volume(0),
        any_of,
        all_of,
        lambda: cool_down(on_volume(1), every=-HOUR),
    ],
)
def test_a_rule_that_means_nothing_is_refused(build: Any) -> None:
    with pytest.raises(InvalidInput):
        build()


def test_a_trigger_says_what_it_is() -> None:
    trigger = cool_down(any_of(on_drift(share=0.3), on_volume(1000)), every=24 * HOUR)

    assert repr(trigger) == (
        "<Trigger any of (on drift of 30.0% of the columns, on 1,000 new rows) at most every 1 d>"
    )

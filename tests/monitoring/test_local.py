from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import stats

import mlopskit as mk
from mlopskit.errors import InvalidInput, UnknownOption, Unsupported
from mlopskit.monitoring import NumericColumn, page
from mlopskit.monitoring.local import LocalDriftDetector
from mlopskit.testing import DriftDetectorContract

if TYPE_CHECKING:
    from mlopskit.tool import Tool

METHODS = ["auto", "ks", "chi2", "psi", "js", "wasserstein"]


class TestLocal(DriftDetectorContract):
    @pytest.fixture
    def tool(self) -> Tool:
        return LocalDriftDetector()


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_false_alarms_stay_at_alpha(self, method: str) -> None:
        """Without an effect to ask for, significance alone must keep the promise."""
        rng = np.random.default_rng(5)
        reports, alpha, alarms = 120, 0.05, 0
        detector = LocalDriftDetector(method=method, min_effect=0.0, alpha=alpha)
        for _ in range(reports):
            alarms += detector.detect(_mixed(rng, 250), _mixed(rng, 400)).drifted

        assert alarms <= stats.binom.ppf(0.999, reports, alpha)

    def test_real_shifts_are_seen(self, method: str) -> None:
        rng = np.random.default_rng(6)
        detector = LocalDriftDetector(method=method)
        for _ in range(20):
            report = detector.detect(_mixed(rng, 2000, moved=True), _mixed(rng, 2000))
            drifted = {name for name, column in report.columns.items() if column.drifted}
            assert drifted == {"n0", "c0"}

    def test_all_different_is_as_far_as_it_goes(self, method: str) -> None:
        apart = LocalDriftDetector(method=method).detect(
            {"x": np.arange(1000.0) + 1e6, "c": np.array(["a"] * 1000)},
            {"x": np.arange(1000.0), "c": np.array(["b"] * 1000)},
        )

        assert all(column.drifted for column in apart.columns.values())
        if method in ("auto", "ks", "js"):
            assert [c.effect for c in apart.columns.values()] == pytest.approx([1, 1], abs=1e-2)


def test_numbers_agree_with_scipy_on_the_values_themselves() -> None:
    rng = np.random.default_rng(1)
    before, now = rng.lognormal(0, 1, 30_000), rng.lognormal(0.2, 1.1, 20_000)

    ks = _one(LocalDriftDetector(method="ks"), now, before)
    wasserstein = _one(LocalDriftDetector(method="wasserstein"), now, before)

    assert ks.effect == pytest.approx(stats.ks_2samp(now, before).statistic, abs=0.002)
    exact = stats.wasserstein_distance(now, before) / before.std()
    assert wasserstein.effect == pytest.approx(exact, rel=0.02)


def test_chi2_agrees_with_scipy() -> None:
    before, now = np.repeat(["a", "b", "c"], [500, 300, 200]), np.repeat(["a", "b", "c"], [9, 4, 7])
    now = np.repeat(now, 20)
    table = [[500, 300, 200], [180, 80, 140]]
    got = _one(LocalDriftDetector(), now, before)

    want = stats.chi2_contingency(table, correction=False)
    assert got.statistic == pytest.approx(want.statistic)
    assert got.p_value == pytest.approx(want.pvalue)


def test_a_value_between_the_known_ones_is_seen() -> None:
    """0.5 lies between the only values 0 and 1: no cumulative share at 0 or 1 tells of it."""
    before = np.tile([0.0, 1.0], 500)
    now = np.where(np.arange(1000) % 4 == 0, 0.5, before)

    assert _one(LocalDriftDetector(method="ks"), now, before).drifted
    assert _one(LocalDriftDetector(method="js"), now, before).drifted


def test_an_effect_does_not_grow_with_the_number_of_categories() -> None:
    rng = np.random.default_rng(2)
    before = rng.integers(0, 200, 4000).astype(str)
    now = rng.integers(0, 200, 4000).astype(str)

    for method in ("chi2", "psi", "js"):
        column = _one(LocalDriftDetector(method=method), now, before)
        assert column.effect < 0.06, method
        assert column.statistic > column.effect


def test_a_constant_that_changes_drifts_and_one_that_stays_does_not() -> None:
    for method in METHODS:
        detector = LocalDriftDetector(method=method)
        assert not _one(detector, np.full(500, 7.0), np.full(500, 7.0)).drifted
        assert _one(detector, np.full(500, 8.0), np.full(500, 7.0)).drifted


def test_new_values_are_a_finding() -> None:
    before = np.repeat(["a", "b"], 500)
    now = np.concatenate([before[:-3], ["z"] * 3])
    report = LocalDriftDetector().detect({"x": now}, {"x": before})

    assert not report.drifted
    assert [(f.kind, f.column) for f in report.findings] == [("new_values", "x")]
    assert "3 rows" in report.findings[0].message


def test_identifiers_times_and_lists_are_not_compared_and_said_so() -> None:
    frame = pa.table(
        {
            "id": [f"user-{i}" for i in range(600)],
            "when": pa.array(range(600), pa.timestamp("us")),
            "list": [[i] for i in range(600)],
            "x": np.arange(600.0),
        }
    )
    report = LocalDriftDetector().detect(frame, frame)

    assert {f.column for f in report.findings if f.kind == "not_compared"} == {"id", "when", "list"}
    assert report.share_drifted == 0
    assert "user-" not in LocalDriftDetector().fit(frame).to_json()


def test_ints_that_became_floats_are_still_numbers() -> None:
    before = pd.DataFrame({"x": np.arange(500)})
    now = pd.DataFrame({"x": np.where(np.arange(500) % 9 == 0, np.nan, np.arange(500))})
    report = LocalDriftDetector().detect(now, before)

    assert report.columns["x"].tested
    assert [f.kind for f in report.findings] == ["missing_share"]


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"x": [1.0]}).lazy(),
        {"x": np.ones((3, 2))},
        {"x": np.ones(3), "y": np.ones(2)},
        pd.DataFrame([[1, 2]], columns=["x", "x"]),
        pd.DataFrame({3: [1.0]}),
        pd.DataFrame(index=range(3)),
        [1, 2, 3],
        None,
    ],
)
def test_what_is_no_table_is_refused(frame: Any) -> None:
    with pytest.raises(InvalidInput):
        LocalDriftDetector().fit(frame)


def test_objects_and_hostile_text_are_counted() -> None:
    odd = ["a", 1, None, True, "\ud800", "x" * 10_000, "\x00", 2.5, "a", "a"] * 30
    frame = pd.DataFrame({"odd": pd.Series(odd, dtype=object)})
    detector = LocalDriftDetector()
    profile = detector.fit(frame)

    assert mk.Profile.from_json(profile.to_json()) == profile
    assert profile["odd"].present == 270
    assert not detector.detect(frame, profile).drifted
    assert len(profile.to_json()) < 2000


def test_what_a_config_may_say() -> None:
    detector = mk.open_drift_detector("local", method="psi", alpha=0.01, correction="holm")
    assert detector.detect({"x": np.arange(300.0)}, {"x": np.arange(300.0)}).alpha == 0.01
    with pytest.raises(UnknownOption, match="Did you mean 'psi'"):
        mk.open_drift_detector("local", method="pso")
    with pytest.raises(Unsupported, match="whole rows"):
        mk.open_drift_detector("local", method="mmd")
    with pytest.raises(UnknownOption, match="bonferroni"):
        mk.open_drift_detector("local", correction="fdr")
    with pytest.raises(UnknownOption, match="min_effect"):
        mk.open_drift_detector("local", min_effects=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0},
        {"alpha": 1},
        {"alpha": True},
        {"alpha": float("nan")},
        {"min_effect": -0.1},
        {"min_effect": "0.1"},
        {"min_rows": 0},
        {"min_rows": 2.5},
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(options))):
        LocalDriftDetector(**options)


def _mixed(rng: np.random.Generator, n: int, *, moved: bool = False) -> dict[str, Any]:
    columns: dict[str, Any] = {f"n{i}": rng.normal(size=n) for i in range(6)}
    columns["heavy"] = rng.standard_t(2.5, n)
    columns["count"] = rng.poisson(2, n)
    for i in range(3):
        shares = [0.25, 0.25, 0.5] if moved and i == 0 else [0.5, 0.3, 0.2]
        columns[f"c{i}"] = rng.choice(["a", "b", "c"], n, p=shares)
    if moved:
        columns["n0"] = columns["n0"] + 0.5
    return columns


def _one(detector: LocalDriftDetector, now: Any, before: Any) -> Any:
    return detector.detect({"x": now}, {"x": before}).columns["x"]


def test_the_page_stays_small_when_every_name_is_hostile() -> None:
    before = {f"{i}" + "'<\u202e" * 300: np.arange(200.0) for i in range(150)}
    now = {f"new {name}": values for name, values in before.items()} | {"x": np.arange(200.0)}
    report = LocalDriftDetector().detect(now, before | {"x": np.arange(200.0)})

    assert len(report.findings) == 300
    assert len(page(report).encode()) < 200_000


def test_no_secret_is_kept_and_drift_is_still_seen() -> None:
    tokens = [f"gh{'p_'}{number:036d}" for number in range(3)]
    before = {
        "sent_with": [tokens[0]] * 150 + [tokens[1]] * 150,
        "password": ["hunter2", "letmein"] * 150,
    }
    after = {"sent_with": [tokens[0]] * 20 + [tokens[2]] * 280, "password": before["password"]}
    detector = LocalDriftDetector()
    profile = detector.fit(pd.DataFrame(before))
    report = detector.detect(pd.DataFrame(after), profile)
    same = detector.detect(pd.DataFrame(before), profile)

    kept = profile.to_json() + report.to_json() + page(report)
    for secret in (*tokens, "hunter2", "letmein"):
        assert secret not in kept
    assert report.columns["sent_with"].drifted
    assert not same.columns["sent_with"].drifted
    assert not report.columns["password"].tested


def test_the_lowest_float_has_nothing_below_it() -> None:
    lowest = -np.finfo(np.float64).max
    profile = LocalDriftDetector().fit(pd.DataFrame({"x": [lowest, lowest, 0.0]}))

    column = profile["x"]
    assert isinstance(column, NumericColumn)
    assert column.minimum == lowest

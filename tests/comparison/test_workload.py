"""What is logged to every tool is what the contract of a tracker demands."""

from __future__ import annotations

import math

import pytest

from mlopskit.comparison.workload import CASES, Case, is_kept
from mlopskit.tracking.values import to_json

contract = pytest.importorskip("mlopskit.testing.tracking")


def of(kind: str) -> list[Case]:
    """Return the cases of a kind."""
    return [case for case in CASES if case.kind == kind]


def test_every_hard_param_of_the_contract_is_a_case() -> None:
    """By its key and its value, in type too."""
    params = {case.key: to_json(case.value) for case in of("param")}

    for key, value in contract.HARD_PARAMS.items():
        assert params[key] == to_json(value)


def test_every_hard_number_and_step_of_the_contract_is_a_case() -> None:
    """Each value alone; all of the steps in one metric, and the hardest alone."""
    metrics = [case.value for case in of("metric")]
    alone = [repr(points[0][1]) for points in metrics if len(points) == 1]
    steps = [[step for step, _ in points] for points in metrics]

    assert set(map(repr, contract.HARD_VALUES)) <= set(alone)
    assert contract.HARD_STEPS in steps
    assert [[step] for step in (-7, 2**63 - 1, 2**63) if [step] not in steps] == []


def test_every_hard_name_and_tag_of_the_contract_is_a_case() -> None:
    """Of metrics, tags and files."""
    assert set(contract.HARD_METRIC_NAMES) <= {case.key for case in of("metric")}
    assert {case.key: case.value for case in of("tag")} == contract.HARD_TAGS
    assert set(contract.ODD_NAMES) <= {case.key for case in of("file")}


def test_each_case_says_something_else() -> None:
    """And has a key of its own, so that none hides another."""
    assert len({(case.kind, case.what) for case in CASES}) == len(CASES)
    assert len({(case.kind, case.key) for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    ("logged", "found", "kept"),
    [
        (-(10**400), -(10**400), True),
        (-(10**400), -math.inf, False),
        (2**53 + 1, float(2**53), False),
        (True, 1.0, True),
        (1, 1.0, True),
        (-0.0, 0.0, False),
        (math.nan, math.nan, True),
        (math.nan, "NaN", False),
    ],
)
def test_a_number_is_kept_if_it_reads_back_equal(logged: float, found: object, kept: bool) -> None:
    """Whether as an int or a float; a text is no number."""
    assert is_kept(Case("metric", "x", "x", [(0, logged)]), [(0, found)]) is kept

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlopskit.monitoring.correction import CORRECTIONS, benjamini_hochberg, bonferroni, holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(P_VALUES)
def test_benjamini_and_hochberg_agree_with_scipy(p_values: list[float]) -> None:
    assert np.allclose(benjamini_hochberg(p_values), stats.false_discovery_control(p_values))


def test_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert bonferroni([0.01, 0.5]) == [0.02, 1.0]


@given(P_VALUES)
def test_holm_lies_between_and_no_correction_makes_a_p_value_smaller(p_values: list[float]) -> None:
    triples = zip(
        p_values, benjamini_hochberg(p_values), holm(p_values), bonferroni(p_values), strict=True
    )
    for p, bh, step_down, most in triples:
        assert p <= bh <= step_down + 1e-12
        assert step_down <= most + 1e-12 <= 1 + 1e-12


@pytest.mark.parametrize("name", list(CORRECTIONS))
def test_nothing_to_correct_is_nothing(name: str) -> None:
    assert CORRECTIONS[name]([]) == []

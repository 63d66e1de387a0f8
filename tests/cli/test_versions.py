"""Versions against tested ranges."""

from __future__ import annotations

import pytest

from mlopskit.cli.versions import within

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("version", "tested", "inside"),
    [
        ("2.0", ">=2.0,<3", True),
        ("2", ">=2.0.0", True),
        ("1.26.4", ">=2.0,<3", False),
        ("3.0.0", ">=2.0,<3", False),
        ("2.10.1", ">=2.9", True),  # not as texts: "2.10" < "2.9"
        ("2.9.0.post1", "<2.9.1", True),
        ("3.0rc1", ">=2,<3", False),
        ("v1.2", ">1.2", False),
        ("1.2.0.1", ">1.2", True),
        ("1.5", ">=1,!=1.5", False),
        ("1.5.0", "==1.5", True),
        ("1.0", "<=1.0.0", True),
        ("anything 1", ">=1", None),
        ("1.0", "~=1.0", None),
        ("0.1", "", True),
    ],
)
def test_release_numbers_are_compared_as_numbers(
    version: str, tested: str, inside: bool | None
) -> None:
    assert within(version, tested) is inside

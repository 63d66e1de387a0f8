"""Versions against the ranges that backends are tested with: ``">=2.0,<3"``.

Only release numbers are compared, as in PEP 440 without its pre-releases, epochs and local parts:
``3.0rc1`` counts as 3.0. That is enough to say whether somebody tried this version.
"""

from __future__ import annotations

import operator
import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_RELEASE = re.compile(r"\s*v?(\d+(?:\.\d+)*)")
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*v?(\d+(?:\.\d+)*)\s*\Z")
_COMPARE: Final[dict[str, Callable[[int, int], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def within(version: str, tested: str) -> bool | None:
    """Tell whether a version lies in a range, or return None where either cannot be read.

    Args:
        version: A version such as ``"2.10.1"``.
        tested: Clauses of ``>=``, ``>``, ``<``, ``<=``, ``==`` and ``!=`` with commas between them;
            an empty text is every version.
    """
    release = _RELEASE.match(version)
    clauses = [_CLAUSE.match(text) for text in tested.split(",") if text.strip()]
    if release is None or None in clauses:
        return None
    return all(
        _COMPARE[clause[1]](_order(release[1], clause[2]), 0) for clause in clauses if clause
    )


def _order(one: str, other: str) -> int:
    """Return -1, 0 or 1 as one release comes before, with or after the other; 1.0 is 1."""
    for a, b in zip_longest(map(int, one.split(".")), map(int, other.split(".")), fillvalue=0):
        if a != b:
            return -1 if a < b else 1
    return 0

"""Drift by profiles: counts in the reference's groups, compared with NumPy and SciPy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlopskit.capabilities import Capabilities
from mlopskit.errors import InvalidInput, UnknownOption
from mlopskit.hookspecs import hookimpl
from mlopskit.monitoring import profiling
from mlopskit.monitoring.base import METHODS, DriftDetector
from mlopskit.monitoring.comparison import Rules, compare
from mlopskit.monitoring.correction import CORRECTIONS
from mlopskit.monitoring.profile import Profile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.monitoring.entities import DriftReport

TOOL = {
    "package": "mlopskit",
    "extra": "local",
    "requires": {"narwhals": ">=2.0", "numpy": ">=2.0", "pyarrow": ">=18", "scipy": ">=1.14"},
}
CAPABILITIES = {
    "profiles": "native",
    "merge": "native",
    "p_values": "native",
    "auto": "native",
    "ks": "native",
    "chi2": "native",
    "psi": "native",
    "js": "native",
    "wasserstein": "native",
    "anderson": "absent: it weighs the tails by every single value, and a profile keeps counts",
    "cvm": "absent: not measured from counts yet; ks sees the same shifts",
    "energy": "absent: not measured from counts yet; wasserstein sees the same shifts",
    "mmd": "absent: it needs whole rows on both sides, and a profile keeps columns",
    "c2st": "absent: it needs whole rows on both sides, and a profile keeps columns",
    "text": "absent: text is compared by its most frequent values only",
    "embeddings": "absent: give each dimension a column of its own",
    "performance": "absent: compare labels with predictions once you have them",
    "stream": "absent: collect a window of rows, then call detect",
}
TABLE = Capabilities("monitoring", "local", CAPABILITIES)


class LocalDriftDetector(DriftDetector):
    """Compares profiles; a frame is profiled first, the current one in the reference's groups.

    A column drifts if it is significant after the correction, its effect reaches its threshold,
    and both sides have enough values of it.

    Args:
        location: Unused: this detector keeps nothing.
        method: `auto` (ks for numbers, chi2 for the rest), ks, chi2, psi, js or wasserstein.
        alpha: How often a report without drift may say that there is some.
        correction: `bh`, `holm`, `bonferroni` or `none`.
        min_effect: The effect that counts; by default 0.1, and 0.2 for wasserstein.
        min_rows: The values of a column that a verdict takes, on either side.

    Raises:
        UnknownOption: If there is no such method or correction.
        Unsupported: If the method is known and this backend has not got it.
        InvalidInput: If a number is out of its range.
    """

    def __init__(
        self,
        location: str | Path | None = None,
        *,
        method: str = "auto",
        alpha: float = 0.05,
        correction: str = "bh",
        min_effect: float | None = None,
        min_rows: int = 100,
    ) -> None:
        if method not in METHODS:
            raise UnknownOption("method", method, METHODS, "the monitoring backend 'local'")
        TABLE.require([method])
        if correction not in CORRECTIONS:
            raise UnknownOption("correction", correction, CORRECTIONS, "the drift detector")
        if not _number(alpha) or not 0 < alpha < 1:
            raise InvalidInput(f"alpha={alpha!r} must be a number between 0 and 1, such as 0.05.")
        if min_effect is not None and (not _number(min_effect) or min_effect < 0):
            raise InvalidInput(f"min_effect={min_effect!r} must be a number of 0 or more, or None.")
        if type(min_rows) is not int or min_rows < 1:
            raise InvalidInput(f"min_rows={min_rows!r} must be a whole number above 0.")
        self._rules = Rules(method, alpha, correction, min_effect, min_rows)

    @property
    def capabilities(self) -> Capabilities:
        return TABLE

    @property
    def native(self) -> Rules:
        """The rules in force: there is no other tool behind this one."""
        return self._rules

    def ping(self, timeout_s: float = 5.0) -> None:
        """Do nothing: there is nothing to reach."""

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def fit(self, reference: Any, *, like: Profile | None = None) -> Profile:
        if like is not None and not isinstance(like, Profile):
            raise InvalidInput(f"like is a {type(like).__name__}; give a profile, or None.")
        return profiling.profile(reference, "The reference", like, self.context.redactor)

    def _detect(self, current: Any, reference: Any) -> DriftReport:
        if not isinstance(reference, Profile):
            like = current if isinstance(current, Profile) else None
            reference = self.fit(reference, like=like)
        if not isinstance(current, Profile):
            redactor = self.context.redactor
            current = profiling.profile(current, "The current data", reference, redactor)
        for side, what in ((current, "The current"), (reference, "The reference")):
            if not side.n:
                raise InvalidInput(f"{what} profile has no rows, so there is nothing to compare.")
        return compare(current, reference, self._rules)


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


@hookimpl
def make_drift_detector(location: str | None, options: Mapping[str, Any]) -> DriftDetector:
    """Build the embedded drift detector."""
    return LocalDriftDetector(location, **options)

"""The interface of drift detection: profile a reference once, compare new data with it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mlopskit.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.monitoring.entities import DriftReport
    from mlopskit.monitoring.profile import Profile

CAPABILITIES: Final[Mapping[str, str]] = {
    "profiles": "either side of `detect` may be a profile instead of a frame",
    "merge": "profiles of partitions merge into the profile of the whole",
    "p_values": "every tested column has a p-value, corrected for the number of columns",
    "auto": "a method is chosen for each column by its kind",
    "ks": "Kolmogorov-Smirnov distance of numeric columns",
    "chi2": "chi-squared test of homogeneity",
    "psi": "population stability index",
    "js": "Jensen-Shannon distance",
    "wasserstein": "Wasserstein distance in standard deviations of the reference",
    "anderson": "Anderson-Darling test of numeric columns",
    "cvm": "Cramer-von Mises test of numeric columns",
    "energy": "energy distance of numeric columns",
    "mmd": "maximum mean discrepancy, all columns at once",
    "c2st": "classifier two-sample test, all columns at once",
    "text": "drift of text by its content",
    "embeddings": "drift of vectors",
    "performance": "a model's performance, estimated without labels",
    "stream": "value by value, without windows",
}
METHODS: Final = (
    "auto",
    "ks",
    "chi2",
    "psi",
    "js",
    "wasserstein",
    "anderson",
    "cvm",
    "energy",
    "mmd",
    "c2st",
)


class DriftDetector(Tool):
    """Says whether new data still looks like the data that a model was trained on.

    A frame is a pandas or polars DataFrame, a pyarrow Table, or a mapping of columns to arrays.
    A detector holds no state between calls: one may be used from many threads.
    """

    domain: ClassVar[str] = "monitoring"

    @abstractmethod
    def fit(self, reference: Any, *, like: Profile | None = None) -> Profile:
        """Return the profile of a frame: all that `detect` needs to know of it later.

        Args:
            reference: The frame, one row at least.
            like: A profile whose groups are used again. Profiles made like the same one merge
                exactly, and can be compared with each other.

        Raises:
            InvalidInput: If it is no frame, or has no rows or no columns.
            Unsupported: If the backend has no profiles.
        """

    def detect(self, current: Any, reference: Any) -> DriftReport:
        """Return how far `current` moved from `reference`; each is a frame or a profile.

        A column that is missing, new, or of another type is a finding in the report. Listeners to
        ``drift_detected`` hear of a report that found drift.

        Raises:
            InvalidInput: If a side is neither frame nor profile, or is empty, or two profiles were
                not made alike.
            Unsupported: If a side is a profile and the backend takes frames only.
        """
        report = self._detect(current, reference)
        if report.drifted:
            self.notify("drift_detected", report=report)
        return report

    @abstractmethod
    def _detect(self, current: Any, reference: Any) -> DriftReport:
        """Compare the two sides. `detect` tells the listeners."""

"""Watching what the server was asked with: drift from the training data, and truth to history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mlopskit.demo.features import CATEGORIES, COLUMNS, SCHEDULE, STORED

if TYPE_CHECKING:
    from mlopskit.demo.data import Floats
    from mlopskit.monitoring.base import DriftDetector
    from mlopskit.monitoring.entities import DriftReport


class Monitor:
    """Compares a month with what the first model, and what the serving one, was trained on."""

    def __init__(self, detector: DriftDetector, training: pa.Table) -> None:
        self._detector = detector
        self._first = self._live = detector.fit(training.select(COLUMNS))

    def adopt(self, training: pa.Table) -> None:
        """Take another model's training data as the reference of what serves."""
        self._live = self._detector.fit(training.select(COLUMNS))

    def look(self, current: pa.Table) -> tuple[DriftReport, DriftReport]:
        """Return the drift from the serving model's training data, and from the first model's."""
        drift = self._detector.detect(current, self._live)
        if self._live is self._first:
            return drift, drift
        return drift, self._detector.detect(current, self._first)


def as_served(past: pa.Table, served: Floats) -> pa.Table:
    """Return a month's requests as a table: the schedule, and the features as read online."""
    columns = {name: past[name] for name in (*CATEGORIES, *SCHEDULE)}
    columns |= {name: pa.array(served[:, i], from_pandas=True) for i, name in enumerate(STORED)}
    return pa.table(columns).select(COLUMNS)


def compare(served: Floats, past: pa.Table) -> tuple[int, int]:
    """Return how many values were served online, and how many are unlike the history of now."""
    history = np.column_stack([past[name].to_numpy() for name in STORED])
    same = (served == history) | (np.isnan(served) & np.isnan(history))
    return same.size, int(same.size - same.sum())

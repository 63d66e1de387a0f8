"""What is asked about runs: one of them, those that a filter matches, the values of a metric."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from mlopskit import filters
from mlopskit.errors import InvalidInput
from mlopskit.tracking.backend import TrackerBackend
from mlopskit.tracking.entities import RunList
from mlopskit.tracking.owner import is_lost
from mlopskit.tracking.thinning import thinned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlopskit.tracking.entities import MetricHistory, RunRecord

logger = logging.getLogger(__name__)


class Questions(TrackerBackend):
    """The part of a tracker that reads runs."""

    def get_run(self, id: str) -> RunRecord:
        """Read a run back. What this process has logged to it is delivered first.

        Raises:
            NotFound: If there is no such run.
        """
        self._catch_up(id)
        return _judged(self.read_run(id))

    def search_runs(
        self,
        where: str = "",
        experiment: str | None = None,
        *,
        order_by: str | Sequence[str] = (),
        limit: int | None = 100,
        offset: int = 0,
    ) -> RunList:
        """Find runs, the latest first unless `order_by` says otherwise.

        Args:
            where: A filter such as ``metrics.loss < 0.1 and params.model = 'cnn'``; see
                `mlopskit.filters`.
            experiment: Only runs of this experiment.
            order_by: Such as ``"metrics.loss desc"``; runs without the value come last.
            limit: At most so many; None for all. `RunList.truncated` says whether there are more.
            offset: Leave out so many first, to go on where a truncated answer ended.

        Raises:
            InvalidInput: If the filter or the order cannot be read, with the column of the error.
        """
        question = filters.parse(where)
        order = filters.parse_order([order_by] if isinstance(order_by, str) else order_by)
        for what, number in (("limit", limit), ("offset", offset)):
            if number is not None and number < 0:
                raise InvalidInput(f"The {what} is {number}; it must be 0 or more.")
        self._catch_up(None)
        matching: Iterator[RunRecord] = map(_judged, self.scan_runs(experiment, question, order))
        if question is not None:
            matching = (run for run in matching if filters.matches(question, run))
        if not self.sorts(order):
            matching = iter(filters.ordered(matching, order))
        matching = islice(matching, offset, None)
        found = RunList(islice(matching, limit))
        found.truncated = limit is not None and next(matching, None) is not None
        if found.truncated:
            logger.info("More than %d runs match; limit=None returns all of them.", limit)
        return found

    def get_metric_history(
        self, id: str, key: str, *, max_points: int | None = None
    ) -> MetricHistory:
        """Read the values of one metric, in the order logged.

        Args:
            id: The run.
            key: The metric.
            max_points: Leave out points that a plot of that many would not show; the first, the
                last and every extreme stay. None for every value that was logged.

        Raises:
            NotFound: If there is no such run, or it has no such metric.
            InvalidInput: If `max_points` is less than 4.
        """
        if max_points is not None and max_points < 4:
            raise InvalidInput(f"max_points is {max_points}; a plot needs 4 at least.")
        self._catch_up(id)
        history = self.read_metric_history(id, key, max_points)
        return history if max_points is None else thinned(history, max_points)


def _judged(record: RunRecord) -> RunRecord:
    if record.status == "running" and is_lost(record.owner, record.heartbeat_at, datetime.now(UTC)):
        return record.model_copy(update={"status": "lost"})
    return record

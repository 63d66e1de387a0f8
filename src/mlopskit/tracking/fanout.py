"""Several trackers behind one: each gets every record, the first answers questions."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from mlopskit.capabilities import Capabilities
from mlopskit.errors import ConfigError, NotFound
from mlopskit.tracking.base import CAPABILITIES, Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mlopskit.filters import Filter, Order
    from mlopskit.tracking.entities import (
        Artifact,
        ArtifactUse,
        Batch,
        Experiment,
        MetricHistory,
        RunRecord,
    )

READING = ("artifact_inputs", "foreign_runs", "offline")


class FanOutTracker(Tracker):
    """Writes to every tracker of a list, through one journal; one that fails disturbs nobody.

    Args:
        trackers: At least one; the first answers every question about runs.

    Raises:
        ConfigError: If there is none, or two write to the same place.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        if not trackers:
            raise ConfigError("A list of trackers is empty; name at least one.")
        targets = [tracker.target for tracker in trackers]
        twice = sorted({target for target in targets if targets.count(target) > 1})
        if twice:
            raise ConfigError(f"Two trackers of the list write to {twice[0]!r}; name it once.")
        self._trackers = tuple(trackers)
        first = trackers[0]
        strict = any(tracker.on_error == "raise" for tracker in trackers)
        super().__init__(
            on_error="raise" if strict else "warn",
            flush_timeout_s=max(tracker.flush_timeout_s for tracker in trackers),
            journal_limit=min(tracker.journal_limit for tracker in trackers),
            system_metrics_s=max(tracker.system_metrics_s for tracker in trackers),
            alerts=next((each.alerts for each in trackers if each.alerts), None),
            ranks=first.ranks,
        )
        self.context = first.context

    @property
    def target(self) -> str:
        """Every tracker's target."""
        return " + ".join(tracker.target for tracker in self._trackers)

    @property
    def reuses_ids(self) -> bool:
        """Whether every tracker does."""
        return all(tracker.reuses_ids for tracker in self._trackers)

    def unread_keys(self, id: str) -> tuple[str, ...]:
        """Return those of the first."""
        return self._trackers[0].unread_keys(id)

    @property
    def capabilities(self) -> Capabilities:
        """What all of them can do; what only concerns reading is up to the first."""
        table = {}
        for name in CAPABILITIES:
            asked = self._trackers[:1] if name in READING else self._trackers
            lines = [(tracker.capabilities, tracker.capabilities[name]) for tracker in asked]
            order = ("absent", "emulated", "native")
            owner, worst = min(lines, key=lambda pair: order.index(pair[1].level))
            note = f": {owner.backend}: {worst.note}" if worst.level != "native" else ""
            table[name] = worst.level + note
        return Capabilities("tracking", "fan-out", table)

    @property
    def native(self) -> list[Any]:
        """The client of each tracker."""
        return [tracker.native for tracker in self._trackers]

    def ping(self, timeout_s: float = 5.0) -> None:
        """Reach every tracker."""
        for tracker in self._trackers:
            tracker.ping(timeout_s)

    def close(self) -> None:
        """Deliver what is pending, then close every tracker."""
        super().close()
        with ExitStack() as stack:
            for tracker in self._trackers:
                stack.callback(tracker.close)

    def sinks(self) -> Sequence[Tracker]:
        """Return the trackers of the list."""
        return self._trackers

    def write(self, batch: Batch) -> None:
        """Write to every tracker. Deliveries go to each on its own instead."""
        for tracker in self._trackers:
            tracker.write(batch)

    def read_run(self, id: str) -> RunRecord:
        """Read from the first tracker."""
        return self._trackers[0].read_run(id)

    def scan_runs(
        self, experiment: str | None, where: Filter | None, order: Sequence[Order] = ()
    ) -> Iterator[RunRecord]:
        """Read from the first tracker."""
        return self._trackers[0].scan_runs(experiment, where, order)

    def sorts(self, order: Sequence[Order]) -> bool:
        """Ask the first tracker."""
        return self._trackers[0].sorts(order)

    def read_metric_history(
        self, id: str, key: str, max_points: int | None = None
    ) -> MetricHistory:
        """Read from the first tracker."""
        return self._trackers[0].read_metric_history(id, key, max_points)

    def find_artifact(self, name: str, alias: str, experiment: str) -> ArtifactUse | None:
        """Ask the first tracker."""
        return self._trackers[0].find_artifact(name, alias, experiment)

    def write_experiment(self, name: str, description: str) -> None:
        """Describe it at every tracker."""
        for tracker in self._trackers:
            tracker.write_experiment(name, description)

    def remove_experiment(self, name: str) -> None:
        """Delete it from every tracker that has it."""
        self._everywhere(lambda tracker: tracker.remove_experiment(name))

    def list_experiments(self) -> list[Experiment]:
        """Read from the first tracker."""
        return self._trackers[0].list_experiments()

    def read_artifacts(self, id: str) -> list[Artifact]:
        """Read from the first tracker."""
        return self._trackers[0].read_artifacts(id)

    def copy_artifact(self, id: str, artifact: Artifact, destination: Path) -> None:
        """Read from the first tracker."""
        self._trackers[0].copy_artifact(id, artifact, destination)

    def remove_run(self, id: str) -> None:
        """Delete the run from every tracker that has it."""
        self._everywhere(lambda tracker: tracker.remove_run(id))

    def _everywhere(self, act: Callable[[Tracker], None]) -> None:
        missing: list[NotFound] = []
        for tracker in self._trackers:
            try:
                act(tracker)
            except NotFound as exc:
                missing.append(exc)
        if len(missing) == len(self._trackers):
            raise missing[0]

    def run_url(self, id: str) -> str | None:
        """Return the first address that any tracker has."""
        return next((url for tracker in self._trackers if (url := tracker.run_url(id))), None)

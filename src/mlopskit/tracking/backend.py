"""What a tracker gives, tool by tool: a few primitives, below what all of them share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from mlopskit.errors import Unsupported
from mlopskit.tool import Tool
from mlopskit.tracking.entities import ArtifactUse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from mlopskit.filters import Filter, Order
    from mlopskit.tracking.entities import Artifact, Batch, Experiment, MetricHistory, RunRecord


class TrackerBackend(Tool):
    """The part of a tracker that differs from tool to tool.

    What reaches it has been checked, and cleaned of secrets.
    """

    domain: ClassVar[str] = "tracking"
    exactly_once: ClassVar[bool] = False

    @property
    @abstractmethod
    def target(self) -> str:
        """What this tracker writes to, as ``<backend>:<where>``, the same in every process.

        Journals carry it, so that a later process knows what is its to deliver. It holds no
        secret.
        """

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Store records of one run, in order. Called from worker threads, one batch at a time.

        A batch may come again after a crash, whole or in part; `Batch.source` and
        `Record.position` tell what was stored before.

        Raises:
            Unavailable: If the tool cannot be reached now; the batch will come again.
            StorageError: Likewise.
            InvalidInput: If the tool will never take a record of it; each record of the batch then
                comes again alone, and the ones refused are counted as rejected.
            Conflict: Likewise.
            NotFound: Likewise, where the run has been deleted.
        """

    def settled(self, run_id: str, source: str) -> int | None:  # noqa: ARG002 - for those that know
        """Return up to which position a journal's records are stored for good; None if all are.

        For tools that take records and store them later. What is not settled stays in the journal,
        and comes again after a failure or a crash.

        Raises:
            Unavailable: If the tool cannot be asked now.
        """
        return None

    @abstractmethod
    def read_run(self, id: str) -> RunRecord:
        """Read one run as the tool has it.

        Raises:
            NotFound: If there is no such run.
        """

    @abstractmethod
    def scan_runs(
        self, experiment: str | None, where: Filter | None, order: Sequence[Order] = ()
    ) -> Iterator[RunRecord]:
        """Yield runs, a page at a time: at least those that match, and no deleted one.

        Args:
            experiment: Only runs of this experiment.
            where: A filter to push down as far as the tool can; the caller applies all of it again.
            order: The order to yield them in where `sorts` says so; else the latest comes first.
        """

    def sorts(self, order: Sequence[Order]) -> bool:
        """Tell whether `scan_runs` yields runs in this order, as `filters.ordered` would."""
        return not order

    @abstractmethod
    def read_metric_history(
        self, id: str, key: str, max_points: int | None = None
    ) -> MetricHistory:
        """Read the values of one metric, in the order logged.

        With `max_points` the tool may leave points out, as `thinning` does; the caller thins again.

        Raises:
            NotFound: If there is no such run, or it has no such metric.
        """

    @abstractmethod
    def list_experiments(self) -> list[Experiment]:
        """List the experiments, by name."""

    def write_experiment(self, name: str, description: str) -> None:  # noqa: ARG002 - for some
        """Describe an experiment, which is made if it is not there yet."""
        raise self._lack("experiments")

    def remove_experiment(self, name: str) -> None:  # noqa: ARG002 - for some
        """Delete an experiment with its runs.

        Raises:
            NotFound: If there is no such experiment.
        """
        raise self._lack("experiments")

    def find_artifact(self, name: str, alias: str, experiment: str) -> ArtifactUse | None:
        """Find the newest artifact of an experiment that was logged by a name, with an alias.

        Args:
            name: A file, or a folder that was logged as one.
            alias: ``"latest"`` is whatever was logged last.
            experiment: Where to look.
        """
        found: tuple[datetime, ArtifactUse] | None = None
        for run in self.scan_runs(experiment, None):
            files = tuple(
                each
                for each in self.read_artifacts(run.id)
                if each.logged_as == name and (alias == "latest" or alias in each.aliases)
            )
            at = max((each.logged_at for each in files if each.logged_at), default=None)
            if at is not None and (found is None or at > found[0]):
                found = at, ArtifactUse(run_id=run.id, name=name, alias=alias, files=files)
        return found[1] if found else None

    @abstractmethod
    def read_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run, by name.

        Raises:
            NotFound: If there is no such run.
        """

    @abstractmethod
    def copy_artifact(self, id: str, artifact: Artifact, destination: Path) -> None:
        """Write the bytes of one artifact to a new file, whose folder exists."""

    @abstractmethod
    def remove_run(self, id: str) -> None:
        """Delete a run.

        Raises:
            NotFound: If there is no such run.
        """

    def unread_keys(self, id: str) -> tuple[str, ...]:  # noqa: ARG002 - for those that have some
        """Return the keys of a foreign run whose values cannot be read here.

        Such as texts and histograms of a W&B history, which are no metrics.

        Raises:
            NotFound: If there is no such run.
        """
        return ()

    @property
    def place(self) -> Path | None:
        """The file or folder that is there as soon as there are runs; None of a server."""
        return None

    def is_same_store(self, other: TrackerBackend) -> bool:
        """Tell whether another tracker has its runs in the very same place, by whatever name.

        Raises:
            Unavailable: If that has to be asked, and there is no answer.
        """
        if self.target == other.target:
            return True
        return type(self) is type(other) and is_one_file(self.place, other.place)

    @property
    def reuses_ids(self) -> bool:
        """Whether the id of a run that was deleted can be given to another one."""
        return True

    def run_url(self, id: str) -> str | None:  # noqa: ARG002 - for those that have pages
        """Return the address of a run's page, or None where there is none to show."""
        return None

    # What the shared part gives.

    @abstractmethod
    def _catch_up(self, id: str | None) -> None:
        """Deliver what this process has logged to a run, or to all, before something is read."""

    def _lack(self, capability: str) -> Unsupported:
        reason = self.capabilities[capability].note
        return Unsupported(self.domain, self.capabilities.backend, capability, reason)


def is_one_file(one: Path | None, other: Path | None) -> bool:
    """Tell whether two paths lead to one file or folder, through links too."""
    if one is None or other is None:
        return False
    try:
        return one.samefile(other)
    except OSError:
        return False  # One of them is not there.

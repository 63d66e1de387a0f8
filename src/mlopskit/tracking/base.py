"""The tracking interface: what every tracker does, written once on a few primitives of each tool.

A caller holds a `Run`. What it logs goes to the run's journal and is written to the tool by a
worker, so a backend only writes batches and reads: fan-out, retries, flushing, ``with``, fork and
crash recovery are none of its business.
"""

from __future__ import annotations

import logging
import os
import uuid
from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from mlopskit.errors import Conflict, IntegrityError, InvalidInput, MlopskitError, NotFound
from mlopskit.names import check_label, check_path
from mlopskit.storage import digest_of, make_private_folder
from mlopskit.tool import Tool
from mlopskit.tracking import filters
from mlopskit.tracking.entities import RunList, Started, SyncReport
from mlopskit.tracking.outbox import Outbox
from mlopskit.tracking.owner import is_gone, this_process
from mlopskit.tracking.run import Run
from mlopskit.tracking.values import check_run_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mlopskit.tracking.entities import Artifact, Batch, Experiment, MetricHistory, RunRecord

logger = logging.getLogger(__name__)

CAPABILITIES: Final[Mapping[str, str]] = {
    "artifacts": "Files can be kept with a run and read back.",
    "delete": "A run can be deleted.",
    "exactly_once": "A record that is delivered again after a crash is stored once.",
    "foreign_runs": "Runs that mlopskit did not write can be read.",
    "lost_runs": "A run whose process died reads as lost, not as running.",
    "nested_runs": "A run can be part of another run.",
    "numbers": "NaN, infinities, -0.0 and ints of any size read back as they were logged.",
    "offline": "Runs can be read without a network.",
    "overwrite_params": "A param that has a value can be given another one on request.",
    "resume": "A run can be taken up again by a later process.",
    "step_order": "Steps may be logged in any order, and repeatedly.",
    "typed_params": "Params read back with their types and nesting.",
    "unicode_names": "Params, metrics and tags may be named with any printable Unicode text.",
}


class Tracker(Tool):
    """Records what happened in runs, and reads it back.

    Args:
        on_error: ``"warn"`` logs what could not be delivered and keeps it for `sync`; ``"raise"``
            also makes `Run.flush` and `Run.finish` raise.
        flush_timeout_s: How long `Run.flush` and `Run.finish` wait for the backend by default.
        journal_limit: The most bytes that the journal of one run may take on the disk.
    """

    domain: ClassVar[str] = "tracking"
    exactly_once: ClassVar[bool] = False

    def __init__(
        self,
        *,
        on_error: Literal["warn", "raise"] = "warn",
        flush_timeout_s: float = 10.0,
        journal_limit: int = 1 << 30,
    ) -> None:
        if on_error not in ("warn", "raise"):
            raise InvalidInput(f"on_error is {on_error!r}; it may be 'warn' or 'raise'.")
        self.on_error = on_error
        self.flush_timeout_s = flush_timeout_s
        self.journal_limit = journal_limit
        # By process: a forked child has an outbox of its own, and no lock to inherit held.
        self._boxes: dict[int, Outbox] = {}

    # What a backend implements.

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

    @abstractmethod
    def read_run(self, id: str) -> RunRecord:
        """Read one run as the tool has it.

        Raises:
            NotFound: If there is no such run.
        """

    @abstractmethod
    def scan_runs(
        self, experiment: str | None, where: filters.Filter | None
    ) -> Iterator[RunRecord]:
        """Yield runs, the latest first: at least those that match, and no deleted one.

        Args:
            experiment: Only runs of this experiment.
            where: A filter to push down as far as the tool can; the caller applies all of it again.
        """

    @abstractmethod
    def read_metric_history(self, id: str, key: str) -> MetricHistory:
        """Read every value of one metric, in the order logged.

        Raises:
            NotFound: If there is no such run, or it has no such metric.
        """

    @abstractmethod
    def list_experiments(self) -> list[Experiment]:
        """List the experiments, by name."""

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

    def run_url(self, id: str) -> str | None:  # noqa: ARG002 - for those that have pages
        """Return the address of a run's page, or None where there is none to show."""
        return None

    # What users call.

    def start_run(
        self,
        experiment: str | None = None,
        *,
        name: str | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: Run | str | None = None,
        run_id: str | None = None,
        resume: bool = False,
    ) -> Run:
        """Open a run and return its handle. Never waits for a network, unless `run_id` is given.

        Args:
            experiment: The group it belongs to; ``"default"`` if left out.
            name: A label; made of the id if left out.
            params: What the run is given; see `Run.log_params`.
            tags: Text by key; see `Run.set_tags`.
            parent: The run, or the id of the run, that this one is a part of.
            run_id: The id to use, of 32 hexadecimal digits.
            resume: Take up the run `run_id` again, in its experiment and under its name.

        Raises:
            Conflict: If `run_id` is taken and `resume` is false.
            NotFound: If `resume` is true and there is no such run.
            InvalidName: If a name cannot be kept.
            StorageError: If the journal cannot be written.
        """
        found = self._taken(run_id, resume=resume)
        if found is not None:
            experiment, name, parent = found.experiment, found.name, found.parent_id
        own_id = run_id or uuid.uuid4().hex
        parent_id = parent.id if isinstance(parent, Run) else parent
        clean = self.context.redactor.text
        start = Started(
            position=0,
            time_ms=0,
            name=clean(check_label("run", own_id[:8] if name is None else name)),
            experiment=clean(
                check_label("experiment", "default" if experiment is None else experiment)
            ),
            parent_id=None if parent_id is None else check_run_id(parent_id),
            owner=this_process(),
            resumed=found is not None,
        )
        run = Run(self, own_id, start, self._outbox(), resumed=found)
        try:
            if params:
                run.log_params(params)
            if tags:
                run.set_tags(tags)
        except BaseException:
            run.finish("failed", timeout_s=0)
            raise
        return run

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
    ) -> RunList:
        """Find runs, the latest first unless `order_by` says otherwise.

        Args:
            where: A filter such as ``metrics.loss < 0.1 and params.model = 'cnn'``; see
                `mlopskit.tracking.filters`.
            experiment: Only runs of this experiment.
            order_by: Such as ``"metrics.loss desc"``; runs without the value come last.
            limit: At most so many; None for all. `RunList.truncated` says whether there are more.

        Raises:
            InvalidInput: If the filter or the order cannot be read, with the column of the error.
        """
        question = filters.parse(where)
        order = filters.parse_order([order_by] if isinstance(order_by, str) else order_by)
        if limit is not None and limit < 0:
            raise InvalidInput(f"limit is {limit}; it must be 0 or more, or None for all.")
        self._catch_up(None)
        found = RunList()
        matching: Iterator[RunRecord] = map(_judged, self.scan_runs(experiment, question))
        if question is not None:
            matching = (run for run in matching if filters.matches(question, run))
        if order:
            matching = iter(filters.ordered(matching, order))
        for record in matching:
            if limit is not None and len(found) == limit:
                found.truncated = True
                logger.info("More than %d runs match; limit=None returns all of them.", limit)
                break
            found.append(record)
        return found

    def get_metric_history(self, id: str, key: str) -> MetricHistory:
        """Read every value of one metric, in the order logged.

        Raises:
            NotFound: If there is no such run, or it has no such metric.
        """
        self._catch_up(id)
        return self.read_metric_history(id, key)

    def list_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run, by name.

        Raises:
            NotFound: If there is no such run.
        """
        self._catch_up(id)
        return self.read_artifacts(id)

    def download_artifact(self, id: str, name: str, dst: Path | str) -> Path:
        """Write one file of a run into the folder `dst`, under its name, and return its path.

        Raises:
            NotFound: If there is no such run or file.
            IntegrityError: If the bytes are no longer those that were logged.
        """
        from pathlib import Path  # noqa: PLC0415 - annotations aside, only this method needs it

        artifacts = {artifact.name: artifact for artifact in self.list_artifacts(id)}
        if name not in artifacts:
            raise NotFound("artifact", name, artifacts)
        path = Path(dst, check_path("artifact", name))
        make_private_folder(path.parent)
        self.copy_artifact(id, artifacts[name], path)
        expected = artifacts[name].digest
        if expected and (digest := digest_of(path)) != expected:
            path.unlink()
            raise IntegrityError(f"The artifact {name!r} of run {id}", expected, digest)
        return path

    def delete_run(self, id: str) -> None:
        """Delete a run, with its metrics and files.

        Raises:
            NotFound: If there is no such run.
            Conflict: If this process still logs to it.
        """
        if (box := self._boxes.get(os.getpid())) is not None and id in box.runs():
            raise Conflict(f"Run {id} is still open here. Finish it before you delete it.")
        self.remove_run(id)

    def sync(self) -> SyncReport:
        """Deliver what earlier or dead processes of this home left undelivered, and our own.

        A run whose process is gone, and never said how it ended, becomes ``lost``. Journals of
        live processes are left to them. Two syncs at once do not disturb each other.
        """
        return self._outbox().sync()

    def close(self) -> None:
        """Deliver what is pending, within the flush timeout, and stop. Closing twice is fine."""
        box = self._boxes.pop(os.getpid(), None)
        if box is not None:
            box.close(self.flush_timeout_s)

    def sinks(self) -> Sequence[Tracker]:
        """Return the trackers that records are written to: this one, unless it fans out."""
        return (self,)

    def _outbox(self) -> Outbox:
        pid = os.getpid()
        box = self._boxes.get(pid)
        if box is None:
            folder = self.context.home / "tracking" / "journal"
            new = Outbox(folder, self.sinks(), limit=self.journal_limit)
            box = self._boxes.setdefault(pid, new)
        return box

    def _catch_up(self, id: str | None) -> None:
        """Deliver what this process has logged, so that a reader sees its own writes."""
        box = self._boxes.get(os.getpid())
        if box is not None:
            with suppress(MlopskitError):
                box.flush(id, self.flush_timeout_s)

    def _taken(self, run_id: str | None, *, resume: bool) -> RunRecord | None:
        if run_id is None:
            if resume:
                raise InvalidInput("resume=True needs the run_id of the run to take up again.")
            return None
        check_run_id(run_id)
        if resume:
            self._outbox().sync(run_id)
        try:
            found = self.get_run(run_id)
        except NotFound:
            if resume:
                raise
            return None
        if not resume:
            raise Conflict(
                f"There is already a run {run_id}. Pass resume=True to take it up again."
            )
        return found


def _judged(record: RunRecord) -> RunRecord:
    if record.status == "running" and is_gone(record.owner):
        return record.model_copy(update={"status": "lost"})
    return record

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
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypedDict

from mlopskit import filters
from mlopskit.addresses import fetch
from mlopskit.errors import (
    Conflict,
    IntegrityError,
    InvalidInput,
    MlopskitError,
    NotFound,
    Unsupported,
)
from mlopskit.names import check_label, check_path
from mlopskit.storage import digest_of, make_private_folder
from mlopskit.tool import Tool
from mlopskit.tracking.alerts import AlertRules
from mlopskit.tracking.entities import ArtifactUse, RunList, Started, SyncReport
from mlopskit.tracking.outbox import Outbox
from mlopskit.tracking.owner import is_lost, this_process
from mlopskit.tracking.ranks import (
    Ranks,
    SilentRun,
    check_ranks,
    group_name,
    several,
    this_rank,
)
from mlopskit.tracking.run import Run
from mlopskit.tracking.system import check_interval
from mlopskit.tracking.thinning import thinned
from mlopskit.tracking.values import check_run_id, check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mlopskit.filters import Filter, Order
    from mlopskit.tracking.entities import Artifact, Batch, Experiment, MetricHistory, RunRecord
    from mlopskit.tracking.journal import Journal

logger = logging.getLogger(__name__)

RUN_ID_LENGTH: Final = 32
CAPABILITIES: Final[Mapping[str, str]] = {
    "artifact_inputs": "Artifacts of runs can be found by name and alias, and recorded as used.",
    "artifact_references": "A run can point to remote data that is not copied.",
    "artifacts": "Files can be kept with a run and read back.",
    "charts": "Figures, images, tables and curves are drawn by the tool itself.",
    "datasets": "The data that a run was given can be recorded with its fingerprint and columns.",
    "delete": "A run can be deleted.",
    "exactly_once": "A record that is delivered again after a crash is stored once.",
    "experiments": "Experiments can be described and deleted.",
    "foreign_runs": "Runs that mlopskit did not write can be read.",
    "groups": "A run can have a group, a job type and notes.",
    "heartbeat": "A run whose process died on another machine reads as lost.",
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


class TrackerOptions(TypedDict, total=False):
    """What every tracker takes beside its own options; `Tracker` says what each means."""

    on_error: Literal["warn", "raise"]
    flush_timeout_s: float
    journal_limit: int
    system_metrics_s: float
    alerts: AlertRules | Mapping[str, object] | None
    ranks: Ranks


class Tracker(Tool):
    """Records what happened in runs, and reads it back.

    Args:
        on_error: ``"warn"`` logs what could not be delivered and keeps it for `sync`; ``"raise"``
            also makes `Run.flush` and `Run.finish` raise.
        flush_timeout_s: How long `Run.flush` and `Run.finish` wait for the backend by default.
        journal_limit: The most bytes that the journal of one run may take on the disk.
        system_metrics_s: Log the use of CPU, memory and GPUs every so many seconds, as metrics
            ``system/...``; 0 for never. Needs ``psutil``.
        alerts: What to tell the hook `run_alerted`; see `AlertRules`.
        ranks: Where a program runs as several processes (``torchrun``): ``"first"`` has rank 0 log,
            and gives the others handles that store nothing; ``"group"`` gives each rank a run of
            its own, in one group; ``"every"`` takes no notice of ranks.

    Raises:
        InvalidInput: If an option cannot be taken.
        MissingDependency: If system metrics are asked for and ``psutil`` is not installed.
    """

    domain: ClassVar[str] = "tracking"
    exactly_once: ClassVar[bool] = False

    def __init__(
        self,
        *,
        on_error: Literal["warn", "raise"] = "warn",
        flush_timeout_s: float = 10.0,
        journal_limit: int = 1 << 30,
        system_metrics_s: float = 0.0,
        alerts: AlertRules | Mapping[str, object] | None = None,
        ranks: Ranks = "first",
    ) -> None:
        if on_error not in ("warn", "raise"):
            raise InvalidInput(f"on_error is {on_error!r}; it may be 'warn' or 'raise'.")
        self.on_error = on_error
        self.flush_timeout_s = flush_timeout_s
        self.journal_limit = journal_limit
        self.system_metrics_s = check_interval(system_metrics_s)
        self.alerts = AlertRules.of(alerts)
        self.ranks = check_ranks(ranks)
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

    @property
    def reuses_ids(self) -> bool:
        """Whether the id of a run that was deleted can be given to another one."""
        return True

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
        group: str | None = None,
        job_type: str | None = None,
        notes: str = "",
    ) -> Run:
        """Open a run and return its handle. Never waits for a network, unless `run_id` is given.

        In a program of several ranks, `ranks` of the tracker says which of them log.

        Args:
            experiment: The group it belongs to; ``"default"`` if left out.
            name: A label; made of the id if left out.
            params: What the run is given; see `Run.log_params`.
            tags: Text by key; see `Run.set_tags`.
            parent: The run, or the id of the run, that this one is a part of.
            run_id: The id to use, of 32 hexadecimal digits.
            resume: Take up the run `run_id` again, in its experiment and under its name.
            group: A set of runs within the experiment, such as the folds of one validation.
            job_type: What the run does in its group, such as ``"train"``.
            notes: A text about it, which `Run.set_notes` replaces.

        Raises:
            Conflict: If `run_id` is taken and `resume` is false.
            NotFound: If `resume` is true and there is no such run.
            InvalidName: If a name cannot be kept.
            StorageError: If the journal cannot be written.
        """
        silent = self.ranks == "first" and this_rank() > 0
        if self.ranks == "group" and several():
            group = group_name() if group is None else group
            name = f"{name or 'rank'} {this_rank()}"
            job_type = job_type or "rank"
        found = None if silent else self._taken(run_id, resume=resume)
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
            group=None if group is None else clean(check_label("group", group)),
            job_type=None if job_type is None else clean(check_label("job type", job_type)),
            notes=clean(check_text("Notes", notes)),
        )
        run = (
            SilentRun(self, own_id, start)
            if silent
            else Run(self, own_id, start, self._outbox(), resumed=found)
        )
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

    def describe_experiment(self, name: str, description: str) -> None:
        """Write what an experiment is about. It is made if it is not there yet.

        Raises:
            InvalidName: If the name cannot be kept.
            Unsupported: If the backend has no place for it.
        """
        self.capabilities.require(["experiments"])
        clean = self.context.redactor.text
        self.write_experiment(
            clean(check_label("experiment", name)), clean(check_text("A description", description))
        )

    def delete_experiment(self, name: str) -> None:
        """Delete an experiment, with all of its runs.

        Raises:
            NotFound: If there is no such experiment.
            Conflict: If this process still logs to one of its runs.
            Unsupported: If the backend cannot.
        """
        self.capabilities.require(["experiments"])
        if (box := self._boxes.get(os.getpid())) is not None and name in box.experiments():
            raise Conflict(f"A run of {name!r} is still open here. Finish it before you delete it.")
        self._catch_up(None)
        self.remove_experiment(name)

    def list_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run, by name.

        Raises:
            NotFound: If there is no such run.
        """
        self._catch_up(id)
        return self.read_artifacts(id)

    def get_artifact(self, ref: str, experiment: str = "default") -> ArtifactUse:
        """Find an artifact: a file, or all files of a folder that was logged as one.

        Args:
            ref: ``"<name>"``, ``"<name>:<alias>"`` for the newest of an experiment, or
                ``"<run id>/<name>"`` for the one of a run.
            experiment: Where to look by name.

        Raises:
            NotFound: If there is none.
            Unsupported: If the backend cannot find artifacts by name.
        """
        head, _, rest = ref.partition("/")
        if len(head) == RUN_ID_LENGTH and rest and head.isalnum():
            files = [each for each in self.list_artifacts(head) if rest in (each.name, _root(each))]
            if not files:
                raise NotFound("artifact", ref, {_root(a) for a in self.list_artifacts(head)})
            return ArtifactUse(run_id=head, name=rest, files=tuple(files))
        self.capabilities.require(["artifact_inputs"])
        name, _, alias = ref.partition(":")
        self._catch_up(None)
        found = self.find_artifact(name, alias or "latest", experiment)
        if found is None:
            raise NotFound(f"artifact of experiment {experiment!r}", ref)
        return found

    def download_artifact(
        self, id: str, name: str, dst: Path | str, *, progress: bool = False
    ) -> Path:
        """Write a file of a run, or all files of a folder, into `dst` under its name.

        Remote data is fetched from where it lies.

        Args:
            id: The run.
            name: The file or the folder.
            dst: A folder, which is made.
            progress: Show a bar of the bytes, file by file, on a terminal or in a notebook.

        Returns:
            The path of the file or the folder.

        Raises:
            NotFound: If there is no such run or artifact.
            IntegrityError: If the bytes are no longer those that were logged.
        """
        from pathlib import Path  # noqa: PLC0415 - annotations aside, only this method needs it

        from mlopskit.tracking.progress import bar  # noqa: PLC0415 - as does only this one

        artifacts = self.list_artifacts(id)
        files = [each for each in artifacts if name in (each.name, _root(each))]
        if not files:
            raise NotFound("artifact", name, (each.name for each in artifacts))
        total = sum(each.size for each in files)
        with bar("bytes", asked=progress, sizes=True) as shown:
            done = 0
            for each in files:
                shown.at(done, total, each.name)
                self.fetch_artifact(id, each, Path(dst, check_path("artifact", each.name)))
                done += each.size
            shown.at(done, total)
        return Path(dst, name)

    def fetch_artifact(self, id: str, artifact: Artifact, path: Path) -> None:
        """Write one file that `list_artifacts` told to a path, whose folder is made.

        Raises:
            NotFound: If it is no longer there.
            IntegrityError: If the bytes are no longer those that were logged.
        """
        make_private_folder(path.parent)
        if artifact.uri is not None:
            fetch(artifact.uri, path, digest=artifact.digest)
            return
        self.copy_artifact(id, artifact, path)
        if artifact.digest and (digest := digest_of(path)) != artifact.digest:
            path.unlink()
            raise IntegrityError(
                f"The artifact {artifact.name!r} of run {id}", artifact.digest, digest
            )

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

    def check_there(self) -> None:
        """See that there is something to read from, without making it.

        Raises:
            NotFound: If the file or folder of the runs does not exist.
        """
        for tracker in self.sinks()[:1]:
            if (place := tracker.place) is not None and not place.exists():
                self._catch_up(None)
                if not place.exists():
                    raise NotFound("store of runs", str(place))

    def take_over(self, run_id: str, owner: str, fill: Callable[[Journal], None]) -> SyncReport:
        """Store a run that was written elsewhere: all of its records, or none.

        Args:
            run_id: Its id, of 32 hexadecimal digits, which is not taken.
            owner: The process that wrote it.
            fill: Appends its records to a journal that nobody else sees yet, as `replay.raws`
                yields them, and puts the bytes of its files there.

        Raises:
            InvalidName: If the id is none.
            StorageError: If the records cannot be written; then nothing is stored.
        """
        return self._outbox().post(check_run_id(run_id), owner, fill)

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
            new = Outbox(
                folder,
                self.sinks(),
                limit=self.journal_limit,
                notify=lambda alert: self.notify("run_alerted", alert=alert),
            )
            box = self._boxes.setdefault(pid, new)
        return box

    def _catch_up(self, id: str | None) -> None:
        """Deliver what this process has logged, so that a reader sees its own writes."""
        box = self._boxes.get(os.getpid())
        if box is not None:
            with suppress(MlopskitError):
                box.flush(id, self.flush_timeout_s, only=self.sinks()[0].target)

    def _lack(self, capability: str) -> Unsupported:
        reason = self.capabilities[capability].note
        return Unsupported(self.domain, self.capabilities.backend, capability, reason)

    def _taken(self, run_id: str | None, *, resume: bool) -> RunRecord | None:
        if run_id is None:
            if resume:
                raise InvalidInput("resume=True needs the run_id of the run to take up again.")
            return None
        check_run_id(run_id)
        if resume:
            self.capabilities.require(["resume"])
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


def _root(artifact: Artifact) -> str:
    return artifact.logged_as or artifact.name


def _judged(record: RunRecord) -> RunRecord:
    if record.status == "running" and is_lost(record.owner, record.heartbeat_at, datetime.now(UTC)):
        return record.model_copy(update={"status": "lost"})
    return record

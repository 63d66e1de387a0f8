"""The tracking interface: what every tracker does, written once on a few primitives of each tool.

A caller holds a `Run`. What it logs goes to the run's journal and is written to the tool by a
worker, so a backend only writes batches and reads: fan-out, retries, flushing, ``with``, fork and
crash recovery are none of its business.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypedDict

from mlopskit.errors import Conflict, InvalidInput, MlopskitError, NotFound
from mlopskit.names import check_label
from mlopskit.tracking.alerts import AlertRules
from mlopskit.tracking.artifacts import Artifacts
from mlopskit.tracking.entities import Started, SyncReport
from mlopskit.tracking.outbox import Outbox
from mlopskit.tracking.owner import this_process
from mlopskit.tracking.questions import Questions
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
from mlopskit.tracking.values import check_run_id, check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlopskit.tracking.entities import RunRecord
    from mlopskit.tracking.journal import Journal

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


class Tracker(Questions, Artifacts):
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
        start = _started(
            self.context.redactor.text,
            name=own_id[:8] if name is None else name,
            experiment="default" if experiment is None else experiment,
            parent_id=parent.id if isinstance(parent, Run) else parent,
            resumed=found is not None,
            group=group,
            job_type=job_type,
            notes=notes,
        )
        if silent:
            run: Run = SilentRun(self, own_id, start)
        else:
            run = _opened(self, own_id, start, self._outbox(), found)
        try:
            if params:
                run.log_params(params)
            if tags:
                run.set_tags(tags)
        except BaseException:
            run.finish("failed", timeout_s=0)
            raise
        return run

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

    def delete_run(self, id: str) -> None:
        """Delete a run, with its metrics and files.

        Raises:
            NotFound: If there is no such run.
            Conflict: If this process still logs to it.
        """
        self._check_closed(id)
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

    def take_over(
        self,
        run_id: str,
        owner: str,
        fill: Callable[[Journal], None],
        *,
        replaces: str = "",
    ) -> SyncReport:
        """Store a run that was written elsewhere: all of its records, or none.

        Args:
            run_id: Its id, of 32 hexadecimal digits, which is not taken unless it is replaced.
            owner: The process that wrote it.
            fill: Appends its records to a journal that nobody else sees yet, as `replay.raws`
                yields them, and puts the bytes of its files there.
            replaces: The id of a run to delete as soon as the new one is kept here to its end. A
                process that dies in between leaves that to the next sync.

        Raises:
            Conflict: If the run is to be replaced, and this process still logs to it.
            InvalidName: If the id is none.
            StorageError: If the records cannot be written; then nothing is stored.
        """
        box = self._outbox()
        if replaces:
            self._check_closed(replaces)
        return box.post(check_run_id(run_id), owner, fill, replaces=replaces)

    def close(self) -> None:
        """Deliver what is pending, within the flush timeout, and stop. Closing twice is fine."""
        box = self._boxes.pop(os.getpid(), None)
        if box is not None:
            box.close(self.flush_timeout_s)

    def sinks(self) -> Sequence[Tracker]:
        """Return the trackers that records are written to: this one, unless it fans out."""
        return (self,)

    def _check_closed(self, id: str) -> None:
        if (box := self._boxes.get(os.getpid())) is not None and id in box.runs():
            raise Conflict(f"Run {id} is still open here. Finish it before you delete it.")

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


def _started(
    clean: Callable[[str], str],
    *,
    name: str,
    experiment: str,
    parent_id: str | None,
    resumed: bool,
    group: str | None,
    job_type: str | None,
    notes: str,
) -> Started:
    """Return what is said of a run when it begins, checked and without secrets."""
    return Started(
        position=0,
        time_ms=0,
        name=clean(check_label("run", name)),
        experiment=clean(check_label("experiment", experiment)),
        parent_id=None if parent_id is None else check_run_id(parent_id),
        owner=this_process(),
        resumed=resumed,
        group=None if group is None else clean(check_label("group", group)),
        job_type=None if job_type is None else clean(check_label("job type", job_type)),
        notes=clean(check_text("Notes", notes)),
    )


def _opened(
    tracker: Tracker, id: str, start: Started, box: Outbox, resumed: RunRecord | None
) -> Run:
    """Return the handle of a run; where it cannot begin, nothing stays behind."""
    try:
        return Run(tracker, id, start, box, resumed=resumed)
    except BaseException:
        box.forsake(id)
        raise

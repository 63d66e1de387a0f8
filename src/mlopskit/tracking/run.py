"""A run's handle: checks what is logged, takes secrets out, and appends it to the journal.

What concerns files, media, data and models is in `contents`.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Self

from mlopskit.errors import (
    Conflict,
    InvalidInput,
    MlopskitError,
    ParamConflict,
    Unavailable,
)
from mlopskit.names import check_label, check_path
from mlopskit.tracking import alerts, exits, records, within
from mlopskit.tracking.contents import Contents, check_aliases, plain_metadata
from mlopskit.tracking.entities import Artifact, DeliveryStatus, RunRecord
from mlopskit.tracking.report import run_html
from mlopskit.tracking.system import SystemSampler
from mlopskit.tracking.values import (
    check_params,
    check_step,
    check_tags,
    check_text,
    number,
    same,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import (
        ArtifactUse,
        Dataset,
        Number,
        Started,
        Status,
    )
    from mlopskit.tracking.outbox import Outbox

logger = logging.getLogger(__name__)


class Run(Contents):
    """An open run. Threads may share it; so may forked children, until the run is finished.

    When a ``log_*`` call returns, what it logged survives the death of the process. When `flush`,
    `finish` or the ``with`` block returns, it also survives power loss. A block that raises leaves
    a ``failed`` run, one that is interrupted (Ctrl-C) a ``killed`` one.

    Get one from `Tracker.start_run`.
    """

    def __init__(
        self,
        tracker: Tracker,
        id: str,
        start: Started,
        outbox: Outbox,
        *,
        resumed: RunRecord | None = None,
    ) -> None:
        self.id = id
        self.name = start.name
        self.experiment = start.experiment
        self.parent_id = start.parent_id
        self._tracker = tracker
        self._outbox = outbox
        self._redactor = tracker.context.redactor
        self._owner = start.owner
        self._names: dict[str, str] = {}
        self._params: dict[str, Any] = dict(resumed.params) if resumed else {}
        self._last_step = max(resumed.last_steps.values(), default=-1) if resumed else -1
        self._last = (0, 0)
        self._forked = 0
        self._pid = self._child = os.getpid()
        self._samples = 0
        self._watches = {}
        self._endings: list[Callable[[], object]] = []
        self._finished = False
        self._feed = outbox.open(id, start.owner, start.experiment)
        self._journal = self._feed.written
        self._append(records.started(start, _now_ms()))
        self._sampler: SystemSampler | None = None
        if tracker.alerts is not None:
            self._feed.watch(
                alerts.Watch(tracker.alerts, self._as_known("running"), outbox.tell, time.monotonic)
            )
        if tracker.system_metrics_s:
            self._sampler = SystemSampler(self._log_system)
            outbox.pulse.every(tracker.system_metrics_s, self._sampler.sample)
        exits.remember(self)

    @property
    def tracker(self) -> Tracker:
        """The tracker that opened it."""
        return self._tracker

    @property
    def patience_s(self) -> float:
        """How long `flush` and `finish` wait for the backends, in seconds."""
        return self._tracker.flush_timeout_s

    @property
    def finished(self) -> bool:
        """Whether it takes no more."""
        return self._finished

    @property
    def url(self) -> str | None:
        """The address of the run's page, or None where the backend shows none."""
        return self._tracker.run_url(self.id)

    @property
    def native(self) -> Any:
        """The client of the tool behind, as `Tracker.native` has it."""
        return self._tracker.native

    @property
    def delivery(self) -> dict[str, DeliveryStatus]:
        """How far each backend has got, by `Tracker.target`."""
        if self._here():
            return self._outbox.status_of(self._feed)
        waiting = DeliveryStatus(delivered=0, pending=self._journal.end, rejected=0)
        return dict.fromkeys(self._outbox.targets, waiting)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log what was measured at one step.

        Args:
            metrics: Real numbers by name; scalars of NumPy and torch are fine.
            step: Any int, in any order. Left out, one more than the highest so far, from 0.

        Raises:
            InvalidInput: If a value is no real number, or the step no int.
            InvalidName: If a name cannot be kept.
            StorageError: If it could not be stored; then it counts as not logged.
        """
        names = self._names
        checked: dict[str, Number] = {}
        for key, value in metrics.items():
            name = names.get(key) or self._admit(key)
            checked[name] = value if type(value) is float else number(key, value)
        if not checked:
            return
        if step is not None and type(step) is not int:
            step = check_step(step)
        if self._pid != os.getpid():
            self._here()
        with self._journal.lock:
            if step is None:
                step = self._last_step + 1
            # Backends order by time and step: two points of one time must grow in their steps.
            # Forked children have the odd milliseconds, so that no point of theirs is another's.
            last_ms, last_step = self._last
            time_ms = time.time_ns() // 2_000_000 * 2 + self._forked
            if time_ms <= last_ms:
                time_ms = last_ms if step > last_step else last_ms + 2
            self._write(["metrics", time_ms, step, checked])
            self._last = (time_ms, step)
            self._last_step = max(self._last_step, step)

    def log_metric(self, key: str, value: Any, step: int | None = None) -> None:
        """Log one value. Takes what `log_metrics` takes."""
        self.log_metrics({key: value}, step)

    def log_params(self, params: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Log what the run was given: typed and nested values, which read back equal.

        Args:
            params: None, bools, ints, floats, texts, and lists, tuples and mappings of these.
            overwrite: Replace the values of params that already have another one.

        Raises:
            ParamConflict: If a param already has another value; then none of them is logged.
            InvalidInput: If a value could not be read back equal.
            InvalidName: If a name cannot be kept.
            StorageError: If it could not be stored; then it counts as not logged.
        """
        checked = self._redactor.value(check_params(params))
        self._here()
        with self._journal.lock:
            new = {}
            for key, value in checked.items():
                if key in self._params and same(self._params[key], value):
                    continue
                if key in self._params and not overwrite:
                    raise ParamConflict(key, self._params[key], value)
                new[key] = value
            if new:
                self._write(records.params_logged(new, _now_ms(), overwrite=overwrite))
                self._params.update(new)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags: text by key. A tag that is there already is replaced.

        Raises:
            InvalidInput: If a value is no text.
            InvalidName: If a key cannot be kept.
            StorageError: If it could not be stored.
        """
        checked = self._redactor.value(check_tags(tags))
        if checked:
            self._append(["tags", _now_ms(), checked])

    def set_notes(self, notes: str) -> None:
        """Write what there is to say about the run; it replaces what was there.

        Raises:
            InvalidInput: If it is no text.
            StorageError: If it could not be stored.
        """
        self._append(["notes", _now_ms(), self._redactor.text(check_text("Notes", notes))])

    def alert(self, text: str, *, level: Literal["info", "warning", "error"] = "warning") -> None:
        """Tell the hook `run_alerted` something, without waiting for it.

        Raises:
            InvalidInput: If it is no text.
        """
        said = self._redactor.text(check_text("An alert", text))
        self._outbox.tell(alerts.event(self._as_known("running"), "message", said, level))

    def flush(self, timeout_s: float | None = None) -> None:
        """Put what was logged on the disk, then wait for the backends to have it.

        What they do not take within the time stays in the journal, for a later `Tracker.sync`;
        `delivery` says so, and a warning is logged. In a forked child, delivery is left to the
        process that started the run.

        Raises:
            StorageError: If it could not be put on the disk.
            Unavailable: If a backend lacks something and the tracker has ``on_error="raise"``.
        """
        if self._finished:
            return
        ours = self._here()
        self._journal.sync()
        if ours:
            self._deliver(timeout_s)

    def at_finish(self, call: Callable[[], object]) -> None:
        """Call something when the run is about to end, while it still takes records.

        What it raises is logged, and hinders nothing. A process that is killed calls nothing.
        """
        self._endings.append(call)

    def finish(self, status: Status = "finished", *, timeout_s: float | None = None) -> None:
        """End the run, as `flush` does. Finishing twice is fine; the first status stays.

        In a forked child this only flushes: the run ends where it was started.
        """
        if status not in ("finished", "failed", "killed"):
            raise InvalidInput(
                f"A run cannot end as {status!r}; it ends as 'finished', 'failed' or 'killed'."
            )
        if not self._here():
            self.flush(timeout_s)
            return
        self.unwatch()
        while self._endings:
            try:
                self._endings.pop(0)()
            except Exception:
                logger.exception("What was to be done at the end of run %s failed.", self.id)
        with self._journal.lock:
            if self._finished:
                return
            self._journal.append(records.ended(status, self._owner, _now_ms()), last=True)
            self._finished = True
        exits.forget(self)
        if self._sampler is not None:
            self._outbox.pulse.stop(self._sampler.sample)
        try:
            self._journal.sync()
        finally:
            self._outbox.shut(self._feed, status)
        try:
            self._deliver(timeout_s, patient=True)
        finally:
            self._tell(status)

    def __enter__(self) -> Self:
        within.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        within.leave(self)
        self.finish(status_of(error))

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.name!r} of {self.experiment!r}>"

    def _repr_html_(self) -> str:
        """Show in a notebook what this handle knows, without asking a backend."""
        rows = [
            f"<li>{escape(target)}: {status.delivered} records delivered, {status.pending} bytes "
            f"pending, {status.rejected} refused</li>"
            for target, status in self.delivery.items()
        ]
        known = self._as_known("finished" if self._finished else "running")
        return f"{run_html(known)}<ul>{''.join(rows)}</ul>"

    def _admit(self, key: str) -> str:
        name = self._redactor.text(check_label("metric", key))
        self._names[key] = name
        return name

    def _append(self, record: list[Any]) -> None:
        self._here()
        with self._journal.lock:
            self._write(record)

    def _check_open(self) -> None:
        if self._finished:
            raise Conflict(
                f"Run {self.id} is finished. Take it up again with "
                f"start_run(run_id={self.id!r}, resume=True)."
            )

    def _write(self, record: list[Any]) -> None:
        if self._finished:
            self._check_open()
        self._journal.append(record)

    def _keep(
        self,
        name: str,
        sources: Mapping[str, Path | bytes],
        *,
        type: str,
        metadata: Mapping[str, Any] | None = None,
        aliases: Sequence[str] = (),
    ) -> list[Artifact]:
        check_path("artifact", name)
        shared = {
            "type": check_label("type", type),
            "metadata": plain_metadata(metadata, self._redactor),
            "aliases": check_aliases(aliases),
            "logged_as": name,
        }
        named = {
            check_path("artifact", f"{name}/{rel}" if rel else name): source
            for rel, source in sources.items()
        }
        self._check_open()
        kept = []
        for each, source in named.items():
            digest, size = self._stored(source)
            kept.append(Artifact(name=each, size=size, digest=digest, **shared))
        self._log_files(name, kept)
        return kept

    def _stored(self, source: Path | bytes) -> tuple[str, int]:
        """Copy bytes to the journal; return their digest and size."""
        self._here()
        return self._feed.keep(source)

    def _log_files(self, name: str, kept: list[Artifact]) -> None:
        self._append(records.files_logged(name, kept, _now_ms()))
        for artifact in kept:
            self._feed.kept(artifact.digest)

    def _refer(self, artifact: Artifact) -> Artifact:
        self._need("artifact_references")
        self._append(records.files_logged(artifact.name, [artifact], _now_ms()))
        return artifact

    def _used(self, use: ArtifactUse) -> None:
        self._need("artifact_inputs")
        self._append(records.artifact_used(use, _now_ms()))

    def _given(self, dataset: Dataset) -> None:
        self._need("datasets")
        self._append(records.dataset_logged(dataset, _now_ms()))

    def _need(self, capability: str) -> None:
        self._tracker.capabilities.require([capability])

    def _here(self) -> bool:
        """Tell whether this is the process of the run; a forked child gets a journal of its own."""
        if self._pid == os.getpid():
            return True
        if self._child != os.getpid():
            self._feed = self._outbox.open_child(self.id, self.experiment)
            self._journal = self._feed.written
            self._child = os.getpid()
            self._forked = 1
            self._last = (0, 0)
        return False

    def _log_system(self, metrics: dict[str, float]) -> None:
        with self._journal.lock, suppress(MlopskitError):
            self._write(["metrics", _now_ms() // 2 * 2, self._samples, metrics])
            self._samples += 1

    def _deliver(self, timeout_s: float | None, *, patient: bool = False) -> None:
        wait = self.patience_s if timeout_s is None else timeout_s
        self._outbox.flush(self.id, wait, patient=patient)
        lacking = {
            target: status
            for target, status in self.delivery.items()
            if status.pending or status.rejected
        }
        for target, status in lacking.items():
            why = f"{status.pending} bytes pending, {status.rejected} records rejected"
            why += f" ({status.error})" if status.error else ""
            logger.warning("Run %s is not all at %s: %s.", self.id, target, why)
            if self._tracker.on_error == "raise":
                raise Unavailable(target, why)

    def _tell(self, status: Status) -> None:
        """Tell the listeners that the run has ended, with as much of it as can be read now."""
        record = self._as_known(status)
        if not any(each.pending for each in self.delivery.values()):
            with suppress(MlopskitError):
                record = self._tracker.read_run(self.id)
        self._tracker.notify("run_finished", run=record)

    def _as_known(self, status: Status) -> RunRecord:
        """Return the run as this handle knows it."""
        return RunRecord(
            id=self.id,
            name=self.name,
            experiment=self.experiment,
            status=status,
            params=self._params,
            parent_id=self.parent_id,
            ended_at=None if status == "running" else datetime.now(UTC),
        )


def status_of(error: BaseException | None) -> Status:
    """Return how a run ends whose block ended with this exception, or with none."""
    if isinstance(error, SystemExit):  # `sys.exit()` with no code, or 0, is an end like any other.
        return "finished" if error.code in (None, 0) else "failed"
    if isinstance(error, KeyboardInterrupt):
        return "killed"
    return "finished" if error is None else "failed"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

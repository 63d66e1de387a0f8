"""A run's handle: checks what is logged, takes secrets out, and appends it to the journal."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mlopskit.errors import (
    Conflict,
    InvalidInput,
    MlopskitError,
    ParamConflict,
    Unavailable,
)
from mlopskit.names import check_label, check_path
from mlopskit.tracking import media, records
from mlopskit.tracking.entities import Artifact, RunRecord
from mlopskit.tracking.values import (
    check_params,
    check_step,
    check_tags,
    number,
    same,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import DeliveryStatus, Number, Started, Status
    from mlopskit.tracking.outbox import Outbox

logger = logging.getLogger(__name__)


class Run:
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
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._finished = False
        self._feed = outbox.open(id, start.owner)
        self._append(records.started(start, _now_ms()))

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
        return self._outbox.status(self._feed)

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
            self._after_fork()
        with self._lock:
            if step is None:
                step = self._last_step + 1
            # Backends order by time and step: two points of one time must grow in their steps.
            last_ms, last_step = self._last
            time_ms = time.time_ns() // 1_000_000
            if time_ms <= last_ms:
                time_ms = last_ms if step > last_step else last_ms + 1
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
        with self._lock:
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

    def log_artifact(
        self, path: Path | str, name: str | None = None, *, type: str = "file"
    ) -> list[Artifact]:
        """Keep a file with the run, or every file of a folder. They are copied before this returns.

        Args:
            path: The file or folder.
            name: Its name in the run, a relative path; the file's own name if left out.
            type: What it is, in a word.

        Raises:
            InvalidInput: If there is no such file.
            InvalidName: If a name could leave the run's folder.
            StorageError: If the bytes could not be read or stored.
        """
        path = Path(path)
        name = check_path("artifact", path.resolve().name if name is None else name)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            names = [f"{name}/{file.relative_to(path).as_posix()}" for file in files]
            for each in names:
                check_path("artifact", each)
            return [self._keep(f, n, type) for f, n in zip(files, names, strict=True)]
        if not path.is_file():
            raise InvalidInput(f"There is no file {str(path)!r} to keep as an artifact.")
        return [self._keep(path, name, type)]

    def log_text(self, text: str, name: str) -> Artifact:
        """Keep a text as a file, in UTF-8, without the secrets in it."""
        return self._keep(self._redactor.text(text).encode(), name, "text")

    def log_dict(self, value: Any, name: str) -> Artifact:
        """Keep nested plain values as a JSON file, without the secrets in them.

        NaN and infinities are written as Python's json writes them; tuples become lists.

        Raises:
            InvalidInput: If JSON cannot hold it.
        """
        content = media.json_of(self._redactor.value(value))
        return self._keep(content, name, "json")

    def log_figure(self, fig: Any, name: str) -> Artifact:
        """Keep a figure of matplotlib or plotly in the format that the name's suffix says."""
        return self._keep(media.figure(fig, name), name, "figure")

    def log_image(self, img: Any, name: str) -> Artifact:
        """Keep an image: one of Pillow, or an array of (height, width[, 1, 3 or 4]) as PNG.

        An array holds uint8, or floats from 0 to 1.
        """
        return self._keep(media.image(img, name), name, "image")

    def log_table(self, rows: Any, name: str) -> Artifact:
        """Keep a table as JSON: ``{"columns": [...], "data": [[...], ...]}``.

        Args:
            rows: A list of mappings, a mapping of columns, or a frame of pandas, polars or pyarrow.
            name: Its name in the run.
        """
        return self._keep(media.table(rows, self._redactor), name, "table")

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
        self._feed.journal.sync()
        if self._pid == os.getpid():
            self._deliver(timeout_s)

    def finish(self, status: Status = "finished", *, timeout_s: float | None = None) -> None:
        """End the run, as `flush` does. Finishing twice is fine; the first status stays.

        In a forked child this only flushes: the run ends where it was started.
        """
        if status not in ("finished", "failed", "killed"):
            raise InvalidInput(
                f"A run cannot end as {status!r}; it ends as 'finished', 'failed' or 'killed'."
            )
        if self._pid != os.getpid():
            self.flush(timeout_s)
            return
        with self._lock:
            if self._finished:
                return
            self._write(records.ended(status, self._owner, _now_ms()))
            self._finished = True
            self._feed.journal.sync()
        self._outbox.shut(self._feed)
        try:
            self._deliver(timeout_s)
        finally:
            self._tell(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish(_status_of(error))

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.name!r} of {self.experiment!r}>"

    def _admit(self, key: str) -> str:
        name = self._redactor.text(check_label("metric", key))
        self._names[key] = name
        return name

    def _append(self, record: list[Any]) -> None:
        self._here()
        with self._lock:
            self._write(record)

    def _write(self, record: list[Any]) -> None:
        if self._finished:
            raise Conflict(
                f"Run {self.id} is finished. Take it up again with "
                f"start_run(run_id={self.id!r}, resume=True)."
            )
        self._feed.journal.append(record)

    def _keep(self, content: Path | bytes, name: str, type: str) -> Artifact:
        check_path("artifact", name)
        digest, size = self._feed.files.put(content)
        artifact = Artifact(name=name, size=size, digest=digest, type=check_label("type", type))
        self._append(records.artifact_logged(artifact, _now_ms()))
        return artifact

    def _here(self) -> None:
        if self._pid != os.getpid():
            self._after_fork()

    def _after_fork(self) -> None:
        # The thread that held the lock, if any, does not exist in the child. The journal itself
        # needs no lock: one record is one write.
        if getattr(self, "_child", None) != os.getpid():
            self._child = os.getpid()
            self._lock = threading.Lock()

    def _deliver(self, timeout_s: float | None) -> None:
        wait = self._tracker.flush_timeout_s if timeout_s is None else timeout_s
        self._outbox.flush(self.id, wait)
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
        record = RunRecord(
            id=self.id,
            name=self.name,
            experiment=self.experiment,
            status=status,
            params=self._params,
            parent_id=self.parent_id,
            ended_at=datetime.now(UTC),
        )
        if not any(each.pending for each in self.delivery.values()):
            with suppress(MlopskitError):
                record = self._tracker.read_run(self.id)
        self._tracker.notify("run_finished", run=record)


def _status_of(error: BaseException | None) -> Status:
    if isinstance(error, SystemExit):  # `sys.exit()` with no code, or 0, is an end like any other.
        return "finished" if error.code in (None, 0) else "failed"
    if isinstance(error, KeyboardInterrupt):
        return "killed"
    return "finished" if error is None else "failed"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""Writes runs through W&B's SDK: one open run of W&B's for each of ours, several at a time.

Rows of the history go to W&B's service (``wandb-core``) as the messages that ``Run.log`` would
send, many at once: that costs half of what a call for each row costs.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import wandb
from wandb.proto import wandb_server_pb2 as _protocol
from wandb.sdk import wandb_setup

from mlopskit.errors import InvalidInput, NotFound, Unavailable
from mlopskit.tracking import wandb_artifacts
from mlopskit.tracking import wandb_layout as layout
from mlopskit.tracking.entities import ArtifactLogged, Ended, MetricsLogged, Started
from mlopskit.tracking.wandb_service import closed, opening, service, translated
from mlopskit.tracking.wandb_uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.tracking.entities import Batch
    from mlopskit.tracking.wandb_kept import Kept

logger = logging.getLogger(__name__)

protocol: Any = _protocol  # made of descriptors, without types
ROWS_AT_ONCE: Final = 256
MARK_S: Final = 0.2
# Nothing on the terminal, no second measuring of the machine, and no program arguments on a server.
SETTINGS: Final[Mapping[str, Any]] = {
    "console": "off",
    "quiet": True,
    "silent": True,
    "disable_code": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_transaction_log_flush_interval": MARK_S,
}


class Stored(Protocol):
    """What W&B has of a run from before: what a writer needs to go on with it.

    Attributes:
        kept: Its config and summary.
        next_step: W&B's own step to go on with.
        rows: The position of the last row of each journal, by `wandb_layout.short`.
        artifacts: The places, as ``source:position``, of the artifacts.
    """

    kept: Kept
    next_step: int
    rows: dict[str, int]
    artifacts: set[str]


@dataclass(slots=True)
class Mark:
    """What had been handed on at a mark: records, W&B's rows, and the revision of the config."""

    handed: dict[str, int]
    step: int
    revision: int


class Open:
    """One run that is open at W&B.

    Attributes:
        run: W&B's.
        kept: What is known of the run.
        handed: The position of the last record that was handed on, by journal.
        marks: What had been handed on at each mark; the mark is in the run's summary.
        arrived: How far the server has come, by journal, artifacts left aside.
        settled: How far everything is stored, by journal.
        stuck: It does not go on, and must be opened again.
    """

    def __init__(self, run: Any, kept: Kept, folder: Path, *, resumed: bool) -> None:
        self.run = run
        self.kept = kept
        self.folder = folder
        self.resumed = resumed
        self.rows: dict[str, int] = {}
        self.artifacts: set[str] = set()
        self.handed: dict[str, int] = {}
        self.marks: dict[int, Mark] = {}
        self.uploads = Uploads()
        self.configured: dict[str, Any] = {}
        self.ended = False
        self.stuck = False
        self._step = run.step
        self._stored: dict[str, str] = {}
        self._mark = time.time_ns() // 1_000_000
        self._marked_at = 0.0
        self.marked: dict[str, int] = {}
        self.arrived: dict[str, int] = {}
        self.settled: dict[str, int] = {}

    def write(self, batch: Batch) -> None:
        """Hand records on, in their order."""
        source = layout.short(batch.source)
        handed = self.handed.get(source, -1)
        changed: set[str] = set()
        waiting: list[list[tuple[str, str]]] = []
        done = self.rows.get(source, -1)
        for record in batch.records:
            if record.position <= handed:
                continue  # W&B's service has it already.
            changed |= self.kept.apply(record, source)
            if isinstance(record, MetricsLogged):
                if record.position > done:
                    waiting.append(layout.row_of(record, source, self._stored))
                continue
            self._send(waiting)
            waiting = []
            if isinstance(record, ArtifactLogged):
                self._log_artifact(record, source)
        self._send(waiting)
        if changed:
            self._configure(changed)
        position = batch.records[-1].position
        self.handed[source] = max(position, handed)
        self.rows[source] = max(position, done)

    def go_on_at(self, step: int) -> None:
        """Count W&B's steps on from an earlier folder of the run."""
        self._step = step

    def mark(self, *, now: bool = False) -> None:
        """Write the summary, with a mark that tells how far W&B has stored what was handed on."""
        if self.marked == self.handed or not (now or time.monotonic() - self._marked_at > MARK_S):
            return
        self._mark += 1
        self.marks[self._mark] = Mark(dict(self.handed), self._step - 1, self.kept.revision)
        self.marked = dict(self.handed)
        self._marked_at = time.monotonic()
        with translated("W&B's service"):
            self.run.summary.update(
                {layout.LAST: self.kept.last_text(), layout.MARK: str(self._mark)}
            )

    def reached(
        self, mark: int, step: int | None = None, revision: int | None = None
    ) -> dict[str, int]:
        """Return what had been handed on at a mark, by journal.

        Args:
            mark: The last mark that is stored.
            step: W&B's step of the last row that is stored, if rows go another way than marks.
            revision: The revision of the config that is stored, likewise.
        """
        done: dict[str, int] = {}
        for number in [each for each in self.marks if each <= mark]:
            known = self.marks[number]
            if (step is None or step >= known.step) and (
                step is None or (revision or 0) >= known.revision
            ):
                done = known.handed
                del self.marks[number]
        return done

    def finish(self) -> None:
        """End W&B's run, as ours ended, and wait for its bytes to be written.

        Raises:
            Unavailable: If they were not all sent in time.
        """
        self.mark(now=True)
        self.ended = True
        status = self.kept.about.get("status")
        with translated("W&B"):
            self.run.finish(exit_code=0 if status in ("finished", "running") else 1)
        closed(self.kept.id)
        if getattr(self.run, "_finish_timed_out", False):
            raise Unavailable("W&B", "it has not taken all of the run within the time")

    def _log_artifact(self, record: ArtifactLogged, source: str) -> None:
        if f"{source}:{record.position}" in self.artifacts:
            return
        made, row = wandb_artifacts.made(record, source, self.kept, self.folder)
        with translated(f"the artifact {record.name!r}"):
            logged = self.run.log_artifact(made, aliases=list(record.files[0][0].aliases))
            if not self.run.offline:
                self.uploads.add(source, record.position, logged)
            if row:
                self._log_media(record, source, row)
        self.artifacts.add(f"{source}:{record.position}")

    def _log_media(self, record: ArtifactLogged, source: str, row: dict[str, Any]) -> None:
        step = record.files[0][0].metadata.get("step", 0)
        row = {layout.media_key(key): value for key, value in row.items()}
        row[layout.STEP] = step
        row[layout.AT] = f"{record.time_ms}:{source}:{record.position}"
        try:
            wandb_artifacts.bind(self.run, row, self.run.step)
            self.run.log(row)
        except Exception as exc:  # noqa: BLE001 - the bytes are in the artifact, whatever W&B draws
            logger.warning("W&B does not draw %r: %s", record.name, exc)
            return
        self._step += 1

    def _configure(self, changed: set[str]) -> None:
        run, kept = self.run, self.kept
        config = kept.config(changed)
        if any(self.configured.get(key, self) != value for key, value in config.items()):
            kept.revision += 1
            config = kept.config(changed | {layout.ABOUT})
            run.config.update(config, allow_val_change=True)
            self.configured |= config
        if layout.TAGS in changed and run.tags != kept.wandb_tags:
            run.tags = kept.wandb_tags
        if layout.ABOUT in changed and (run.notes or "") != kept.notes:
            run.notes = kept.notes

    def _send(self, rows: list[list[tuple[str, str]]]) -> None:
        """Hand rows of the history on, as the requests that ``Run.log`` would send."""
        interface: Any = self.run._interface
        timestamp = repr(time.time())
        for at in range(0, len(rows), ROWS_AT_ONCE):
            requests = []
            for row in rows[at : at + ROWS_AT_ONCE]:
                request = protocol.ServerRequest()
                record = request.record_publish
                record._info.stream_id = interface._stream_id
                history = record.request.partial_history
                add = history.item.add
                for key, text in row:
                    add(key=key, value_json=text)
                add(key="_timestamp", value_json=timestamp)
                history.action.flush = True
                requests.append(request)

            async def publish(requests: list[Any] = requests) -> None:
                for request in requests:
                    await interface._client.publish(request)

            with translated("W&B's service"):
                interface._asyncer.run(publish)
            self._step += len(requests)


class Writer:
    """The open runs of one tracker.

    Args:
        settings: What `wandb.Settings` takes.
        folder: Where W&B keeps its folder of each run.
        project: W&B's project.
        entity: W&B's entity, or None for the default one.
        exit_s: How long the end of the program may wait.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        folder: Path,
        project: str,
        entity: str | None,
        exit_s: float,
    ) -> None:
        self._settings = dict(settings)
        self._folder = folder
        self._project = project
        self._entity = entity
        self._exit_s = exit_s
        self.runs: dict[str, Open] = {}

    def start(self, id: str, kept: Kept, stored: Stored | None) -> Open:
        """Open a run of W&B's, a new one or one that it has already.

        Raises:
            Unavailable: If W&B cannot be reached now.
            InvalidInput: If it takes no such run.
        """
        service(self._exit_s)
        about = kept.about
        settings = wandb.Settings(**{**SETTINGS, **self._settings})
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opening(id)
        with translated("W&B"):
            run: Any = wandb.init(
                project=self._project,
                entity=self._entity,
                id=id,
                name=(about.get("name") or id[:8])[: layout.LONGEST_NAME],
                group=about.get("group"),
                job_type=about.get("job_type"),
                notes=kept.notes or None,
                tags=kept.wandb_tags or None,
                config=kept.config() if stored is None or settings.mode == "offline" else None,
                dir=str(self._folder),
                settings=settings,
                reinit="create_new",
                resume="allow" if settings.mode == "online" and stored else None,
            )
            # Else the user's own `wandb.init()` would return this run, log to it and end it.
            wandb_setup.singleton().remove_active_run(run)
            run.define_metric("*", step_metric=layout.STEP, step_sync=False)
        opened = Open(run, kept, wandb_artifacts.folder_of(run), resumed=stored is not None)
        if stored is not None:
            opened.rows.update(stored.rows)
            opened.artifacts |= stored.artifacts
            if settings.mode == "offline":
                _skip_to(run, stored.next_step)
                opened.go_on_at(stored.next_step)
        if stored is None or settings.mode == "offline":
            opened.configured = kept.config()
        self.runs[id] = opened
        return opened

    def forget(self, id: str) -> None:
        """Let go of a run: what W&B has of it must be asked before it is opened again."""
        opened = self.runs.pop(id, None)
        if opened is not None and not opened.ended:
            with suppress(Unavailable, InvalidInput):
                opened.finish()

    def close(self) -> None:
        """End every run of W&B's that is still open."""
        for each in list(self.runs):
            self.forget(each)


def begun(batch: Batch) -> Started | None:
    """Return the record that begins a run, if the batch has it."""
    return next((each for each in batch.records if isinstance(each, Started)), None)


def ends(batch: Batch) -> bool:
    """Tell whether a run ends with a batch."""
    return any(isinstance(each, Ended) for each in batch.records)


def unknown(id: str) -> NotFound:
    """Return the error for a run whose beginning nobody has."""
    return NotFound("run", id)


def _skip_to(run: Any, step: int) -> None:
    """Let W&B's own step go on where an earlier folder of the run ended."""
    interface = run._interface
    run._local_step = step
    request = protocol.ServerRequest()
    request.record_publish._info.stream_id = interface._stream_id
    history = request.record_publish.request.partial_history
    history.step.num = step
    history.action.flush = False
    interface._asyncer.run(lambda: interface._client.publish(request))

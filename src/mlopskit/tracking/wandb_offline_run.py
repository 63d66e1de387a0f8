"""One folder of a run as W&B's SDK left it, read without a server and while the run still writes.

Of a config W&B's service makes NaN null, and a key loses its leading dashes (W&B 0.31).

Nothing here is locked: one thread at a time may use an `OfflineRun`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from mlopskit.errors import InvalidInput, NotFound
from mlopskit.storage import disk_errors
from mlopskit.tracking import wandb_messages as messages
from mlopskit.tracking.wandb_history import Column, Rows, Table
from mlopskit.tracking.wandb_log import RunFile
from mlopskit.tracking.wandb_logged_artifacts import artifact_of
from mlopskit.tracking.wandb_values import Json, decoded, is_number, plain, put, remove

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.tracking.wandb_history import Media
    from mlopskit.tracking.wandb_log import Damage
    from mlopskit.tracking.wandb_logged_artifacts import LoggedArtifact

FOLDER: Final = re.compile(r"(offline-)?run-(\d{8}_\d{6})-.+")


@dataclass(frozen=True, slots=True)
class Defined:
    """What ``define_metric`` said of a key.

    Attributes:
        name: The key, or a pattern with ``*``.
        step_metric: The key that counts its steps.
        summary: Which values the summary shall have: ``min``, ``max``, ``mean``, ``last`` ...
        goal: ``minimize`` or ``maximize``.
        hidden: Whether pages leave it out.
    """

    name: str
    step_metric: str | None
    summary: tuple[str, ...]
    goal: str | None
    hidden: bool


@dataclass(slots=True, eq=False)
class OfflineRun:
    """One folder of a run. Empty until `read` is called, which takes in what is new each time.

    Attributes:
        path: The ``.wandb`` file.
        id: W&B's id. A run that several processes went on with has a folder for each; see `by_id`.
        project: W&B's project.
        entity: W&B's entity; empty if none was named.
        name: What pages call it.
        group: Its group.
        job_type: Its job type.
        notes: Its notes.
        tags: Its tags.
        host: The machine it ran on.
        sweep_id: The sweep it belongs to.
        config: The config, without what W&B keeps for itself.
        started_at: When it began.
        exit_code: None while it goes on, and for ever if it was killed.
        ended_at: When it ended, to the second.
        defined: What ``define_metric`` said, by key or pattern.
        artifacts: What it logged, in its order.
        saved: The names of the files that it saved.
    """

    path: Path
    id: str = field(init=False)
    project: str = field(init=False, default="")
    entity: str = field(init=False, default="")
    name: str = field(init=False, default="")
    group: str | None = field(init=False, default=None)
    job_type: str | None = field(init=False, default=None)
    notes: str = field(init=False, default="")
    tags: tuple[str, ...] = field(init=False, default=())
    host: str = field(init=False, default="")
    sweep_id: str | None = field(init=False, default=None)
    config: dict[str, Any] = field(init=False, default_factory=dict)
    started_at: datetime | None = field(init=False, default=None)
    exit_code: int | None = field(init=False, default=None)
    ended_at: datetime | None = field(init=False, default=None)
    defined: dict[str, Defined] = field(init=False, default_factory=dict)
    artifacts: list[LoggedArtifact] = field(init=False, default_factory=list)
    saved: dict[str, None] = field(init=False, default_factory=dict)
    _file: RunFile = field(init=False, repr=False)
    _table: Table | None = field(init=False, default=None, repr=False)
    _summary: dict[str, Any] = field(init=False, default_factory=dict, repr=False)
    _latest: dict[bytes, bytes] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.id = self.path.name.removeprefix("run-").removesuffix(".wandb")
        self._file = RunFile(self.path)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.path.parent

    @property
    def online(self) -> bool:
        """Whether this is the local copy of a run that W&B's server had from the beginning."""
        return not self.folder.name.startswith("offline-")

    @property
    def synced(self) -> bool:
        """Whether ``wandb sync`` has sent it."""
        return self.path.with_name(self.path.name + ".synced").exists()

    @property
    def written_at(self) -> datetime:
        """When the file last grew: every 15 seconds or so, while the run goes on.

        Raises:
            NotFound: If the file is gone.
        """
        with disk_errors(self.path):
            try:
                return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
            except FileNotFoundError as exc:
                raise NotFound("file of a W&B run", str(self.path)) from exc

    @property
    def begun_at(self) -> datetime:
        """When it began: to the second, by the folder's name, as long as it is not read."""
        if self.started_at is not None:
            return self.started_at
        named = FOLDER.fullmatch(self.folder.name)
        with suppress(ValueError):
            if named:
                return datetime.strptime(named[2], "%Y%m%d_%H%M%S").astimezone(UTC)
        return datetime.fromtimestamp(0, UTC)

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What of the file could not be read."""
        return self._file.damage

    @property
    def summary(self) -> dict[str, Any]:
        """The summary: W&B's last values, and what the run set. Nested as W&B has it."""
        found = {key: plain(value) for key, value in self._summed().items()}
        found.pop("_wandb", None)
        return found

    def read(self) -> Self:
        """Take in what is new, and return the run. Its history is read when it is asked for.

        Raises:
            NotFound: If the file is gone.
            StorageError: If it is no file of W&B's, became shorter, or cannot be read.
        """
        for message in self._file.messages():
            tag, at = messages.body(message)
            if tag == messages.HISTORY:
                continue
            if (
                tag == messages.SUMMARY
                and (items := messages.items_of(message, at, tag)) is not None
            ):
                latest = self._latest
                for head, text in items:
                    latest.pop(head, None)  # so that it stands behind what it may replace
                    latest[head] = text
            elif (record := self._file.parsed(message)) is not None:
                self._take(record)
        return self

    def metrics(self) -> tuple[str, ...]:
        """Return the keys of the history that have numbers, but W&B's own."""
        columns = self._rows().columns
        own = ("_step", "_timestamp", "_runtime")
        return tuple(key for key in columns if key not in own and columns[key].any_number())

    def history(self, key: str, *beside: str) -> Rows:
        """Return every number that was logged under a key, in its order.

        Args:
            key: The key; the parts of one that W&B nested are joined by dots.
            beside: Other keys to have of the same rows, such as one that counts steps.

        Raises:
            NotFound: If no row has a number there.
        """
        table = self._rows()
        column = table.columns.get(key)
        if column is None or not column.any_number():
            raise NotFound("metric", key, self.metrics())
        rows, values = column.rows.tolist(), column.values()
        if column.odd:
            found = [pair for pair in zip(rows, values, strict=True) if is_number(pair[1])]
            rows, values = [row for row, _ in found], [value for _, value in found]
        return Rows(
            steps=table.steps(rows),
            timestamps=table.times(rows),
            values=values,
            beside={name: table.columns.get(name, Column()).beside(rows) for name in beside},
        )

    def others(self, key: str) -> list[tuple[int, Any]]:
        """Return what was logged under a key and is no number: W&B's step, and the value."""
        table = self._rows()
        column = table.columns.get(key, Column()).settle()
        found = [at for at, value in column.odd.items() if not is_number(value)]
        steps = table.steps([column.rows[at] for at in found])
        return [(step, column.odd[at]) for step, at in zip(steps, found, strict=True)]

    def other_keys(self) -> set[str]:
        """Return the keys of the history that have values that are no numbers, but W&B's own."""
        columns = self._rows().columns
        plain = {
            key
            for key, column in columns.items()
            if not key.startswith("_")
            and any(
                not is_number(each) for each in column.settle().odd.values() if each is not None
            )
        }
        return plain | {each.key for each in self.media()}

    def media(self) -> list[Media]:
        """Return the images, tables and the like of the history, in their order."""
        return self._rows().media()

    def forget(self) -> None:
        """Give back the memory of the history: 16 bytes for each number, more for texts."""
        self._table = None

    def file(self, name: str) -> Path:
        """Return where a file of the run lies, such as one of `Media.files`.

        Raises:
            InvalidInput: If the name leads out of the folder ``files``.
            NotFound: If it is not there.
        """
        root = self.folder / "files"
        path = root / name
        with disk_errors(path):
            if not path.resolve().is_relative_to(root.resolve()):
                raise InvalidInput(f"{name!r} leads out of {root}.")
        if not path.is_file():
            raise NotFound("file of the run", name)
        return path

    def saved_file(self, name: str) -> Path:
        """Return where a file lies that the run saved: W&B links to it, wherever it is.

        Raises:
            NotFound: If it is not there.
        """
        path = self.folder / "files" / name
        if ".." in name.split("/") or name not in self.saved or not path.is_file():
            raise NotFound("file of the run", name)
        return path

    def last_step(self) -> int:
        """Return W&B's last step; 0 where the history has none."""
        return max((int(each) for each in self._rows().columns_of("_step")), default=0)

    def _rows(self) -> Table:
        if self._table is None:
            self._table = Table(self.path)
        self._table.read()
        return self._table

    def _summed(self) -> dict[str, Any]:
        """Return the summary as JSON texts in mappings of mappings."""
        for head, text in self._latest.items():
            put(self._summary, messages.path_of(head), Json(text))
        self._latest.clear()
        return self._summary

    def _take(self, record: Any) -> None:
        what = record.WhichOneof("record_type")
        if what == "run":
            self._describe(record.run)
        elif what == "config":
            self._configure(record.config, {})
        elif what == "summary":
            summary = self._summed()
            for each in record.summary.update:
                path = tuple(each.nested_key) or (each.key,)
                put(summary, path, Json(each.value_json.encode()))
            for each in record.summary.remove:
                remove(summary, tuple(each.nested_key) or (each.key,))
        elif what == "metric":
            self._define(record.metric)
        elif what == "artifact":
            self.artifacts.append(artifact_of(record.artifact, self.folder))
        elif what == "files":
            self.saved.update((f.path, None) for f in record.files.files if not f.type)
        elif what == "exit":
            self.exit_code = record.exit.exit_code
            if self.started_at is not None:
                self.ended_at = self.started_at + timedelta(seconds=record.exit.runtime)

    def _describe(self, run: Any) -> None:
        self.project, self.entity, self.name = run.project, run.entity, run.display_name
        self.group, self.job_type = run.run_group or None, run.job_type or None
        self.notes, self.tags, self.host = run.notes, tuple(run.tags), run.host
        self.sweep_id = run.sweep_id or None
        if run.HasField("start_time"):
            self.started_at = datetime.fromtimestamp(0, UTC) + timedelta(
                seconds=run.start_time.seconds, microseconds=run.start_time.nanos // 1000
            )
        self._configure(run.config, dict(self.config))

    def _configure(self, config: Any, before: Mapping[str, Any]) -> None:
        """Take a config, or a change of it.

        When tags or notes change, W&B's service writes the whole config again, with 1.0 as 1 and
        -0.0 as 0: what is equal `before` stays.
        """
        for each in config.update:
            path = tuple(each.nested_key) or (each.key,)
            if path[0] == "_wandb":
                continue
            value = decoded(each.value_json)
            if len(path) > 1 or path[0] not in before or before[path[0]] != value:
                put(self.config, path, value)
        for each in config.remove:
            remove(self.config, tuple(each.nested_key) or (each.key,))

    def _define(self, metric: Any) -> None:
        name = metric.name or metric.glob_name
        goals = {1: "minimize", 2: "maximize"}
        self.defined[name] = Defined(
            name=name,
            step_metric=metric.step_metric or None,
            summary=tuple(each.name for each, _ in metric.summary.ListFields()),
            goal=goals.get(metric.goal),
            hidden=metric.options.hidden,
        )

"""The values that cross the tracking interface: what was logged, and what reads back."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from pathlib import Path

Status = Literal["running", "finished", "failed", "killed", "lost"]
Number = int | float


class Artifact(BaseModel):
    """One file of a run, or the address of remote data that was not copied.

    Attributes:
        name: A relative path with forward slashes.
        size: In bytes; 0 for remote data whose size is unknown.
        digest: ``sha256:<64 hex digits>``; empty for remote data of unknown content, and where a
            foreign run's backend keeps none.
        type: What it is: ``file``, ``text``, ``json``, ``figure``, ``image``, ``table``, ``model``,
            ``dataset``, or any other word.
        metadata: What was said about it, as plain JSON: a caption, a step, the axes of a curve.
        aliases: The names that it was given beside its own, such as ``best``.
        logged_as: The name that was logged: the folder's for each file of a folder, else `name`.
        uri: Where remote data lies; None for bytes that the run keeps.
        logged_at: In UTC.
    """

    # Metadata may hold NaN and infinities, which are null otherwise.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    name: str
    size: int
    digest: str
    type: str = "file"
    metadata: Mapping[str, Any] = {}
    aliases: tuple[str, ...] = ()
    logged_as: str = ""
    uri: str | None = None
    logged_at: datetime | None = None


class Dataset(BaseModel):
    """Data that a run was given, known by its fingerprint; the data itself is not kept.

    Attributes:
        name: What the run calls it.
        role: What it was for: ``training``, ``validation``, ``test`` or any other word.
        digest: ``sha256:<64 hex digits>`` of its content; empty where only an address is known.
        rows: How many rows it has; None if unknown.
        columns: The name and type of each column, in order; empty if unknown.
        uri: Where it lies; None where it only was in memory.
        source: What was fingerprinted: ``pandas``, ``polars``, ``pyarrow``, ``numpy``, ``columns``,
            ``rows``, ``file``, ``folder`` or ``uri``.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    role: str = "training"
    digest: str = ""
    rows: int | None = None
    columns: tuple[tuple[str, str], ...] = ()
    uri: str | None = None
    source: str = ""


class ArtifactUse(BaseModel):
    """An artifact that a run used as its input.

    Attributes:
        run_id: The run that logged it.
        name: The name that it was logged under: of a file, or of a folder.
        alias: The alias by which it was asked for; empty if by its run.
        files: The files, as that run had them at that time.
    """

    # Metadata may hold NaN and infinities, which are null otherwise.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    run_id: str
    name: str
    alias: str = ""
    files: tuple[Artifact, ...] = ()


class RunRecord(BaseModel):
    """One run as it reads back.

    Attributes:
        id: 32 hexadecimal digits, ours on every backend; a foreign run keeps the backend's id.
        name: A label; two runs may share one.
        experiment: The group that the run belongs to.
        status: ``lost`` is a run whose process died without saying how it ended.
        params: What the run was given, typed and nested as it was logged.
        tags: Text by key.
        metrics: The value at the last step, by key.
        last_steps: That last step, by key.
        parent_id: The run that this one is a part of.
        group: The set of runs that this one belongs to within its experiment.
        job_type: What this run does in its group, such as ``train`` or ``evaluate``.
        notes: What somebody wrote about it.
        datasets: Data that it was given, in the order logged.
        inputs: Artifacts of runs that it used, in the order used.
        started_at: In UTC.
        ended_at: In UTC; None while the run goes on.
        heartbeat_at: When its process last said that it lives, in UTC; None if it never did.
        owner: Which process writes the run, for telling a live run from a lost one.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    experiment: str
    status: Status
    params: Mapping[str, Any] = {}
    tags: Mapping[str, str] = {}
    metrics: Mapping[str, Number] = {}
    last_steps: Mapping[str, int] = {}
    parent_id: str | None = None
    group: str | None = None
    job_type: str | None = None
    notes: str = ""
    datasets: tuple[Dataset, ...] = ()
    inputs: tuple[ArtifactUse, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    heartbeat_at: datetime | None = None
    owner: str = ""

    def _repr_html_(self) -> str:
        from mlopskit.tracking.report import run_html  # noqa: PLC0415 - only notebooks ask

        return run_html(self)


class RunList(list[RunRecord]):
    """The runs that a search found, and whether its limit kept more of them back."""

    truncated: bool = False

    def _repr_html_(self) -> str:
        from mlopskit.tracking.report import runs_html  # noqa: PLC0415 - only notebooks ask

        return runs_html(self, truncated=self.truncated)


class Experiment(BaseModel):
    """A group of runs.

    Attributes:
        name: Its name, which identifies it.
        runs: How many runs it holds, or None where the backend does not count them cheaply.
        description: What somebody wrote about it.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    runs: int | None = None
    description: str = ""


class RunEvent(BaseModel):
    """Something about a run that somebody may want to be told.

    Attributes:
        kind: ``threshold`` (a metric went where a rule of `AlertRules` says), ``nan`` (a metric is
            not finite), ``stalled`` (nothing was logged for long), ``finished``, ``failed``,
            ``killed``, or ``message`` (`Run.alert`).
        run_id: The run.
        run_name: Its label.
        experiment: Its experiment.
        text: One sentence that says what happened.
        key: The metric that it is about, if any.
        value: That metric's value.
        step: That value's step.
        level: ``info``, ``warning`` or ``error``.
        at: In UTC.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["threshold", "nan", "stalled", "finished", "failed", "killed", "message"]
    run_id: str
    run_name: str
    experiment: str
    text: str
    key: str | None = None
    value: Number | None = None
    step: int | None = None
    level: Literal["info", "warning", "error"] = "info"
    at: datetime


class DeliveryStatus(BaseModel):
    """How far one backend has got with a run.

    Attributes:
        delivered: Records that the backend has stored.
        pending: Bytes of the journal that it has not seen yet; 0 when all is delivered.
        rejected: Records that it refused for good; they are kept beside the journal.
        error: Why the last attempt failed, empty after one that did not.
        guarantee: Whether a record can arrive twice after a crash.
    """

    model_config = ConfigDict(frozen=True)

    delivered: int
    pending: int
    rejected: int
    error: str = ""
    guarantee: Literal["exactly once", "at least once"] = "at least once"


class SyncReport(BaseModel):
    """What a sync did.

    Attributes:
        delivered: Records that went out.
        rejected: Records that a backend refused for good; they are kept, see `Outbox`.
        pending: Journals that still hold something, each with the reason.
        damaged: Journals of which some could not be read, each with the places; the rest went out.
    """

    model_config = ConfigDict(frozen=True)

    delivered: int = 0
    rejected: int = 0
    pending: Mapping[str, str] = {}
    damaged: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, eq=False)
class MetricHistory:
    """Every value of one metric, in the order logged.

    The three sequences are NumPy arrays where NumPy is installed, else ``array.array``: int64,
    float64 and int64. A step or a value that these cannot hold exactly (an int beyond 64 bits,
    2**53 + 1) makes its sequence one of Python numbers: an object array, or a tuple.

    Attributes:
        steps: The step of each value.
        values: The values.
        timestamps: When each was logged, in milliseconds since 1970-01-01 UTC.
    """

    steps: Sequence[int]
    values: Sequence[Number]
    timestamps: Sequence[int]

    @classmethod
    def of(
        cls, steps: Sequence[int], values: Sequence[Number], timestamps: Sequence[int]
    ) -> MetricHistory:
        """Make a history of plain sequences of equal length."""
        return cls(_column("q", steps), _column("d", values), _column("q", timestamps))

    @classmethod
    def packed(
        cls, steps: array[int], values: array[float], timestamps: array[int]
    ) -> MetricHistory:
        """Make a history of arrays of int64, float64 and int64, without a copy."""
        return cls(_shared(steps), _shared(values), _shared(timestamps))

    def __len__(self) -> int:
        return len(self.steps)


def _shared(packed: array[Any]) -> Any:
    try:
        import numpy as np  # noqa: PLC0415 - the core has no NumPy
    except ImportError:
        return packed
    return np.frombuffer(packed, dtype=np.int64 if packed.typecode == "q" else np.float64)


def _column(code: str, numbers: Sequence[Number]) -> Any:
    if code == "d" and not all(type(number) is float for number in numbers):
        return _objects(numbers)
    try:
        packed = array(code, numbers)
    except OverflowError:
        return _objects(numbers)
    return _shared(packed)


def _objects(numbers: Sequence[Number]) -> Any:
    try:
        import numpy as np  # noqa: PLC0415 - the core has no NumPy
    except ImportError:
        return tuple(numbers)
    return np.array([*numbers, None], dtype=object)[:-1]


# What a journal holds and a backend writes. `position` is where the record ends in its journal: it
# grows from record to record, so that a backend can tell what it has stored before.


@dataclass(frozen=True, slots=True)
class Started:
    """A run was opened, or taken up again."""

    position: int
    time_ms: int
    name: str
    experiment: str
    parent_id: str | None
    owner: str
    resumed: bool = False
    group: str | None = None
    job_type: str | None = None
    notes: str = ""


@dataclass(frozen=True, slots=True)
class ParamsLogged:
    """Params, already checked and free of secrets."""

    position: int
    time_ms: int
    params: Mapping[str, Any]
    overwrite: bool


@dataclass(frozen=True, slots=True)
class MetricsLogged:
    """Metrics of one step."""

    position: int
    time_ms: int
    step: int
    metrics: Mapping[str, Number]


@dataclass(frozen=True, slots=True)
class TagsSet:
    """Tags; a later one of the same key replaces an earlier one."""

    position: int
    time_ms: int
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NotesSet:
    """The notes of a run, which replace what was there."""

    position: int
    time_ms: int
    notes: str


@dataclass(frozen=True, slots=True)
class ArtifactLogged:
    """One or more files that were logged under one name.

    Attributes:
        name: The name that was logged; each file's `Artifact.logged_as`.
        files: Each file, and where its bytes lie until every backend has taken them; None for
            remote data.
    """

    position: int
    time_ms: int
    name: str
    files: tuple[tuple[Artifact, Path | None], ...]


@dataclass(frozen=True, slots=True)
class ArtifactUsed:
    """The run used an artifact as its input."""

    position: int
    time_ms: int
    use: ArtifactUse


@dataclass(frozen=True, slots=True)
class DatasetLogged:
    """The run was given data."""

    position: int
    time_ms: int
    dataset: Dataset


@dataclass(frozen=True, slots=True)
class Alive:
    """A heartbeat: the run's process lived at that time."""

    position: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The run's end, as `owner` saw it. ``lost`` is void once another process owns the run."""

    position: int
    time_ms: int
    status: Status
    owner: str


Record = (
    Started
    | ParamsLogged
    | MetricsLogged
    | TagsSet
    | NotesSet
    | ArtifactLogged
    | ArtifactUsed
    | DatasetLogged
    | Alive
    | Ended
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one run, in the order of their journal.

    Attributes:
        run_id: The run they belong to.
        source: The journal they come from; `position` grows within one source.
        records: At most a thousand or so.
    """

    run_id: str
    source: str
    records: Sequence[Record] = field(default_factory=tuple)

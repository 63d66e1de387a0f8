"""The values that cross the registry's interface: versions, stages, decisions and their history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mlopskit.errors import InvalidInput
from mlopskit.registry.stages import NO_STAGE

if TYPE_CHECKING:
    from mlopskit.registry.base import Registry

FROZEN: Final = ConfigDict(frozen=True, ser_json_inf_nan="strings")

Action = Literal[
    "registered",
    "promoted",
    "displaced",
    "refused",
    "rolled_back",
    "alias_set",
    "alias_deleted",
    "edited",
    "deleted",
    "requested",
    "approved",
    "rejected",
    "signed",
]


class TensorSpec(BaseModel):
    """One input or output of a model.

    Attributes:
        name: Its name, as the column or the key is called.
        dtype: Its type in NumPy's words (``"float64"``, ``"int32"``, ``"bool"``), and ``"str"``,
            ``"bytes"``, ``"category"``, ``"date"``, ``"datetime"``, ``"object"`` for the rest.
        shape: Its shape with the rows first; ``-1`` stands for any number.
    """

    model_config = FROZEN

    name: str = Field(min_length=1)
    dtype: str
    shape: tuple[int, ...] = (-1,)


class Signature(BaseModel):
    """What a model takes and what it answers."""

    model_config = FROZEN

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


class Lineage(BaseModel):
    """Where a version comes from, beside its run.

    Attributes:
        data: The fingerprint of the data it was trained on.
        code: The revision of the code that made it; ``-dirty`` at the end where files differed.
        python: The version of Python that made it.
        libraries: The versions of the libraries that its flavor names.
    """

    model_config = FROZEN

    data: str | None = None
    code: str | None = None
    python: str = ""
    libraries: Mapping[str, str] = Field(default_factory=dict)


class ModelVersion(BaseModel):
    """One registered version of a model: bytes that never change, and where they stand now.

    Attributes:
        name: The model's name.
        version: Its number; the first is 1, and no number is given twice.
        digest: The digest of its manifest, which holds the digest of each of its files.
        flavor: How its files are loaded: ``"sklearn"``, ``"pickle"``, ``"file"``, ...
        size: The bytes of all its files.
        run_id: The tracked run that made it.
        metrics: What was measured when it was registered.
        tags: Free-form words about it.
        aliases: The aliases that point to it now, sorted.
        stage: The stage it is in now; ``"none"`` before its first promotion.
        signature: What it takes and answers, if that was registered.
        description: A text for people.
        lineage: The data, the code and the environment that made it.
        created_at: When it was registered, in UTC.
    """

    model_config = FROZEN

    name: str
    version: int
    digest: str
    flavor: str = "file"
    size: int = 0
    run_id: str | None = None
    metrics: Mapping[str, float] = Field(default_factory=dict)
    tags: Mapping[str, str] = Field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    stage: str = NO_STAGE
    signature: Signature | None = None
    description: str = ""
    lineage: Lineage = Lineage()
    created_at: datetime


class RegisteredModel(BaseModel):
    """A model's name, and which of its versions are where.

    Attributes:
        name: The model's name.
        versions: How many versions it has; deleted ones do not count.
        latest: The highest version number.
        aliases: The version that each alias points to.
        stages: For each stage that is not empty, the version that entered it last.
        tags: Free-form words about it.
        description: A text for people.
        created_at: When its first version was registered, in UTC.
        updated_at: When its latest version was registered, in UTC.
    """

    model_config = FROZEN

    name: str
    versions: int
    latest: int
    aliases: Mapping[str, int] = Field(default_factory=dict)
    stages: Mapping[str, int] = Field(default_factory=dict)
    tags: Mapping[str, str] = Field(default_factory=dict)
    description: str = ""
    created_at: datetime
    updated_at: datetime


class GateResult(BaseModel):
    """What a gate found.

    Attributes:
        passed: Whether the candidate may enter the stage, as far as this gate can tell.
        reason: One sentence that says why, with the numbers.
        evidence: Plain values that were looked at; numbers of NumPy become Python's.
    """

    model_config = FROZEN

    passed: bool
    reason: str = ""
    evidence: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("evidence", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return plain(value)

    def __bool__(self) -> bool:
        """Tell whether the gate lets the candidate pass."""
        return self.passed


class Decision(BaseModel):
    """Whether a promotion was approved, and why. True when it was.

    Attributes:
        approved: Whether the version entered the stage.
        reasons: One sentence per gate, in the order of the gates.
        evidence: What each gate looked at, by the gate's name, in the order of the gates.
        failed: The names of the gates that did not let it pass.
        holder: The version that held the stage when the gates were asked, if there was one.
    """

    model_config = FROZEN

    approved: bool
    reasons: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = Field(default_factory=dict)
    failed: tuple[str, ...] = ()
    holder: int | None = None

    def __bool__(self) -> bool:
        """Tell whether the promotion was approved."""
        return self.approved


class HistoryEntry(BaseModel):
    """One thing that happened to a model. Entries are added and never changed.

    Attributes:
        id: Its place in the history: entries of one model rise, with gaps where a backend has them.
        name: The model's name.
        version: The version it happened to; None where it happened to the model as a whole.
        action: What happened. A version is ``"displaced"`` when another takes its stage.
        alias: The alias that was set or deleted.
        before: The stage the version came from, or the version an alias pointed to.
        after: The stage the version went to or was refused, or the version of an alias.
        at: When, in UTC. Never earlier than the entry before it, whatever the clock did.
        by: Who did it: a user's name unless the registry was opened with another.
        why: The reason the caller gave.
        decision: What the gates said, for a promotion or a refusal.
        details: What else belongs to the action: the tags of an edit, when a request expires, which
            request was approved.
    """

    model_config = FROZEN

    id: int
    name: str
    version: int | None
    action: Action
    alias: str | None = None
    before: str | None = None
    after: str | None = None
    at: datetime
    by: str = ""
    why: str = ""
    decision: Decision | None = None
    details: Mapping[str, Any] = Field(default_factory=dict)


class ApprovalRequest(BaseModel):
    """Somebody's wish that a version may enter a stage, and what became of it.

    Attributes:
        id: Its place in the history of its model, which other entries have part in: the first
            request of a model is not 1, and the next one is not one more.
        name: The model's name.
        version: The candidate.
        stage: Where it shall go.
        by: Who asked.
        why: The reason given.
        at: When, in UTC.
        expires_at: Until when it, or its approval, can be used.
        status: ``"pending"``; ``"approved"`` or ``"rejected"``; ``"expired"`` when the time is
            over; ``"used"`` when the version entered the stage after the approval; ``"outdated"``
            when the version was deleted, or its number was given to another one.
        decided_by: Who approved or rejected it.
        decided_at: When.
        decided_why: The reason given for that.
    """

    model_config = FROZEN

    id: int
    name: str
    version: int
    stage: str
    by: str
    why: str = ""
    at: datetime
    expires_at: datetime
    status: Literal["pending", "approved", "rejected", "expired", "used", "outdated"] = "pending"
    decided_by: str | None = None
    decided_at: datetime | None = None
    decided_why: str = ""


class SignatureChange(BaseModel):
    """How a signature differs from an earlier one.

    Attributes:
        compatible: Whether what asked the earlier model can ask the later one, and read it.
        breaks: What breaks a caller, a sentence each.
        additions: What is new and breaks nobody, a sentence each.
    """

    model_config = FROZEN

    compatible: bool
    breaks: tuple[str, ...] = ()
    additions: tuple[str, ...] = ()


class VersionComparison(BaseModel):
    """What differs between two versions of one model; what is equal is not in it.

    Attributes:
        a: One version.
        b: The other.
        metrics: By name, the value of each; None where it has none.
        tags: By name, likewise.
        lineage: By what of the lineage, likewise: ``"run"``, ``"data"``, ``"code"``, ``"python"``,
            and libraries by name.
        files: By path, the digest of each, likewise.
        flavor: Both flavors, if they differ.
        signature: How the signature of `b` differs from that of `a`; None if one has none.
    """

    model_config = FROZEN

    a: ModelVersion
    b: ModelVersion
    metrics: Mapping[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    tags: Mapping[str, tuple[str | None, str | None]] = Field(default_factory=dict)
    lineage: Mapping[str, tuple[str | None, str | None]] = Field(default_factory=dict)
    files: Mapping[str, tuple[str | None, str | None]] = Field(default_factory=dict)
    flavor: tuple[str, str] | None = None
    signature: SignatureChange | None = None


class Removed(BaseModel):
    """Bytes that no version names any more.

    Attributes:
        digest: Of the file.
        size: In bytes.
    """

    model_config = FROZEN

    digest: str
    size: int


class Collection(BaseModel):
    """What `Registry.gc` removed, or would remove.

    Attributes:
        dry_run: Whether nothing was removed in fact.
        versions: The versions that were deleted first, as ``name/number``.
        removed: The files that were removed.
    """

    model_config = FROZEN

    dry_run: bool
    versions: tuple[str, ...] = ()
    removed: tuple[Removed, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of all files that were removed."""
        return sum(each.size for each in self.removed)


@dataclass(frozen=True, slots=True)
class GateContext:
    """What a gate is asked about.

    Attributes:
        registry: The registry, to load models from and to read other versions.
        candidate: The version that wants to enter the stage.
        stage: The stage.
        holder: The version that holds the stage now; None if it is empty.
    """

    registry: Registry
    candidate: ModelVersion
    stage: str
    holder: ModelVersion | None
    _loaded: dict[tuple[str, int], tuple[bool, Any]] = dataclass_field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def metrics(self) -> Mapping[str, float]:
        """The candidate's registered metrics."""
        return self.candidate.metrics

    @property
    def signature(self) -> Signature | None:
        """The candidate's signature; None if it was registered without one."""
        return self.candidate.signature

    @property
    def approval(self) -> ApprovalRequest | None:
        """The request that a person approved for this version and stage, and nobody used yet."""
        for each in reversed(self.registry.requests(self.candidate.name)):
            same = (each.version, each.stage) == (self.candidate.version, self.stage)
            if same and each.status == "approved":
                return each
        return None

    def load(self, version: ModelVersion | None = None, *, trusted: bool = False) -> Any:
        """Return a version as an object, as `Registry.load` does; each is loaded once a decision.

        Args:
            version: The candidate if left out.
            trusted: Whether to run code that its files may hold.
        """
        wanted = self.candidate if version is None else version
        key = (wanted.name, wanted.version)
        known = self._loaded.get(key)
        # Who does not trust the file gets no object that only trust has made.
        if known is None or (known[0] and not trusted):
            model = self.registry.load(wanted.name, wanted.version, trusted=trusted)
            known = self._loaded[key] = (trusted, model)
        return known[1]


def plain(value: Any) -> Any:
    """Return a value made of what JSON knows, or refuse it.

    Raises:
        InvalidInput: If it holds anything else.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value)  # Of NumPy's, which is one too.
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays.
        return plain(value.tolist())
    raise InvalidInput(
        f"Evidence holds a {type(value).__name__}, which cannot be stored. Keep plain values: "
        "numbers, texts, lists, mappings."
    )

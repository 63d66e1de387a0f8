"""How a model stands: what its chronicle says, laid over what the tool itself shows.

A remote tool keeps the versions. What happened to them, and whatever could be changed twice at
once, is in a chronicle of ours beside it; see `chronicle`. Here both are put together, and nothing
is asked or written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from mlopskit.registry import moves
from mlopskit.registry.entities import HistoryEntry, RegisteredModel
from mlopskit.registry.lines import Edit, Line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from mlopskit.registry.entities import Action, ModelVersion
    from mlopskit.registry.stages import StageGraph

# Beside a "registered" line: what tells the version from another that had its number before.
MARK: Final = "mark"
# Beside a line that was read off the tool, and written by nobody through mlopskit.
IMPORTED: Final = "imported"
MOVED: Final = moves.MOVES - {"registered"}


@dataclass(frozen=True, slots=True)
class NativeVersion:
    """A version as the tool shows it.

    Attributes:
        version: The version as it was registered, but with the aliases that the tool has for it
            now, and with the stage that the tool has for it in a word of ours; else the first one.
        mark: What no other version of that number ever had: its time, its digest, an id.
        by: Who registered it.
    """

    version: ModelVersion
    mark: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class NativeModel:
    """A model as the tool shows it.

    Attributes:
        versions: Every version that is there, the first one first.
        description: The tool's own text about the model.
        tags: The tool's own tags of the model.
        details: What else the tool's backend needs to bring the tool in line.
    """

    versions: tuple[NativeVersion, ...] = ()
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    details: Any = None


@dataclass(frozen=True, slots=True)
class Past:
    """A line that tells of something earlier, or done by somebody else."""

    line: Line
    at: datetime
    by: str = ""


def told(
    lines: Sequence[Line | Past], last: HistoryEntry | None, now: datetime, actor: str
) -> list[HistoryEntry]:
    """Return lines as the entries they become after the last one."""
    entries: list[HistoryEntry] = []
    for each in lines:
        line, at, by = (
            (each.line, each.at, each.by) if isinstance(each, Past) else (each, now, actor)
        )
        entry = HistoryEntry(
            id=last.id + 1 if last else 1,
            name=line.name,
            version=line.version,
            action=line.action,
            alias=line.alias,
            before=line.before,
            after=line.after,
            at=max(at, last.at) if last else at,
            by=by,
            why=line.why,
            decision=line.decision,
            details=dict(line.details),
        )
        entries.append(entry)
        last = entry
    return entries


def registered(native: NativeVersion, graph: StageGraph) -> Past:
    """Return the line that tells of a version's registration."""
    version = native.version
    details = {MARK: native.mark}
    line = Line(version.name, version.version, "registered", after=graph.initial, details=details)
    return Past(line, version.created_at, native.by)


class Standing:
    """A model as it stands.

    Args:
        name: The model's name.
        written: The entries of its chronicle.
        native: What the tool shows. It may be a part: what is asked about other versions is wrong
            then. It must have been read after the chronicle, so that a version which that tells of
            and which is not there was deleted with the tool's own means.
        graph: The graph of stages.
        now: The time.
    """

    def __init__(
        self,
        name: str,
        written: list[HistoryEntry],
        native: NativeModel,
        graph: StageGraph,
        now: datetime,
    ) -> None:
        self.name = name
        self.written = written
        self.native = native
        self.due = _due(name, written, native, graph, now)
        self._graph = graph
        self._now = now
        self._there = {each.version.version: each for each in native.versions}

    @property
    def last(self) -> int:
        """The id of the last entry that is written; 0 if none is."""
        return self.written[-1].id if self.written else 0

    @cached_property
    def entries(self) -> list[HistoryEntry]:
        """Everything that happened, with what is not written yet."""
        last = self.written[-1] if self.written else None
        return self.written + told(self.due, last, self._now, "")

    @cached_property
    def current(self) -> list[HistoryEntry]:
        """What happened to the versions that are there, and to the model as a whole."""
        began: dict[int | None, int] = {}
        for entry in self.entries:
            if entry.action == "registered":
                began[entry.version] = entry.id
        deleted = {
            entry.version
            for entry in self.entries
            if entry.action == "deleted" and entry.id > began.get(entry.version, 0)
        }
        return [
            entry
            for entry in self.entries
            if entry.version is None
            or (
                entry.version in self._there
                and entry.version not in deleted
                and entry.id >= began.get(entry.version, 0)
            )
        ]

    @cached_property
    def stages(self) -> dict[int, str]:
        """The stage of each version, those that entered theirs last at the end."""
        return moves.stages_of(self.current)

    @cached_property
    def aliases(self) -> dict[str, int]:
        """The version that each alias points to."""
        found = aliases_of(self.entries)
        return {alias: version for alias, version in found.items() if version in self.stages}

    @cached_property
    def versions(self) -> dict[int, ModelVersion]:
        """Every version as it stands, by number."""
        edits: dict[int, list[Edit]] = {}
        for entry in self.current:
            if entry.action == "edited" and entry.version is not None:
                edits.setdefault(entry.version, []).append(edit_of(entry))
        aliases: dict[int, list[str]] = {}
        for alias, number in sorted(self.aliases.items()):
            aliases.setdefault(number, []).append(alias)
        found = {}
        for number, native in sorted(self._there.items()):
            if number not in self.stages:
                continue
            description, tags = _edited(
                native.version.description, native.version.tags, edits.get(number, [])
            )
            found[number] = native.version.model_copy(
                update={
                    "description": description,
                    "tags": tags,
                    "stage": self.stages[number],
                    "aliases": tuple(aliases.get(number, ())),
                }
            )
        return found

    @property
    def deleted(self) -> list[NativeVersion]:
        """The versions that the tool still has, and that were deleted."""
        return [each for number, each in self._there.items() if number not in self.stages]

    def holder(self, stage: str) -> ModelVersion | None:
        """Return the version that entered a stage last and is still there."""
        inside = self.inside(stage)
        return inside[0] if inside else None

    def inside(self, stage: str) -> list[ModelVersion]:
        """Return the versions that are in a stage, the one that entered it last first."""
        numbers = [number for number, there in self.stages.items() if there == stage]
        return [self.versions[number] for number in reversed(numbers)]

    @property
    def holders(self) -> dict[str, int]:
        """For each stage but the first that is not empty, the version that entered it last."""
        return {stage: v for v, stage in self.stages.items() if stage != self._graph.initial}

    def aliases_to_show(self) -> tuple[dict[str, int], set[str]]:
        """Return what aliases shall be in a tool that has an alias for a stage, and which may not.

        The first stage and the one that takes displaced versions have none.

        Returns:
            The version of each alias; and all that mlopskit ever set, where the tool follows it.
        """
        wanted = dict(self.aliases)
        ruled = {entry.alias for entry in self.written if entry.alias is not None}
        if has_moved(self.written):
            unshown = (self._graph.initial, self._graph.retired)
            wanted |= {k: v for k, v in self.holders.items() if k not in unshown}
            ruled |= set(self._graph.order)
        return wanted, ruled

    def is_spare(
        self, mark: str, keep: Collection[str], *, young: bool, going: Collection[int] = ()
    ) -> bool:
        """Tell whether nothing needs the bytes that were stored for a version.

        Those of a deleted version, and those that a registration left that was killed. What others
        deleted with the tool's own means is not taken for deleted: that the tool does not show a
        version is no proof.

        Args:
            mark: The mark that the version has, or would have.
            keep: The digests of the manifests whose files stay.
            young: Whether the registration may still be at it.
            going: The numbers of versions that are there, and are to be deleted.
        """
        if mark not in self._marks:
            return not young
        number, deleted = self._marks[mark]
        if number in going and number in self.versions:
            deleted = self.versions[number].digest
        return deleted is not None and deleted not in keep

    @cached_property
    def _marks(self) -> dict[str, tuple[int, str | None]]:
        """The marks of all versions that ever were: number, and digest if it was deleted."""
        found: dict[str, tuple[int, str | None]] = {}
        for entry in self.entries:
            if entry.version is None:
                continue
            if entry.action == "registered":
                found[str(entry.details.get(MARK))] = (entry.version, None)
            elif entry.action == "deleted":
                gone = (entry.version, str(entry.details.get("digest", "")))
                found |= {mark: gone for mark, (v, _) in found.items() if v == entry.version}
        return found

    @property
    def model(self) -> RegisteredModel | None:
        """The model; None if no version of it is there."""
        if not self.versions:
            return None
        description, tags = self.texts
        times = [entry.at for entry in self.entries if entry.action == "registered"]
        return RegisteredModel(
            name=self.name,
            versions=len(self.versions),
            latest=max(self.versions),
            aliases=dict(sorted(self.aliases.items())),
            stages=self.holders,
            tags=tags,
            description=description,
            created_at=min(times),
            updated_at=max(times),
        )

    @property
    def texts(self) -> tuple[str, dict[str, str]]:
        """The description and the tags of the model."""
        edits = [
            edit_of(entry)
            for entry in self.entries
            if entry.action == "edited" and entry.version is None
        ]
        return _edited(self.native.description, self.native.tags, edits)


def edit_of(entry: HistoryEntry) -> Edit:
    """Return what an entry says was edited."""
    return Edit(entry.details.get("description"), entry.details.get("tags") or {})


def has_moved(written: Iterable[HistoryEntry]) -> bool:
    """Tell whether mlopskit moved a version: before that, the tool's own stages count."""
    return any(entry.action in MOVED and not entry.details.get(IMPORTED) for entry in written)


def aliases_of(entries: Iterable[HistoryEntry]) -> dict[str, int]:
    """Return where a history says that each alias points to."""
    found: dict[str, int] = {}
    for entry in entries:
        if entry.version is None:
            continue
        if entry.action in ("registered", "deleted"):
            found = {alias: v for alias, v in found.items() if v != entry.version}
        elif entry.alias is not None and entry.action == "alias_set":
            found[entry.alias] = entry.version
        elif entry.alias is not None and entry.action == "alias_deleted":
            found.pop(entry.alias, None)
    return found


def _edited(
    description: str, tags: Mapping[str, str], edits: Iterable[Edit]
) -> tuple[str, dict[str, str]]:
    merged = dict(tags)
    for edit in edits:
        description = description if edit.description is None else edit.description
        merged = edit.of(merged)
    return description, merged


def _due(
    name: str,
    written: Sequence[HistoryEntry],
    native: NativeModel,
    graph: StageGraph,
    now: datetime,
) -> list[Past]:
    """Return what the tool shows and the chronicle does not tell of yet.

    A version that somebody registered; and, where mlopskit never changed the like, the stages and
    the aliases that others gave with the tool's own means.
    """
    marks = {e.version: e.details.get(MARK) for e in written if e.action == "registered"}
    lines = [
        registered(each, graph)
        for each in native.versions
        if marks.get(each.version.version) != each.mark
    ]
    new = {past.line.version for past in lines}
    old = [entry for entry in written if entry.version not in new]
    return lines + _due_moves(name, old, native, graph, now) + _due_aliases(name, old, native, now)


def _due_moves(
    name: str,
    written: Sequence[HistoryEntry],
    native: NativeModel,
    graph: StageGraph,
    now: datetime,
) -> list[Past]:
    if has_moved(written):
        return []
    known = moves.stages_of(written)
    gone = {entry.version for entry in written if entry.action == "deleted"}
    found = []
    for each in native.versions:
        number, stage = each.version.version, each.version.stage
        before = known.get(number, graph.initial)
        if stage != before and number not in gone:
            line = Line(name, number, "promoted", None, before, stage, details={IMPORTED: True})
            found.append(Past(line, now))
    return found


def _due_aliases(
    name: str, written: Sequence[HistoryEntry], native: NativeModel, now: datetime
) -> list[Past]:
    ours = {e.alias for e in written if e.alias is not None and not e.details.get(IMPORTED)}
    known = aliases_of(written)
    shown = {
        alias: each.version.version for each in native.versions for alias in each.version.aliases
    }
    found = []
    for alias in sorted((known.keys() | shown.keys()) - ours):
        before, after = known.get(alias), shown.get(alias)
        if before == after:
            continue
        found.append(Past(_alias_line(name, alias, before, after), now))
    return found


def _alias_line(name: str, alias: str, before: int | None, after: int | None) -> Line:
    told_before = None if before is None else str(before)
    told_after = None if after is None else str(after)
    action: Action = "alias_deleted" if after is None else "alias_set"
    version = before if after is None else after
    details = {IMPORTED: True}
    return Line(name, version, action, alias, told_before, told_after, details=details)

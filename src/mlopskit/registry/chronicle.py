"""A registry on a remote tool: the tool keeps the versions, a chronicle keeps what happens to them.

Few tools can move a version, its predecessor and a line of a history at once, or refuse to if
somebody else was quicker. All of them can keep a list that only one writer extends at a time. Such
a list is the chronicle of a model, and it is the truth about stages, aliases, edits, deletions and
approvals; what of it the tool's own pages and clients can show is shown there afterwards, by
whoever comes next if the one who wrote was killed.
"""

from __future__ import annotations

import logging
import random
import time
from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from mlopskit.errors import BackendError, Conflict, MlopskitError, NotFound
from mlopskit.names import check_identifier
from mlopskit.registry import moves
from mlopskit.registry.foreign import ForeignVersions
from mlopskit.registry.lines import Line
from mlopskit.registry.standing import (
    MARK,
    NativeModel,
    Standing,
    aliases_of,
    has_moved,
    registered,
)
from mlopskit.registry.texts import Chronicle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlopskit.registry.details import Details
    from mlopskit.registry.entities import (
        Action,
        Decision,
        HistoryEntry,
        ModelVersion,
        RegisteredModel,
        Signature,
    )
    from mlopskit.registry.flavors import Package
    from mlopskit.registry.lines import Edit
    from mlopskit.registry.references import Ref
    from mlopskit.registry.standing import NativeVersion
    from mlopskit.registry.texts import Attached

__all__ = ["Chronicle", "ChronicledRegistry"]

TRIES: Final = 50
LONGEST_PAUSE_S: Final = 1.0
logger = logging.getLogger(__name__)


class ChronicledRegistry(ForeignVersions):
    """What is alike in every registry that keeps its history in a chronicle."""

    # What a tool gives beside `capabilities`, `native`, `ping`, `close`, `_manifest`, `_fetch`,
    # `_collect`, and `_foreign_files` if others register versions there too.

    @property
    @abstractmethod
    def _chronicle(self) -> Chronicle:
        """The chronicle, whose actor is the registry's."""

    @abstractmethod
    def _native_names(self) -> list[str]:
        """Return the names of the models that the tool shows and this interface can name."""

    @abstractmethod
    def _native_model(self, name: str) -> NativeModel:
        """Return what the tool shows of a model; an empty one if it shows none."""

    @abstractmethod
    def _native_version(self, name: str, number: int) -> NativeVersion | None:
        """Return one version as the tool shows it, in as few requests as it takes."""

    @abstractmethod
    def _upload(
        self,
        name: str,
        package: Package,
        signature: Signature | None,
        details: Details,
        told: Callable[[int, int], object] | None,
    ) -> NativeVersion:
        """Store a package's files and its manifest, then let the tool add the version."""

    @abstractmethod
    def _project(self, standing: Standing) -> bool:
        """Bring the tool in line with how a model stands.

        Nothing is asked for that is in line already, which `standing.native` tells.

        Returns:
            Whether anything was not.

        Raises:
            BackendError: If the tool fails. What is left is done the next time.
        """

    def _native_models(self) -> dict[str, NativeModel]:
        """Return what the tool shows of all models."""
        return {name: self._native_model(name) for name in self._native_names()}

    # What callers use.

    def list_models(self) -> list[RegisteredModel]:
        """Return every model, by name."""
        written = self._chronicle.read_all()
        shown = self._native_models()
        stand = [
            self._stand(name, written.get(name, []), shown.get(name, NativeModel()))
            for name in sorted(written.keys() | shown.keys())
        ]
        return [each.model for each in stand if each.model is not None]

    def get_model(self, name: str) -> RegisteredModel:
        """Return one model, without asking for the others."""
        check_identifier("model", name)
        model = self._standing(name).model
        if model is None:
            raise self._no_model(name)
        return model

    def list_versions(self, name: str) -> list[ModelVersion]:
        """Return every version of a model, the first one first."""
        standing = self._standing(name)
        self._catch_up(standing)
        return list(self._versions(standing).values())

    def delete_alias(self, name: str, alias: str) -> None:
        """Forget an alias. The version stays."""

        def lines(standing: Standing) -> list[Line]:
            self._versions(standing)
            version = standing.aliases.get(alias)
            if version is None:
                raise NotFound(f"alias of {name!r}", alias, standing.aliases)
            return [Line(name, version, "alias_deleted", alias, before=str(version))]

        self._change(name, lines)

    def history(self, name: str) -> list[HistoryEntry]:
        """Return everything that happened to a model, the first thing first.

        What others did with the tool's own means is written into the chronicle by it, so that no
        id changes; but not where mlopskit never changed anything of the model.
        """
        for _ in range(TRIES):
            standing = self._standing(name)
            if not standing.entries:
                raise self._no_model(name)
            self._catch_up(standing)
            if not standing.due or not standing.written:
                break
            try:
                if self._write(standing, []) is not None:
                    break
            except BackendError:  # Who may only read is told what would be written.
                break
        return standing.entries

    # What the shared part is built on.

    def _register(
        self,
        name: str,
        package: Package,
        signature: Signature | None,
        details: Details,
        told: Callable[[int, int], object] | None,
    ) -> ModelVersion:
        self._chronicle.read(name)  # What is damaged is said before there is a version more.
        made = self._upload(name, package, signature, details, told)
        try:
            self._tell(name, made)
        except MlopskitError as exc:  # The version is there, and whoever comes next writes it.
            number = made.version.version
            logger.warning("No entry tells of version %s of %r yet: %s", number, name, exc)
        return made.version

    def _tell(self, name: str, made: NativeVersion) -> None:
        """Write the line of a new version, without a look at all the others."""
        for number in range(TRIES):
            written = self._chronicle.read(name)
            known = {(e.version, e.details.get(MARK)) for e in written if e.action == "registered"}
            if (made.version.version, made.mark) in known:
                return  # Somebody else has seen it, and told of it.
            last = written[-1].id if written else 0
            if self._chronicle.append(name, [registered(made, self.stages)], last) is not None:
                return
            _pause(number)
        raise _busy(name)

    def _get(self, name: str, ref: Ref) -> ModelVersion:
        written = self._chronicle.read(name)
        found = self._quickly(name, ref, written)
        return found or self._named(self._standing(name, written), ref)

    def _holder(self, name: str, stage: str) -> ModelVersion | None:
        written = self._chronicle.read(name)
        found = self._quickly(name, stage, written)
        if found is not None:
            return found
        standing = self._standing(name, written)
        self._versions(standing)
        return standing.holder(stage)

    def _quickly(self, name: str, ref: Ref, written: list[HistoryEntry]) -> ModelVersion | None:
        """Return the version that a reference names, if one more request can tell that."""
        number = self._number(written, ref)
        native = None if number is None else self._native_version(name, number)
        if number is None or native is None:
            return None
        part = self._stand(name, written, NativeModel((native,)))
        found = part.versions.get(number)
        return found if found is not None and _is(found, ref) else None

    def _set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        def lines(standing: Standing) -> list[Line]:
            self._version(standing, version)
            before = standing.aliases.get(alias)
            if before == version:
                return []
            told_before = None if before is None else str(before)
            return [Line(name, version, "alias_set", alias, told_before, str(version))]

        return self._version(self._change(name, lines), version)

    def _decide(
        self, candidate: ModelVersion, stage: str, decision: Decision, why: str
    ) -> ModelVersion | None:
        name, number = candidate.name, candidate.version

        def lines(standing: Standing) -> list[Line] | None:
            holder = standing.holder(stage)
            if (holder.version if holder else None) != decision.holder:
                return None
            if self._version(standing, number).stage != candidate.stage:
                return None
            action: Action = "promoted" if decision else "refused"
            line = Line(
                name, number, action, None, candidate.stage, stage, why=why, decision=decision
            )
            return [*self._room(standing, number, stage), line] if decision else [line]

        standing = self._change_if(name, lines)
        return None if standing is None else self._version(standing, number)

    def _roll_back(self, name: str, stage: str, why: str) -> ModelVersion:
        back: list[int] = []

        def lines(standing: Standing) -> list[Line]:
            self._versions(standing)
            holder = standing.holder(stage)
            held = holder.version if holder else None
            earlier = moves.earlier_holder(name, standing.current, stage, held, self.stages)
            back[:] = [earlier]
            found = []
            if holder is not None:
                retired = self.stages.retired
                found = [Line(name, holder.version, "displaced", None, stage, retired, why=why)]
            before = standing.stages[earlier]
            return [*found, Line(name, earlier, "rolled_back", None, before, stage, why=why)]

        standing = self._change(name, lines)
        return self._version(standing, back[0])

    def _edit_version(self, name: str, version: int, edit: Edit, why: str) -> ModelVersion:
        def lines(standing: Standing) -> list[Line]:
            self._version(standing, version)
            return [Line(name, version, "edited", why=why, details=edit.details)]

        return self._version(self._change(name, lines), version)

    def _edit_model(self, name: str, edit: Edit, why: str) -> None:
        def lines(standing: Standing) -> list[Line]:
            self._versions(standing)
            return [Line(name, None, "edited", why=why, details=edit.details)]

        self._change(name, lines)

    def _delete_versions(self, name: str, versions: Sequence[int], why: str) -> None:
        def lines(standing: Standing) -> list[Line]:
            found = []
            for number in versions:
                version = self._version(standing, number)
                if version.stage not in self._unheld or version.aliases:
                    raise Conflict(
                        f"Version {number} of {name!r} was put to use meanwhile: it is in "
                        f"{version.stage!r} with the aliases {list(version.aliases)}. "
                        "Nothing was deleted."
                    )
                details = {"digest": version.digest}
                found.append(
                    Line(name, number, "deleted", None, version.stage, why=why, details=details)
                )
            return found

        self._change(name, lines)

    def _note(self, line: Line, last: int) -> HistoryEntry | None:
        def lines(standing: Standing) -> list[Line] | None:
            if not standing.entries:
                raise self._no_model(line.name)
            return [line] if standing.entries[-1].id == last else None

        standing = self._change_if(line.name, lines)
        return None if standing is None else standing.written[-1]

    def _attach(self, version: ModelVersion, kind: str, content: bytes, line: Line) -> None:
        def lines(standing: Standing) -> list[Line]:
            self._version(standing, version.version)
            return [line]

        self._change(version.name, lines, (version.version, kind, content))

    def _attachment(self, version: ModelVersion, kind: str) -> bytes | None:
        return self._chronicle.attachment(version.name, version.version, kind)

    def _all_models(self) -> list[str]:
        return sorted({*self._chronicle.read_all(), *self._native_names()})

    # How a change is made.

    def _change(
        self,
        name: str,
        lines: Callable[[Standing], list[Line]],
        attached: Attached | None = None,
    ) -> Standing:
        """Write lines that follow from how a model stands, and return how it stands then."""
        return cast("Standing", self._change_if(name, lines, attached))

    def _change_if(
        self,
        name: str,
        lines: Callable[[Standing], list[Line] | None],
        attached: Attached | None = None,
    ) -> Standing | None:
        for number in range(TRIES):
            standing = self._standing(name)
            found = lines(standing)
            if found is None:
                return None
            if not found and not standing.due:
                self._catch_up(standing)
                return standing
            written = self._write(standing, found, attached)
            if written is not None:
                return written
            _pause(number)
        raise _busy(name)

    def _write(
        self, standing: Standing, lines: Sequence[Line], attached: Attached | None = None
    ) -> Standing | None:
        """Add lines to the chronicle if nobody else did meanwhile, and bring the tool in line."""
        added = self._chronicle.append(
            standing.name, [*standing.due, *lines], standing.last, attached
        )
        if added is None:
            return None
        written = self._stand(standing.name, [*standing.written, *added], standing.native)
        self._catch_up(written)
        return written

    def _catch_up(self, standing: Standing) -> None:
        """Bring the tool in line; what fails now is done when somebody comes next."""
        name = standing.name
        try:
            while standing.written and self._project(standing):
                # Whoever wrote meanwhile may have been quicker here too, and has been overwritten.
                written = self._chronicle.read(name)
                if written[-1].id == standing.last:
                    break
                standing = self._standing(name, written)
        except MlopskitError as exc:
            logger.warning("How %r stands is not shown by its own tool yet: %s", name, exc)

    def _room(self, standing: Standing, candidate: int, stage: str) -> list[Line]:
        """Return the lines that make room for a candidate."""
        limit = self.stages.limits.get(stage)
        if limit is None:
            return []
        why = f"Version {candidate} took its place."
        retired = self.stages.retired
        return [
            Line(standing.name, each.version, "displaced", None, stage, retired, why=why)
            for each in standing.inside(stage)[limit - 1 :]
        ]

    # How a model is read.

    def _standing(self, name: str, written: list[HistoryEntry] | None = None) -> Standing:
        written = self._chronicle.read(name) if written is None else written
        return self._stand(name, written, self._native_model(name))

    def _stand(self, name: str, written: list[HistoryEntry], native: NativeModel) -> Standing:
        return Standing(name, written, native, self.stages, datetime.now(UTC))

    def _named(self, standing: Standing, ref: Ref) -> ModelVersion:
        """Return the version that a reference names, or say what there is."""
        if isinstance(ref, int):
            return self._version(standing, ref)
        versions = self._versions(standing)
        if ref.startswith("@"):
            if ref[1:] not in standing.aliases:
                raise NotFound(f"alias of {standing.name!r}", ref[1:], standing.aliases)
            return versions[standing.aliases[ref[1:]]]
        if ref not in self.stages.order:
            return versions[max(versions)]
        found = standing.holder(ref)
        if found is None:
            occupied = sorted({each.stage for each in versions.values()})
            raise NotFound(f"version of {standing.name!r} in the stage", ref, occupied)
        return found

    def _version(self, standing: Standing, number: int) -> ModelVersion:
        versions = self._versions(standing)
        if number not in versions:
            raise NotFound(f"version of {standing.name!r}", number, map(str, versions))
        return versions[number]

    def _versions(self, standing: Standing) -> dict[int, ModelVersion]:
        if not standing.versions:
            raise self._no_model(standing.name)
        return standing.versions

    def _no_model(self, name: str) -> NotFound:
        # A tool may keep the name of a model that has no version left.
        return NotFound("model", name, (each for each in self._native_names() if each != name))

    def _number(self, written: Sequence[HistoryEntry], ref: Ref) -> int | None:
        """Return which version a reference means, if a chronicle alone can tell.

        It cannot while the tool's own stages count; and what others registered, which is in the
        first stage, may not be told of yet.
        """
        if isinstance(ref, int):
            return ref
        if ref.startswith("@"):
            return aliases_of(written).get(ref[1:])
        if ref == self.stages.initial or not has_moved(written):
            return None
        return moves.holder(written, ref)


def _pause(number: int) -> None:
    time.sleep(random.uniform(0, min(LONGEST_PAUSE_S, 0.01 * 2**number)))  # noqa: S311 - no secret


def _busy(name: str) -> Conflict:
    return Conflict(
        f"{name!r} was changed by others each of {TRIES} times that it was tried here. "
        "Nothing was changed; try again."
    )


def _is(version: ModelVersion, ref: Ref) -> bool:
    """Tell whether a reference may mean a version, as that stands now."""
    if isinstance(ref, int):
        return version.version == ref
    return ref[1:] in version.aliases if ref.startswith("@") else version.stage == ref

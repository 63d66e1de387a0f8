"""What a registry backend gives, below the checks that all of them share."""

from __future__ import annotations

import getpass
import os
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from mlopskit.errors import Conflict, IntegrityError, NotFound
from mlopskit.names import check_identifier
from mlopskit.registry.references import Ref, parsed
from mlopskit.registry.stages import StageGraph
from mlopskit.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.details import Details
    from mlopskit.registry.entities import (
        Decision,
        HistoryEntry,
        ModelVersion,
        RegisteredModel,
        Removed,
        Signature,
    )
    from mlopskit.registry.flavors import Package
    from mlopskit.registry.lines import Edit, Line


class RegistryBackend(Tool):
    """The part of a registry that differs from tool to tool.

    Everything that reaches it has been checked: names, references, texts, moves between stages.
    Every change is atomic, and the line of the history that tells of it is a part of it.
    """

    domain: ClassVar[str] = "registry"
    # Whether `_fetch` has compared every byte with its digest by the time it returns.
    fetch_verifies: ClassVar[bool] = False
    stages: StageGraph = StageGraph()
    actor: str = ""

    # What callers use, and every backend answers for itself.

    @abstractmethod
    def list_models(self) -> list[RegisteredModel]:
        """Return every model that has a version, by name."""

    @abstractmethod
    def list_versions(self, name: str) -> list[ModelVersion]:
        """Return every version of a model, the first one first.

        Raises:
            NotFound: If there is no such model.
        """

    @abstractmethod
    def delete_alias(self, name: str, alias: str) -> None:
        """Forget an alias. The version stays.

        Raises:
            NotFound: If there is no such model or alias.
        """

    @abstractmethod
    def history(self, name: str) -> list[HistoryEntry]:
        """Return everything that happened to a model, the first thing first.

        It stays when the versions of a model are deleted.

        Raises:
            NotFound: If there never was such a model.
        """

    # What the shared part is built on.

    @abstractmethod
    def _register(
        self,
        name: str,
        package: Package,
        signature: Signature | None,
        details: Details,
        told: Callable[[int, int], object] | None,
    ) -> ModelVersion:
        """Store a package's files and its manifest, then add the version, all or nothing."""

    @abstractmethod
    def _get(self, name: str, ref: Ref) -> ModelVersion:
        """Return one version by a parsed reference: a number, ``@alias``, stage, or ``latest``."""

    @abstractmethod
    def _set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        """Point a checked alias to a version that was there a moment ago."""

    @abstractmethod
    def _holder(self, name: str, stage: str) -> ModelVersion | None:
        """Return the version that entered a stage last and is still there."""

    @abstractmethod
    def _decide(
        self, candidate: ModelVersion, stage: str, decision: Decision, why: str
    ) -> ModelVersion | None:
        """Write a decision down and, if it is approved, move the candidate, in one transaction.

        Returns:
            The candidate as it stands now; or None, and nothing is written, if meanwhile the
            stage's holder is not `decision.holder` or the candidate is not in its stage any more.
        """

    @abstractmethod
    def _roll_back(self, name: str, stage: str, why: str) -> ModelVersion:
        """Undo the last entry into a stage, in one transaction."""

    @abstractmethod
    def _edit_version(self, name: str, version: int, edit: Edit, why: str) -> ModelVersion:
        """Change the description and the tags of a version."""

    @abstractmethod
    def _edit_model(self, name: str, edit: Edit, why: str) -> None:
        """Change the description and the tags of a model.

        Raises:
            NotFound: If there is no such model.
        """

    @abstractmethod
    def _delete_versions(self, name: str, versions: Sequence[int], why: str) -> None:
        """Delete versions, all or none. Their numbers are not given again; their history stays.

        Raises:
            Conflict: If meanwhile one of them holds a stage, or has an alias.
        """

    @abstractmethod
    def _note(self, line: Line, last: int) -> HistoryEntry | None:
        """Add a line to the history that changes nothing else.

        Returns:
            The entry; or None, and nothing is written, if meanwhile the last entry of the model is
            not the one with the id `last`.
        """

    @abstractmethod
    def _manifest(self, version: ModelVersion) -> bytes:
        """Return the text of a version's manifest.

        Raises:
            IntegrityError: If it is missing.
        """

    @abstractmethod
    def _fetch(self, version: ModelVersion, manifest: Manifest, folder: Path) -> None:
        """Write a version's files into an empty folder, each at its path.

        Raises:
            IntegrityError: If a file is missing, or is seen to have changed.
        """

    @abstractmethod
    def _attach(self, version: ModelVersion, kind: str, content: bytes, line: Line) -> None:
        """Keep bytes beside a version, in the place of earlier ones of that kind."""

    @abstractmethod
    def _attachment(self, version: ModelVersion, kind: str) -> bytes | None:
        """Return the bytes of a kind that are kept beside a version."""

    @abstractmethod
    def _collect(
        self, keep: Collection[str], going: Mapping[str, Collection[int]], *, dry_run: bool
    ) -> list[Removed]:
        """Remove the bytes that nothing needs, and return what was, or would be, removed.

        Args:
            keep: The digests of the manifests whose files stay, and which stay themselves.
            going: The versions of each model that a dry run left and that count as deleted.
            dry_run: Remove nothing.
        """

    # Steps that the parts of the interface share.

    def get_version(self, name: str, ref: Ref) -> ModelVersion:
        """Return one version.

        Args:
            name: The model's name.
            ref: A number, ``"@alias"``, a stage, or ``"latest"``.

        Raises:
            NotFound: If there is no such model, version or alias, or the stage is empty.
            InvalidName: If the reference is none of these.
        """
        check_identifier("model", name)
        wanted = parsed(ref, self.stages)
        found = self._get(name, wanted)
        if isinstance(wanted, int) and (found.name, found.version) != (name, wanted):
            asked = f"{name!r} {wanted}"
            raise IntegrityError("What was answered", asked, f"{found.name!r} {found.version}")
        return found

    def _check_stage(self, stage: str) -> None:
        if stage not in self.stages.order:
            raise NotFound("stage", stage, self.stages.order)

    def _check_move(self, candidate: ModelVersion, stage: str) -> None:
        self._check_stage(stage)
        allowed = self.stages.next(candidate.stage)
        if stage not in allowed:
            there = ", ".join(allowed) or "no other stage"
            raise Conflict(
                f"Version {candidate.version} of {candidate.name!r} is in {candidate.stage!r} and "
                f"cannot be promoted to {stage!r}. It can go to: {there}. A version that "
                "held the stage before comes back with rollback()."
            )

    @property
    def _unheld(self) -> tuple[str, str]:
        """The stages whose versions nobody relies on."""
        return self.stages.initial, self.stages.retired


def login_name() -> str:
    """Return who is at work here, as the system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container's user often has no name.
        return f"uid {os.getuid()}"

"""The registry interface: what every model registry does, and nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mlopskit.errors import Conflict, InvalidInput, InvalidModel, NotFound
from mlopskit.names import check_identifier
from mlopskit.registry import blobs, flavors
from mlopskit.registry.details import Details, checked_details
from mlopskit.registry.entities import Decision, ModelVersion, Signature, StageGraph
from mlopskit.registry.gates import decide
from mlopskit.registry.references import Ref, check_alias, parsed
from mlopskit.storage import disk_errors, make_private_folder, sync_folder
from mlopskit.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.entities import HistoryEntry, RegisteredModel
    from mlopskit.registry.gates import Gate

CAPABILITIES: Final[Mapping[str, str]] = {
    "aliases": "Names that point to one version each, and move atomically.",
    "approval": "A promotion can wait for a person.",
    "atomic_register": "A killed or failed registration leaves no half version.",
    "custom_stages": "The stages and the moves between them are the user's own.",
    "gates": "A promotion can be refused by functions, and the decision is kept.",
    "history": "Who did what, when and why, in entries that never change.",
    "integrity": "Files are kept by digest and verified whenever they are read.",
    "offline": "Works without a network.",
    "remote": "Several machines share one registry.",
    "signing": "Versions can be signed, and unsigned ones refused.",
    "stages": "A version can be in a stage, and a stage has a holder.",
}
TRIES: Final = 3


class Registry(Tool):
    """Keeps versions of models, and which of them is in which stage.

    A version is named by a reference: its number (``3`` or ``"3"``), ``"@alias"``, a stage, which
    means the version that entered it last, or ``"latest"``, which means the highest number.
    """

    domain: ClassVar[str] = "registry"
    stages: StageGraph = StageGraph()

    # What callers use.

    def register(
        self,
        name: str,
        source: Any,
        *,
        run_id: str | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        signature: Signature | None = None,
        description: str = "",
    ) -> ModelVersion:
        """Store a model and return its new version. It is on the disk, or it is not there at all.

        Args:
            name: The model's name: ASCII letters, digits, ``_``, ``-`` and ``.``.
            source: A model object that a flavor takes, or the path of a file or a folder.
            run_id: The tracked run that made it.
            metrics: What was measured, by name.
            tags: Free-form texts by name.
            signature: What it takes and answers; see `infer_signature`.
            description: A text for people.

        Raises:
            InvalidName: If a name could not be kept.
            InvalidInput: If a metric is no number, a tag no text, or the signature no `Signature`.
            InvalidModel: If no flavor takes the object, or a folder holds what cannot be kept.
            NotFound: If there is nothing at the path.
            StorageError: If it could not be written; no version was made.
        """
        check_identifier("model", name)
        if signature is not None and not isinstance(signature, Signature):
            raise InvalidInput(
                f"The signature is a {type(signature).__name__}. Pass what infer_signature() "
                "returns, or a Signature."
            )
        details = checked_details(
            self.context.redactor,
            run_id=run_id,
            metrics=metrics,
            tags=tags,
            description=description,
        )
        with flavors.packed(source) as package:
            return self._register(name, package, signature, details)

    @abstractmethod
    def list_models(self) -> list[RegisteredModel]:
        """Return every model, by name."""

    @abstractmethod
    def list_versions(self, name: str) -> list[ModelVersion]:
        """Return every version of a model, the first one first.

        Raises:
            NotFound: If there is no such model.
        """

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
        return self._get(name, parsed(ref, self.stages))

    def set_alias(self, name: str, alias: str, version: Ref) -> ModelVersion:
        """Point an alias to a version, wherever it pointed before, and return the version.

        Raises:
            NotFound: If there is no such model or version.
            InvalidName: If the alias could be taken for a stage or a version: ``latest``, ``v1``,
                ``1`` and the stages are refused.
        """
        check_alias(alias, self.stages)
        return self._set_alias(name, alias, self.get_version(name, version).version)

    @abstractmethod
    def delete_alias(self, name: str, alias: str) -> None:
        """Forget an alias. The version stays.

        Raises:
            NotFound: If there is no such model or alias.
        """

    def promote(
        self, name: str, version: Ref, stage: str, gates: Iterable[Gate] = (), *, why: str = ""
    ) -> Decision:
        """Move a version to a stage if every gate agrees, and return the decision, which is kept.

        The gates are asked before anything is locked. If the stage has another holder by the time
        they have answered, they are asked again about that one.

        Args:
            name: The model's name.
            version: The candidate.
            stage: Where it shall go.
            gates: Functions of a `GateContext` that return a bool or a `GateResult`. One that
                raises, or returns anything else, refuses.
            why: A reason for the history.

        Raises:
            NotFound: If there is no such model, version or stage.
            Conflict: If the stages do not allow the move, or others kept changing the stage.
        """
        check_identifier("model", name)
        asked = tuple(gates)
        why = self.context.redactor.text(why)
        for _ in range(TRIES):
            candidate = self.get_version(name, version)
            self._check_move(candidate, stage)
            holder = self._holder(name, stage)
            decision = decide(self, candidate, stage, holder, asked)
            moved = self._decide(candidate, stage, decision, why)
            if moved is None:
                continue
            if decision:
                self.notify("model_promoted", version=moved, stage=stage, decision=decision)
            return decision
        raise Conflict(
            f"{stage!r} of {name!r} changed {TRIES} times while the gates were asked about "
            f"{version!r}. Nothing was promoted. Look at the history, and try again."
        )

    def rollback(self, name: str, stage: str, *, why: str = "") -> ModelVersion:
        """Put the version back that held a stage before the one that holds it now, and return it.

        The version that held the stage goes where displaced versions go. Called again, it goes one
        version further back.

        Raises:
            NotFound: If there is no such model or stage.
            Conflict: If no version held the stage before this one, or the stage is the first one
                or takes displaced versions.
        """
        check_identifier("model", name)
        self._check_stage(stage)
        if stage in (self.stages.initial, self.stages.retired):
            raise Conflict(
                f"{stage!r} takes the versions that leave other stages, and is not rolled back. "
                "Roll back the stage that they left."
            )
        back = self._roll_back(name, stage, self.context.redactor.text(why))
        decision = Decision(approved=True, reasons=(why or "Rolled back.",))
        self.notify("model_promoted", version=back, stage=stage, decision=decision)
        return back

    @abstractmethod
    def history(self, name: str) -> list[HistoryEntry]:
        """Return everything that happened to a model, the first thing first.

        Raises:
            NotFound: If there is no such model.
        """

    @abstractmethod
    def at(self, name: str, stage: str, when: datetime) -> ModelVersion:
        """Return the version that held a stage at a time, as it stands now.

        Args:
            name: The model's name.
            stage: The stage.
            when: A time without a zone is UTC.

        Raises:
            NotFound: If there is no such model or stage, or the stage was empty then.
        """

    def download(self, name: str, ref: Ref, dst: str | os.PathLike[str]) -> Path:
        """Write a version's files, verified, to a new folder, and return its path.

        The folder appears when it is complete, and not before.

        Args:
            name: The model's name.
            ref: Which version.
            dst: A folder that does not exist yet, or is empty.

        Raises:
            NotFound: If there is no such version.
            Conflict: If `dst` exists and is not an empty folder.
            IntegrityError: If a file is missing, changed or extra. Nothing is left behind.
        """
        found = self.get_version(name, ref)
        target = Path(os.path.abspath(os.path.expanduser(dst)))
        check_empty(target)
        make_private_folder(target.parent)
        with disk_errors(target), _scratch(target.parent, f".{target.name[:100]}.") as folder:
            self._verified(found, folder)
            for each in sorted({path.parent for path in folder.rglob("*")} | {folder}):
                sync_folder(each)
            check_empty(target)
            os.rename(folder, target)
            sync_folder(target.parent)
        return target

    def load(self, name: str, ref: Ref, trusted: bool = False) -> Any:
        """Return a version as an object, after every byte of it has been verified.

        Args:
            name: The model's name.
            ref: Which version.
            trusted: Whether to run code that the file may hold. Pass it only if you know who made
                the file.

        Raises:
            NotFound: If there is no such version.
            IntegrityError: If its bytes are not those that were registered.
            UntrustedModel: If loading would run code from the file, and `trusted` is False.
            InvalidModel: If its files are not what their manifest says, or nothing loads them.
        """
        found = self.get_version(name, ref)
        label = f"version {found.version} of {name!r}"
        with _scratch(None, "mlopskit-") as folder:
            manifest = self._verified(found, folder)
            return flavors.loaded(manifest.flavor, folder, manifest, label, trusted=trusted)

    # What a backend gives.

    @abstractmethod
    def _register(
        self, name: str, package: flavors.Package, signature: Signature | None, details: Details
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
    def _fetch(self, version: ModelVersion, folder: Path) -> Manifest:
        """Write a version's files into an empty folder, and return its verified manifest."""

    # Shared steps.

    def _verified(self, version: ModelVersion, folder: Path) -> Manifest:
        manifest = self._fetch(version, folder)
        if manifest.digest != version.digest:
            raise InvalidModel(
                f"The manifest of version {version.version} of {version.name!r} has the digest "
                f"{manifest.digest}, and the version was registered with {version.digest}."
            )
        blobs.check_folder(folder, manifest)
        return manifest

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


def check_empty(target: Path) -> None:
    """Refuse a destination that already holds something.

    Raises:
        Conflict: If it is a file, or a folder that is not empty.
    """
    if target.is_symlink() or target.exists():
        if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
            return
        raise Conflict(
            f"{target} already exists. Choose a folder that does not exist, or empty it."
        )


@contextmanager
def _scratch(parent: Path | None, prefix: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix, suffix=".part"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""The registry interface: what every model registry does, and nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import Conflict, InvalidInput, InvalidName, NotFound
from mlopskit.names import check_identifier
from mlopskit.registry import blobs, examples, flavors, sources
from mlopskit.registry.approvals import Approvals
from mlopskit.registry.details import check_text, checked_details
from mlopskit.registry.entities import Decision, ModelVersion, Signature
from mlopskit.registry.gates import decide
from mlopskit.registry.moves import holder_at
from mlopskit.registry.references import Ref, check_alias
from mlopskit.registry.revision import current_revision
from mlopskit.registry.signing import Signing
from mlopskit.registry.webhooks import Webhooks
from mlopskit.storage import disk_errors, make_private_folder, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.entities import HistoryEntry
    from mlopskit.registry.gates import Gate

CAPABILITIES: Final[Mapping[str, str]] = {
    "aliases": "Names that point to one version each, and move atomically.",
    "approval": "A promotion can wait for a person.",
    "atomic_register": "A killed or failed registration leaves no half version.",
    "custom_stages": "The stages and the moves between them are the user's own.",
    "deduplication": "Equal files of several versions are stored once.",
    "gates": "A promotion can be refused by functions, and the decision is kept.",
    "gc": "Bytes that nothing needs can be removed.",
    "history": "Who did what, when and why, in entries that never change.",
    "integrity": "Files are kept by digest and verified whenever they are read.",
    "offline": "Works without a network.",
    "remote": "Several machines share one registry.",
    "signing": "Versions can be signed, and unsigned ones refused.",
    "stages": "A version can be in a stage, and a stage has a holder.",
}
TRIES: Final = 3


class Registry(Signing, Webhooks, Approvals):
    """Keeps versions of models, and which of them is in which stage.

    A version is named by a reference: its number (``3`` or ``"3"``), ``"@alias"``, a stage, which
    means the version that entered it last, or ``"latest"``, which means the highest number.
    """

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
        input_example: Any = None,
        output_example: Any = None,
        data: str | None = None,
        code: str | None = None,
        told: Callable[[int, int], object] | None = None,
    ) -> ModelVersion:
        """Store a model and return its new version. It is on the disk, or it is not there at all.

        Args:
            name: The model's name: ASCII letters, digits, ``_``, ``-`` and ``.``.
            source: A model object that a flavor takes; the path of a file or a folder; or
                ``"runs:/<run>/<name>"``, a model that a run of the configured tracker logged.
            run_id: The tracked run that made it.
            metrics: What was measured, by name.
            tags: Free-form texts by name.
            signature: What it takes and answers; see `infer_signature`. Read off the example if
                left out.
            description: A text for people.
            input_example: A few rows to ask it with: an array, a mapping from name to array, or a
                frame. A server that is given it warms up with it.
            output_example: What the model answers to them, likewise. Servers are held to it.
            data: The fingerprint of the training data, as a run's dataset has it.
            code: The revision of the code; that of the working folder's Git if left out.
            told: Is given how many bytes are stored, and how many there are, as it goes on.

        Raises:
            InvalidName: If a name could not be kept.
            InvalidInput: If a metric is no number, a tag no text, or the signature no `Signature`.
            InvalidModel: If no flavor takes the object, or a folder holds what cannot be kept.
            NotFound: If there is nothing at the path, or no such run.
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
            run_id=run_id or sources.run_of(source),
            metrics=metrics,
            tags=tags,
            description=description,
            data=data,
            code=code or current_revision(),
        )
        example = None
        if input_example is not None:
            example = examples.packed(input_example, output_example)
            signature = signature or examples.signature(input_example, output_example)
        with sources.packed(source, example, self.context) as (package, found):
            version = self._register(name, package, signature or found, details, told)
        self.notify("model_registered", version=version)
        return version

    def set_alias(self, name: str, alias: str, version: Ref) -> ModelVersion:
        """Point an alias to a version, wherever it pointed before, and return the version.

        Raises:
            NotFound: If there is no such model or version.
            InvalidName: If the alias could be taken for a stage or a version: ``latest``, ``v1``,
                ``1`` and the stages are refused.
        """
        check_alias(alias, self.stages)
        found = self._set_alias(name, alias, self.get_version(name, version).version)
        self.notify("alias_set", version=found, alias=alias)
        return found

    def promote(
        self,
        name: str,
        version: Ref,
        stage: str,
        gates: Iterable[Gate] | Gate = (),
        *,
        why: str = "",
    ) -> Decision:
        """Move a version to a stage if every gate agrees, and return the decision, which is kept.

        The gates are asked before anything is locked. If the stage has another holder by the time
        they have answered, they are asked again about that one.

        Args:
            name: The model's name.
            version: The candidate.
            stage: Where it shall go.
            gates: Functions of a `GateContext` that return a bool or a `GateResult`; one alone may
                be passed as it is. One that raises, exits, or returns anything else,
                refuses.
            why: A reason for the history.

        Raises:
            NotFound: If there is no such model, version or stage.
            InvalidInput: If the gates are neither.
            Conflict: If the stages do not allow the move, or others kept changing the stage.
        """
        check_identifier("model", name)
        if not callable(gates) and not isinstance(gates, Iterable):
            raise InvalidInput(f"gates is {gates!r}. Pass a function, or a list of functions.")
        asked: tuple[Gate, ...] = tuple((gates,) if callable(gates) else gates)
        why = self.context.redactor.text(check_text("why", why))
        for _ in range(TRIES):
            candidate = self.get_version(name, version)
            self._check_move(candidate, stage)
            holder = self._holder(name, stage)
            began = datetime.now(UTC)
            decision = decide(self, candidate, stage, holder, asked)
            if asked and decision and self._lapsed(candidate, stage, began):
                continue  # A gate may have taken longer than the approval was good for.
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
            Conflict: If no version held the stage before this one, the one that did is in a later
                stage now, or the stage is the first one or takes displaced versions.
        """
        check_identifier("model", name)
        self._check_stage(stage)
        if stage in (self.stages.initial, self.stages.retired):
            what = "begin" if stage == self.stages.initial else "go that leave other stages"
            ends = (self.stages.initial, self.stages.retired)
            able = ", ".join(each for each in self.stages.order if each not in ends)
            there = f"Stages that can be: {able}." if able else "There is no stage that can be."
            raise Conflict(f"{stage!r} is where versions {what}, and is not rolled back. {there}")
        back = self._roll_back(name, stage, self.context.redactor.text(check_text("why", why)))
        decision = Decision(approved=True, reasons=(why or "Rolled back.",))
        self.notify("model_promoted", version=back, stage=stage, decision=decision)
        return back

    def at(self, name: str, stage: str, when: datetime) -> ModelVersion:
        """Return the version that held a stage at a time, as it stands now.

        Args:
            name: The model's name.
            stage: The stage.
            when: A time without a zone is UTC.

        Raises:
            NotFound: If there is no such model or stage, the stage was empty then, or the version
                was deleted since; also if a tool gave its number to another version after that.
        """
        self._check_stage(stage)
        if not isinstance(when, datetime):
            raise InvalidInput(f"{when!r} is no time. Pass a datetime; without a zone it is UTC.")
        moment = when.replace(tzinfo=UTC) if when.tzinfo is None else when
        entries = self.history(name)
        found = holder_at(entries, stage, moment)
        again = (entry.version for entry in entries if _began_after(entry, moment))
        if found is None or found in again:
            raise NotFound(f"version of {name!r} that held {stage!r} at", moment.isoformat())
        return self.get_version(name, found)

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
            InvalidSignature: If the registry requires signatures, and it has none that is accepted.
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

    def load(self, name: str, ref: Ref | None = None, trusted: bool = False) -> Any:
        """Return a version as an object, after every byte of it has been verified.

        Args:
            name: The model's name; or ``"runs:/<run>/<name>"``, a model that a run of the
                configured tracker logged and nobody registered.
            ref: Which version. Left out for a model of a run.
            trusted: Whether to run code that the file may hold. Pass it only if you know who made
                the file.

        Raises:
            NotFound: If there is no such version.
            IntegrityError: If its bytes are not those that were registered.
            InvalidSignature: If the registry requires signatures, and it has none that is accepted;
                whatever `trusted` is.
            UntrustedModel: If loading would run code from the file, and `trusted` is False.
            InvalidModel: If its files are not what their manifest says, or nothing loads them.
        """
        if sources.run_of(name) is not None:
            if ref is not None:
                raise InvalidName("version", ref, f"{name!r} is the model of a run, without any")
            self._refuse_unsigned(name)
            return sources.load_of_run(name, self.context, trusted=trusted)
        if ref is None:
            raise InvalidName("version", ref, f"say which: registry.load({name!r}, 'latest')")
        found = self.get_version(name, ref)
        label = f"version {found.version} of {name!r}"
        with _scratch(None, "mlopskit-") as folder:
            manifest = examples.without(self._verified(found, folder), folder)
            more = self.context.flavors
            return flavors.loaded(
                manifest.flavor, folder, manifest, label, trusted=trusted, more=more
            )

    def example(
        self, name: str, ref: Ref
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Return the arrays of a version's input example, and those of its output example.

        Raises:
            NotFound: If there is no such version, or it was registered without an example.
            IntegrityError: If it is not what was registered.
        """
        found = self.get_version(name, ref)
        label = f"version {found.version} of {name!r}"
        manifest = self._read_manifest(found)
        self._check_signature(found, manifest)
        kept = tuple(file for file in manifest.files if file.path == examples.FILE)
        if not kept:
            raise NotFound(f"input example for version {found.version} of", name)
        only = manifest.model_copy(update={"files": kept})
        with _scratch(None, "mlopskit-") as folder:
            self._fetch(found, only, folder)
            blobs.check_folder(folder, only)
            return examples.unpacked((folder / examples.FILE).read_bytes(), label)

    # Shared steps.

    def _verified(self, version: ModelVersion, folder: Path) -> Manifest:
        manifest = self._read_manifest(version)
        self._check_signature(version, manifest)
        self._fetch(version, manifest, folder)
        blobs.check_folder(folder, manifest, names_only=self.fetch_verifies)
        return manifest


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


def _began_after(entry: HistoryEntry, moment: datetime) -> bool:
    return entry.action == "registered" and entry.at > moment

"""A registry without a server: SQLite for the words, files by digest for the bytes."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit.capabilities import Capabilities
from mlopskit.errors import IntegrityError, NotFound
from mlopskit.hookspecs import hookimpl
from mlopskit.registry import blobs
from mlopskit.registry.backend import login_name
from mlopskit.registry.base import Registry
from mlopskit.registry.details import manifest_of
from mlopskit.registry.ledger import Ledger
from mlopskit.registry.stages import StageGraph
from mlopskit.registry.tables import Row
from mlopskit.storage import Blobs, disk_errors, make_private_folder

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

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
    from mlopskit.registry.references import Ref
    from mlopskit.registry.signing.keys import Pem
    from mlopskit.tool import Context

# scikit-learn and skops are needed by models of scikit-learn alone, so they are not required here.
TOOL = {"package": "mlopskit", "extra": "sklearn"}
CAPABILITIES = {
    "aliases": "native",
    "approval": "native",
    "atomic_register": "native",
    "custom_stages": "native",
    "deduplication": "native",
    "gates": "native",
    "gc": "native",
    "history": "native",
    "integrity": "native",
    "offline": "native",
    "remote": "absent: the registry is a folder of this machine",
    "signing": "native",
    "stages": "native",
}
TABLE = Capabilities("registry", "local", CAPABILITIES)


class LocalRegistry(Registry):
    """Keeps models in a folder that threads, forks and processes may use at once.

    Args:
        location: The folder; ``registry`` under the home by default.
        stages: The graph of stages: a `StageGraph`, its fields as a table, or a list of stages in
            their order.
        actor: Who the history names; the user's login name by default.
        require_signature: A public key or certificates, as the path of a PEM file, or a list of
            these: a version that none of them has signed is not handed out.
        webhooks: Tables with ``url`` and ``secret``: who is told what happens to models.
    """

    fetch_verifies = True

    def __init__(
        self,
        location: str | os.PathLike[str] | None = None,
        *,
        stages: StageGraph | Mapping[str, Any] | Sequence[str] | None = None,
        actor: str | None = None,
        require_signature: Pem | Sequence[Pem] | None = None,
        webhooks: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.stages = StageGraph.of(stages)
        self._location = None if location is None else Path(location).expanduser().absolute()
        self.actor = login_name() if actor is None else actor
        self._lock = threading.Lock()
        self._opened: tuple[Ledger, Blobs] | None = None
        self._require_signatures(require_signature)
        self._call_webhooks(webhooks)

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do."""
        return TABLE

    @property
    def native(self) -> sqlite3.Connection:
        """The SQLite connection of this thread."""
        return self._ledger.db.connection()

    def ping(self, timeout_s: float = 5.0) -> None:
        """Read the table of models."""
        self._ledger.models()

    def close(self) -> None:
        """Close the SQLite connections of this process."""
        with self._lock:
            if self._opened is not None:
                self._opened[0].db.close()

    def list_models(self) -> list[RegisteredModel]:
        """Return every model, by name."""
        return self._ledger.models()

    def list_versions(self, name: str) -> list[ModelVersion]:
        """Return every version of a model, the first one first."""
        return self._ledger.versions(name)

    def delete_alias(self, name: str, alias: str) -> None:
        """Forget an alias. The version stays."""
        self._ledger.delete_alias(name, alias)

    def history(self, name: str) -> list[HistoryEntry]:
        """Return everything that happened to a model, the first thing first."""
        return self._ledger.history(name)

    def _register(
        self,
        name: str,
        package: Package,
        signature: Signature | None,
        details: Details,
        told: Callable[[int, int], object] | None,
    ) -> ModelVersion:
        # The bytes first: until the row is committed nobody knows of them, and equal bytes of a
        # repetition are found again. Meanwhile nothing may collect them.
        with self._bytes_stay():
            manifest = manifest_of(
                package, blobs.store(self._blobs, package.files, told), signature
            )
            digest, _ = self._blobs.put(manifest.canonical)
            row = Row(
                digest=digest,
                flavor=manifest.flavor,
                size=manifest.size,
                run_id=details.run_id,
                metrics=json.dumps(details.metrics),
                tags=json.dumps(details.tags),
                signature=signature.model_dump_json() if signature else None,
                description=details.description,
                lineage=details.lineage(package).model_dump_json(),
            )
            return self._ledger.add(name, row)

    def _get(self, name: str, ref: Ref) -> ModelVersion:
        if isinstance(ref, int):
            return self._ledger.version(name, ref)
        if ref.startswith("@"):
            return self._ledger.by_alias(name, ref[1:])
        if ref in self.stages.order:
            found = self._ledger.holder(name, ref)
            if found is None:
                raise NotFound(f"version of {name!r} in the stage", ref, self._occupied(name))
            return found
        return self._ledger.latest(name)

    def _occupied(self, name: str) -> list[str]:
        return sorted({version.stage for version in self._ledger.versions(name)})

    def _set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        return self._ledger.set_alias(name, alias, version)

    def _holder(self, name: str, stage: str) -> ModelVersion | None:
        return self._ledger.holder(name, stage)

    def _decide(
        self, candidate: ModelVersion, stage: str, decision: Decision, why: str
    ) -> ModelVersion | None:
        return self._ledger.decide(candidate, stage, decision, why, self.stages)

    def _roll_back(self, name: str, stage: str, why: str) -> ModelVersion:
        return self._ledger.roll_back(name, stage, why, self.stages)

    def _edit_version(self, name: str, version: int, edit: Edit, why: str) -> ModelVersion:
        return self._ledger.edit_version(name, version, edit, why)

    def _edit_model(self, name: str, edit: Edit, why: str) -> None:
        self._ledger.edit_model(name, edit, why)

    def _delete_versions(self, name: str, versions: Sequence[int], why: str) -> None:
        self._ledger.delete(name, versions, self._unheld, why)

    def _note(self, line: Line, last: int) -> HistoryEntry | None:
        return self._ledger.note(line, last)

    def _attach(self, version: ModelVersion, kind: str, content: bytes, line: Line) -> None:
        self._ledger.attach(version, kind, content, line)

    def _attachment(self, version: ModelVersion, kind: str) -> bytes | None:
        return self._ledger.attachment(version, kind)

    def _all_models(self) -> list[str]:
        return self._ledger.names()

    def _manifest(self, version: ModelVersion) -> bytes:
        what = f"The manifest of version {version.version} of {version.name!r}"
        try:
            return self._blobs.verify(version.digest).read_bytes()
        except NotFound as exc:
            raise IntegrityError(what, version.digest, "missing") from exc

    def _fetch(self, version: ModelVersion, manifest: Manifest, folder: Path) -> None:
        what = f"version {version.version} of {version.name!r}"
        blobs.fetch(self._blobs, manifest, folder, what)

    def _collect(
        self, keep: Iterable[str], going: Mapping[str, Collection[int]], *, dry_run: bool
    ) -> list[Removed]:
        with self._bytes_stay(alone=True):
            needed: set[str] = set()
            for name in self._ledger.names():  # Some may be newer than the question.
                gone = going.get(name, ())
                with suppress(NotFound):
                    there = self._ledger.versions(name)
                    needed |= {each.digest for each in there if each.version not in gone}
            # Of a deleted version the files may have gone in a shorter window before.
            return blobs.collect(self._blobs, needed, set(keep) - needed, dry_run=dry_run)

    @contextmanager
    def _bytes_stay(self, *, alone: bool = False) -> Iterator[None]:
        """Hold the lock under which bytes that no version names yet are not collected.

        The system lets go of it when a process dies.
        """
        path = self._blobs_lock
        with disk_errors(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with disk_errors(path):
                fcntl.flock(fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    @property
    def _ledger(self) -> Ledger:
        return self._store()[0]

    @property
    def _blobs(self) -> Blobs:
        return self._store()[1]

    @property
    def _blobs_lock(self) -> Path:
        return self._blobs.root.with_name("blobs.lock")

    def _webhooks_folder(self) -> Path:
        return self._blobs.root.parent

    def _store(self) -> tuple[Ledger, Blobs]:
        if self._opened is not None:
            return self._opened
        with self._lock:
            if self._opened is None:
                # The home may have been relative, and the working folder may change.
                folder = self._location or Path(self.context.home).absolute() / "registry"
                make_private_folder(folder)
                ledger = Ledger(folder / "registry.db", self.actor, self.stages.initial)
                self._opened = (ledger, Blobs(folder / "blobs"))
            return self._opened


@hookimpl
def make_registry(location: str | None, options: Mapping[str, Any], context: Context) -> Registry:
    """Build the embedded registry."""
    registry = LocalRegistry(location, **options)
    registry.context = context
    return registry

"""A registry without a server: SQLite for the words, files by digest for the bytes."""

from __future__ import annotations

import getpass
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit.capabilities import Capabilities
from mlopskit.errors import InvalidInput, NotFound
from mlopskit.hookspecs import hookimpl
from mlopskit.registry import blobs
from mlopskit.registry.base import Registry
from mlopskit.registry.blobs import Manifest
from mlopskit.registry.entities import StageGraph
from mlopskit.registry.ledger import Ledger
from mlopskit.registry.tables import Row
from mlopskit.storage import Blobs, make_private_folder

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from mlopskit.registry.details import Details
    from mlopskit.registry.entities import (
        Decision,
        HistoryEntry,
        ModelVersion,
        RegisteredModel,
        Signature,
    )
    from mlopskit.registry.flavors import Package
    from mlopskit.registry.references import Ref
    from mlopskit.tool import Context

# scikit-learn and skops are needed by models of scikit-learn alone, so they are not required here.
TOOL = {"package": "mlopskit", "extra": "sklearn"}
CAPABILITIES = {
    "aliases": "native",
    "approval": "absent: promote() decides at once; ask the person before you call it",
    "atomic_register": "native",
    "custom_stages": "native",
    "gates": "native",
    "history": "native",
    "integrity": "native",
    "offline": "native",
    "remote": "absent: the registry is a folder of this machine",
    "signing": "absent: digests show damage, and not who wrote the bytes",
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
    """

    def __init__(
        self,
        location: str | os.PathLike[str] | None = None,
        *,
        stages: StageGraph | Mapping[str, Any] | Sequence[str] | None = None,
        actor: str | None = None,
    ) -> None:
        self.stages = StageGraph.of(stages)
        self._location = None if location is None else Path(location).expanduser().absolute()
        self._actor = actor
        self._lock = threading.Lock()
        self._opened: tuple[Ledger, Blobs] | None = None

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

    def at(self, name: str, stage: str, when: datetime) -> ModelVersion:
        """Return the version that held a stage at a time, as it stands now."""
        self._check_stage(stage)
        if not isinstance(when, datetime):
            raise InvalidInput(f"{when!r} is no time. Pass a datetime; without a zone it is UTC.")
        moment = when.replace(tzinfo=UTC) if when.tzinfo is None else when
        found = self._ledger.holder_at(name, stage, moment)
        if found is None:
            raise NotFound(f"version of {name!r} that held {stage!r} at", moment.isoformat())
        return self._ledger.version(name, found)

    def _register(
        self, name: str, package: Package, signature: Signature | None, details: Details
    ) -> ModelVersion:
        # The bytes first: until the row is committed nobody knows of them, and equal bytes of a
        # repetition are found again.
        manifest = Manifest(
            flavor=package.flavor,
            files=blobs.store(self._blobs, package.files),
            libraries=dict(package.libraries),
            python=package.python,
            signature=signature,
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

    def _fetch(self, version: ModelVersion, folder: Path) -> Manifest:
        what = f"version {version.version} of {version.name!r}"
        return blobs.fetch(self._blobs, version.digest, folder, what)

    @property
    def _ledger(self) -> Ledger:
        return self._store()[0]

    @property
    def _blobs(self) -> Blobs:
        return self._store()[1]

    def _store(self) -> tuple[Ledger, Blobs]:
        if self._opened is not None:
            return self._opened
        with self._lock:
            if self._opened is None:
                # The home may have been relative, and the working folder may change.
                folder = self._location or Path(self.context.home).absolute() / "registry"
                make_private_folder(folder)
                ledger = Ledger(folder / "registry.db", self._actor or _user(), self.stages.initial)
                self._opened = (ledger, Blobs(folder / "blobs"))
            return self._opened


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container's user often has no name.
        return f"uid {os.getuid()}"


@hookimpl
def make_registry(location: str | None, options: Mapping[str, Any], context: Context) -> Registry:
    """Build the embedded registry."""
    registry = LocalRegistry(location, **options)
    registry.context = context
    return registry

"""A tool that can do next to nothing, and a registry on it: versions, and lists that only grow."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlopskit.capabilities import Capabilities
from mlopskit.errors import IntegrityError, NotFound, Unavailable
from mlopskit.registry import CAPABILITIES, ModelVersion, blobs
from mlopskit.registry.chronicle import Chronicle, ChronicledRegistry
from mlopskit.registry.details import manifest_of
from mlopskit.registry.standing import NativeModel, NativeVersion, Standing
from mlopskit.storage import Blobs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.details import Details
    from mlopskit.registry.entities import Removed, Signature
    from mlopskit.registry.flavors import Package


@dataclass
class Shelf:
    """A tool: versions by model, one alias for each stage, and lists that only grow."""

    folder: Path
    versions: dict[str, list[NativeVersion]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    shown: dict[tuple[str, str], int] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    away: str = ""
    lock: Any = field(default_factory=threading.Lock)

    def ask(self, what: str) -> None:
        self.asked.append(what)
        if what == self.away:
            raise Unavailable("the shelf", f"{what} failed")


class ShelfChronicle(Chronicle):
    def __init__(self, actor: str, shelf: Shelf) -> None:
        super().__init__(actor)
        self.shelf = shelf
        self.before: Callable[[], object] = lambda: None

    def _texts(self, name: str) -> list[str]:
        self.shelf.ask("read")
        return list(self.shelf.lists.get(name, []))

    def _all_texts(self) -> dict[str, list[str]]:
        return {name: list(texts) for name, texts in self.shelf.lists.items()}

    def _put(self, name: str, place: int, text: str) -> bool:
        self.shelf.ask("put")
        before, self.before = self.before, lambda: None
        before()
        with self.shelf.lock:
            texts = self.shelf.lists.setdefault(name, [])
            if len(texts) == place - 1:
                texts.append(text)
            return texts[place - 1] == text


class ShelfRegistry(ChronicledRegistry):
    def __init__(self, shelf: Shelf, actor: str = "ada", **options: Any) -> None:
        self.stages = self.stages.of(options.get("stages"))
        self.shelf = shelf
        self.actor = actor
        self.chronicle = ShelfChronicle(actor, shelf)
        self.blobs = Blobs(shelf.folder)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("registry", "shelf", dict.fromkeys(CAPABILITIES, "native"))

    @property
    def native(self) -> Shelf:
        return self.shelf

    def ping(self, timeout_s: float = 5.0) -> None:
        self.shelf.ask("ping")

    def close(self) -> None:
        pass

    @property
    def _chronicle(self) -> ShelfChronicle:
        return self.chronicle

    def _native_names(self) -> list[str]:
        return sorted(name for name, versions in self.shelf.versions.items() if versions)

    def _native_model(self, name: str) -> NativeModel:
        self.shelf.ask("model")
        with self.shelf.lock:
            versions = tuple(self.shelf.versions.get(name, []))
            shown = {k[1]: v for k, v in self.shelf.shown.items() if k[0] == name}
        return NativeModel(versions, details=shown)

    def _native_version(self, name: str, number: int) -> NativeVersion | None:
        self.shelf.ask("version")
        found = [v for v in self.shelf.versions.get(name, []) if v.version.version == number]
        return found[0] if found else None

    def _upload(
        self,
        name: str,
        package: Package,
        signature: Signature | None,
        details: Details,
        told: Callable[[int, int], object] | None,
    ) -> NativeVersion:
        manifest = manifest_of(package, blobs.store(self.blobs, package.files, told), signature)
        digest, _ = self.blobs.put(manifest.canonical)
        fields = {
            key: getattr(details, key) for key in ("run_id", "metrics", "tags", "description")
        }
        return self.add(
            name,
            digest=digest,
            flavor=manifest.flavor,
            size=manifest.size,
            signature=signature,
            lineage=details.lineage(package),
            **fields,
        )

    def add(self, name: str, mark: str = "", **fields: Any) -> NativeVersion:
        with self.shelf.lock:
            number = self.shelf.numbers.get(name, 0) + 1
            self.shelf.numbers[name] = number
            given = {"digest": "", "created_at": datetime.now(UTC), "stage": "none", **fields}
            made = NativeVersion(
                ModelVersion(name=name, version=number, **given), mark or f"m{number}", self.actor
            )
            self.shelf.versions.setdefault(name, []).append(made)
            return made

    def _project(self, standing: Standing) -> bool:
        stale = bool(standing.deleted)
        for gone in standing.deleted:
            self.shelf.ask("remove")
            self.shelf.versions[standing.name].remove(gone)
        for stage, version in standing.holders.items():
            if standing.native.details.get(stage) != version:
                self.shelf.ask("show")
                self.shelf.shown[standing.name, stage] = version
                stale = True
        return stale

    def _manifest(self, version: ModelVersion) -> bytes:
        try:
            return self.blobs.verify(version.digest).read_bytes()
        except NotFound as exc:
            raise IntegrityError("The manifest", version.digest, "missing") from exc

    def _fetch(self, version: ModelVersion, manifest: Manifest, folder: Path) -> None:
        blobs.fetch(self.blobs, manifest, folder, version.name)

    def _collect(
        self, keep: Collection[str], going: Mapping[str, Collection[int]], *, dry_run: bool
    ) -> list[Removed]:
        return blobs.collect(self.blobs, (), keep, dry_run=dry_run)

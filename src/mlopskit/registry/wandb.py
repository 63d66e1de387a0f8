"""The registry in Weights & Biases: artifacts, linked into a registry of the organization.

W&B keeps the versions and shows them; what happens to them is in chronicles, see
`wandb_chronicle`, and how a version lies there in `wandb_layout`. A version is there from the
moment that it is linked: what a registration stored before that nobody sees.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import wandb
from wandb.errors import AuthenticationError
from wandb.sdk import wandb_setup

from mlopskit.capabilities import Capabilities
from mlopskit.errors import (
    BackendError,
    ConfigError,
    IntegrityError,
    InvalidName,
    MlopskitError,
    NotFound,
    StorageError,
    Unavailable,
    Unsupported,
)
from mlopskit.hookspecs import hookimpl
from mlopskit.registry import about, blobs
from mlopskit.registry import wandb_layout as layout
from mlopskit.registry import wandb_questions as questions
from mlopskit.registry.backend import login_name
from mlopskit.registry.chronicle import ChronicledRegistry
from mlopskit.registry.details import manifest_of
from mlopskit.registry.entities import Removed
from mlopskit.registry.stages import StageGraph
from mlopskit.registry.standing import NativeModel
from mlopskit.registry.wandb_api import Api, Clash, Refused, save
from mlopskit.registry.wandb_artifacts import Artifacts, Collection
from mlopskit.registry.wandb_chronicle import ENTRIES, HISTORY, RUN, WandbChronicle
from mlopskit.registry.wandb_contents import Content
from mlopskit.registry.wandb_projection import spare, steps
from mlopskit.storage import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Collection as Some
    from pathlib import Path

    from mlopskit.registry.base import Registry
    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.details import Details
    from mlopskit.registry.entities import ModelVersion, Signature
    from mlopskit.registry.flavors import Package
    from mlopskit.registry.signing.keys import Pem
    from mlopskit.registry.standing import NativeVersion, Standing
    from mlopskit.tool import Context

    Json = dict[str, Any]

TOOL = {
    "package": "wandb",
    "extra": "wandb",
    "requires": {"wandb": ">=0.31,<0.32"},
    "telemetry": (
        "The registry asks W&B's server over HTTP and reports nothing else. Only `native` starts "
        "W&B's service, which reports errors and measurements of itself to sentry.io and to the "
        "server. WANDB_ERROR_REPORTING=false switches it off."
    ),
}
CAPABILITIES = {
    "aliases": "emulated: kept in the chronicle, and set in W&B too",
    "approval": "emulated: kept in the chronicle",
    "atomic_register": "native",
    "custom_stages": "emulated: kept in the chronicle",
    "deduplication": "native",
    "gates": "emulated: decisions are kept in the chronicle",
    "gc": "emulated: artifacts that no version needs are deleted; W&B frees their bytes later",
    "history": "emulated: artifacts of the source project, linked into a collection for each model",
    "integrity": "emulated: mlopskit verifies whatever it reads; W&B's own clients compare MD5",
    "offline": "absent: W&B links artifacts on its server alone",
    "remote": "native",
    "signing": "emulated: kept in the chronicle",
    "stages": "emulated: W&B has an alias named like the stage",
}
TABLE = Capabilities("registry", "wandb", CAPABILITIES)
PREFIX: Final = "wandb-registry-"
PROJECT: Final = "mlopskit-registry"


class WandbRegistry(ChronicledRegistry):
    """Keeps models in a registry of a W&B organization.

    Args:
        location: The source project, which keeps the bytes and the history, as ``project`` or
            ``entity/project``; ``mlopskit-registry`` if left out. It is made if there is none.
        registry: W&B's registry, whose collections show the versions. It must exist, and take
            artifacts of the type ``model``.
        entity: The team or user; ``WANDB_ENTITY`` if left out, else the default one.
        organization: The organization, where the entity is a user with several.
        stages: The graph of stages: a `StageGraph`, its fields as a table, or a list of stages in
            their order.
        actor: Who the history names; the user's login name by default.
        require_signature: A public key or certificates, as the path of a PEM file, or a list of
            these: a version that none of them has signed is not handed out.
        webhooks: Tables with ``url`` and ``secret``: who is told what happens to models.
        mode: ``"online"``; ``WANDB_MODE`` if left out.
        base_url: The server; ``WANDB_BASE_URL`` if left out.
        api_key: The key; ``WANDB_API_KEY``, or that of ``wandb login``, if left out.
        connect_timeout_s: How long to wait for an answer before the server counts as down.

    Raises:
        ConfigError: If the location cannot be taken.
        Unsupported: If W&B is to work offline.
    """

    def __init__(
        self,
        location: str | None = None,
        *,
        registry: str = "model",
        entity: str | None = None,
        organization: str | None = None,
        stages: StageGraph | Mapping[str, Any] | Sequence[str] | None = None,
        actor: str | None = None,
        require_signature: Pem | Sequence[Pem] | None = None,
        webhooks: Sequence[Mapping[str, Any]] | None = None,
        mode: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        connect_timeout_s: float = 5.0,
    ) -> None:
        found = mode or os.environ.get("WANDB_MODE") or "online"
        if found != "online":
            raise Unsupported("registry", "wandb", "offline", f"{TABLE['offline'].note} ({found=})")
        head, _, project = (location or "").rpartition("/")
        if "/" in head:
            raise ConfigError(f"{location!r} is no W&B project such as 'models' or 'team/models'.")
        self.stages = StageGraph.of(stages)
        self.actor = login_name() if actor is None else actor
        self.project = project or PROJECT
        self.registry = registry.removeprefix(PREFIX)
        self._given_entity = entity or head or os.environ.get("WANDB_ENTITY") or None
        self._organization = organization
        self._given_url = base_url or os.environ.get("WANDB_BASE_URL")
        self._api = Api(self.base_url, api_key, connect_timeout_s)
        self._artifacts = Artifacts(self._api)
        self._own = WandbChronicle(
            self.actor,
            self._artifacts,
            self._source_project,
            self._registry_place,
            self._is_registry,
        )
        self._entity: str | None = self._given_entity
        self._org_entity: str | None = None
        self._is_there = False
        self._abouts: dict[str, bytes] = {}
        self._clients: dict[int, Any] = {}
        self._require_signatures(require_signature)
        self._call_webhooks(webhooks)

    @property
    def base_url(self) -> str:
        """The server: W&B's own, or that of ``wandb login --host``, where nobody named one."""
        return (self._given_url or str(wandb_setup.singleton().settings.base_url)).rstrip("/")

    @property
    def target(self) -> str:
        """The server, the source project and the registry."""
        where = f"{self._given_entity}/{self.project}" if self._given_entity else self.project
        return f"wandb:{self.base_url.rpartition('@')[2]}/{where}:{PREFIX}{self.registry}"

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return TABLE

    @property
    def native(self) -> Any:
        """`wandb.Api` of the server. Its first question starts W&B's service."""
        pid = os.getpid()
        if pid not in self._clients:
            self._viewer()  # W&B's own client would ask for a key on the terminal.
            try:
                self._clients[pid] = wandb.Api(
                    overrides={"base_url": self.base_url}, api_key=self._api.key()
                )
            except AuthenticationError as exc:
                raise Unavailable(self._api.name, f"{exc} Set WANDB_API_KEY.") from exc
            except wandb.Error as exc:
                raise BackendError(f"{self._api.name}: {exc}") from exc
        return self._clients[pid]

    def ping(self, timeout_s: float = 5.0) -> None:
        """Ask the server who we are."""
        self._viewer(timeout_s)

    def close(self) -> None:
        """Do nothing: every request has a connection of its own."""

    # What the shared part is built on.

    @property
    def _chronicle(self) -> WandbChronicle:
        return self._own

    def _native_names(self) -> list[str]:
        where = self._linked("")
        names = self._artifacts.names(where.entity, where.project, layout.TYPE)
        return sorted(name for name in names if about.is_model(name))

    def _native_model(self, name: str) -> NativeModel:
        where = self._linked(name)
        collection, versions = self._artifacts.versions(where, layout.TYPE)
        if not collection:
            return NativeModel()
        return layout.native_model(where, collection, versions, self.stages, self._about(where))

    def _native_version(self, name: str, number: int) -> NativeVersion | None:
        where = self._linked(name)
        found = self._artifacts.version(where, number - 1)
        if found is None:
            return None
        return layout.native_version(where, found, self.stages, self._about(where))

    def _upload(
        self,
        name: str,
        package: Package,
        signature: Signature | None,
        details: Details,
        told: Callable[[int, int], object] | None,
    ) -> NativeVersion:
        if name.startswith((ENTRIES, HISTORY)):
            raise InvalidName("model", name, "the registry in W&B keeps histories under such names")
        layout.check_files(path for path, _ in package.files)
        self._check_registry()
        kept, contents = _read(package)
        manifest = manifest_of(package, kept, signature)
        whole = layout.text(manifest, details.lineage(package), details, self.actor)
        source = Collection(*self._source_project(), name)
        made = self._artifacts.put(
            source,
            layout.TYPE,
            RUN,
            [
                *contents,
                Content.of(layout.MANIFEST, manifest.canonical),
                Content.of(layout.ABOUT, whole.encode()),
            ],
            layout.metadata(whole, manifest, details),
            description=layout.shortened(details.description),
            told=_progress(manifest.size, told),
        )
        self._check(source, made, manifest)
        where = self._linked(name)
        index = self._artifacts.link(made["id"], where)
        stands = {**made, "index": index}
        return layout.native_version(where, stands, self.stages, lambda _: whole.encode())

    def _check(self, source: Collection, made: Json, manifest: Manifest) -> None:
        """See that what was committed is all there, before anybody else sees it.

        Raises:
            StorageError: If it is not.
        """
        index = int(made["versionIndex"])
        addresses = self._artifacts.addresses(source, index)
        for file in manifest.files:
            if file.path not in addresses:
                raise StorageError(
                    f"{file.path!r} was stored in {self._api.name}, and is not there."
                )
        text = self._artifacts.read(source, index, layout.MANIFEST, manifest.digest)
        if text != manifest.canonical:
            raise StorageError(
                f"The manifest of {source.name}:v{index} in {self._api.name} does not read back as "
                "it was written."
            )

    def _project(self, standing: Standing) -> bool:
        shown = standing.native.details
        if not isinstance(shown, layout.Shown):
            return False
        asked, refused = False, None
        for step in steps(self._api, self._linked(standing.name), standing, shown):
            asked = True
            try:
                step()
            except (Refused, Clash) as exc:
                # Protected aliases are for some only; the rest is for all.
                refused = refused or exc
        if refused is not None:
            raise refused
        return asked

    def _manifest(self, version: ModelVersion) -> bytes:
        where = self._linked(version.name)
        return self._artifacts.read(where, version.version - 1, layout.MANIFEST, version.digest)

    def _fetch(self, version: ModelVersion, manifest: Manifest, folder: Path) -> None:
        addresses = self._addresses(version)
        for file in manifest.files:
            what = f"The file {file.path!r} of version {version.version} of {version.name!r}"
            if file.path not in addresses:
                raise IntegrityError(what, file.sha256, "missing")
            self._get_file(addresses[file.path], what, folder / file.path)

    def _foreign_files(
        self, version: ModelVersion
    ) -> Iterator[tuple[str, Callable[[Path], object]]]:
        for path, address in self._addresses(version).items():
            what = f"The file {path!r} of version {version.version} of {version.name!r}"
            yield path, partial(self._get_file, address, what)

    def _addresses(self, version: ModelVersion) -> Mapping[str, str]:
        return self._artifacts.addresses(self._linked(version.name), version.version - 1)

    def _get_file(self, address: str, what: str, target: Path) -> None:
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            save(self._api.fetch(address, what), target)

    def _collect(
        self, keep: Some[str], going: Mapping[str, Some[int]], *, dry_run: bool
    ) -> list[Removed]:
        removed = []
        entity, project = self._source_project()
        for name in sorted(self._artifacts.names(entity, project, layout.TYPE)):
            if not about.is_model(name):
                continue
            source = Collection(entity, project, name)
            _, stored = self._artifacts.versions(source, layout.TYPE)
            standing = self._standing(name)  # After the artifacts, so that it knows what they are.
            gone = going.get(name, ())
            for each in spare(standing, stored, keep, datetime.now(UTC), going=gone):
                removed += self._told_of(source, each)
                if not dry_run:
                    self._artifacts.delete(each["id"])
        return removed

    def _told_of(self, source: Collection, stored: Json) -> list[Removed]:
        """Return what an artifact holds by its manifest; nothing if that cannot be read."""
        try:
            text = self._artifacts.read(source, stored["index"], layout.MANIFEST, source.name)
            manifest = blobs.read(text, source.name)
        except MlopskitError:
            return []
        kept = [Removed(digest=file.sha256, size=file.size) for file in manifest.files]
        return [*kept, Removed(digest=manifest.digest, size=len(text))]

    # Where things are.

    def _source_project(self) -> tuple[str, str]:
        if self._entity is None:
            viewer = self._viewer()
            if not viewer.get("entity"):
                raise ConfigError(
                    f"The W&B user {viewer.get('username')!r} has no default entity. Pass "
                    f"entity=..., or a location such as 'team/{self.project}'."
                )
            self._entity = str(viewer["entity"])
        return self._entity, self.project

    def _viewer(self, timeout_s: float | None = None) -> Json:
        """Return who we are.

        Raises:
            Unavailable: If the server does not know.
        """
        found: Json | None = self._api.ask(questions.VIEWER, timeout_s=timeout_s).get("viewer")
        if not found:
            why = "it does not know the key; set WANDB_API_KEY, or run 'wandb login'"
            raise Unavailable(self._api.name, why)
        return found

    def _linked(self, name: str) -> Collection:
        """Return the collection of the registry that shows a model."""
        if self._org_entity is None:
            self._org_entity = self._find_organization(self._source_project()[0])
        return Collection(self._org_entity, PREFIX + self.registry, name)

    def _registry_place(self) -> tuple[str, str]:
        where = self._linked("")
        return where.entity, where.project

    def _is_registry(self, entity: str, project: str) -> bool:
        said = self._api.ask(questions.REGISTRY, {"name": project, "entity": entity})
        return bool((said.get("entity") or {}).get("project"))

    def _find_organization(self, entity: str) -> str:
        """Return the entity of the organization that an entity belongs to."""
        said = self._api.ask(questions.ORGANIZATION, {"entity": entity}).get("entity") or {}
        found = [said["organization"]] if said.get("organization") else []
        found += (said.get("user") or {}).get("organizations") or []
        names = {
            each["name"]: str(each["orgEntity"]["name"])
            for each in found
            if each.get("orgEntity")  # An organization without one has no registries.
        }
        if self._organization is not None:
            if self._organization in names:
                return names[self._organization]
            if self._organization in names.values():
                return self._organization
            raise NotFound(f"organization of the W&B entity {entity!r}", self._organization, names)
        if len(names) != 1:
            there = ", ".join(sorted(names)) or "none"
            raise ConfigError(
                f"The W&B entity {entity!r} belongs to these organizations: {there}. A registry is "
                "one organization's: pass organization=..., or a team of one as the entity."
            )
        return next(iter(names.values()))

    def _check_registry(self) -> None:
        """See that W&B's registry is there, which must be made with its rules by whoever may.

        Raises:
            NotFound: If it is not.
            ConfigError: If the source project is another registry's.
        """
        if self._is_there:
            return
        entity, project = self._registry_place()
        if not self._is_registry(entity, project):
            raise NotFound(f"registry of the W&B organization {entity!r}", self.registry)
        self._own.check_project()
        self._is_there = True

    def _about(self, where: Collection) -> Callable[[Json], bytes]:
        """Return what reads the file beside a version's files, once for each version."""

        def read(version: Json) -> bytes:
            key = str(version["id"])
            if key not in self._abouts:
                self._abouts[key] = self._artifacts.read(
                    where, version["index"], layout.ABOUT, "what was registered"
                )
            return self._abouts[key]

        return read


def _read(package: Package) -> tuple[tuple[blobs.ManifestFile, ...], list[Content]]:
    """Read a package's files once: what a manifest says of them, and what W&B is sent."""
    kept, contents = [], []
    for name, path in package.files:
        digest = hashlib.sha256()
        with blobs.steady(path):
            content = Content.of(name, path, digest.update)
        contents.append(content)
        kept.append(
            blobs.ManifestFile(path=name, size=content.size, sha256=f"sha256:{digest.hexdigest()}")
        )
    return tuple(kept), contents


def _progress(total: int, told: Callable[[int, int], object] | None) -> Callable[[int], object]:
    done = 0

    def more(size: int) -> None:
        nonlocal done
        done += size
        if told is not None and done <= total:
            told(done, total)

    return more


@hookimpl
def make_registry(location: str | None, options: Mapping[str, Any], context: Context) -> Registry:
    """Build a registry on W&B."""
    registry = WandbRegistry(location, **options)
    registry.context = context
    return registry

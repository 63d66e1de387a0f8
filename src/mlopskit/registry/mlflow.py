"""The registry in MLflow: a database of its own, or a tracking server.

MLflow keeps the versions and shows them; what happens to them is in chronicles, see
`mlflow_chronicle`, and how a version lies there in `mlflow_layout`.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
import time
import weakref
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlopskit import mlflow_stores as stores
from mlopskit.capabilities import Capabilities
from mlopskit.errors import (
    BackendError,
    Conflict,
    InvalidModel,
    MissingDependency,
    UntrustedModel,
)
from mlopskit.hookspecs import hookimpl
from mlopskit.registry import about, sources
from mlopskit.registry import mlflow_layout as layout
from mlopskit.registry.backend import login_name
from mlopskit.registry.chronicle import ChronicledRegistry
from mlopskit.registry.details import manifest_of
from mlopskit.registry.flavors import mlflow_pyfunc
from mlopskit.registry.mlflow_chronicle import MlflowChronicle, all_pages, patiently
from mlopskit.registry.mlflow_files import Files, is_young, new_folder, stored_name
from mlopskit.registry.mlflow_projection import steps
from mlopskit.registry.stages import StageGraph
from mlopskit.registry.standing import NativeModel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

    from mlopskit.registry.base import Registry
    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.details import Details
    from mlopskit.registry.entities import ModelVersion, Removed, Signature
    from mlopskit.registry.flavors import Package
    from mlopskit.registry.references import Ref
    from mlopskit.registry.signing.keys import Pem
    from mlopskit.registry.standing import NativeVersion, Standing
    from mlopskit.tool import Context

TOOL = {
    "package": "mlflow",
    "extra": "mlflow",
    "requires": {"mlflow": ">=3.10,<4"},
    "telemetry": (
        "MLflow sends the names and durations of the calls made to it, its version, the Python "
        "version, the platform and a random installation id to config.mlflow-telemetry.io's "
        "ingestion, at most every 10 seconds. MLFLOW_DISABLE_TELEMETRY=true or DO_NOT_TRACK=true "
        "switches it off."
    ),
}
CAPABILITIES = {
    "aliases": "emulated: kept in the chronicle, and set in MLflow too; MLflow has none with a dot",
    "approval": "emulated: kept in the chronicle",
    "atomic_register": "native",
    "custom_stages": "emulated: kept in the chronicle",
    "deduplication": "absent: a version is a folder of plain files, for MLflow's own clients",
    "gates": "emulated: decisions are kept in the chronicle",
    "gc": "emulated: folders that no version names are removed where MLflow's file store can do so",
    "history": "emulated: params of a run for each model, which MLflow never changes",
    "integrity": "emulated: mlopskit verifies whatever it reads; MLflow's own clients do not",
    "offline": "native",
    "remote": "native",
    "signing": "emulated: kept in the chronicle",
    "stages": "emulated: MLflow has an alias named like the stage; its own stages are deprecated",
}
TABLE = Capabilities("registry", "mlflow", CAPABILITIES)
CREATE_TRIES: Final = 40
PAGE: Final = 1000
# Within that time nobody asks again whether a server is up.
FRESH_S: Final = 1.0


class MlflowRegistry(ChronicledRegistry):
    """Keeps models in MLflow's database, or on an MLflow server.

    Args:
        location: A URI such as ``sqlite:///mlflow.db`` or ``http://host:5000``. Left out,
            ``MLFLOW_REGISTRY_URI``, then ``MLFLOW_TRACKING_URI``, and where these are silent
            ``sqlite:///mlflow.db``.
        stages: The graph of stages: a `StageGraph`, its fields as a table, or a list of stages in
            their order.
        actor: Who the history names; the user's login name by default.
        require_signature: A public key or certificates, as the path of a PEM file, or a list of
            these: a version that none of them has signed is not handed out.
        webhooks: Tables with ``url`` and ``secret``: who is told what happens to models.
        artifact_location: Where the files are kept, such as ``s3://bucket/models``; it counts when
            the first model is registered. Left out, where MLflow keeps those of new experiments:
            a server's own place, or ``mlruns`` in the working folder.
        connect_timeout_s: How long to wait for a server before it counts as down.

    Raises:
        ConfigError: If the location is a folder: MLflow no longer keeps models in files.
    """

    def __init__(
        self,
        location: str | None = None,
        *,
        stages: StageGraph | Mapping[str, Any] | Sequence[str] | None = None,
        actor: str | None = None,
        require_signature: Pem | Sequence[Pem] | None = None,
        webhooks: Sequence[Mapping[str, Any]] | None = None,
        artifact_location: str | None = None,
        connect_timeout_s: float = 5.0,
    ) -> None:
        self.stages = StageGraph.of(stages)
        self.actor = login_name() if actor is None else actor
        self.uri = stores.checked_uri(
            location
            or os.environ.get("MLFLOW_REGISTRY_URI")
            or os.environ.get("MLFLOW_TRACKING_URI")
        )
        self.connect_timeout_s = connect_timeout_s
        self._clients: dict[int, MlflowClient] = {}
        self._reached = -FRESH_S
        self._own = MlflowChronicle(self.actor, self._client, self._asking, artifact_location)
        # Where the files of each version are, as far as it was seen.
        self._addresses: dict[tuple[str, int, datetime], str] = {}
        self._require_signatures(require_signature)
        self._call_webhooks(webhooks)

    @property
    def target(self) -> str:
        """The URI, without a password."""
        return f"mlflow:{stores.public_uri(self.uri)}"

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return TABLE

    @property
    def native(self) -> MlflowClient:
        """MLflow's client. Its first use makes or upgrades a database, under a file lock."""
        pid = os.getpid()
        if pid not in self._clients:
            with self._asking(), stores.store_lock(self.uri):
                try:
                    stores.look_into(self.uri)
                    client = MlflowClient(self.uri, self.uri)
                    stores.remember(client, registry=True)
                    self._clients[pid] = client
                except ImportError as exc:  # The driver of a database is the user's choice.
                    raise MissingDependency(
                        f"MLflow at {self.target}", str(exc.name), f"pip install {exc.name}"
                    ) from exc
        return self._clients[pid]

    def ping(self, timeout_s: float = 5.0) -> None:
        """Ask a server for its health once, or a database for its first model."""
        stores.reach(self.uri, self.target, timeout_s)
        if not self.uri.startswith("http"):
            with self._asking():
                self.native.search_registered_models(max_results=1)

    def close(self) -> None:
        """Do nothing: MLflow keeps its connections for the life of the process."""

    def load(self, name: str, ref: Ref | None = None, trusted: bool = False) -> Any:
        """Return a version as an object.

        What others registered is loaded as MLflow's generic Python model, and nothing of it can be
        verified: MLflow keeps no digests.
        """
        if ref is None or sources.run_of(name) is not None:
            return super().load(name, ref, trusted)
        found = self.get_version(name, ref)
        if found.digest:
            return super().load(name, found.version, trusted)
        label = f"version {found.version} of {name!r}"
        if trusted is not True:
            raise UntrustedModel(label, "MLflow's models run whatever code they were saved with")
        folder = Path(tempfile.mkdtemp(prefix="mlopskit-"))
        try:
            model = self._loaded(found, folder, label)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # It may read its files whenever it predicts.
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        return model

    def _loaded(self, version: ModelVersion, folder: Path, label: str) -> Any:
        manifest = self._verified(version, folder)
        if not any(file.path == "MLmodel" for file in manifest.files):
            raise InvalidModel(f"{label} is no model of MLflow's. Get it with download().")
        return mlflow_pyfunc.load(folder, label, trusted=True)

    # What the shared part is built on.

    @property
    def _chronicle(self) -> MlflowChronicle:
        return self._own

    def _native_names(self) -> list[str]:
        with self._asking():
            client = self._client()
            found = all_pages(
                lambda token: client.search_registered_models(max_results=100, page_token=token)
            )
            return sorted(each.name for each in found if about.is_model(each.name))

    def _native_models(self) -> dict[str, NativeModel]:
        with self._asking():
            client = self._client()
            models = {
                each.name: each
                for each in all_pages(
                    lambda token: client.search_registered_models(max_results=100, page_token=token)
                )
                if about.is_model(each.name)
            }
            versions: dict[str, list[MlflowVersion]] = {name: [] for name in models}
            for each in self._search(None):
                if each.name in versions:
                    versions[each.name].append(each)
        return {
            name: layout.native_model(model, versions[name], self.stages)
            for name, model in models.items()
        }

    def _native_model(self, name: str) -> NativeModel:
        with self._asking():
            try:
                model = self._client().get_registered_model(name)
            except MlflowException as exc:
                if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return NativeModel()
            versions = self._search(f"name = '{name}'")
        return layout.native_model(model, versions, self.stages)

    def _native_version(self, name: str, number: int) -> NativeVersion | None:
        with self._asking():
            try:
                found = self._client().get_model_version(name, str(number))
            except MlflowException as exc:
                if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
        if layout.is_prompt(found):
            return None
        return layout.native_version(found, self._seen(found).aliases or (), self.stages)

    def _search(self, which: str | None) -> list[MlflowVersion]:
        client = self._client()
        # In MLflow's own order one that is changed meanwhile would move to a page that was read.
        order = ["name ASC", "version_number ASC"]
        found = all_pages(
            lambda token: client.search_model_versions(
                which, max_results=PAGE, order_by=order, page_token=token
            )
        )
        return [self._seen(each) for each in found]

    def _seen(self, version: MlflowVersion) -> MlflowVersion:
        self._addresses[layout.place_of(version)] = str(version.source)
        return version

    def _upload(
        self,
        name: str,
        package: Package,
        signature: Signature | None,
        details: Details,
        told: Callable[[int, int], object] | None,
    ) -> NativeVersion:
        # The bytes first: until MLflow has the version nobody knows of them.
        run, address = self._own.root(name)
        files = self._files(address)
        folder = new_folder()
        place = f"{layout.MODELS}/{folder}"
        manifest = manifest_of(package, files.put(place, package.files, told), signature)
        files.put_manifest(place, manifest)
        tags = layout.version_tags(manifest, details.lineage(package), details, folder, self.actor)
        with self._asking():
            self._make_model(name)
            made = self._make_version(
                name,
                source=f"{address}/{place}/{layout.FILES}",
                # A server takes files of its own only with the run that they are under.
                run_id=run,
                tags=tags,
                description=layout.shortened(details.description),
                await_creation_for=0,
            )
            made = self._first(name, folder, made)
        return layout.native_version(self._seen(made), (), self.stages)

    def _first(self, name: str, folder: str, made: MlflowVersion) -> MlflowVersion:
        """Return the version that has a folder, and delete those that MLflow's client made again.

        It sends every request to a server again whose answer does not come.
        """
        if not self.uri.startswith("http"):
            return made
        try:
            found = self._search(f"name = '{name}' and tags.`{layout.FOLDER}` = '{folder}'")
            first, *echoes = sorted(found, key=lambda each: int(each.version)) or [made]
            for each in echoes:
                self._client().delete_model_version(name, str(each.version))
        except (MlflowException, BackendError):  # The version is there, whatever else is not.
            return made
        return first

    def _make_model(self, name: str) -> None:
        """Make a model, in which MLflow then counts versions."""
        client = self._client()
        if self._has_model(name):
            return
        try:
            patiently(lambda: client.create_registered_model(name))
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            if not self._has_model(name):
                raise Conflict(
                    f"{name!r} is the name of a prompt in MLflow, where prompts and models share "
                    "their names. Choose another."
                ) from exc

    def _has_model(self, name: str) -> bool:
        try:
            return not layout.is_prompt(self._client().get_registered_model(name))
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _make_version(self, name: str, **given: Any) -> MlflowVersion:
        """Add a version. MLflow gives up after three others were quicker."""
        client = self._client()
        for number in range(CREATE_TRIES):
            try:
                return patiently(lambda: client.create_model_version(name, **given))
            except MlflowException as exc:
                if "Giving up after" not in str(exc) or number == CREATE_TRIES - 1:
                    raise
                time.sleep(random.uniform(0, min(1.0, 0.02 * 2**number)))  # noqa: S311 - no secret
        raise BackendError(f"{self.target} did not add a version of {name!r}.")

    def _project(self, standing: Standing) -> bool:
        shown = standing.native.details
        if not isinstance(shown, layout.Shown):
            return False
        asked = False
        with self._asking():
            for step in steps(self._client(), standing, shown, self.stages):
                try:
                    patiently(step)
                except MlflowException as exc:  # Somebody deleted it meanwhile.
                    if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                        raise
                asked = True
        return asked

    def _manifest(self, version: ModelVersion) -> bytes:
        address = self._address(version).removesuffix("/" + layout.FILES)
        return self._files(address).read(layout.MANIFEST, version.digest)

    def _fetch(self, version: ModelVersion, manifest: Manifest, folder: Path) -> None:
        files = self._files(self._address(version))
        for file in manifest.files:
            name = stored_name(file.path) if version.digest else file.path
            files.get(name, folder / file.path, file.sha256)

    def _foreign_files(
        self, version: ModelVersion
    ) -> Iterator[tuple[str, Callable[[Path], object]]]:
        files = self._files(self._address(version))
        for path, _ in list(files.walk()):
            yield path, partial(files.get, path, digest="what others registered")

    def _collect(
        self, keep: Collection[str], going: Mapping[str, Collection[int]], *, dry_run: bool
    ) -> list[Removed]:
        removed = []
        for name, address in sorted(self._own.roots().items()):
            files = self._files(address)
            there = files.folders()
            standing = self._standing(name)  # After the folders, so that it knows what they are of.
            now, gone = datetime.now(UTC), going.get(name, ())
            for folder in there:
                if not standing.is_spare(folder, keep, young=is_young(folder, now), going=gone):
                    continue
                place = f"{layout.MODELS}/{folder}"
                removed += files.told_of(place)
                if not dry_run:
                    files.remove(place)
        return removed

    def _webhooks_folder(self) -> Path:
        place = hashlib.sha256(self.uri.encode()).hexdigest()[:16]
        return super()._webhooks_folder() / place

    # The way to MLflow.

    def _client(self) -> MlflowClient:
        """Return the client, after seeing that its own minutes of retries will not be needed."""
        if time.monotonic() - self._reached >= FRESH_S:
            stores.reach(self.uri, self.target, self.connect_timeout_s)
            self._reached = time.monotonic()
        return self.native

    def _asking(self) -> AbstractContextManager[None]:
        return stores.translated(self.target, "model or version in MLflow")

    def _files(self, address: str) -> Files:
        self._client()
        return Files(address, self.uri, self.target)

    def _address(self, version: ModelVersion) -> str:
        """Return where the files of a version are."""
        key = (version.name, version.version, version.created_at)
        if key not in self._addresses or not version.digest:
            with self._asking():
                client = self._client()
                self._addresses[key] = str(
                    client.get_model_version_download_uri(version.name, str(version.version))
                )
        return self._addresses[key]


@hookimpl
def make_registry(location: str | None, options: Mapping[str, Any], context: Context) -> Registry:
    """Build a registry on MLflow."""
    registry = MlflowRegistry(location, **options)
    registry.context = context
    return registry

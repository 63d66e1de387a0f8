"""How a version lies in W&B, and what of a model W&B's own pages and clients show.

A version is an artifact: the model's files, and in the folder `FOLDER` the manifest and what was
registered beside it, whole and exact. The metadata has the latter once more where it is not too
long, so that nobody fetches a file to list versions.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import BackendError, InvalidModel
from mlopskit.registry import about
from mlopskit.registry.entities import ModelVersion
from mlopskit.registry.standing import NativeModel, NativeVersion
from mlopskit.registry.wandb_artifacts import is_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.details import Details
    from mlopskit.registry.entities import Lineage
    from mlopskit.registry.stages import StageGraph
    from mlopskit.registry.wandb_artifacts import Collection

    Json = dict[str, Any]

OWN: Final = "mlopskit_registry"
FOLDER: Final = "_mlopskit"
MANIFEST: Final = f"{FOLDER}/manifest.json"
ABOUT: Final = f"{FOLDER}/version.json"
TYPE: Final = "model"
# The flavor of what others linked: nobody has looked at the files.
FOREIGN: Final = "wandb"
LONGEST: Final = 20_000
LONGEST_TEXT: Final = 5_000
_AUTOMATIC: Final = re.compile(r"(latest|v\d+)\Z")


@dataclass(frozen=True, slots=True)
class Shown:
    """What W&B shows of a model now.

    Attributes:
        id: Of the collection.
        description: Of the collection.
        artifacts: The artifact of each version.
        aliases: Every alias but those that W&B gives by itself.
        descriptions: Of each version.
        last: The artifact that was linked last. Its link must stay: nobody promises that W&B would
            not give the number again.
    """

    id: str = ""
    description: str = ""
    artifacts: Mapping[int, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    descriptions: Mapping[int, str] = field(default_factory=dict)
    last: str = ""


# Writing.


def text(manifest: Manifest, lineage: Lineage, details: Details, by: str) -> str:
    """Return what is registered beside a model's files, as a text that differs from any other.

    W&B would take two registrations of equal files for one version.
    """
    return about.written(manifest, lineage, details, by, nonce=secrets.token_hex(16))


def metadata(whole: str, manifest: Manifest, details: Details) -> Json:
    """Return an artifact's metadata: all that is registered, and what people look at."""
    shown: Json = {"digest": manifest.digest, "flavor": manifest.flavor}
    if details.run_id is not None:
        shown["run_id"] = details.run_id
    # JSON has no infinities, and W&B's pages no use for them.
    shown["metrics"] = {k: v for k, v in details.metrics.items() if abs(v) < float("inf")}
    shown["tags"] = {k: shortened(v, 500) for k, v in details.tags.items()}
    return {OWN: whole if len(whole) <= LONGEST else {"file": ABOUT}, **shown}


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text as long as W&B's pages can use."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def check_files(names: Iterable[str]) -> None:
    """Refuse files that would lie where ours do.

    Raises:
        InvalidModel: If there is one.
    """
    for name in names:
        if name.partition("/")[0].lower() == FOLDER:
            raise InvalidModel(
                f"{name!r} is in {FOLDER!r}, where the registry in W&B keeps its own files. "
                "Rename that folder, or remove it if it came from a download."
            )


def is_alias(alias: str) -> bool:
    """Tell whether W&B leaves an alias to others."""
    return not _AUTOMATIC.match(alias)


# Reading.


def native_model(
    where: Collection,
    collection: Mapping[str, Any],
    versions: Sequence[Json],
    stages: StageGraph,
    read: Callable[[Json], bytes],
) -> NativeModel:
    """Return what W&B shows of a model.

    Args:
        where: The collection of the registry.
        collection: As W&B tells of it.
        versions: Its versions.
        stages: The graph of stages.
        read: Returns the file `ABOUT` of a version.
    """
    found = _without_echoes(versions)
    aliases = {alias: each["index"] + 1 for each in found for alias in _aliases(each, where)}
    return NativeModel(
        versions=tuple(native_version(where, each, stages, read) for each in found),
        description=str(collection.get("description") or ""),
        details=Shown(
            id=str(collection.get("id") or ""),
            description=str(collection.get("description") or ""),
            artifacts={each["index"] + 1: each["id"] for each in found},
            aliases=aliases,
            descriptions={each["index"] + 1: each["description"] or "" for each in found},
            last=max(versions, key=lambda each: int(each["index"]))["id"] if versions else "",
        ),
    )


def _without_echoes(versions: Iterable[Json]) -> list[Json]:
    """Return the versions in their order; an artifact that was linked twice is the first link's."""
    found: dict[str, Json] = {}
    for each in sorted(versions, key=lambda each: int(each["index"])):
        found.setdefault(each["id"], each)
    return list(found.values())


def native_version(
    where: Collection, version: Json, stages: StageGraph, read: Callable[[Json], bytes]
) -> NativeVersion:
    """Return what W&B shows of a version."""
    given = _aliases(version, where)
    fields: Json = {
        "name": where.name,
        "version": version["index"] + 1,
        "aliases": tuple(sorted(alias for alias in given if about.is_alias(alias, stages))),
        "stage": next((s for s in reversed(stages.order[1:]) if s in given), stages.initial),
        "created_at": time_of(version["createdAt"]),
    }
    kept = metadata_of(version)
    if OWN in kept:
        return _ours(version, kept[OWN], read, fields)
    fields |= {
        "digest": "",
        "flavor": FOREIGN,
        "description": version["description"] or "",
        "tags": {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in kept.items()
        },
    }
    return NativeVersion(ModelVersion.model_validate(fields), str(version["id"]))


def metadata_of(version: Mapping[str, Any]) -> Json:
    """Return an artifact's metadata."""
    given = version.get("metadata")
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def time_of(text: str) -> datetime:
    """Return a time of W&B's; one without a zone is UTC."""
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _ours(version: Json, kept: Any, read: Callable[[Json], bytes], shown: Json) -> NativeVersion:
    """Return a version by what mlopskit wrote beside it: in the metadata, or where they say."""
    try:
        found, by = about.read(read(version) if isinstance(kept, dict) else kept, shown)
        return NativeVersion(found, str(version["id"]), by)
    except (KeyError, ValueError, TypeError) as exc:
        raise BackendError(
            f"The metadata {OWN!r} of the artifact {version['id']} were changed in W&B, and cannot "
            f"be read: {exc}"
        ) from exc


def _aliases(version: Mapping[str, Any], where: Collection) -> list[str]:
    return [
        str(each["alias"])
        for each in version["aliases"]
        if is_of(each.get("artifactCollection"), where) and is_alias(each["alias"])
    ]

"""How a version lies in MLflow, and what of a model MLflow's own pages and clients can show.

Whole and exact it is in tags `mlopskit.version`, written by the request that adds the version.
Beside these MLflow gets what it has a place for, shortened where its columns are short.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import BackendError
from mlopskit.registry import about
from mlopskit.registry.entities import ModelVersion
from mlopskit.registry.standing import NativeModel, NativeVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.entities.model_registry import RegisteredModel as MlflowModel

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.details import Details
    from mlopskit.registry.entities import Lineage
    from mlopskit.registry.stages import StageGraph

OWN: Final = "mlopskit."
VERSION: Final = OWN + "version"
STAGE: Final = OWN + "stage"
FOLDER: Final = OWN + "folder"
FILES: Final = "files"
MANIFEST: Final = "manifest.json"
MODELS: Final = "models"
# The flavor of what others registered: nobody has looked at the files.
FOREIGN: Final = "mlflow"
# MLflow 3 keeps 100,000 characters of a version's tag, and MLflow 2 and a model's tags 5,000.
LONGEST: Final = 5000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KEY: Final = re.compile(r"[/\w. -]{1,250}\Z")
_ALIAS: Final = re.compile(r"(?!latest\Z|v\d+\Z)[\w-]+\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shown:
    """What MLflow shows of a model now.

    Attributes:
        aliases: Every alias, those named like a stage too.
        tags: The tags of the model.
        description: Of the model.
        version_tags: The tags of each version.
        version_descriptions: The description of each version.
        echoes: Versions that a repetition of a request made, whose first answer was lost.
    """

    aliases: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    version_tags: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    version_descriptions: Mapping[int, str] = field(default_factory=dict)
    echoes: tuple[int, ...] = ()


# Writing.


def version_tags(
    manifest: Manifest, lineage: Lineage, details: Details, folder: str, by: str
) -> dict[str, str]:
    """Return the tags of a version to be: what it is, and what people look at."""
    whole = about.written(manifest, lineage, details, by)
    parts = [whole[begin : begin + LONGEST] for begin in range(0, len(whole), LONGEST)]
    own = {f"{VERSION}.{number}": part for number, part in enumerate(parts)}
    own[VERSION] = str(len(parts))
    own[FOLDER] = folder
    own[OWN + "digest"] = manifest.digest
    own[OWN + "flavor"] = manifest.flavor
    if details.run_id is not None:
        own[OWN + "run_id"] = details.run_id
    return {**shown_tags(details.tags), **own}


def shown_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that MLflow's pages can show, shortened where they must be."""
    return {key: shortened(text) for key, text in tags.items() if is_shown(key)}


def is_shown(key: str) -> bool:
    """Tell whether MLflow can have a tag of that name, and gives it no meaning of its own."""
    if not _KEY.match(key) or key.startswith((OWN, "mlflow.", "/", ".")):
        return False
    return posixpath.normpath(key) == key  # MLflow takes it for the path of a file.


def shortened(text: str) -> str:
    """Return a text as long as every column of MLflow's holds."""
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def is_alias(alias: str) -> bool:
    """Tell whether MLflow can have an alias of that name."""
    return bool(_ALIAS.match(alias))


# Reading.


def native_model(
    model: MlflowModel, versions: Iterable[MlflowVersion], stages: StageGraph
) -> NativeModel:
    """Return what MLflow shows of a model."""
    given: Mapping[str, Any] = model.aliases or {}
    aliases = {alias: int(version) for alias, version in given.items()}
    found, echoes = _without_echoes(versions)
    by_version: dict[int, list[str]] = {}
    for alias, number in aliases.items():
        by_version.setdefault(number, []).append(alias)
    tags = {key: text for key, text in (model.tags or {}).items() if not key.startswith(OWN)}
    return NativeModel(
        versions=tuple(
            native_version(each, by_version.get(int(each.version), []), stages) for each in found
        ),
        description=model.description or "",
        tags=tags,
        details=Shown(
            aliases=aliases,
            tags=dict(model.tags or {}),
            description=model.description or "",
            version_tags={int(each.version): dict(each.tags or {}) for each in found},
            version_descriptions={int(each.version): each.description or "" for each in found},
            echoes=tuple(int(each.version) for each in echoes),
        ),
    )


def _without_echoes(
    versions: Iterable[MlflowVersion],
) -> tuple[list[MlflowVersion], list[MlflowVersion]]:
    """Return the versions in their order, and apart those that have the folder of an earlier one.

    MLflow's client sends a request again whose answer does not come, and no two registrations
    share a folder.
    """
    folders: set[str] = set()
    found: list[MlflowVersion] = []
    echoes: list[MlflowVersion] = []
    for each in sorted(versions, key=lambda each: int(each.version)):
        folder = (each.tags or {}).get(FOLDER)
        (found if folder is None or folder not in folders else echoes).append(each)
        folders |= {folder} if folder else set()
    return found, echoes


def native_version(
    version: MlflowVersion, aliases: Iterable[str], stages: StageGraph
) -> NativeVersion:
    """Return what MLflow shows of a version."""
    given = tuple(aliases)
    tags = dict(version.tags or {})
    fields: dict[str, Any] = {
        "name": version.name,
        "version": int(version.version),
        "aliases": tuple(sorted(alias for alias in given if about.is_alias(alias, stages))),
        "stage": _stage(version, given, stages),
        "created_at": place_of(version)[2],
    }
    if VERSION in tags:
        return _ours(version, tags, fields)
    fields |= {
        "digest": "",
        "flavor": FOREIGN,
        "run_id": version.run_id or None,
        "tags": {key: text for key, text in tags.items() if not key.startswith(OWN)},
        "description": version.description or "",
    }
    mark = f"at {version.creation_timestamp}"
    return NativeVersion(ModelVersion.model_validate(fields), mark, version.user_id or "")


def place_of(version: MlflowVersion) -> tuple[str, int, datetime]:
    """Return the name, the number and the time of a version."""
    created = EPOCH + timedelta(milliseconds=int(version.creation_timestamp))
    return version.name, int(version.version), created


def _ours(
    version: MlflowVersion, tags: Mapping[str, str], shown: Mapping[str, Any]
) -> NativeVersion:
    """Return a version by what mlopskit wrote beside it."""
    try:
        parts = [tags[f"{VERSION}.{number}"] for number in range(int(tags[VERSION]))]
        found, by = about.read("".join(parts), shown)
        return NativeVersion(found, tags[FOLDER], by)
    except (KeyError, ValueError, TypeError) as exc:
        raise BackendError(
            f"The tags {VERSION!r} of version {version.version} of {version.name!r} were changed "
            f"in MLflow, and cannot be read: {exc}"
        ) from exc


def _stage(version: MlflowVersion, aliases: Iterable[str], stages: StageGraph) -> str:
    """Return the stage that MLflow has for a version, in our word: an alias, or MLflow's own."""
    named = [stage for stage in stages.order[1:] if stage in set(aliases)]
    if named:
        return named[-1]
    own = (version.current_stage or "").lower()
    return own if own in stages.order[1:] else stages.initial


def is_prompt(found: MlflowModel | MlflowVersion) -> bool:
    """Tell whether MLflow keeps a prompt there, as it does in the same tables."""
    tags = getattr(found, "_tags", None) or found.tags or {}  # `tags` leaves it out.
    return str(tags.get("mlflow.prompt.is_prompt")).lower() == "true"

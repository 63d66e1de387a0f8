"""Labels such as 2.1.0, which say how far a version is from the one before.

The numbers are those of Semantic Versioning 2.0.0 (https://semver.org), with the signature for the
interface: a new first number breaks whoever asks the model, a new second one is another model that
can be asked as before, and a new third one has other weights or data.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel

from mlopskit.errors import Conflict, InvalidInput, NotFound
from mlopskit.registry.entities import FROZEN, ModelVersion, VersionComparison

if TYPE_CHECKING:
    from mlopskit.registry.base import Registry
    from mlopskit.registry.references import Ref

TAG: Final = "label"
ARCHITECTURE: Final = "architecture"
FIRST: Final = "1.0.0"
_NUMBERS: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)\Z")
_NOT_LIBRARIES: Final = frozenset(["run", "data", "code", "python"])


class VersionLabel(BaseModel):
    """A label that a version could have, and why this one.

    Attributes:
        name: The model's name.
        version: The version's number.
        label: The label, such as ``"2.1.0"``.
        change: Which of its numbers rose, or ``"first"``.
        reasons: What differs from the version before, a sentence each; those that decided first.
        previous: The version it was compared with.
        previous_label: The label of that one.
    """

    model_config = FROZEN

    name: str
    version: int
    label: str
    change: Literal["first", "major", "minor", "patch"]
    reasons: tuple[str, ...] = ()
    previous: int | None = None
    previous_label: str | None = None


def propose_label(
    registry: Registry, name: str, ref: Ref, previous: Ref | None = None
) -> VersionLabel:
    """Return the label that a version should have, from what differs from a labelled one.

    Args:
        registry: Where the model is registered.
        name: The model's name.
        ref: Which version.
        previous: What it is compared with. Left out, the version before it with the highest number
            that has such a label; if there is none, the label is 1.0.0. Name it for a line of its
            own, such as mends of an older release.

    Raises:
        NotFound: If there is no such model or version, or `previous` has no label.
        InvalidInput: If the label of `previous` is not three numbers.
        Conflict: If `previous` is the version itself.
    """
    version = registry.get_version(name, ref)
    earlier = _earlier(registry, version, previous)
    if earlier is None:
        return VersionLabel(
            name=name,
            version=version.version,
            label=FIRST,
            change="first",
            reasons=("No version before it has a label of three numbers.",),
        )
    said = earlier.tags[TAG]
    major, minor, patch = _numbers(said, earlier)
    found = registry.compare_versions(name, earlier.version, version.version)
    breaking, other, small = _breaking(found), _architecture(found), _weights(found)
    if breaking:
        label, change = f"{major + 1}.0.0", "major"
    elif other:
        label, change = f"{major}.{minor + 1}.0", "minor"
    else:
        label, change = f"{major}.{minor}.{patch + 1}", "patch"
    return VersionLabel(
        name=name,
        version=version.version,
        label=label,
        change=change,
        reasons=(*breaking, *other, *small),
        previous=earlier.version,
        previous_label=said,
    )


def write_label(
    registry: Registry, name: str, ref: Ref, label: str | None = None, *, why: str = ""
) -> ModelVersion:
    """Give a version a label, kept as its tag ``label``, and return the version.

    Args:
        registry: Where the model is registered.
        name: The model's name.
        ref: Which version.
        label: Three numbers such as ``"2.1.0"``; the proposed one if left out.
        why: A reason for the history; those of the proposal if left out.

    Raises:
        NotFound: If there is no such model or version.
        InvalidInput: If the label is not three numbers.
        Conflict: If another version has that label.
    """
    version = registry.get_version(name, ref)
    if label is None:
        proposed = propose_label(registry, name, version.version)
        label, why = proposed.label, why or " ".join(proposed.reasons)
    _numbers(label, version)
    for each in registry.list_versions(name):
        if each.tags.get(TAG) == label and each.version != version.version:
            raise Conflict(
                f"Version {each.version} of {name!r} has the label {label} already. Give another, "
                f"or take that one away: update_version({name!r}, {each.version}, "
                "tags={'label': None})."
            )
    return registry.update_version(name, version.version, tags={TAG: label}, why=why)


def _earlier(
    registry: Registry, version: ModelVersion, previous: Ref | None
) -> ModelVersion | None:
    if previous is None:
        known = [
            each
            for each in registry.list_versions(version.name)
            if each.version < version.version and _NUMBERS.match(each.tags.get(TAG, ""))
        ]
        return known[-1] if known else None
    earlier = registry.get_version(version.name, previous)
    if earlier.version == version.version:
        raise Conflict(f"Version {version.version} of {version.name!r} cannot follow itself.")
    if TAG not in earlier.tags:
        raise NotFound("label of version", f"{earlier.name} {earlier.version}")
    return earlier


def _numbers(label: str, version: ModelVersion) -> tuple[int, int, int]:
    match = _NUMBERS.match(label)
    if match is None:
        raise InvalidInput(
            f"The label {label!r} of version {version.version} of {version.name!r} is not three "
            "numbers such as 2.1.0."
        )
    return int(match[1]), int(match[2]), int(match[3])


def _breaking(found: VersionComparison) -> list[str]:
    if found.a.signature is not None and found.b.signature is None:
        return [f"It has no signature, and version {found.a.version} has one."]
    return list(found.signature.breaks) if found.signature else []


def _architecture(found: VersionComparison) -> list[str]:
    reasons = list(found.signature.additions) if found.signature else []
    if found.a.signature is None and found.b.signature is not None:
        reasons.append("It has a signature now.")
    if found.flavor:
        reasons.append(f"The flavor was {found.flavor[0]} and is {found.flavor[1]}.")
    if ARCHITECTURE in found.tags:
        before, after = found.tags[ARCHITECTURE]
        reasons.append(f"The architecture was {_said(before)} and is {_said(after)}.")
    reasons += [
        f"{library} was {_said(before)} and is {_said(after)}."
        for library, (before, after) in _libraries(found).items()
        if _major(before) != _major(after)
    ]
    return reasons


def _weights(found: VersionComparison) -> list[str]:
    reasons = []
    if "data" in found.lineage:
        before, after = found.lineage["data"]
        reasons.append(f"The data were {_said(before)} and are {_said(after)}.")
    if found.files:
        reasons.append(f"Files that differ: {len(found.files)}.")
    else:
        reasons.append(f"Its files are those of version {found.a.version}.")
    reasons += [
        f"{library} was {_said(before)} and is {_said(after)}."
        for library, (before, after) in _libraries(found).items()
        if _major(before) == _major(after)
    ]
    return reasons


def _libraries(found: VersionComparison) -> dict[str, tuple[str | None, str | None]]:
    return {key: both for key, both in found.lineage.items() if key not in _NOT_LIBRARIES}


def _major(version: str | None) -> str | None:
    """Return the part of a library's version that stands for its interface."""
    if version is None:
        return None
    first, _, rest = version.partition(".")
    return first if first != "0" else f"0.{rest.partition('.')[0]}"


def _said(value: str | None) -> str:
    return value or "not known"

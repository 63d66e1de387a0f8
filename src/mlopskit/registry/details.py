"""What is registered beside a model's files, checked and without secrets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidInput
from mlopskit.names import check_label
from mlopskit.registry.blobs import Manifest
from mlopskit.registry.entities import Lineage
from mlopskit.registry.lines import Edit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.redaction import Redactor
    from mlopskit.registry.blobs import ManifestFile
    from mlopskit.registry.entities import Signature
    from mlopskit.registry.flavors import Package


@dataclass(frozen=True, slots=True)
class Details:
    """The run, the metrics, the tags, the description and the lineage of a version to be."""

    run_id: str | None
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    description: str
    data: str | None = None
    code: str | None = None

    def lineage(self, package: Package) -> Lineage:
        """Where a version of this package comes from."""
        return Lineage(
            data=self.data,
            code=self.code,
            python=package.python,
            libraries=dict(package.libraries),
        )


def manifest_of(
    package: Package, files: tuple[ManifestFile, ...], signature: Signature | None
) -> Manifest:
    """Return the manifest of a package whose files are stored."""
    return Manifest(
        flavor=package.flavor,
        files=files,
        libraries=dict(package.libraries),
        python=package.python,
        signature=signature,
        environment=package.environment,
    )


def checked_details(
    redactor: Redactor,
    *,
    run_id: str | None,
    metrics: Mapping[str, float] | None,
    tags: Mapping[str, str] | None,
    description: str,
    data: str | None = None,
    code: str | None = None,
) -> Details:
    """Return what a caller gave, or say what of it cannot be kept.

    Raises:
        InvalidName: If the name of a metric, a tag or the run cannot be kept.
        InvalidInput: If a metric is no number, or a tag or another text is no text.
    """
    if run_id is not None:
        check_label("run", run_id)
    for name, text in (("data", data), ("code", code)):
        if text is not None:
            check_text(name, text)
    return Details(
        run_id=run_id,
        metrics={check_label("metric", key): _number(key, v) for key, v in (metrics or {}).items()},
        tags=checked_tags(redactor, tags or {}),
        description=redactor.text(check_text("description", description)),
        data=data,
        code=code,
    )


def checked_edit(
    redactor: Redactor, description: str | None, tags: Mapping[str, str | None] | None
) -> Edit:
    """Return what shall change, or say what of it cannot be kept.

    Raises:
        InvalidName: If the name of a tag cannot be kept.
        InvalidInput: If a text is none, or nothing changes.
    """
    if description is None and not tags:
        raise InvalidInput("Nothing changes: pass a description, tags, or both.")
    given = dict(tags or {})
    kept = checked_tags(redactor, {key: text for key, text in given.items() if text is not None})
    for key in given.keys() - kept.keys():
        check_label("tag", key)
    return Edit(
        description=None
        if description is None
        else redactor.text(check_text("description", description)),
        tags={key: kept.get(key) for key in given},
    )


def checked_tags(redactor: Redactor, tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags without secrets.

    Raises:
        InvalidName: If the name of one cannot be kept.
        InvalidInput: If one is no text.
    """
    for key, text in tags.items():
        check_label("tag", key)
        check_text(key, text)
    clean: dict[str, str] = redactor.value(dict(tags))
    return clean


def check_text(key: str, text: Any) -> str:
    """Return a text that every store can keep, or refuse it.

    Raises:
        InvalidInput: If it is no text, or holds what not every store can keep.
    """
    if not isinstance(text, str):
        raise InvalidInput(
            f"{key!r} is {text!r}, which is a {type(text).__name__}. Tags and the description are "
            "texts: pass str(...) of it."
        )
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"{key!r} holds a lone surrogate, which no store can keep.") from exc
    if "\0" in text:
        raise InvalidInput(f"{key!r} holds a NUL character, which not every store can keep.")
    return text


def _number(key: str, value: Any) -> float:
    """Return a metric as a float that equals it."""
    if isinstance(value, str | bytes) or not (
        hasattr(value, "__float__") or hasattr(value, "__index__")
    ):
        raise InvalidInput(f"Metric {key!r} is {value!r}, which is no number.")
    try:
        number = float(value)
        same = bool(number == value) or math.isnan(number)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInput(f"Metric {key!r} is {value!r}, which is no single number.") from exc
    if not same:
        raise InvalidInput(
            f"Metric {key!r} is {value!r}, which a 64-bit float cannot hold exactly. "
            "Round it first, or keep it as a tag."
        )
    return number

"""What is registered beside a model's files, as a text that a remote tool keeps whole and exact.

And which of a tool's own models and aliases this interface can name.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidName
from mlopskit.names import check_identifier
from mlopskit.registry.entities import ModelVersion
from mlopskit.registry.references import check_alias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.details import Details
    from mlopskit.registry.entities import Lineage
    from mlopskit.registry.stages import StageGraph

FIELDS: Final = (
    *("digest", "flavor", "size", "run_id", "metrics"),
    *("tags", "signature", "description", "lineage"),
)


def written(manifest: Manifest, lineage: Lineage, details: Details, by: str, **also: str) -> str:
    """Return the text.

    Args:
        manifest: Of the files.
        lineage: Where the version comes from.
        details: What was registered beside them.
        by: Who registers it.
        also: What else the tool's backend writes there.
    """
    signature = None if manifest.signature is None else manifest.signature.model_dump(mode="json")
    return json.dumps(
        {
            **also,
            "digest": manifest.digest,
            "flavor": manifest.flavor,
            "size": manifest.size,
            "run_id": details.run_id,
            "metrics": dict(details.metrics),
            "tags": dict(details.tags),
            "signature": signature,
            "description": details.description,
            "lineage": lineage.model_dump(mode="json"),
            "by": by,
        },
        separators=(",", ":"),
    )


def read(text: str | bytes, shown: Mapping[str, Any]) -> tuple[ModelVersion, str]:
    """Return the version that a text tells of, and who registered it.

    Args:
        text: The text.
        shown: The fields that the tool tells of, such as the name and the number.

    Raises:
        KeyError: If it was changed.
        TypeError: Likewise.
        ValueError: Likewise.
    """
    said = json.loads(text)
    fields = {key: said[key] for key in FIELDS}
    return ModelVersion.model_validate({**fields, **shown}), str(said["by"])


def is_model(name: str) -> bool:
    """Tell whether this interface can name a model."""
    try:
        check_identifier("model", name)
    except InvalidName:
        return False
    return True


def is_alias(alias: str, stages: StageGraph) -> bool:
    """Tell whether this interface can name an alias."""
    try:
        check_alias(alias, stages)
    except InvalidName:
        return False
    return True

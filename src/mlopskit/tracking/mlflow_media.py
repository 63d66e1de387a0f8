"""Where MLflow's own pages look for pictures and tables.

MLflow draws a slider of steps from files of the folder ``images`` that are named
``<key>+step+<step>+timestamp+<milliseconds>+<uuid>``, each with a thumbnail beside it, and a table
from a file that the tag ``mlflow.loggedArtifacts`` names.
"""

from __future__ import annotations

import io
import json
import re
import uuid
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlopskit.tracking.entities import Artifact

IMAGES: Final = "mlflow.loggedImages"
TABLES: Final = "mlflow.loggedArtifacts"
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
THUMBNAIL: Final = (256, 256)


def image_path(artifact: Artifact) -> str | None:
    """Return where MLflow's slider finds a picture of a step; None for anything else."""
    step, name = artifact.metadata.get("step"), PurePosixPath(artifact.name)
    if artifact.type not in ("image", "images", "figure") or name.suffix.lower() not in PICTURES:
        return None
    if not isinstance(step, int) or isinstance(step, bool) or artifact.logged_at is None:
        return None
    key = "~".join(re.sub(r"[^A-Za-z0-9_. -]", "_", part) for part in name.with_suffix("").parts)
    time_ms = round(artifact.logged_at.timestamp() * 1000)
    # The same picture that comes again is the same file.
    unique = uuid.uuid5(uuid.NAMESPACE_URL, f"{artifact.name}#{step}#{time_ms}#{artifact.digest}")
    return f"images/{key}+step+{step}+timestamp+{time_ms}+{unique}{name.suffix.lower()}"


def thumbnail(path: str, source: Path) -> tuple[str, bytes] | None:
    """Return the path and the bytes of a picture's thumbnail, where Pillow can read the picture."""
    with suppress(ImportError, OSError, ValueError):
        from PIL import Image  # noqa: PLC0415 - MLflow's server needs no Pillow

        buffer = io.BytesIO()
        with Image.open(source) as picture:
            small = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
            small.thumbnail(THUMBNAIL)
            small.save(buffer, format="WEBP")
        return f"{PurePosixPath(path).with_suffix('')}+compressed.webp", buffer.getvalue()
    return None


def is_table(artifact: Artifact) -> bool:
    """Tell whether a file holds the rows of a table."""
    name = artifact.logged_as
    return artifact.type == "table" and artifact.name in (name, f"{name}/rows.json")


def table_tag(before: str | None, paths: Sequence[str], longest: int) -> str:
    """Return the tag that names the tables of a run: with more of them, the newest that fit."""
    said: list[dict[str, str]] = []
    with suppress(ValueError):
        said = json.loads(before or "[]")
    added = [{"path": path, "type": "table"} for path in paths]
    said = [each for each in said if each not in added] + added
    while len(text := json.dumps(said)) > longest:
        said = said[1:]
    return text

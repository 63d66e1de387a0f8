"""Files and folders as they are: kept, verified and downloaded, and never loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidModel

if TYPE_CHECKING:
    from pathlib import Path


class Plain:
    """Keeps what lies at a path."""

    LIBRARIES: tuple[str, ...] = ()

    def __init__(self, what: str) -> None:
        self.what = what
        self.TAKES = f"the path of a {what}"

    def takes(self, model: Any) -> bool:  # noqa: ARG002 - a path is no object
        """Take no object; paths are looked at before objects."""
        return False

    def recognises(self, name: str, path: Path) -> bool:  # noqa: ARG002 - any file is a file
        """Take every file that no other flavor knows."""
        return self.what == "file"

    def save(self, model: Any, folder: Path) -> None:
        """Refuse; nothing is saved that way."""
        raise InvalidModel(f"{model!r} cannot be saved to {folder} as a plain {self.what}.")

    def load(self, folder: Path, label: str, *, trusted: bool) -> Any:  # noqa: ARG002 - no object
        """Refuse; the caller knows what the files are."""
        raise InvalidModel(
            f"{label} is a plain {self.what}, which no flavor loads. "
            "Get it with download(), and load it with the library that wrote it."
        )


FILE = Plain("file")
FOLDER = Plain("folder")

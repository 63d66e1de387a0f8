"""Files and folders as they are: kept, verified and downloaded, and never loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidModel

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry.flavors import Files


class Plain:
    """Keeps what lies at a path."""

    LIBRARIES: tuple[str, ...] = ()
    SUFFIXES: tuple[str, ...] = ()

    def __init__(self, what: str) -> None:
        self.what = what
        self.FOLDERS = what == "folder"
        self.TAKES = f"the path of a {what}"

    def takes(self, model: Any, example: Any = None) -> bool:  # noqa: ARG002
        """Take no object; paths are looked at before objects."""
        return False

    def recognises(self, files: Files) -> bool:
        """Take every file and folder that no other flavor knows."""
        return self.what == "folder" or len(files) == 1

    def save(self, model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG002
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

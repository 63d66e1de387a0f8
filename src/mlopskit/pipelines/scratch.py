"""A folder for what a step writes."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from mlopskit.storage import disk_errors, make_private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

_folder: ContextVar[Path | None] = ContextVar("mlopskit_step_folder", default=None)


def step_folder() -> Path:
    """Return an empty folder for this call to write in; each call returns another one.

    Inside a step that a runner runs, it is removed once the step's value is stored, so return
    the paths that should stay. Elsewhere it is a temporary folder, and yours to remove.

    Raises:
        StorageError: If it cannot be made.
    """
    parent = _folder.get()
    if parent is not None:
        make_private_folder(parent)
    with disk_errors(parent or tempfile.gettempdir()):
        return Path(tempfile.mkdtemp(dir=parent, prefix="step-"))


@contextmanager
def folders_in(parent: Path) -> Iterator[None]:
    """Let `step_folder` make its folders in this one."""
    token = _folder.set(parent)
    try:
        yield
    finally:
        _folder.reset(token)

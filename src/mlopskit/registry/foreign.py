"""Versions that others registered with the tool's own means, and that no manifest tells of.

Such a version has no digest. What it consists of is told by its files as they are now, and that
verifies nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlopskit.errors import InvalidModel
from mlopskit.names import check_path
from mlopskit.registry import blobs
from mlopskit.registry.base import Registry
from mlopskit.storage import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.entities import ModelVersion


class ForeignVersions(Registry):
    """What is alike in every registry that shows versions which others registered."""

    def _foreign_files(
        self, version: ModelVersion
    ) -> Iterable[tuple[str, Callable[[Path], object]]]:
        """Return every file of a version that others registered: its path, and what writes it.

        The path is the tool's, and was not checked. What writes the file is given where, and makes
        the folders that lead there. A tool whose versions are all ours has nothing to return.
        """
        raise InvalidModel(f"The files of {_label(version)} are not known: it has no digest.")

    def _verified(self, version: ModelVersion, folder: Path) -> Manifest:
        if version.digest:
            return super()._verified(version, folder)
        self._refuse_unsigned(_label(version))
        for path, write in self._foreign_files(version):
            write(folder / check_path("file of a model", path))
        if not any(folder.iterdir()):
            raise InvalidModel(f"There are no files of {_label(version)}: nothing can be read.")
        return _manifest_of(folder)

    def _read_manifest(self, version: ModelVersion) -> Manifest:
        if version.digest:
            return super()._read_manifest(version)
        with tempfile.TemporaryDirectory(prefix="mlopskit-") as scratch:
            return self._verified(version, Path(scratch))


def _manifest_of(folder: Path) -> Manifest:
    return blobs.Manifest(
        flavor="folder",
        files=tuple(
            blobs.ManifestFile(path=name, size=path.stat().st_size, sha256=digest_of(path))
            for name, path in blobs.files_of(folder)
        ),
    )


def _label(version: ModelVersion) -> str:
    return f"version {version.version} of {version.name!r}"

"""Flavors: how a model becomes files, and how files become a model again.

The flavor is decided once, when a model is registered, and written into the manifest. Loading goes
by the manifest, checks that the first bytes agree with it, and never tries another way.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from mlopskit.errors import InvalidModel
from mlopskit.registry.blobs import files_of
from mlopskit.registry.flavors import pickled, plain, sklearn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlopskit.registry.blobs import Manifest


@dataclass(frozen=True, slots=True)
class Package:
    """A model as files, on its way into a registry.

    Attributes:
        flavor: How it will be loaded.
        files: The path of each file in the version, and where it lies now.
        libraries: The versions of the libraries that made it.
        python: The version of Python that made it.
    """

    flavor: str
    files: list[tuple[str, Path]]
    libraries: Mapping[str, str] = field(default_factory=dict)
    python: str = field(default_factory=platform.python_version)


class Flavor(Protocol):
    """What a module of this package offers."""

    TAKES: str
    LIBRARIES: tuple[str, ...]

    def takes(self, model: Any) -> bool:
        """Tell whether it can save this object."""

    def recognises(self, name: str, path: Path) -> bool:
        """Tell by its first bytes, and else by its name, whether a file is of this flavor."""

    def save(self, model: Any, folder: Path) -> None:
        """Write an object into an empty folder."""

    def load(self, folder: Path, label: str, *, trusted: bool) -> Any:
        """Read an object from a folder of verified files."""


# The order in which files and objects are looked at; `plain` takes every path, and is last.
FLAVORS: Final[Mapping[str, Flavor]] = {
    "sklearn": sklearn,
    "pickle": pickled.PICKLE,
    "joblib": pickled.JOBLIB,
    "file": plain.FILE,
    "folder": plain.FOLDER,
}


@contextmanager
def packed(source: Any) -> Iterator[Package]:
    """Hold a model as files: those at a path, or an object saved to a private folder.

    Raises:
        InvalidModel: If no flavor takes the object, or a folder holds what cannot be kept.
        NotFound: If there is nothing at the path.
        MissingDependency: If the flavor needs a package that is not installed.
    """
    if isinstance(source, str | PathLike):
        files = files_of(Path(source).expanduser())
        yield Package(flavor_of(Path(source).expanduser(), files), files)
        return
    folder = Path(tempfile.mkdtemp(prefix="mlopskit-"))
    try:
        how = saved(source, folder)
        yield Package(how["flavor"], files_of(folder), how["libraries"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def saved(model: Any, folder: Path) -> dict[str, Any]:
    """Write an object into an empty folder; return its ``flavor`` and the ``libraries`` it needs.

    Raises:
        InvalidModel: If no flavor takes the object.
        MissingDependency: If the flavor needs a package that is not installed.
    """
    name = next((name for name, flavor in FLAVORS.items() if flavor.takes(model)), None)
    if name is None:
        takes = "; ".join(f"{name}: {flavor.TAKES}" for name, flavor in FLAVORS.items())
        raise InvalidModel(
            f"No flavor takes a {type(model).__module__}.{type(model).__qualname__}. "
            f"Flavors: {takes}. Save the model to a file, and pass its path."
        )
    flavor = FLAVORS[name]
    flavor.save(model, folder)
    return {
        "flavor": name,
        "libraries": {name: metadata.version(name) for name in flavor.LIBRARIES},
    }


def flavor_of(source: Path, files: list[tuple[str, Path]]) -> str:
    """Return the flavor of files that somebody else wrote."""
    if source.is_dir():
        return "folder"
    (name, path), *_ = files
    return next(key for key, flavor in FLAVORS.items() if flavor.recognises(name, path))


def loaded(name: str, folder: Path, manifest: Manifest, label: str, *, trusted: bool) -> Any:
    """Return the object in a folder of verified files.

    Raises:
        InvalidModel: If there is no such flavor, the bytes are of another one, or nothing loads it.
        UntrustedModel: If that would run code from the files, and `trusted` is False.
        MissingDependency: If the flavor needs a package that is not installed.
    """
    flavor = FLAVORS.get(name)
    if flavor is None:
        raise InvalidModel(
            f"{label} has the flavor {name!r}, which this version of mlopskit does not know. "
            f"Known: {', '.join(FLAVORS)}. Get its files with download()."
        )
    if name != "folder":
        files = [(file.path, folder / file.path) for file in manifest.files]
        if len(files) != 1 or not flavor.recognises(*files[0]):
            raise InvalidModel(f"{label} is registered as {name!r}, and its bytes are not that.")
    return flavor.load(folder, label, trusted=trusted)

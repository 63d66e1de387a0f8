"""Flavors: how a model becomes files, and how files become a model again.

The flavor is decided once, when a model is registered, and written into the manifest. Loading goes
by the manifest, checks that the first bytes agree with it, and never tries another way.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, metadata
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from mlopskit.errors import InvalidModel
from mlopskit.registry.blobs import Environment, files_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.registry.blobs import Manifest

# The path of each file in the version, and where it lies now.
Files = Sequence[tuple[str, Path]]
# Returns the flavors of other packages by name, as `mlopskit.tool.Context.flavors` does.
More = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Package:
    """A model as files, on its way into a registry.

    Attributes:
        flavor: How it will be loaded.
        files: The path of each file in the version, and where it lies now.
        libraries: The versions of the libraries that made it.
        python: The version of Python that made it.
        environment: What loading it needs; None where that is not known.
    """

    flavor: str
    files: list[tuple[str, Path]]
    libraries: Mapping[str, str] = field(default_factory=dict)
    python: str = field(default_factory=platform.python_version)
    environment: Environment | None = None


class Flavor(Protocol):
    """One way of keeping models: what a flavor's module or object offers.

    Attributes:
        TAKES: What it takes, for the message that lists the flavors.
        LIBRARIES: The distributions that made the files; their versions go into the manifest.
        SUFFIXES: The file names that are its own. Its bytes under another flavor's are refused.
        FOLDERS: Whether it knows folders that somebody else wrote.
    """

    @property
    def TAKES(self) -> str: ...  # noqa: D102, N802
    @property
    def LIBRARIES(self) -> tuple[str, ...]: ...  # noqa: D102, N802
    @property
    def SUFFIXES(self) -> tuple[str, ...]: ...  # noqa: D102, N802
    @property
    def FOLDERS(self) -> bool: ...  # noqa: D102, N802

    def takes(self, model: Any, example: Mapping[str, Any] | None = None) -> bool:
        """Tell whether it can save this object, without importing the object's library."""

    def recognises(self, files: Files) -> bool:
        """Tell by first bytes, and else by names, whether files are of this flavor."""

    def save(self, model: Any, folder: Path, example: Mapping[str, Any] | None = None) -> None:
        """Write an object into an empty folder.

        Args:
            model: The object.
            folder: An empty folder.
            example: The arrays of the input example by name, for formats that trace a model.
        """

    def load(self, folder: Path, label: str, *, trusted: bool) -> Any:
        """Read an object from a folder of verified files, which is gone afterwards.

        Raises:
            UntrustedModel: If that would run code from the files, and `trusted` is not True.
            InvalidModel: If the files are broken.
        """


# The modules and attributes that are flavors, in the order in which files and objects are looked
# at. `plain` takes every path, and is last. Each is imported when it is first asked.
_BUILT_IN: Final[Mapping[str, tuple[str, str]]] = {
    "sklearn": ("sklearn", ""),
    "xgboost": ("xgboost", ""),
    "lightgbm": ("lightgbm", ""),
    "torch": ("torch", ""),
    "keras": ("keras", ""),
    "hf": ("hf", ""),
    "safetensors": ("safetensors", ""),
    "onnx": ("onnx", ""),
    "pyfunc": ("mlflow_pyfunc", ""),
    "predictor": ("predictor", ""),
    "torch-file": ("torch_file", ""),
    "pickle": ("pickled", "PICKLE"),
    "joblib": ("pickled", "JOBLIB"),
    "file": ("plain", "FILE"),
    "folder": ("plain", "FOLDER"),
}
_LAST: Final = ("torch-file", "pickle", "joblib", "file", "folder")


def known(more: More = dict) -> dict[str, Flavor]:
    """Return every flavor by name, in the order in which they are asked.

    Other packages' come after those that load without trust, and cannot take a built-in's name.
    """
    own = _built_in()
    first = {name: flavor for name, flavor in own.items() if name not in _LAST}
    return {**first, **{k: v for k, v in more().items() if k not in own}, **own}


@cache
def _built_in() -> dict[str, Flavor]:
    found: dict[str, Flavor] = {}
    for name, (module, attribute) in _BUILT_IN.items():
        imported: Any = import_module(f"{__name__}.{module}")
        found[name] = cast("Flavor", getattr(imported, attribute) if attribute else imported)
    return found


@contextmanager
def packed(source: Any, example: bytes | None = None, *, more: More = dict) -> Iterator[Package]:
    """Hold a model as files: those at a path, or an object saved to a private folder.

    Args:
        source: The object or the path.
        example: The input example as `examples.packed` writes it, for formats that trace a model.
        more: The flavors of other packages.

    Raises:
        InvalidModel: If no flavor takes the object, or a folder holds what cannot be kept.
        NotFound: If there is nothing at the path.
        MissingDependency: If the flavor needs a package that is not installed.
    """
    if isinstance(source, str | PathLike):
        path = Path(source).expanduser()
        files = files_of(path)
        yield Package(flavor_of(path, files, more=more), files)
        return
    folder = Path(tempfile.mkdtemp(prefix="mlopskit-"))
    try:
        how = saved(source, folder, example, more=more)
        libraries = how["libraries"]
        yield Package(
            how["flavor"],
            files_of(folder),
            libraries,
            environment=Environment(
                python=platform.python_version(),
                platform=f"{platform.system()}-{platform.machine()}",
                requirements=tuple(f"{name}=={number}" for name, number in libraries.items()),
            ),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def saved(
    model: Any, folder: Path, example: bytes | None = None, *, more: More = dict
) -> dict[str, Any]:
    """Write an object into an empty folder; return its ``flavor`` and the ``libraries`` it needs.

    Raises:
        InvalidModel: If no flavor takes the object.
        MissingDependency: If the flavor needs a package that is not installed.
    """
    flavors, arrays = known(more), _arrays(example)
    name = next((name for name, each in flavors.items() if each.takes(model, arrays)), None)
    if name is None:
        takes = "; ".join(f"{name}: {flavor.TAKES}" for name, flavor in flavors.items())
        raise InvalidModel(
            f"No flavor takes a {type(model).__module__}.{type(model).__qualname__}. "
            f"Flavors: {takes}. Save the model to a file, and pass its path."
        )
    flavor = flavors[name]
    flavor.save(model, folder, arrays)
    return {"flavor": name, "libraries": _versions(flavor.LIBRARIES)}


def flavor_of(source: Path, files: Files, *, more: More = dict) -> str:
    """Return the flavor of files that somebody else wrote."""
    folder = source.is_dir()
    return next(
        name
        for name, flavor in known(more).items()
        if (flavor.FOLDERS if folder else name != "folder") and flavor.recognises(files)
    )


def loaded(
    name: str,
    folder: Path,
    manifest: Manifest,
    label: str,
    *,
    trusted: bool,
    more: More = dict,
) -> Any:
    """Return the object in a folder of verified files.

    Raises:
        InvalidModel: If there is no such flavor, the bytes are of another one, or nothing loads it.
        UntrustedModel: If that would run code from the files, and `trusted` is False.
        MissingDependency: If the flavor needs a package that is not installed.
    """
    flavors = known(more)
    flavor = flavors.get(name)
    if flavor is None:
        raise InvalidModel(
            f"{label} has the flavor {name!r}, which this version of mlopskit does not know. "
            f"Known: {', '.join(flavors)}. Get its files with download()."
        )
    files = [(file.path, folder / file.path) for file in manifest.files]
    if not flavor.recognises(files):
        raise InvalidModel(f"{label} is registered as {name!r}, and its bytes are not that.")
    # Who does not trust a pickle hears of the pickle, whatever it is called.
    if trusted is True or name not in _LAST:
        _check_names(files, name, flavors, label)
    return flavor.load(folder, label, trusted=trusted)


def _check_names(files: Files, name: str, flavors: Mapping[str, Flavor], label: str) -> None:
    """Refuse a lone file that is called like a file of another flavor."""
    if len(files) != 1 or name == "file" or flavors[name].FOLDERS:
        return
    suffix = PurePosixPath(files[0][0]).suffix.lower()
    owners = [key for key, flavor in flavors.items() if suffix in flavor.SUFFIXES]
    if owners and name not in owners:
        raise InvalidModel(
            f"{label} is called {files[0][0]!r} like a model of {' or '.join(owners)}, and its "
            f"bytes are of {name!r}. Rename the file, and register it again."
        )


def _versions(libraries: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # Some have several, as xgboost and xgboost-cpu.
            continue
    return found


def _arrays(example: bytes | None) -> Mapping[str, Any] | None:
    if example is None:
        return None
    from mlopskit.registry import examples  # noqa: PLC0415 - objects alone are saved with one

    return examples.unpacked(example, "the model")[0]

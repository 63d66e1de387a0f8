"""Keras' own format, version 3: classes by name, of which only Keras' own are built.

``safe_mode`` refuses lambdas and nothing else: a configuration can name any module's function
(CVE-2025-1550, CVE-2026-1462). Every name in it is checked before Keras sees the file.
"""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry.flavors.archives import check_archive
from mlopskit.registry.flavors.json_files import mappings_in, read_json
from mlopskit.registry.flavors.lazily import check_floor, is_a, library

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry.flavors import Files

TAKES = "a Keras model"
LIBRARIES: tuple[str, ...] = ("keras",)
SUFFIXES: tuple[str, ...] = (".keras",)
FOLDERS = False
FILE: Final = "model.keras"
FLOOR: Final = "3.13.2"
NAMES: Final = frozenset(["config.json", "metadata.json", "model.weights.h5"])
MODULES: Final = re.compile(
    r"keras(\.(layers|models|initializers|regularizers|constraints|activations|dtype_policies"
    r"|src\.models\.functional|src\.ops\.(numpy|nn)))?\Z"
)
# Layers that hold a program of another library, or Python.
OTHERS: Final = frozenset(
    ["Lambda", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer", "__lambda__"]
)
_CLASS: Final = re.compile(r"[A-Z]\w*\Z")


def takes(model: Any, example: Any = None) -> bool:  # noqa: ARG001
    """Tell whether an object is a model of Keras 3."""
    return is_a(model, "keras", "Model")


def recognises(files: Files) -> bool:
    """Tell by its table of contents whether a file is of Keras."""
    if len(files) != 1:
        return False
    try:
        with zipfile.ZipFile(files[0][1]) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False
    return {"config.json", "metadata.json"} <= names


def save(model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG001 - no tracing
    """Write a model that can be loaded again without trusting it.

    Raises:
        InvalidModel: If Keras cannot write it, or it holds a class that is not Keras' own.
    """
    try:
        model.save(folder / FILE)
    except Exception as exc:
        raise InvalidModel(f"Keras cannot save the {type(model).__name__}: {exc}") from exc
    try:
        _check(folder / FILE, "the model")
    except UntrustedModel as exc:
        raise InvalidModel(f"The {type(model).__name__} would not be loaded again: {exc}") from exc


def load(folder: Path, label: str, *, trusted: bool) -> Any:
    """Return the model, without its optimizer and losses; always with ``safe_mode``.

    Raises:
        UntrustedModel: If it names what is not Keras' own, and `trusted` is not exactly True.
        InvalidModel: If it is not sound, or a lambda, which is not run even of a trusted file.
    """
    keras = library("keras", "A Keras model", "keras")
    (path,) = folder.iterdir()
    if trusted is not True:
        check_floor(label, "keras", keras.__version__, FLOOR)
        _check(path, label)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as exc:  # A broken file makes Keras raise almost anything.
        raise InvalidModel(f"{label} is no sound model of Keras: {exc}") from exc


def _check(path: Path, label: str) -> None:
    names = check_archive(path, label)
    foreign = sorted(set(names) - NAMES)
    if foreign:
        raise UntrustedModel(label, f"it holds {foreign[0]!r} beside the configuration and weights")
    try:
        with zipfile.ZipFile(path) as archive:
            config = read_json(archive.read("config.json"), label)
            weights = archive.read("model.weights.h5") if "model.weights.h5" in names else b""
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, KeyError) as exc:
        raise InvalidModel(f"{label} is no sound zip file: {exc}") from exc
    _check_weights(weights, label)
    if isinstance(config, dict):
        # How it was compiled is not loaded.
        config = {key: value for key, value in config.items() if key != "compile_config"}
    for each in mappings_in(config):
        _check_names(each, label)


def _check_names(each: dict[str, Any], label: str) -> None:
    name, module = each.get("class_name"), each.get("module")
    if name is None:
        return
    if name in OTHERS or name in ("function", "__numpy__", "slice", "type"):
        raise UntrustedModel(label, f"it holds a {name}")
    if name in ("__keras_tensor__", "__tensor__", "__ellipsis__", "__tuple__"):
        return
    if not isinstance(name, str) or not _CLASS.match(name):
        raise UntrustedModel(label, f"it names the class {name!r}")
    if module is not None and not (isinstance(module, str) and MODULES.match(module)):
        raise UntrustedModel(label, f"it names the class {name!r} of {module!r}")
    own = each.get("registered_name")
    if own is not None and own != name:
        raise UntrustedModel(label, f"it names the class {own!r}, which is not Keras' own")


def _check_weights(content: bytes, label: str) -> None:
    """Refuse HDF5 that reaches into other files: links and external storage."""
    import io  # noqa: PLC0415 - only weights need it

    h5py = library("h5py", "A Keras model", "keras")
    if not content:
        raise InvalidModel(f"{label} has no weights.")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            waiting = [file]
            while waiting:
                group = waiting.pop()
                for key in group:
                    link = group.get(key, getlink=True)
                    if not isinstance(link, h5py.HardLink):
                        raise InvalidModel(  # noqa: TRY301
                            f"{label} has weights that lie elsewhere: {key!r}."
                        )
                    item = group[key]
                    if isinstance(item, h5py.Group):
                        waiting.append(item)
                    elif item.external or item.is_virtual:
                        raise InvalidModel(  # noqa: TRY301
                            f"{label} has weights that lie elsewhere: {key!r}."
                        )
    except InvalidModel:
        raise
    except Exception as exc:
        raise InvalidModel(f"{label} has weights that cannot be read: {exc}") from exc

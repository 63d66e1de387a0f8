"""Keras' own format, version 3: classes by name, of which only Keras' own are built.

``safe_mode`` refuses lambdas and nothing else: a configuration can name any module's function
(CVE-2025-1550, CVE-2026-1462). Every name in it is checked before Keras sees the file, and every
size is compared with the weights in the file before memory is set aside for it.
"""

from __future__ import annotations

import math
import re
import threading
import zipfile
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry.flavors.archives import check_archive
from mlopskit.registry.flavors.json_files import mappings_in, numbers_in, read_json
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
# What a file may ask for beyond its weights, and the largest size that is in none of them.
_MORE_NUMBERS: Final = 1 << 16
_LARGEST: Final = 1 << 24
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
        _check(folder / FILE, "the model", library("keras", "A Keras model", "keras"))
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
        _check(path, label, keras)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as exc:  # A broken file makes Keras raise almost anything.
        raise InvalidModel(f"{label} is no sound model of Keras: {exc}") from exc


def _check(path: Path, label: str, keras: Any) -> None:
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
    shapes = _check_weights(weights, label)
    if isinstance(config, dict):
        # How it was compiled is not loaded.
        config = {key: value for key, value in config.items() if key != "compile_config"}
    for each in mappings_in(config):
        _check_names(each, label)
    _check_sizes(config, shapes, label)
    _check_build(keras, config, shapes, label)


def _check_sizes(config: Any, shapes: list[tuple[int, ...]], label: str) -> None:
    """Refuse a size that no sound model has, and that its weights do not have either."""
    known = {side for shape in shapes for side in shape}
    for each in mappings_in(config):
        for key, value in each.items():
            if "seed" in key or key in ("salt", "shared_object_id"):
                continue  # These are numbers, and no sizes.
            for number in numbers_in(value):
                if abs(number) > _LARGEST and number not in known:
                    raise InvalidModel(
                        f"{label} has a {key} of {number}, and no weights of such a size."
                    )


def _check_build(keras: Any, config: Any, shapes: list[tuple[int, ...]], label: str) -> None:
    """Build the model without its numbers, and compare how many it would have with the weights."""
    found: list[int] = []
    problems: list[Exception] = []

    def build() -> None:
        # In this scope variables have a shape and no value.
        try:
            with keras.StatelessScope(initialize_variables=False):
                model = keras.saving.deserialize_keras_object(config, safe_mode=True)
                found.append(sum(math.prod(each.shape) for each in model.variables))
        except Exception as exc:  # noqa: BLE001 - a broken file makes Keras raise almost anything
            problems.append(exc)

    # Keras keeps the list of variables that wait for a value by thread. No other shall see these.
    thread = threading.Thread(target=build, daemon=True)
    thread.start()
    thread.join()
    if problems:
        raise InvalidModel(f"{label} is no sound model of Keras: {problems[0]}") from problems[0]
    stored = sum(math.prod(shape) for shape in shapes)
    if found[0] > stored + _MORE_NUMBERS:
        raise InvalidModel(f"{label} asks for {found[0]} numbers, and has weights of {stored}.")


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


def _check_weights(content: bytes, label: str) -> list[tuple[int, ...]]:
    """Return the shapes of the weights.

    Refuse HDF5 that reaches into other files, with links and external storage, and weights that
    are larger than what is stored of them.
    """
    import io  # noqa: PLC0415 - only weights need it

    h5py = library("h5py", "A Keras model", "keras")
    if not content:
        raise InvalidModel(f"{label} has no weights.")
    shapes: list[tuple[int, ...]] = []
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
                    elif (item.nbytes or 0) > item.id.get_storage_size():
                        raise InvalidModel(  # noqa: TRY301
                            f"{label} has weights that are not stored whole: {key!r}."
                        )
                    else:
                        shapes.append(item.shape or ())
    except InvalidModel:
        raise
    except Exception as exc:
        raise InvalidModel(f"{label} has weights that cannot be read: {exc}") from exc
    return shapes

"""Folders of Hugging Face's transformers: a configuration and safetensors.

Weights in other formats may lie in the folder. They are kept, and never loaded.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry.flavors.hf_settings import check_settings, check_sizes
from mlopskit.registry.flavors.json_files import mappings_in, read_json
from mlopskit.registry.flavors.lazily import is_a, library
from mlopskit.registry.flavors.offline import offline
from mlopskit.registry.flavors.safetensors import check_header

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlopskit.registry.flavors import Files

TAKES = "a PreTrainedModel of transformers"
LIBRARIES: tuple[str, ...] = ("transformers", "torch", "safetensors")
SUFFIXES: tuple[str, ...] = ()
FOLDERS = True
_SETTINGS: Final = ("config.json", "generation_config.json")
_WEIGHTS: Final = ("*.safetensors", "*.safetensors.index.json")
# In settings that are kept and not read here, a tokenizer's for one.
_CODE: Final = ("auto_map", "custom_pipelines", "quantization_config")
_SHOWN: Final = 5


def takes(model: Any, example: Any = None) -> bool:  # noqa: ARG001
    """Tell whether an object is a model of transformers."""
    return is_a(model, "transformers", "PreTrainedModel")


def recognises(files: Files) -> bool:
    """Tell by the names and the configuration whether a folder is of transformers."""
    names = {name: path for name, path in files if "/" not in name}
    if "config.json" not in names or "MLmodel" in names:
        return False
    with names["config.json"].open("rb") as file:
        head = file.read(1 << 20)
    return b'"model_type"' in head or b'"architectures"' in head or b'"auto_map"' in head


def save(model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG001 - no tracing
    """Write the configuration, which names the class, and the weights.

    Raises:
        InvalidModel: If transformers cannot, or would not make this class of the folder again.
    """
    try:
        model.save_pretrained(folder, safe_serialization=True)
    except Exception as exc:
        raise InvalidModel(f"transformers cannot save the {type(model).__name__}: {exc}") from exc
    name = type(model).__name__
    try:
        _check_folder(folder, "the model")
    except UntrustedModel as exc:
        raise InvalidModel(
            f"The {name} would not be loaded again: {exc.reason}. To load it with trusted=True, "
            "save it with save_pretrained, and register the folder."
        ) from exc
    transformers = library("transformers", "A Hugging Face model", "transformers")
    named = _architecture(read_json(folder / "config.json", "the model"), "the model")
    if _class(transformers, named, "the model") is not type(model):
        raise InvalidModel(
            f"transformers makes a {named} of the folder, and the model is a "
            f"{type(model).__module__}.{name}. Register its files, or a model of that class."
        )


def load(folder: Path, label: str, *, trusted: bool) -> Any:
    """Return the model, of the class that its configuration names first, from this folder alone.

    Raises:
        UntrustedModel: If the folder names code or something elsewhere, reaches for the network, or
            has only pickled weights, and `trusted` is not exactly True.
        InvalidModel: If it is not sound, its class is none of transformers, or weights are missing.
    """
    if trusted is not True:
        _check_folder(folder, label)
    headers = [check_header(path, label) for path in folder.glob("*.safetensors")]
    config = read_json(folder / "config.json", label)
    name = _architecture(config, label)
    if headers and trusted is not True:
        counts, sizes = zip(*headers, strict=True)
        check_sizes(config, sum(counts), sum(sizes), label)
    transformers = library("transformers", "A Hugging Face folder", "transformers")
    try:
        with nullcontext() if trusted is True else offline(label):
            if trusted is True and (auto := _own_code(transformers, config, name)):
                given = _read(auto, folder, trust_remote_code=True)
            else:
                kind = _class(transformers, name, label)
                settings = _configured(kind, config, label)
                if trusted is not True:
                    check_settings(settings, label, "configuration with its defaults")
                    folder = _alone(folder)
                dtype = "dtype" if hasattr(settings, "dtype") else "torch_dtype"
                given = _read(kind, folder, config=settings, **{dtype: "auto"})
    except (InvalidModel, UntrustedModel):
        raise
    except Exception as exc:  # A broken folder makes transformers raise almost anything.
        raise InvalidModel(f"{label} is no sound folder of transformers: {exc}") from exc
    return _whole(*given, name, label)


def _read(kind: Any, folder: Path, **more: Any) -> tuple[Any, Any]:
    """Return a model, and what transformers tells about its weights.

    It names tensors of the wrong shape in its answer only where it may pass over them.
    """
    safe = any(folder.glob("*.safetensors"))
    model, told = kind.from_pretrained(
        str(folder),
        local_files_only=True,
        use_safetensors=True if safe else None,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **more,
    )
    return model, told


def _whole(model: Any, told: Any, name: str, label: str) -> Any:
    """Return a model that has its weights. Those it shares with itself may be missing in the file.

    transformers fills what is missing, or of another shape, with random numbers.
    """
    if type(model).__name__ != name:
        raise InvalidModel(f"{label} is a {name}, and loads as a {type(model).__name__}.")
    if mismatched := told["mismatched_keys"]:  # Names, or with the two shapes: as of the version.
        names = [each if isinstance(each, str) else each[0] for each in mismatched]
        raise InvalidModel(
            f"{label} has weights of another shape than its {name}: {_names(names)}. Save the "
            "model with its own configuration, and register it again."
        )
    if missing := told["missing_keys"]:
        raise InvalidModel(
            f"{label} lacks weights of its {name}: {_names(missing)}. Save the whole model, with "
            "its heads, and register it again."
        )
    return model


def _names(keys: Collection[str]) -> str:
    shown = ", ".join(repr(key) for key in sorted(keys)[:_SHOWN])
    return shown if len(keys) <= _SHOWN else f"{shown} and {len(keys) - _SHOWN} more"


# What is checked before anything is loaded.


def _check_folder(folder: Path, label: str) -> None:
    if not any(folder.glob("*.safetensors")):
        raise UntrustedModel(label, "it has no safetensors, and other weights are pickles")
    if (folder / "adapter_config.json").exists():
        raise UntrustedModel(label, "it is an adapter of a model that is elsewhere")
    for path in sorted(folder.rglob("*.json")):
        given = read_json(path, label)
        if path.parent == folder and path.name in _SETTINGS:
            check_settings(given, label, path.name)
        elif path.name not in ("vocab.json", "tokenizer.json"):
            _check_other(given, folder, path.name, label)


def _check_other(given: Any, folder: Path, file: str, label: str) -> None:
    for each in mappings_in(given):
        found = next((key for key in _CODE if each.get(key)), None)
        if found:
            raise UntrustedModel(label, f"{file} has {found!r}")
    places = given.get("weight_map") if isinstance(given, dict) else None
    names = places.values() if isinstance(places, dict) else ()
    for name in names:
        if not isinstance(name, str) or "/" in name or not (folder / name).is_file():
            raise InvalidModel(f"{label} names weights that are not beside it: {name!r}.")


def _alone(folder: Path) -> Path:
    """Move the weights and their settings to where nothing else can be found beside them."""
    place = Path(tempfile.mkdtemp(dir=folder))
    for pattern in (*_SETTINGS, *_WEIGHTS):
        for path in folder.glob(pattern):
            path.rename(place / path.name)
    return place


# Classes.


def _architecture(config: Any, label: str) -> str:
    names = config.get("architectures") if isinstance(config, dict) else None
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str):
        raise InvalidModel(
            f"{label} does not say of which class it is: 'architectures' in config.json is "
            f"{names!r}. save_pretrained of a model writes it."
        )
    return name


def _class(transformers: Any, name: str, label: str) -> Any:
    """Return the class of exactly this name that transformers itself offers."""
    found = getattr(transformers, name, None) if name.isidentifier() else None
    base = transformers.PreTrainedModel
    if not isinstance(found, type) or not issubclass(found, base) or found is base:
        raise InvalidModel(
            f"{label} is a {name!r}, and transformers {transformers.__version__} offers no model "
            "called so. Install the version that wrote it, or get its files with download()."
        )
    return found


def _configured(kind: Any, config: Any, label: str) -> Any:
    """Return the configuration of a class, which has to be that of the file."""
    made = kind.config_class
    if config.get("model_type") != made.model_type:
        raise InvalidModel(
            f"{label} has the settings of a {config.get('model_type')!r}, and a {kind.__name__} "
            f"has those of a {made.model_type!r}."
        )
    return made.from_dict(config)


def _own_code(transformers: Any, config: Any, name: str) -> Any:
    """Return the automatic class that imports a class of this name from the folder, if any."""
    places = config.get("auto_map")
    for auto, place in places.items() if isinstance(places, dict) else ():
        if auto.startswith("AutoModel") and str(place).rpartition(".")[2] == name:
            return getattr(transformers, auto)
    return None

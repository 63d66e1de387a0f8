"""Folders of Hugging Face's transformers: a configuration and safetensors.

Weights in other formats may lie in the folder. They are kept, and never loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry.flavors.json_files import mappings_in, read_json
from mlopskit.registry.flavors.lazily import is_a, library
from mlopskit.registry.flavors.safetensors import check_header

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry.flavors import Files

TAKES = "a PreTrainedModel of transformers"
LIBRARIES: tuple[str, ...] = ("transformers", "torch", "safetensors")
SUFFIXES: tuple[str, ...] = ()
FOLDERS = True
_TASKS: Final = (
    *("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"),
    *("MaskedLM", "CausalLM", "Seq2SeqLM", "ImageClassification", "AudioClassification"),
)
# The first names code that is fetched; the others let another package load the weights.
_CODE: Final = ("auto_map", "custom_pipelines", "quantization_config")


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
    """Write the configuration and the weights.

    Raises:
        InvalidModel: If transformers cannot.
    """
    try:
        model.save_pretrained(folder, safe_serialization=True)
    except Exception as exc:
        raise InvalidModel(f"transformers cannot save the {type(model).__name__}: {exc}") from exc


def load(folder: Path, label: str, *, trusted: bool) -> Any:
    """Return the model for its first architecture, read from this folder alone.

    Raises:
        UntrustedModel: If the folder names code, or has only pickled weights, and `trusted` is not
            exactly True.
        InvalidModel: If it is not sound.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if trusted is not True:
        if not weights:
            raise UntrustedModel(label, "it has no safetensors, and other weights are pickles")
        if (folder / "adapter_config.json").exists():
            raise UntrustedModel(label, "it is an adapter of a model that is elsewhere")
        _check_json(folder, label)
    for path in weights:
        check_header(path, label)
    config = read_json(folder / "config.json", label)
    transformers = library("transformers", "A Hugging Face folder", "transformers")
    try:
        return _auto(transformers, config).from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=trusted is True,
            use_safetensors=True if weights else None,
        )
    except Exception as exc:  # A broken folder makes transformers raise almost anything.
        raise InvalidModel(f"{label} is no sound folder of transformers: {exc}") from exc


def _check_json(folder: Path, label: str) -> None:
    for path in sorted(folder.rglob("*.json")):
        given = read_json(path, label)
        if path.name in ("vocab.json", "tokenizer.json"):
            continue
        for each in mappings_in(given):
            found = next((key for key in _CODE if each.get(key)), None)
            if found:
                raise UntrustedModel(label, f"{path.name} has {found!r}")
        places = given.get("weight_map") if isinstance(given, dict) else None
        names = places.values() if isinstance(places, dict) else ()
        for name in names:
            if not isinstance(name, str) or "/" in name or not (folder / name).is_file():
                raise InvalidModel(f"{label} names weights that are not beside it: {name!r}.")


def _auto(transformers: Any, config: Any) -> Any:
    names = config.get("architectures") or [""]
    task = next((task for task in _TASKS if str(names[0]).endswith(f"For{task}")), None)
    return getattr(transformers, f"AutoModelFor{task}" if task else "AutoModel")

"""What the settings of a model of transformers may say without trust.

Settings choose what the loader fetches and runs. So a text is let through only if it cannot be the
address of something elsewhere, and a key that chooses code only with values known to be
transformers' own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, UntrustedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

# Notes and words for people. No file and no class is looked up by them.
NOTES: Final = frozenset(
    (
        *("_name_or_path", "name_or_path", "_commit_hash", "transformers_version"),
        *("finetuning_task", "task_specific_params", "prefix", "stop_strings"),
        *("id2label", "label2id"),
    )
)
# Keys that say which code computes something, and the values that fetch none. The names of flash
# attention are not among them: without its package transformers fetches a build from the Hub.
CHOICES: Final = {
    "attn_implementation": ("eager", "sdpa", "flex_attention"),
    "experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}
# Code that is fetched; packages that read the weights or rewrite the layers in another way; models
# that are elsewhere; settings in another file, or under another name.
REFUSED: Final = frozenset(
    (
        *("auto_map", "custom_pipelines", "custom_generate", "kernel_config", "use_kernels"),
        *("quantization_config", "compression_config", "fusion_config", "distributed_config"),
        *("use_pretrained_backbone", "base_model_name_or_path"),
        *("configuration_files", "attribute_map", "sub_configs"),
    )
)
# What timm is passed by name. Others of its options name weights, and some fetch them.
OPTIONS: Final = dict.fromkeys(
    ("backbone_kwargs", "model_args"),
    ("in_chans", "out_indices", "output_stride", "features_only", "inference_mode", "img_size"),
)
# Each of a model's layers has a tensor of its own, and each of its features a number in one.
_LAYERS: Final = re.compile(r"num_(\w+_)?layers\Z|n_layers?\Z|(en|de)coder_layers\Z|depth\Z")
FEATURES: Final = frozenset(
    (
        *("hidden_size", "intermediate_size", "vocab_size", "embedding_size", "d_model", "d_ff"),
        *("n_embd", "n_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "dim"),
    )
)
_SCHEME: Final = re.compile(r"[A-Za-z][\w+.-]*:(?!\d+\Z)\S")  # `cuda:0` has none


def check_sizes(settings: Mapping[str, Any], tensors: int, size: int, label: str) -> None:
    """Check that settings do not ask for what the weights cannot fill.

    transformers builds the layers before it looks at the weights.

    Args:
        settings: What ``config.json`` holds. Its parts are not looked at: a class may leave them
            out.
        tensors: How many there are in the files.
        size: The bytes of them.
        label: The model, for the errors' messages.

    Raises:
        InvalidModel: If a number of layers or of features is larger.
    """
    for key, value in settings.items():
        most = tensors if _LAYERS.match(key) else size if key in FEATURES else None
        if most is not None and isinstance(value, int) and value > most:
            raise InvalidModel(
                f"{label} has {value} as {key!r}, and its weights are {tensors} tensors of "
                f"{size} bytes in all."
            )


def check_settings(settings: Any, label: str, file: str) -> None:
    """Check settings, those of parts included.

    Args:
        settings: What the file holds, or the configuration that transformers made of it.
        label: The model, for the errors' messages.
        file: The name of the file, for the errors' messages.

    Raises:
        UntrustedModel: If they let the loader fetch something, or run other code.
        InvalidModel: If they are no mapping.
    """
    if _items(settings) is None:
        raise InvalidModel(f"{label} has a {file} that is no mapping of settings.")
    waiting: list[tuple[str, Any]] = [("", settings)]
    while waiting:
        key, value = waiting.pop()
        items = _items(value)
        if items is not None:
            _check_mapping(items, label, file)
            waiting += [(str(k), v) for k, v in items.items() if k not in NOTES]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(key, each) for each in value]
        elif isinstance(value, str) and _may_be_address(value):
            raise UntrustedModel(label, f"{file} has {value!r} as {key!r}, which may be elsewhere")


def _check_mapping(items: Mapping[Any, Any], label: str, file: str) -> None:
    for key, value in items.items():
        if value and key in REFUSED:
            raise UntrustedModel(label, f"{file} has {key!r}")
        if value and key in OPTIONS:
            _check_options(key, value, label, file)
        for word, known in CHOICES.items():
            if word in str(key):
                _check_choice(str(key), value, known, label, file)
    # A part that is of timm is made of a plain name. Above it the name is one to fetch.
    if items.get("backbone") and items.get("model_type") != "timm_backbone":
        what = f"{file} has the 'backbone' {items['backbone']!r}, which is fetched"
        raise UntrustedModel(label, what)


def _check_options(key: str, value: Any, label: str, file: str) -> None:
    for each in value if isinstance(value, dict) else [value]:
        if each not in OPTIONS[key]:
            raise UntrustedModel(label, f"{file} has {each!r} in {key!r}")


def _check_choice(key: str, value: Any, known: tuple[str, ...], label: str, file: str) -> None:
    for each in value.values() if isinstance(value, dict) else [value]:
        if each is not None and not isinstance(each, bool) and each not in known:
            names = ", ".join(known)
            raise UntrustedModel(label, f"{file} has {each!r} as {key!r}, and not one of {names}")


def _items(value: Any) -> Mapping[Any, Any] | None:
    """Return the items of a mapping, or the attributes of a configuration of transformers."""
    if isinstance(value, dict):
        return value
    if not hasattr(value, "to_dict"):
        return None
    return {"model_type": getattr(value, "model_type", None), **vars(value)}


def _may_be_address(text: str) -> bool:
    """Tell whether a text may name a repository, a file or a page. One with spaces is words."""
    places = text.replace("\\", "/").split("/")
    if text[:1] in ("/", "\\", "~") or ".." in places:
        return True
    if any(char in "<>" or char.isspace() for char in text):
        return False
    return len(places) > 1 or bool(_SCHEME.match(text))

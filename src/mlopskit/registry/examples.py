"""An example of what a model is asked and what it answers, kept beside its files.

The file is a request and its response as the Open Inference Protocol writes them, so that a server
can warm up with it and be held to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, InvalidModel, MissingDependency
from mlopskit.registry.signatures import infer_signature

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from mlopskit.redaction import Redactor
    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.entities import Signature

FILE: Final = "mlopskit-example.json"
MOST_BYTES: Final = 16 << 20
# https://github.com/kserve/open-inference-protocol, "Tensor Data Types"
_WORDS: Final = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
TEXTS: Final = "BYTES"
_TYPES: Final = {word: name for name, word in _WORDS.items()}


def packed(inputs: Any, outputs: Any = None, *, redactor: Redactor | None = None) -> bytes:
    """Return an example as JSON.

    Args:
        inputs: An array, named ``"input"``; a mapping from name to array; or a frame of pandas,
            Polars or PyArrow, each column of which is an array. The rows come first.
        outputs: What the model answers, likewise; a single array is named ``"output"``.
        redactor: Removes the secrets in texts and names.

    Raises:
        InvalidInput: If it is none of these, holds what the protocol has no type for, or is larger
            than 16 MiB.
        MissingDependency: If NumPy is not installed.
    """
    found: dict[str, Any] = {"inputs": _tensors(inputs, "input")}
    if outputs is not None:
        found["outputs"] = _tensors(outputs, "output")
    if redactor is not None:
        for tensor in (*found["inputs"], *found.get("outputs", ())):
            if tensor["datatype"] == TEXTS:
                tensor["data"] = redactor.value(tensor["data"], tensor["name"])
            tensor["name"] = redactor.text(tensor["name"])
    text = json.dumps(found, separators=(",", ":")).encode()
    if len(text) > MOST_BYTES:
        raise InvalidInput(
            f"The example takes {len(text)} bytes, and at most {MOST_BYTES} are kept. "
            "A few rows are enough."
        )
    return text


def fits(inputs: Any) -> bool:
    """Tell whether `packed` has a form for an example: rows of numbers, bools or texts."""
    try:
        arrays = as_arrays(inputs, "input")
    except (MissingDependency, ValueError, TypeError):  # Of rows that have no common length.
        return False
    return bool(arrays) and all(array.ndim and _word(array) for array in arrays.values())


def unpacked(text: bytes, what: str) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return the arrays that a model was asked with, and those that it answered.

    Raises:
        InvalidModel: If the text is no example.
    """
    try:
        found = json.loads(text)
        return _arrays(found["inputs"]), _arrays(found.get("outputs", []))
    except (ValueError, TypeError, KeyError, OverflowError) as exc:
        raise InvalidModel(f"The example of {what} cannot be read: {exc}") from exc


def signature(inputs: Any, outputs: Any = None) -> Signature:
    """Return the signature that an example shows."""

    def named(given: Any, name: str) -> Any:
        return given if _is_frame(given) else as_arrays(given, name)

    return infer_signature(
        named(inputs, "input"), None if outputs is None else named(outputs, "output")
    )


def without(manifest: Manifest, folder: Path) -> Manifest:
    """Take the example out of a folder and its manifest, so that a flavor sees its own files."""
    (folder / FILE).unlink(missing_ok=True)
    files = tuple(file for file in manifest.files if file.path != FILE)
    return manifest.model_copy(update={"files": files})


def as_arrays(given: Any, name: str) -> dict[str, NDArray[Any]]:
    """Return an array, a mapping of arrays or the columns of a frame as arrays by name."""
    numpy = _numpy()
    if isinstance(given, Mapping):
        return {str(key): numpy.asarray(_here(value)) for key, value in given.items()}
    if _is_frame(given):
        names = getattr(given, "column_names", None) or list(given.columns)
        return {str(key): numpy.asarray(given[key]) for key in names}
    return {name: numpy.asarray(_here(given))}


def _here(given: Any) -> Any:
    """Return a tensor of torch as NumPy takes it: in the memory of the CPU, without gradients."""
    return given.detach().cpu() if hasattr(given, "detach") else given


def _is_frame(given: Any) -> bool:
    return hasattr(given, "columns") or hasattr(given, "column_names")


def _tensors(given: Any, name: str) -> list[dict[str, Any]]:
    arrays = as_arrays(given, name)
    if not arrays:
        raise InvalidInput(f"The example has no {name}.")
    return [_tensor(key, array) for key, array in arrays.items()]


def _tensor(name: str, array: NDArray[Any]) -> dict[str, Any]:
    if array.ndim == 0:
        raise InvalidInput(f"{name!r} of the example has no rows. Pass a batch, even of one.")
    word = _word(array)
    if word is None:
        raise InvalidInput(
            f"{name!r} of the example has the type {array.dtype}, which the Open Inference "
            "Protocol has no word for. Pass numbers, bools or texts."
        )
    data = array.ravel().tolist()
    return {"name": name, "shape": list(array.shape), "datatype": word, "data": data}


def _word(array: NDArray[Any]) -> str | None:
    word = _WORDS.get(array.dtype.name)
    if word is None and all(isinstance(item, str) for item in array.flat):
        return TEXTS
    return word


def _arrays(tensors: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    numpy = _numpy()
    found = {}
    for each in tensors:
        word = each["datatype"]
        dtype = object if word == TEXTS else _TYPES[word]
        found[str(each["name"])] = numpy.array(each["data"], dtype=dtype).reshape(each["shape"])
    return found


def _numpy() -> Any:
    try:
        import numpy as np  # noqa: PLC0415 - the core works without NumPy
    except ModuleNotFoundError as exc:
        raise MissingDependency(
            "An input example", "numpy", "pip install 'mlopskit[local]'"
        ) from exc
    return np

"""What a model takes and answers, read off examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.registry.entities import Signature, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FRAME_WORDS = {
    "boolean": "bool",
    "string": "str",
    "categorical": "category",
    "enum": "category",
    "binary": "bytes",
}


def infer_signature(inputs: Any, outputs: Any = None) -> Signature:
    """Return the names, types and shapes of a model's inputs and outputs, with -1 for the rows.

    Args:
        inputs: What the model is asked with: a frame of pandas, Polars or PyArrow, an array, or a
            mapping from name to array. A single array is named ``"input"``.
        outputs: What it answers, likewise; a single array is named ``"output"``. None if unknown.

    Raises:
        InvalidInput: If it is none of these, or an array has no rows dimension.
        MissingDependency: If NumPy, or narwhals for a frame, is not installed.
    """
    return Signature(
        inputs=_specs(inputs, "input"),
        outputs=() if outputs is None else _specs(outputs, "output"),
    )


def _specs(given: Any, name: str) -> tuple[TensorSpec, ...]:
    if isinstance(given, Mapping):
        if not given:
            raise InvalidInput(f"The {name}s are an empty mapping, which says nothing.")
        return tuple(_array(key, value) for key, value in given.items())
    if _is_array(given):
        return (_array(name, given),)
    return _frame(given, name)


def _is_array(given: Any) -> bool:
    if type(given).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow"):
        return False  # Their columns look like arrays, and have types of their own.
    return hasattr(given, "__array__") and hasattr(given, "shape") and hasattr(given, "dtype")


def _array(name: Any, given: Any) -> TensorSpec:
    try:
        import numpy as np  # noqa: PLC0415 - the core works without NumPy
    except ModuleNotFoundError as exc:
        raise _missing("numpy") from exc
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"An array is named {name!r}; a name is a text that is not empty.")
    if not hasattr(given, "__array__") and not isinstance(given, list | tuple):
        raise InvalidInput(f"{name!r} is a {type(given).__name__}, and no array.")
    try:
        array = np.asarray(given)
    except ValueError as exc:
        raise InvalidInput(f"{name!r} is no array: {exc}.") from exc
    if array.ndim == 0:
        raise InvalidInput(f"{name!r} has no dimension for the rows. Pass a batch, even of one.")
    return TensorSpec(name=name, dtype=_dtype(array), shape=(-1, *array.shape[1:]))


def _dtype(array: NDArray[Any]) -> str:
    kind = array.dtype.kind
    if kind == "O":
        texts = array.size > 0 and all(isinstance(item, str) for item in array.flat)
        return "str" if texts else "object"
    words = {"U": "str", "T": "str", "S": "bytes", "M": "datetime", "m": "duration"}
    return words.get(kind, array.dtype.name)


def _frame(given: Any, name: str) -> tuple[TensorSpec, ...]:
    try:
        import narwhals.stable.v1 as nw  # noqa: PLC0415 - the core works without narwhals
    except ModuleNotFoundError as exc:
        raise _missing("narwhals") from exc
    try:
        frame = nw.from_native(given, allow_series=True)
    except TypeError as exc:
        raise InvalidInput(
            f"A signature cannot be read off a {type(given).__name__}. Pass a frame, an array, or "
            "a mapping from name to array."
        ) from exc
    if isinstance(frame, nw.Series):
        return (TensorSpec(name=frame.name or name, dtype=_word(frame.dtype)),)
    schema = frame.collect_schema()
    if not schema:
        raise InvalidInput(f"The {name}s are a frame without columns, which says nothing.")
    return tuple(TensorSpec(name=str(key), dtype=_word(kind)) for key, kind in schema.items())


def _word(dtype: Any) -> str:
    word = type(dtype).__name__.lower() if not isinstance(dtype, type) else dtype.__name__.lower()
    return _FRAME_WORDS.get(word, word)


def _missing(package: str) -> MissingDependency:
    return MissingDependency("infer_signature", package, "pip install 'mlopskit[local]'")

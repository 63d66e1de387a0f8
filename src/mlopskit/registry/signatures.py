"""What a model takes and answers, read off examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.registry.entities import Signature, SignatureChange, TensorSpec

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


# What a caller may send where the earlier model took the narrower: NumPy's safe casts by value.
_WIDER: Final[Mapping[str, frozenset[str]]] = {
    "bool": frozenset(),
    "int8": frozenset(["int16", "int32", "int64"]),
    "int16": frozenset(["int32", "int64"]),
    "int32": frozenset(["int64"]),
    "uint8": frozenset(["uint16", "uint32", "uint64", "int16", "int32", "int64"]),
    "uint16": frozenset(["uint32", "uint64", "int32", "int64"]),
    "uint32": frozenset(["uint64", "int64"]),
    "float16": frozenset(["float32", "float64"]),
    "float32": frozenset(["float64"]),
}


def compare_signatures(earlier: Signature, later: Signature) -> SignatureChange:
    """Return what changes for those who ask a model.

    A caller of the earlier model can ask the later one if it takes the same inputs by name, each of
    the same type or a wider one and of the same shape or a looser one, and can read it if every
    output it knew is there, of the same type and shape. Outputs may be added.
    """
    breaks: list[str] = []
    additions: list[str] = []
    before, after = _by_name(earlier.inputs), _by_name(later.inputs)
    breaks += [f"The input {name!r} is gone." for name in before.keys() - after.keys()]
    breaks += [f"The input {name!r} is new." for name in after.keys() - before.keys()]
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if old.dtype != new.dtype:
            wider = new.dtype in _WIDER.get(old.dtype, ())
            says = f"The input {name!r} was {old.dtype} and is {new.dtype}."
            (additions if wider else breaks).append(says)
        if old.shape != new.shape:
            looser = len(old.shape) == len(new.shape) and all(
                b in (a, -1) for a, b in zip(old.shape, new.shape, strict=True)
            )
            says = f"The input {name!r} had the shape {old.shape} and has {new.shape}."
            (additions if looser else breaks).append(says)
    before, after = _by_name(earlier.outputs), _by_name(later.outputs)
    breaks += [f"The output {name!r} is gone." for name in before.keys() - after.keys()]
    additions += [f"The output {name!r} is new." for name in after.keys() - before.keys()]
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if (old.dtype, old.shape) != (new.dtype, new.shape):
            breaks.append(
                f"The output {name!r} was {old.dtype} {old.shape} and is {new.dtype} {new.shape}."
            )
    return SignatureChange(
        compatible=not breaks, breaks=tuple(sorted(breaks)), additions=tuple(sorted(additions))
    )


def _by_name(specs: tuple[TensorSpec, ...]) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs}


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
    except nw.exceptions.DuplicateError as exc:
        raise InvalidInput(f"Columns of the {name}s have one name: {exc}") from exc
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

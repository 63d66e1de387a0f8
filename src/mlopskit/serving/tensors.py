"""Arrays as the Open Inference Protocol knows them: datatypes, raw bytes, declared inputs.

Specification: https://github.com/kserve/open-inference-protocol (version 2, tensor data types) and
the binary tensor data extension of Triton.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlopskit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlopskit.serving.entities import TensorSpec

    Array = np.ndarray[Any, Any]

# Little endian, as they travel.
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("O"),
}
_NAMES: Final = {
    each: name for name, dtype in DTYPES.items() for each in (dtype, dtype.newbyteorder(">"))
}
MOST_DIMENSIONS: Final = 16
LARGEST_DIMENSION: Final = 2**31 - 1
_LENGTH: Final = struct.Struct("<I")


def shown(name: str) -> str:
    """Return a caller's word as it may stand in an error: quoted, escaped, not long."""
    return ascii(name if len(name) <= 60 else name[:57] + "...")


def datatype_of(array: Array) -> str:
    """Return the protocol's word for an array's dtype.

    Raises:
        InvalidInput: If the protocol has none, as for complex numbers and dates.
    """
    name = _NAMES.get(array.dtype)
    if name is None:
        if array.dtype.kind in "SU":
            return "BYTES"
        raise InvalidInput(
            f"An array of {array.dtype} cannot travel. Use one of: {', '.join(DTYPES)}."
        )
    return name


def as_array(
    name: str,
    value: Any,
    spec: TensorSpec | None = None,
    *,
    copy: bool = True,
    kind: str = "Input",
) -> Array:
    """Return what a caller gave for an input, as an array of a dtype that can travel.

    A plain Python list takes the declared datatype, if that loses nothing but digits of a float.
    An array keeps its own dtype.

    Raises:
        InvalidInput: If numpy makes no array of it, or the dtype cannot travel.
    """
    try:
        array = np.asarray(value)
        if spec is not None and not hasattr(value, "dtype") and spec.datatype != "BYTES":
            wanted = DTYPES[spec.datatype]
            if array.dtype.kind in _LOSSLESS_KINDS.get(wanted.kind, wanted.kind):
                array = np.asarray(value, dtype=wanted)
    except (ValueError, TypeError, OverflowError) as exc:
        raise InvalidInput(f"{kind} {shown(name)} is no array: {exc}") from exc
    try:
        datatype = datatype_of(array)
    except InvalidInput as exc:
        raise InvalidInput(f"{kind} {shown(name)}: {exc}") from exc
    if datatype == "BYTES":
        return _objects(f"{kind} {shown(name)}", array)
    return array.astype(DTYPES[datatype], copy=copy)


def check(inputs: Mapping[str, Array], specs: Sequence[TensorSpec] | None, kind: str) -> None:
    """Check arrays against declared specs; nothing is declared where they are None.

    Raises:
        InvalidInput: If one is missing or unknown, or has another datatype or shape than declared.
    """
    if specs is None:
        return
    if len(inputs) != len(specs) or any(spec.name not in inputs for spec in specs):
        _check_names(inputs, specs, kind)
    for spec in specs:
        array = inputs[spec.name]
        if array.dtype != DTYPES[spec.datatype]:
            raise InvalidInput(
                f"{kind} {shown(spec.name)} has the datatype {datatype_of(array)}; "
                f"the model declares {spec.datatype}."
            )
        if array.ndim != len(spec.shape) or any(
            want not in (-1, have) for want, have in zip(spec.shape, array.shape, strict=True)
        ):
            raise InvalidInput(
                f"{kind} {shown(spec.name)} has the shape {list(array.shape)}; "
                f"the model declares {list(spec.shape)}."
            )


def count(name: str, shape: Sequence[int]) -> int:
    """Return how many elements a shape holds, before anything is allocated for them.

    Raises:
        InvalidInput: If it is no shape.
    """
    if len(shape) > MOST_DIMENSIONS:
        raise InvalidInput(
            f"Tensor {shown(name)} has {len(shape)} dimensions; {MOST_DIMENSIONS} are the most."
        )
    for length in shape:
        if not 0 <= length <= LARGEST_DIMENSION:
            raise InvalidInput(f"Tensor {shown(name)} has a dimension out of range.")
    return math.prod(shape)


def from_bytes(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Array:
    """Return the array that raw tensor bytes hold, a copy of them.

    Raises:
        InvalidInput: If datatype, shape and number of bytes do not agree.
    """
    dtype = known(name, datatype)
    elements = count(name, shape)
    if datatype == "BYTES":
        return shaped(name, _split(name, elements, raw), shape)
    if elements * dtype.itemsize != len(raw):
        raise InvalidInput(
            f"Tensor {shown(name)} has {len(raw)} bytes; shape and datatype need "
            f"{elements * dtype.itemsize}."
        )
    array: Array = np.frombuffer(raw, dtype).copy()
    if datatype == "BOOL" and elements and array.view(np.uint8).max() > 1:
        raise InvalidInput(f"Tensor {shown(name)} of BOOL holds bytes other than 0 and 1.")
    return shaped(name, array, shape)


def to_bytes(array: Array) -> bytes:
    """Return the raw bytes of an array, row-major; BYTES elements each after their length."""
    if array.dtype.kind != "O":
        return array.tobytes()
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        parts.append(_LENGTH.pack(len(element)))
        parts.append(element)
    return b"".join(parts)


def known(name: str, datatype: str) -> np.dtype[Any]:
    """Return the dtype of a datatype.

    Raises:
        InvalidInput: If it is unknown, or numpy cannot hold it.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        why = "numpy has no such type; send FP32" if datatype == "BF16" else "there is no such type"
        raise InvalidInput(
            f"Tensor {shown(name)} has the datatype {shown(datatype)}: {why}. "
            f"Known: {', '.join(DTYPES)}."
        )
    return dtype


def shaped(name: str, array: Array, shape: Sequence[int]) -> Array:
    """Return an array in a shape that `count` has found to fit its size.

    Raises:
        InvalidInput: If numpy cannot hold the shape, as an empty one with enormous other sides.
    """
    if array.shape == tuple(shape):
        return array
    try:
        return array.reshape(shape)
    except ValueError as exc:
        raise InvalidInput(f"Tensor {shown(name)} has a shape that is too large.") from exc


def texts(elements: Iterable[Any], size: int) -> Array:
    """Return a flat array of ``bytes`` objects for texts and bytes."""
    array = np.empty(size, dtype=object)
    array[:] = [each.encode() if isinstance(each, str) else each for each in elements]
    return array


# A Python int is a fine float; a float is no int, and a bool is no number.
_LOSSLESS_KINDS: Final = {"f": "iuf", "u": "iu", "i": "iu"}


def _objects(name: str, array: Array) -> Array:
    elements = array.ravel().tolist()
    if array.dtype.kind == "O":
        for each in elements:
            if not isinstance(each, (str, bytes)):
                raise InvalidInput(
                    f"{name} holds a {type(each).__name__} among its objects; "
                    "an array of objects may hold texts and bytes only."
                )
    try:
        return texts(elements, array.size).reshape(array.shape)
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"{name} holds a text that is not valid Unicode.") from exc


def _split(name: str, elements: int, raw: bytes) -> Array:
    found: list[bytes] = []
    at, unpack = 0, _LENGTH.unpack_from
    if elements * 4 <= len(raw):
        try:
            for _ in range(elements):
                begin = at + 4
                at = begin + unpack(raw, at)[0]
                found.append(raw[begin:at])
        except struct.error:  # A length led behind the end.
            at = -1
    if at != len(raw) or len(found) != elements:
        raise InvalidInput(
            f"Tensor {shown(name)} of BYTES does not hold the {elements} elements of its shape, "
            "each after its length in four bytes."
        )
    array = np.empty(elements, dtype=object)
    array[:] = found
    return array


def _check_names(inputs: Mapping[str, Array], specs: Sequence[TensorSpec], kind: str) -> None:
    declared = ", ".join(spec.name for spec in specs)
    for spec in specs:
        if spec.name not in inputs:
            raise InvalidInput(f"{kind} {shown(spec.name)} is missing. Declared: {declared}.")
    unknown = next(name for name in inputs if name not in {spec.name for spec in specs})
    raise InvalidInput(f"There is no {kind.lower()} {shown(unknown)}. Declared: {declared}.")

"""The Open Inference Protocol v2 over HTTP: requests decoded, answers encoded, both encodings.

Tensors travel as JSON, or as raw bytes behind the JSON (the binary tensor data extension). JSON
carries finite numbers only: it has no word for NaN and infinity, so they are refused there with a
hint, and kept exactly in the binary encoding.

What is wrong with a request is an `InvalidInput` whose text may be shown to whoever sent it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from mlopskit.errors import InvalidInput
from mlopskit.serving import tensors
from mlopskit.serving.tensors import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Array = np.ndarray[Any, Any]

HEADER_LENGTH: Final = "inference-header-content-length"
DEEPEST: Final = 32
LONGEST_ID: Final = 1024
MOST_TENSORS: Final = 4096

Parameters = dict[str, bool | int | float | str]


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: msgspec.Raw = msgspec.Raw()


class _Wanted(msgspec.Struct):
    name: str
    parameters: Parameters = {}


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str = ""
    parameters: Parameters = {}
    outputs: list[_Wanted] = []


class _Output(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters = {}
    data: Any = None


class _Response(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str = ""
    id: str = ""
    outputs: list[_Output] = []


class _Received(msgspec.Struct):
    model_name: str
    outputs: list[_Tensor]
    model_version: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One decoded request.

    Attributes:
        id: The caller's own word for it, or empty.
        inputs: Arrays by input name, owned by whoever reads this.
        outputs: The outputs that are asked for, in order; None asks for all.
        binary: Whether an output is to be encoded as raw bytes, by its name.
    """

    id: str
    inputs: dict[str, Array]
    outputs: list[str] | None
    binary: Callable[[str], bool]


_request: Final = msgspec.json.Decoder(_Request)
_received: Final = msgspec.json.Decoder(_Received)
_encoder: Final = msgspec.json.Encoder()
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_KINDS: Final[Mapping[str, type]] = {"b": bool, "i": int, "u": int, "f": float, "O": str}


def decode_request(body: bytes, header_length: str | None) -> Request:
    """Decode an inference request.

    Args:
        body: The whole body of the HTTP request.
        header_length: What the header ``Inference-Header-Content-Length`` says: the length of the
            JSON before the raw tensors. None where there is no such header: all of it is JSON.

    Raises:
        InvalidInput: If it is no valid request.
    """
    head, raw = _parted(body, header_length)
    message: _Request = _parsed(_request, head)
    if len(message.id) > LONGEST_ID:
        raise InvalidInput(f"The request's id is longer than {LONGEST_ID} characters.")
    if message.parameters.get("sequence_id"):
        raise InvalidInput("Sequences are not offered: every request stands alone.")
    return Request(
        id=message.id,
        inputs=_tensors(message.inputs, raw, "input"),
        outputs=_wanted(message.outputs),
        binary=_binary(message),
    )


def encode_response(
    name: str, version: str, request: Request, outputs: Mapping[str, Array]
) -> tuple[list[bytes], int | None]:
    """Encode an answer as the request asked for it.

    Returns:
        The pieces of the body, and the length of the JSON in front of raw tensors; None where all
        of it is JSON.

    Raises:
        InvalidInput: If an output that was asked for does not exist, or JSON cannot carry it.
    """
    chosen = list(outputs) if request.outputs is None else request.outputs
    encoded: list[_Output] = []
    pieces: list[bytes] = []
    for output in chosen:
        array = outputs.get(output)
        if array is None:
            raise InvalidInput(
                f"The model has no output {shown(output)}. It has: {', '.join(outputs)}."
            )
        record = _Output(output, tensors.datatype_of(array), list(array.shape))
        if request.binary(output):
            pieces.append(tensors.to_bytes(array))
            record.parameters = {"binary_data_size": len(pieces[-1])}
        else:
            record.data = _json(output, array)
        encoded.append(record)
    head = _encoder.encode(_Response(name, version, request.id, encoded))
    return [head, *pieces], len(head) if pieces else None


def encode_request(
    inputs: Mapping[str, Array], request_id: str, outputs: Sequence[str] | None
) -> tuple[list[bytes], int]:
    """Encode a request with raw tensors that asks for raw tensors.

    Returns:
        The pieces of the body, and the length of the JSON in front.
    """
    pieces: list[bytes] = []
    records: list[_Output] = []
    for name, array in inputs.items():
        raw = tensors.to_bytes(array)
        pieces.append(raw)
        size: Parameters = {"binary_data_size": len(raw)}
        records.append(_Output(name, tensors.datatype_of(array), list(array.shape), size))
    message: dict[str, Any] = {"inputs": records, "parameters": {"binary_data_output": True}}
    if request_id:
        message["id"] = request_id
    if outputs is not None:
        message["outputs"] = [{"name": name} for name in outputs]
    head = _encoder.encode(message)
    return [head, *pieces], len(head)


def decode_response(body: bytes, header_length: str | None) -> tuple[_Received, dict[str, Array]]:
    """Decode an answer: its header, and arrays by output name.

    Raises:
        InvalidInput: If it is no valid answer.
    """
    head, raw = _parted(body, header_length)
    message: _Received = _parsed(_received, head)
    return message, _tensors(message.outputs, raw, "output")


def too_deep(text: bytes) -> bool:
    """Tell whether JSON is nested deeper than `DEEPEST`, in linear time and no recursion.

    Unbalanced brackets may count as too deep: they are no JSON anyway.
    """
    if text.count(b"[") + text.count(b"{") <= DEEPEST:
        return False
    if b'"' in text:  # Brackets inside strings do not count.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        text = b"".join(text.split(b'"')[::2])
    # Every round peels the innermost brackets off, all of them at once.
    left = text.translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(DEEPEST):
        if not left:
            return False
        left = left.replace(b"[]", b"")
    return bool(left)


def _parted(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 12):
        raise InvalidInput("Inference-Header-Content-Length is no number.")
    length = int(header_length)
    if length > len(body):
        raise InvalidInput("Inference-Header-Content-Length is more than the body has.")
    return body[:length], body[length:]


def _parsed(decoder: msgspec.json.Decoder[Any], head: bytes) -> Any:
    if too_deep(head):
        raise InvalidInput(f"The JSON is nested deeper than {DEEPEST}, or is not balanced.")
    try:
        return decoder.decode(head)
    except msgspec.ValidationError as exc:
        raise InvalidInput(f"This is no inference request: {exc}") from exc
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise InvalidInput(
            "The body is not valid JSON. (JSON has no NaN and no infinity: send those as binary "
            "tensors. Raw tensors need the header Inference-Header-Content-Length.)"
        ) from exc


def _tensors(messages: list[_Tensor], raw: bytes, kind: str) -> dict[str, Array]:
    if not 0 < len(messages) <= MOST_TENSORS and kind == "input":
        raise InvalidInput(f"A request has between 1 and {MOST_TENSORS} inputs.")
    found: dict[str, Array] = {}
    at = 0
    for message in messages:
        name = message.name
        if name in found:
            raise InvalidInput(f"The {kind} {shown(name)} is there twice.")
        size = message.parameters.get("binary_data_size")
        if "shared_memory_region" in message.parameters:
            raise InvalidInput("Shared memory is not offered: send the tensor itself.")
        if size is None:
            found[name] = _from_json(message)
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(raw) - at:
            raise InvalidInput(f"binary_data_size of {shown(name)} is more than the body has.")
        if bytes(message.data):
            raise InvalidInput(f"The {kind} {shown(name)} has data both in JSON and behind it.")
        found[name] = tensors.from_bytes(name, message.datatype, message.shape, raw[at : at + size])
        at += size
    if at != len(raw):
        raise InvalidInput(f"There are {len(raw) - at} bytes behind the last tensor.")
    return found


def _from_json(message: _Tensor) -> Array:
    name, shape = message.name, message.shape
    dtype = tensors.known(name, message.datatype)
    elements = tensors.count(name, shape)
    data = bytes(message.data)
    if not data:
        raise InvalidInput(f"Tensor {shown(name)} has no data.")
    nested = data[1:65].lstrip().startswith(b"[")
    try:
        rows = _list_decoder(dtype.kind, max(len(shape), 1) if nested else 1).decode(data)
    except msgspec.ValidationError as exc:
        place = str(exc).partition(" - at ")[0]
        raise InvalidInput(
            f"The data of {shown(name)} does not fit {message.datatype} of shape {shape}: {place}."
        ) from exc
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise InvalidInput(f"The data of {shown(name)} cannot be read.") from exc
    array = _filled(message, rows, dtype)
    if array.size != elements or (nested and array.shape != tuple(shape)):
        raise InvalidInput(
            f"The data of {shown(name)} has the shape {list(array.shape)}, and {shape} is declared."
        )
    return tensors.shaped(name, array, shape)


def _filled(message: _Tensor, rows: list[Any], dtype: np.dtype[Any]) -> Array:
    name = shown(message.name)
    try:
        with np.errstate(over="ignore"):  # It is looked at below.
            array = np.array(rows, dtype=dtype)
    except OverflowError as exc:
        raise InvalidInput(f"A number of {name} does not fit {message.datatype}.") from exc
    except ValueError as exc:
        raise InvalidInput(f"The rows of {name} are not all of the same length.") from exc
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidInput(f"A number of {name} does not fit {message.datatype}.")
    if dtype.kind != "O":
        return array
    flat = array.ravel().tolist()
    if not all(type(each) is str for each in flat):
        raise InvalidInput(f"The rows of {name} are not all of the same length.")
    try:
        return tensors.texts(flat, len(flat)).reshape(array.shape)
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"A text of {name} is not valid Unicode.") from exc


@lru_cache(maxsize=128)
def _list_decoder(kind: str, dimensions: int) -> msgspec.json.Decoder[Any]:
    nested: Any = _KINDS[kind]
    for _ in range(dimensions):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


def _wanted(outputs: list[_Wanted]) -> list[str] | None:
    if not outputs:
        return None
    names = [output.name for output in outputs]
    if len(set(names)) != len(names):
        raise InvalidInput("An output is asked for twice.")
    for output in outputs:
        if output.parameters.get("classification"):
            raise InvalidInput("Classification is not offered: ask for the output itself.")
        if "shared_memory_region" in output.parameters:
            raise InvalidInput("Shared memory is not offered: the answer carries the tensor.")
    return names


def _binary(message: _Request) -> Callable[[str], bool]:
    everywhere = message.parameters.get("binary_data_output", False) is True
    own = {
        output.name: output.parameters["binary_data"] is True
        for output in message.outputs
        if "binary_data" in output.parameters
    }
    return lambda name: own.get(name, everywhere)


def _json(name: str, array: Array) -> list[Any]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidInput(
            f"Output {shown(name)} holds NaN or infinity, and JSON has no word for them. "
            "Ask for binary data."
        )
    flat: list[Any] = array.ravel().tolist()
    if array.dtype.kind != "O":
        return flat
    try:
        return [element.decode() for element in flat]
    except UnicodeDecodeError as exc:
        raise InvalidInput(
            f"Output {shown(name)} holds bytes that are no UTF-8 text. Ask for binary data."
        ) from exc

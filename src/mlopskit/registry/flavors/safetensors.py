"""Tensors in a file that holds nothing else: https://huggingface.co/docs/safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel
from mlopskit.registry.flavors.json_files import read_json
from mlopskit.registry.flavors.lazily import is_a, library

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry.flavors import Files

TAKES = "a torch module (without an input example: its state dict alone), or a state dict"
LIBRARIES: tuple[str, ...] = ("torch", "safetensors")
SUFFIXES: tuple[str, ...] = (".safetensors",)
FOLDERS = False
FILE: Final = "model.safetensors"
HEADER_BYTES: Final = 100_000_000


def takes(model: Any, example: Any = None) -> bool:  # noqa: ARG001
    """Tell whether an object is a module, or a mapping of tensors."""
    if is_a(model, "torch", "Module"):
        return True
    if not isinstance(model, dict) or not model:
        return False
    return all(is_a(value, "torch", "Tensor") for value in model.values())


def recognises(files: Files) -> bool:
    """Tell by the length of the header and its first letter whether a file is of safetensors."""
    if len(files) != 1:
        return False
    name, path = files[0]
    with path.open("rb") as file:
        head = file.read(9)
    short = int.from_bytes(head[:8], "little") <= HEADER_BYTES
    return head[8:] == b"{" and (short or name.lower().endswith(".safetensors"))


def save(model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG001 - no tracing
    """Write tensors by name; those that share memory are written each by itself.

    Raises:
        InvalidModel: If one is of a kind that the format does not have.
    """
    tensors = library("safetensors.torch", "PyTorch tensors", "torch")
    given = model if isinstance(model, dict) else model.state_dict()
    try:
        own = {str(key): value.detach().cpu().contiguous().clone() for key, value in given.items()}
        tensors.save_file(own, folder / FILE)
    except Exception as exc:
        raise InvalidModel(f"safetensors cannot save the tensors: {exc}") from exc


def load(folder: Path, label: str, *, trusted: bool) -> Any:  # noqa: ARG001 - trust changes nothing
    """Return the tensors by name, on the CPU.

    Raises:
        InvalidModel: If the file is not sound.
    """
    (path,) = folder.iterdir()
    check_header(path, label)
    library("torch", "PyTorch tensors", "torch")
    tensors = library("safetensors.torch", "PyTorch tensors", "torch")
    try:
        return tensors.load_file(path, device="cpu")
    except Exception as exc:  # Its own error, and PyTorch's where a type is unknown.
        raise InvalidModel(f"{label} is no sound safetensors file: {exc}") from exc


def check_header(path: Path, label: str) -> tuple[int, int]:
    """Check a header before tensors are read: keys once, no gaps, nothing behind the last tensor.

    Returns:
        How many tensors there are, and how many bytes they take.

    Raises:
        InvalidModel: If it is not sound.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER_BYTES, size - 8):
            raise InvalidModel(f"{label} has a header of {length} bytes in a file of {size}.")
        text = file.read(length)
    header = read_json(text, label)
    try:
        header.pop("__metadata__", None)
        places = sorted((int(a), int(b)) for a, b in (v["data_offsets"] for v in header.values()))
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise InvalidModel(f"{label} has a header that cannot be read: {exc!r}") from exc
    end = 0
    for begin, stop in places:
        if begin != end or stop < begin:
            raise InvalidModel(f"{label} has tensors that overlap, or lie apart.")
        end = stop
    if end != size - 8 - length:
        raise InvalidModel(f"{label} holds bytes that belong to no tensor, or lacks some.")
    return len(places), end

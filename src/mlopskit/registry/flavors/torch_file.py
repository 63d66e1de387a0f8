"""What ``torch.save`` and ``torch.jit.save`` wrote: pickles, which PyTorch can read by a table.

``weights_only`` builds tensors and plain values; what is not in PyTorch's table is refused. See
https://docs.pytorch.org/docs/stable/notes/serialization.html.
"""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry.flavors.archives import check_archive
from mlopskit.registry.flavors.lazily import check_floor, library
from mlopskit.registry.flavors.torch import FLOOR

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry.flavors import Files

TAKES = "the path of a file of torch.save"
LIBRARIES: tuple[str, ...] = ("torch",)
SUFFIXES: tuple[str, ...] = (".pt", ".pth", ".ckpt", ".bin")
FOLDERS = False


def takes(model: Any, example: Any = None) -> bool:  # noqa: ARG001
    """Take no object: nothing is pickled on a caller's behalf."""
    return False


def recognises(files: Files) -> bool:
    """Tell by its table of contents: an archive of PyTorch has a pickle in it."""
    if len(files) != 1:
        return False
    try:
        with zipfile.ZipFile(files[0][1]) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False
    return any(name.endswith(("/data.pkl", "/constants.pkl")) for name in names)


def save(model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG001
    """Refuse; nothing is pickled on a caller's behalf."""
    raise InvalidModel(f"{model!r} is not pickled to {folder}: loading it would run code.")


def load(folder: Path, label: str, *, trusted: bool) -> Any:
    """Return tensors and plain values, on the CPU; anything else only if it is trusted.

    Raises:
        UntrustedModel: If the file holds more than that, or is a program of TorchScript.
        InvalidModel: If it is not sound.
    """
    torch = library("torch", "A file of PyTorch", "torch")
    (path,) = folder.iterdir()
    names = check_archive(path, label)
    script = any("/code/" in name for name in names)
    if trusted is not True:
        check_floor(label, "torch", torch.__version__, FLOOR)
        if script:
            raise UntrustedModel(label, "it is a program of TorchScript")
    try:
        if script:
            return torch.jit.load(str(path), map_location="cpu")
        return torch.load(path, map_location="cpu", weights_only=trusted is not True)
    except pickle.UnpicklingError as exc:
        if trusted is True:
            raise InvalidModel(f"{label} is no sound file of PyTorch: {exc}") from exc
        raise UntrustedModel(label, "it holds more than tensors and plain values") from exc
    except Exception as exc:  # A broken archive makes PyTorch raise almost anything.
        raise InvalidModel(f"{label} is no sound file of PyTorch: {exc}") from exc

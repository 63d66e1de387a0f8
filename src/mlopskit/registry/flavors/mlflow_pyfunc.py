"""MLflow model folders, whose ``MLmodel`` names the Python module that loads them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry.flavors.lazily import library

if TYPE_CHECKING:
    from mlopskit.registry.flavors import Files

TAKES = "the path of an MLflow model folder"
LIBRARIES: tuple[str, ...] = ("mlflow",)
SUFFIXES: tuple[str, ...] = ()
FOLDERS = True


def takes(model: Any, example: Any = None) -> bool:  # noqa: ARG001
    """Take no object: MLflow writes such folders itself."""
    return False


def recognises(files: Files) -> bool:
    """Tell by the file that MLflow writes."""
    return any(name == "MLmodel" for name, _ in files)


def save(model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG001
    """Refuse; MLflow writes such folders itself."""
    raise InvalidModel(f"{model!r} is not written to {folder}: use MLflow's save_model.")


def load(folder: Path, label: str, *, trusted: bool) -> Any:
    """Return the pyfunc model if the caller trusts the folder.

    Raises:
        UntrustedModel: If `trusted` is not exactly True.
        InvalidModel: If MLflow cannot load it.
    """
    if trusted is not True:
        raise UntrustedModel(label, "its MLmodel names the Python module that loads it")
    pyfunc = library("mlflow.pyfunc", "An MLflow model folder", "mlflow")
    own = Path(tempfile.mkdtemp(prefix="mlopskit-"))
    try:
        shutil.copytree(folder, own, dirs_exist_ok=True)
        model = pyfunc.load_model(str(own))
    except Exception as exc:
        shutil.rmtree(own, ignore_errors=True)
        raise InvalidModel(f"{label} is no sound MLflow model: {exc}") from exc
    # It may read its files whenever it predicts.
    weakref.finalize(model, shutil.rmtree, own, ignore_errors=True)
    return model

"""Predictors of mlopskit: a class by name, and the files that it loads.

The class is code that somebody installed, and is kept by name alone; but the name comes from the
file, so that importing it needs trust.
"""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry.flavors.json_files import read_json

if TYPE_CHECKING:
    from mlopskit.registry.flavors import Files

TAKES = "a subclass of mlopskit.Predictor, or a pair of it and the path of its files"
LIBRARIES: tuple[str, ...] = ("mlopskit",)
SUFFIXES: tuple[str, ...] = ()
FOLDERS = True
FILE: Final = "predictor.json"
FILES: Final = "files"


def takes(model: Any, example: Any = None) -> bool:  # noqa: ARG001
    """Tell whether an object is a class of predictors, alone or with a path."""
    kind = model[0] if isinstance(model, tuple) and len(model) == 2 else model
    return isinstance(kind, type) and _is_predictor(kind)


def recognises(files: Files) -> bool:
    """Tell by the file that names the class."""
    return any(name == FILE for name, _ in files)


def save(model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG001 - no tracing
    """Write the name of the class, and copies of its files.

    Raises:
        InvalidModel: If no other process could import the class, or there is nothing at the path.
    """
    kind, path = model if isinstance(model, tuple) else (model, None)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__ == "__main__" or "<" in kind.__qualname__:
        raise InvalidModel(
            f"{name} could not be imported by another process. Put the class into a module that "
            "can be installed."
        )
    given: dict[str, Any] = {"class": name}
    if path is not None:
        source = Path(path).expanduser()
        if not source.exists():
            raise InvalidModel(f"There is nothing at {source} for {name} to load.")
        given["path"] = source.name
        (folder / FILES).mkdir()
        if source.is_dir():
            shutil.copytree(source, folder / FILES / source.name, symlinks=True)
        else:
            shutil.copyfile(source, folder / FILES / source.name)
    (folder / FILE).write_text(json.dumps(given) + "\n")


def load(folder: Path, label: str, *, trusted: bool) -> Any:
    """Return a predictor that has loaded its files, if importing its class is trusted.

    Raises:
        UntrustedModel: If `trusted` is not exactly True.
        InvalidModel: If the class cannot be imported, is no predictor, or fails to load.
    """
    given = read_json(folder / FILE, label)
    name, path = (given.get("class"), given.get("path")) if isinstance(given, dict) else ("", None)
    outside = isinstance(path, str) and path != Path(path).name
    if not isinstance(name, str) or not isinstance(path, str | None) or not name or outside:
        raise InvalidModel(f"{label} names no class of predictors, or files that are elsewhere.")
    if trusted is not True:
        raise UntrustedModel(label, f"it names the class {name}, whose module would be imported")
    module, _, qualname = name.partition(":")
    try:
        kind: Any = importlib.import_module(module)
        for part in qualname.split("."):
            kind = getattr(kind, part)
    except (ImportError, AttributeError, ValueError) as exc:
        raise InvalidModel(f"{label} needs the class {name}, which is not here: {exc}") from exc
    if not isinstance(kind, type) or not _is_predictor(kind):
        raise InvalidModel(f"{label} names {name}, which is no mlopskit.Predictor.")
    # It may go on reading its files: they stay as long as it does.
    kept = Path(tempfile.mkdtemp(prefix="mlopskit-predictor-"))
    try:
        if path is not None:
            shutil.copytree(folder / FILES, kept / FILES)
        predictor: Any = kind()
        predictor.load(None if path is None else kept / FILES / path)
    except Exception as exc:
        shutil.rmtree(kept, ignore_errors=True)
        raise InvalidModel(f"{name} cannot load the files of {label}: {exc}") from exc
    weakref.finalize(predictor, shutil.rmtree, kept, ignore_errors=True)
    return predictor


def _is_predictor(kind: type) -> bool:
    return any(
        each.__module__ == "mlopskit.serving.predictor" and each.__name__ == "Predictor"
        for each in kind.__mro__[1:]
    )

"""What several flavors need: libraries imported late, classes told without importing them."""

from __future__ import annotations

import importlib
from typing import Any

from mlopskit.errors import MissingDependency, UntrustedModel


def library(name: str, what: str, extra: str) -> Any:
    """Import a library.

    Args:
        name: The module.
        what: What needs it, at the beginning of a sentence.
        extra: The extra of mlopskit that brings it.

    Raises:
        MissingDependency: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        package = name.partition(".")[0]
        raise MissingDependency(what, package, f"pip install 'mlopskit[{extra}]'") from exc


def check_floor(label: str, package: str, version: str, floor: str) -> None:
    """Refuse a library that runs code of files that it is told to read without.

    Raises:
        UntrustedModel: If its version is below the floor.
    """
    if _release(version) < _release(floor):
        raise UntrustedModel(
            label, f"{package} {version} would load it, and runs code it should not before {floor}"
        )


def is_a(model: Any, module: str, name: str) -> bool:
    """Tell whether an object is of a class of some library, without importing the library."""
    return not isinstance(model, type) and any(
        kind.__name__ == name and (kind.__module__ + ".").startswith(f"{module}.")
        for kind in type(model).__mro__
    )


def _release(version: str) -> tuple[int, ...]:
    parts = version.partition("+")[0].split(".")[:3]
    return tuple(int("".join(char for char in part if char.isdigit()) or 0) for part in parts)

"""What is exported, and that all of it is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import mlopskit

pytestmark = pytest.mark.core

ROOT = Path(__file__).parent.parent
PACKAGES = ["tracking", "registry", "serving", "features", "monitoring", "pipelines", "lifecycle"]
EVERYWHERE = ["mlopskit", *(f"mlopskit.{name}" for name in [*PACKAGES, "errors", "testing"])]


def exported(module: str) -> list[str]:
    """Read `__all__` from the source: importing some modules takes packages that are extras."""
    spec = importlib.util.find_spec(module)
    assert spec
    assert spec.origin
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise AssertionError(f"{module} has no __all__")


def test_the_front_door_exports_this_and_nothing_else() -> None:
    assert mlopskit.__all__ == [
        "BackendInfo",
        "FeatureService",
        "FeatureView",
        "Kit",
        "Predictor",
        "Profile",
        "__version__",
        "autolog",
        "backends",
        "compare",
        "infer_signature",
        "load",
        "open_drift_detector",
        "open_feature_store",
        "open_registry",
        "open_runner",
        "open_server",
        "open_tracker",
        "pipeline",
        "step",
        "sweep",
        "transfer",
    ]


@pytest.mark.parametrize("module", EVERYWHERE)
def test_a_name_is_exported_once(module: str) -> None:
    names = exported(module)

    assert len(names) == len(set(names)) > 0


def test_the_front_door_says_the_same_to_type_checkers_and_to_python() -> None:
    source = ast.parse(Path(mlopskit.__file__).read_text())
    block = next(node for node in source.body if isinstance(node, ast.If))
    typed = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes: dict[str, str] = vars(mlopskit)["_HOMES"]

    assert typed == {name: f"mlopskit.{home}" for name, home in homes.items()}
    assert set(homes) | {"__version__"} == set(mlopskit.__all__)


def homes(module: str) -> dict[str, str]:
    """Say from which module each name of a package comes, read from its imports."""
    spec = importlib.util.find_spec(module)
    assert spec
    assert spec.origin
    return {
        alias.name: node.module
        for node in ast.walk(ast.parse(Path(spec.origin).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


@pytest.mark.parametrize("module", EVERYWHERE)
def test_every_public_name_is_in_the_documentation(module: str) -> None:
    pages = "\n".join(path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")))
    # A whole module on the page of the API brings the docstring of everything in it.
    shown = set(re.findall(r"automodule:: (\S+)", pages))
    home = homes(module)

    missing = [
        name
        for name in exported(module)
        if not re.search(rf"\b{name}\b", pages) and home.get(name) not in shown
    ]

    assert missing == []


@pytest.mark.parametrize("module", ["errors", "capabilities", "config", "kit", "plugins", "tool"])
def test_every_public_object_of_the_core_has_a_docstring(module: str) -> None:
    found = importlib.import_module(f"mlopskit.{module}")
    for name, value in vars(found).items():
        if name.startswith("_") or getattr(value, "__module__", None) != found.__name__:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module}.{name}"

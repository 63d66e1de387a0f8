"""Which floor may import which, read from the source."""

from __future__ import annotations

import ast
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mlopskit

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.core

ROOT = Path(mlopskit.__file__).parent
DOMAINS = {"tracking", "registry", "serving", "features", "monitoring", "pipelines"}
GROUND = {
    *("_version", "errors", "names", "redaction", "capabilities"),
    *("storage", "addresses", "sqlite", "sqlite_forks", "endings", "tool", "filters"),
    "mlflow_stores",
}
# The values that cross an interface, and what draws them as a page: both need nothing of a domain.
VALUES = {"entities", "stages", "report", "style"}
TOP = {"cli", "ui", "demo", "testing", "integrations", "comparison", "__main__"}
STANDARD_LIBRARY = set(sys.stdlib_module_names)
CORE_DEPENDENCIES = {"click", "pluggy", "pydantic", "rich"}


def modules() -> dict[str, Path]:
    """Return every module of ours by its dotted name below the package."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = modules()
BACKENDS = {name for name in MODULES if "\n@hookimpl" in MODULES[name].read_text()}


def floor(module: str) -> int:
    """Return the floor that a module lives on."""
    top, _, rest = module.partition(".")
    if module == "" or top in TOP:
        return 7
    if top == "lifecycle":
        return 6
    if top in ("kit", "plugins"):
        return 5 if top == "kit" else 4
    if module in BACKENDS:
        return 3
    if top in ("hookspecs", "config"):
        return 2
    if top in DOMAINS:
        return 0 if rest in VALUES else 1
    assert top in GROUND, f"{module} has no floor: give it one here and in the design page"
    return 0


@cache
def imports(module: str, *, late: bool = True) -> frozenset[str]:
    """Return the dotted names that a module imports, inside functions too if `late`.

    What stands under ``if TYPE_CHECKING`` is for type checkers only and does not count.
    """
    tree = ast.parse(MODULES[module].read_text())
    found: set[str] = set()
    for node in walk(tree, late=late):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                own = deeper.removeprefix("mlopskit.") in MODULES and deeper.startswith("mlopskit.")
                found.add(deeper if own else node.module)
    return frozenset(found)


def walk(node: ast.AST, *, late: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if not late and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from walk(child, late=late)


def ours(module: str, *, late: bool = True) -> set[str]:
    """Return the modules of ours that a module imports, by their names below the package."""
    found = set()
    for name in imports(module, late=late):
        if name == "mlopskit":
            found.add("")
        elif name.startswith("mlopskit."):
            found.add(name.removeprefix("mlopskit."))
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_its_floor_and_below(module: str) -> None:
    above = {name for name in ours(module) if floor(name) > floor(module)}

    # The lower floors say what there is; the package's own front may not be asked by anyone inside.
    assert above == set(), f"{module} (floor {floor(module)}) looks up to {sorted(above)}"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name))
def test_nothing_inside_imports_the_front_door(module: str) -> None:
    if module.partition(".")[0] in TOP:
        return  # The demo, the CLI and the suites are users of the library.
    assert "" not in ours(module)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_domain_never_imports_another_domain(module: str) -> None:
    own = module.partition(".")[0]
    if own in DOMAINS:
        others = {name.partition(".")[0] for name in ours(module)} & DOMAINS
        assert others <= {own}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_backend_is_reached_only_through_its_entry_point(module: str) -> None:
    assert ours(module) & BACKENDS == set()


def test_there_are_no_import_cycles() -> None:
    graph = {module: ours(module, late=False) & set(MODULES) for module in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_interfaces_need_only_the_core_dependencies(module: str) -> None:
    if floor(module) > 2 or module.rpartition(".")[2] not in ("", "base", "entities"):
        return
    needed = {name.partition(".")[0] for name in imports(module, late=False)}

    assert needed - STANDARD_LIBRARY - CORE_DEPENDENCIES <= {"mlopskit"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_tools_own_package_is_imported_in_its_own_file_only(module: str) -> None:
    tools = {"mlflow", "wandb", "feast", "evidently", "kfp", "tritonclient", "dask"}
    used = {name.partition(".")[0] for name in imports(module)} & tools

    # `wandb` and `wandb_folders` are both rooms of the one tool.
    own = module.rpartition(".")[2].partition("_")[0]
    assert used <= {own}, f"{module} imports {sorted(used)}"

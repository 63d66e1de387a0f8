"""What a function does, as a digest: its own code and the project code that it can reach.

The code is the bytecode that runs, not a file that may have changed since. Comments, docstrings,
annotations and line numbers are no part of it. From a function we follow the names it mentions:
functions and classes of the project, with all that these mention, constants by value, and default
arguments. What is installed (the standard library, site-packages) counts by its name alone; the
versions that matter are declared with ``environment=``.

Not seen: what is reached only through `getattr` with a computed name, `eval`, `importlib`, or
through an object whose class the code never names; files and environment variables that a step
reads on its own account. Pass these as params, or change ``version=``.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import site
import sys
import sysconfig
import types
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from mlopskit.pipelines.bytecode import Bytecode
from mlopskit.pipelines.files import Unstorable
from mlopskit.pipelines.graph import Pipeline, Step
from mlopskit.pipelines.values import Encoder, digest, only_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Our own code is covered by the version of the stored layout, except for the demo's steps.
OURS: Final = "mlopskit"
OUR_PROJECTS: Final = ("mlopskit.demo",)


class CodeReader:
    """Digests functions. What a code object holds is read once; what its names mean, every time."""

    def __init__(self) -> None:
        # The code objects are kept alive by the entries, so that an id is never used twice.
        self._read: dict[int, tuple[types.CodeType, Bytecode]] = {}
        self._installed = _installed_folders()

    def digest(self, function: Callable[..., Any]) -> str:
        """Return the digest of a function and of the project code it can reach, as hex digits."""
        walk = _Walk(self, function)
        return walk.digest()

    def code(self, code: types.CodeType) -> Bytecode:
        """Return what a code object does and which names it mentions."""
        known = self._read.get(id(code))
        if known is None:
            known = self._read[id(code)] = (code, Bytecode(code))
        return known[1]

    def is_project(self, module: str, file: str, package: str) -> bool:
        """Tell whether code counts as the project's own, for a step of a top-level package."""
        top = module.partition(".")[0]
        if top == OURS:
            return module.startswith(OUR_PROJECTS)
        if top == package and top not in sys.builtin_module_names:
            return True
        if file.startswith("<frozen") or top in sys.stdlib_module_names:
            return False
        return not file.startswith(self._installed)


class _Walk:
    """One walk from a function over everything of the project that it can reach."""

    def __init__(self, reader: CodeReader, function: Callable[..., Any]) -> None:
        self._reader = reader
        self._package = (function.__module__ or "").partition(".")[0]
        self._seen: dict[int, Any] = {}
        self._waiting: list[tuple[str, Any]] = [("", function)]
        self._lines: set[str] = set()

    def digest(self) -> str:
        while self._waiting:
            label, value = self._waiting.pop()
            self._visit(label, value)
        return hashlib.sha256("\n".join(sorted(self._lines)).encode()).hexdigest()

    def _visit(self, label: str, value: Any) -> None:
        """Note what a value is, and queue what it refers to."""
        if isinstance(value, Step | Pipeline):
            value = value.function
        if isinstance(value, types.MethodType):
            self._later(label, type(value.__self__))
        if isinstance(value, types.MethodType | staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, functools.partial):
            for index, item in enumerate([value.func, *value.args, *value.keywords.items()]):
                self._later(f"{label}({index})", item)
        elif isinstance(value, types.FunctionType):
            self._function(label, value)
        elif isinstance(value, type):
            self._class(label, value)
        elif isinstance(value, types.ModuleType):
            self._module(label, value)
        elif parts := _parts(value):
            for part in parts:
                self._later(label, part)
        else:
            self._constant(label, value)

    def _later(self, label: str, value: Any) -> None:
        self._waiting.append((label, value))

    def _new(self, value: Any) -> bool:
        new = id(value) not in self._seen
        self._seen[id(value)] = value
        return new

    def _function(self, label: str, function: types.FunctionType) -> None:
        name = f"{function.__module__}.{function.__qualname__}"
        if not self._is_project(function.__module__, function.__code__.co_filename):
            self._lines.add(f"{label}: {name}")
            return
        code = self._reader.code(function.__code__)
        self._lines.add(f"{label}: {name} {code.digest}")
        if not self._new(function):
            return
        for index, value in enumerate(function.__defaults__ or ()):
            self._later(f"{name} default {index}", value)
        for key, value in (function.__kwdefaults__ or {}).items():
            self._later(f"{name} default {key}", value)
        for free, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            try:
                self._later(f"{name} closure {free}", cell.cell_contents)
            except ValueError:
                self._lines.add(f"{name} closure {free}: empty")
        for chain in code.names:
            self._follow(name, function.__globals__, chain)
        for level, module, imported in code.imports:
            self._import(name, function.__globals__, level, module, imported)

    def _follow(self, owner: str, names: dict[str, Any], chain: tuple[str, ...]) -> None:
        """Queue what a global stands for; of a module, only the attribute that is used."""
        label = f"{owner} {'.'.join(chain)}"
        if chain[0] not in names:
            return  # A builtin, or not yet there: calling it would fail.
        value = names[chain[0]]
        for attribute in chain[1:]:
            if not isinstance(value, types.ModuleType) or not hasattr(value, attribute):
                break
            value = getattr(value, attribute)
        self._later(label, value)

    def _import(
        self, owner: str, names: dict[str, Any], level: int, module: str, imported: str | None
    ) -> None:
        """Queue what an import inside a function brings, as far as it has been imported before."""
        package = str(names.get("__package__") or "")
        if level:
            parts = package.split(".")
            module = ".".join([*parts[: len(parts) - level + 1], *filter(None, [module])])
        found = self._module_named(module)
        label = f"{owner} imports {module} {imported}"
        if found is None:
            self._lines.add(f"{label}: unknown")
        elif imported is None or not hasattr(found, imported):
            deeper = None if imported is None else self._module_named(f"{module}.{imported}")
            self._later(label, found if deeper is None else deeper)
        else:
            self._later(label, getattr(found, imported))

    def _module_named(self, name: str) -> types.ModuleType | None:
        """Return a module; one of the project is imported now, others only looked up."""
        if name in sys.modules:
            return sys.modules[name]
        top = name.partition(".")[0]
        try:
            spec = find_spec(top)
            if spec is None or not self._is_project(top, spec.origin or ""):
                return None
            return import_module(name)
        except (ImportError, ValueError):
            return None

    def _class(self, label: str, kind: type) -> None:
        name = f"{kind.__module__}.{kind.__qualname__}"
        self._lines.add(f"{label}: {name}")
        module = sys.modules.get(kind.__module__)
        file = getattr(module, "__file__", None) or ""
        if not self._is_project(kind.__module__, file) or not self._new(kind):
            return
        for base in kind.__bases__:
            self._later(f"{name} base", base)
        if issubclass(kind, enum.Enum):
            for member, each in kind.__members__.items():
                self._later(f"{name}.{member}", each.value)
        if issubclass(kind, BaseModel):
            self._fields(name, kind)
        for attribute, value in vars(kind).items():
            if not attribute.startswith("__") or isinstance(value, types.FunctionType):
                self._later(f"{name}.{attribute}", value)

    def _fields(self, name: str, kind: type[BaseModel]) -> None:
        for field, info in kind.model_fields.items():
            self._lines.add(f"{name}.{field}: {info.annotation!r}")
            self._later(f"{name}.{field} default", info.default)
            self._later(f"{name}.{field} factory", info.default_factory)
            for rule in info.metadata:
                if " at 0x" not in repr(rule):
                    self._lines.add(f"{name}.{field}: {rule!r}")

    def _module(self, label: str, module: types.ModuleType) -> None:
        self._lines.add(f"{label}: module {module.__name__}")
        file = getattr(module, "__file__", None) or ""
        if not self._is_project(module.__name__, file) or not self._new(module):
            return
        for name, value in vars(module).items():
            if not name.startswith("__") and not isinstance(value, types.ModuleType):
                self._later(f"{module.__name__}.{name}", value)

    def _constant(self, label: str, value: Any) -> None:
        """Note a value by its content; where it has none that can be read, by its class."""
        kind = type(value)
        try:
            self._lines.add(f"{label}: {digest(_Constants(only_digest).document(value))}")
        except Unstorable:
            name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
            self._lines.add(f"{label}: {kind.__module__}.{kind.__qualname__} {name}")
        else:
            return
        self._later(label, kind)
        if isinstance(value, list | tuple | set | frozenset) and self._new(value):
            for item in value:
                self._later(f"{label}[]", item)
        elif isinstance(value, dict) and self._new(value):
            for key, item in value.items():
                self._later(f"{label}[{key!r}]", item)
        elif isinstance(value, enum.Enum):
            self._lines.add(f"{label}: {value.name}")

    def _is_project(self, module: str | None, file: str) -> bool:
        return self._reader.is_project(module or "", file, self._package)


class _Constants(Encoder):
    """Encodes what code refers to. A path in code is a text: only as a param is it contents."""

    def _path(self, path: Path) -> Any:
        return {"$path": {"text": str(path)}}


def _parts(value: Any) -> list[Any]:
    """Return the functions inside what wraps functions."""
    if isinstance(value, property):
        return [each for each in (value.fget, value.fset, value.fdel) if each is not None]
    if isinstance(value, functools.cached_property):
        return [value.func]
    wrapped = getattr(value, "__wrapped__", None) if callable(value) else None
    return [] if wrapped is None else [wrapped]


def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]}
    folders.update(site.getsitepackages())
    folders.add(site.getusersitepackages())
    return tuple(folder.rstrip("/") + "/" for folder in folders)

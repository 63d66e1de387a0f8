"""Gates from a file of the user's: ``gates.py`` or ``gates.py:gate_auc``."""

from __future__ import annotations

import sys
import traceback
from importlib import util
from inspect import isclass
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from types import ModuleType

    from mlopskit.registry.gates import Gate

LIST: Final = "GATES"
PREFIX: Final = "gate_"
# Of these come functions written in C, and types that only annotate, such as Gate.
_NO_GATES: Final = frozenset(["builtins", "collections.abc", "types", "typing"])


def gates_of(said: str) -> list[Gate]:
    """Return the gates that ``FILE`` or ``FILE:NAME`` stands for.

    Of a file, those in its list ``GATES``; without that list what it calls ``gate_...``, in their
    order. A name is a gate, or a list of gates. A function counts if the file defines it or calls
    it ``gate_...``: one that is imported, such as ``at_least``, makes gates and is none.

    Raises:
        NotFound: If there is no such file, or nothing of that name in it.
        InvalidInput: If the file's code fails, or what it names are no gates.
    """
    path, name = file_and_name(said)
    module = _imported(path)
    if name:
        value = vars(module).get(name)
        if name not in vars(module) or (callable(value) and not _is_gate(name, value, module)):
            raise NotFound(f"gate in {str(path)!r}", name, _names(module))
        return _checked(value, path, name)
    if LIST in vars(module):
        return _checked(vars(module)[LIST], path, LIST)
    found = [value for key, value in vars(module).items() if _is_meant(key, value)]
    if not found:
        raise InvalidInput(
            f"{path} has no gates. Give it a list {LIST} = [...], or functions called "
            f"{PREFIX}...; or name one: {path}:NAME."
        )
    return _checked(found, path, f"{PREFIX}...")


def file_and_name(said: str) -> tuple[Path, str]:
    """Return what ``FILE`` or ``FILE:NAME`` says; the name is empty where there is none."""
    path, colon, name = said.rpartition(":")
    if colon and name.isidentifier() and path:
        return Path(path), name
    return Path(said), ""


def _imported(path: Path) -> ModuleType:
    if not path.is_file():
        raise NotFound("file of gates", str(path))
    name = f"_mlopskit_gates_{path.stem}"
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{path} is no file of Python's: call it something.py.")
    module = util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # As a script, it imports what lies beside it, also later.
    sys.modules[name] = module  # Dataclasses look their module up while they are made.
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exc:
        del sys.modules[name]
        raise InvalidInput(f"{path} failed{_line(exc, path)}: {type(exc).__name__}: {exc}") from exc
    return module


def _line(exc: BaseException, path: Path) -> str:
    if isinstance(exc, SyntaxError):
        return f" in line {exc.lineno}"
    frames = traceback.extract_tb(exc.__traceback__)
    own = path.resolve()
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == own]
    return f" in line {lines[-1]}" if lines else ""


def _names(module: ModuleType) -> list[str]:
    """Return what may be asked for by name."""
    return [
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and (_is_gate(key, value, module) or _is_list(value))
    ]


def _is_gate(key: str, value: Any, module: ModuleType) -> bool:
    """Tell whether a name of a file is a gate: its own function, ``gate_...``, or an object."""
    if _is_meant(key, value):
        return True
    if isinstance(value, FunctionType):
        # What at_least("auc", 0.8) returns was made inside another function.
        return value.__module__ == module.__name__ or "<locals>" in value.__qualname__
    if isinstance(value, MethodType):
        return True
    foreign = type(value).__module__ in _NO_GATES
    return callable(value) and not isclass(value) and not foreign


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(callable, value))


def _is_meant(key: str, value: Any) -> bool:
    return key.startswith(PREFIX) and callable(value) and not isclass(value)


def _checked(found: Any, path: Path, name: str) -> list[Gate]:
    gates = list(found) if isinstance(found, list | tuple) else [found]
    for gate in gates:
        if not callable(gate):
            raise InvalidInput(
                f"{name} of {path} holds {gate!r}, which is no gate: a gate is a function that "
                "takes a GateContext."
            )
    if not gates:
        raise InvalidInput(f"{name} of {path} is empty, which would let anything pass.")
    return gates

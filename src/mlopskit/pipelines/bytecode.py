"""What a code object does, and which names it mentions: the same in every process."""

from __future__ import annotations

import dis
import hashlib
import types
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

ATTRIBUTES: Final = frozenset(["LOAD_ATTR", "LOAD_METHOD"])
GLOBALS: Final = frozenset(["LOAD_GLOBAL", "LOAD_NAME"])


class Bytecode:
    """One code object: a digest of its instructions, and the names that it looks up.

    Attributes:
        digest: The digest of all instructions and constants, those of inner functions included.
        names: Every global that is loaded, with the attributes that are taken of it at once.
        imports: Every module that is imported, with the name taken from it, or None.
    """

    def __init__(self, code: types.CodeType) -> None:
        hasher = hashlib.sha256()
        self.names: set[tuple[str, ...]] = set()
        self.imports: set[tuple[int, str, str | None]] = set()
        self._add(code, hasher.update)
        self.digest = hasher.hexdigest()

    def _add(self, code: types.CodeType, update: Callable[[bytes], None]) -> None:
        shape = (
            code.co_flags,
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_varnames[: code.co_argcount + code.co_kwonlyargcount],
            code.co_exceptiontable,
        )
        update(repr(shape).encode())
        chain: list[str] = []
        module: tuple[int, str] | None = None
        constants: list[Any] = []
        for instruction in dis.get_instructions(code):
            name, value = instruction.opname, instruction.argval
            if isinstance(value, types.CodeType):
                update(b"\ncode ")
                self._add(value, update)
                continue
            update(f"\n{name} {_constant(value)}".encode("utf-8", "surrogatepass"))
            if name in ATTRIBUTES and chain:
                chain.append(value)
                continue
            if chain:
                self.names.add(tuple(chain))
            chain = [value] if name in GLOBALS else []
            if name.startswith("LOAD_CONST") or name == "LOAD_SMALL_INT":
                constants = [*constants[-1:], value]
            elif name == "IMPORT_NAME":
                level = constants[0] if constants and isinstance(constants[0], int) else 0
                module = (level, value)
                if not constants or not constants[-1]:
                    self.imports.add((*module, None))
            elif name == "IMPORT_FROM" and module is not None:
                self.imports.add((*module, value))
        if chain:
            self.names.add(tuple(chain))


def _constant(value: Any) -> str:
    """Return a text for a constant of a code object, the same in every process."""
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(_constant, value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return repr(value)

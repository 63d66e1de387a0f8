"""Read UBJSON (https://ubjson.org, draft 12), as far as XGBoost writes it."""

from __future__ import annotations

import struct
from typing import Any, Final

_NUMBERS: Final = {"i": "b", "U": "B", "I": ">h", "l": ">i", "L": ">q", "d": ">f", "D": ">d"}
_WORDS: Final = {"Z": None, "T": True, "F": False}
_DEEPEST: Final = 64


def decoded(raw: bytes) -> Any:
    """Return the value that bytes hold.

    Raises:
        ValueError: If they are no UBJSON, or hold more than one value.
    """
    reader = _Reader(raw)
    value = reader.value(reader.mark(), 0)
    if reader.at != len(raw):
        raise ValueError(f"{len(raw) - reader.at} bytes follow the end")
    return value


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.raw):
            raise ValueError(f"{size} bytes at {self.at} lead outside the file")
        self.at += size
        return self.raw[self.at - size : self.at]

    def mark(self) -> str:
        return self.take(1).decode("latin-1")

    def number(self, mark: str) -> Any:
        code = _NUMBERS[mark] if mark in _NUMBERS else self._unknown(mark)
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def text(self) -> str:
        return self.take(int(self.number(self.mark()))).decode()

    def value(self, mark: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if mark in _WORDS:
            return _WORDS[mark]
        if mark in _NUMBERS:
            return self.number(mark)
        if mark == "S":
            return self.text()
        if mark == "[":
            return self._array(depth)
        if mark == "{":
            return self._mapping(depth)
        return self._unknown(mark)

    def _array(self, depth: int) -> list[Any]:
        mark = self.mark()
        kind = ""
        if mark == "$":
            kind, mark = self.mark(), self.mark()
            if mark != "#":
                raise ValueError("a typed array has no length")
        if mark != "#":
            found = []
            while mark != "]":
                found.append(self.value(mark, depth + 1))
                mark = self.mark()
            return found
        size = int(self.number(self.mark()))
        if kind:
            code = _NUMBERS[kind] if kind in _NUMBERS else self._unknown(kind)
            body = self.take(size * struct.calcsize(code))
            return list(struct.unpack(f">{size}{code[-1]}", body))
        if not 0 <= size <= len(self.raw):
            raise ValueError(f"an array has {size} values")
        return [self.value(self.mark(), depth + 1) for _ in range(size)]

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.raw[self.at : self.at + 1] != b"}":
            key = self.text()
            if key in found:
                raise ValueError(f"{key!r} occurs twice")
            found[key] = self.value(self.mark(), depth + 1)
        self.at += 1
        return found

    def _unknown(self, mark: str) -> Any:
        raise ValueError(f"{mark!r} at {self.at} begins nothing")

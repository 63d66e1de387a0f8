"""What a backend can do, as a table that is read without importing the backend.

A backend module holds one literal dict, ``CAPABILITIES``, with a line for every capability its
domain knows: ``"native"``, ``"emulated: <how>"`` or ``"absent: <reason>"``. It is shown by
``mlopskit backends``, checked by ``require=`` when a tool is opened, and held to the truth by the
contract suites.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from mlopskit.errors import UnknownOption, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Level = Literal["native", "emulated", "absent"]


@dataclass(frozen=True, slots=True)
class Capability:
    """One line of a backend's table: how far it goes, and the reason where it stops short."""

    name: str
    level: Level
    note: str = ""

    def __bool__(self) -> bool:
        """Tell whether the capability can be used, native or emulated."""
        return self.level != "absent"


class Capabilities:
    """A backend's whole table. ``"resume" in tracker.capabilities`` asks for one line."""

    def __init__(self, domain: str, backend: str, table: Mapping[str, str]) -> None:
        self.domain = domain
        self.backend = backend
        self._lines = {name: _parsed(name, text) for name, text in table.items()}

    def __contains__(self, name: object) -> bool:
        return bool(self._lines.get(cast("str", name)))

    def __iter__(self) -> Iterator[Capability]:
        return iter(self._lines.values())

    def __getitem__(self, name: str) -> Capability:
        if name not in self._lines:
            raise UnknownOption("capability", name, self._lines, f"the {self.domain} interface")
        return self._lines[name]

    def __repr__(self) -> str:
        able = ", ".join(line.name for line in self if line)
        return f"<Capabilities of {self.domain}/{self.backend}: {able}>"

    def require(self, names: Iterable[str]) -> None:
        """Check that every named capability is there.

        Raises:
            Unsupported: With the reason the backend gives for the first that is absent.
            UnknownOption: If the interface knows no capability of that name.
        """
        for name in names:
            line = self[name]
            if not line:
                raise Unsupported(self.domain, self.backend, name, line.note)


def _parsed(name: str, text: str) -> Capability:
    level, _, note = text.partition(":")
    if level not in ("native", "emulated", "absent") or (level != "native" and not note.strip()):
        raise ValueError(
            f"Capability {name!r} is declared as {text!r}; "
            "write 'native', 'emulated: <how>' or 'absent: <reason>'."
        )
    return Capability(name, cast("Level", level), note.strip())

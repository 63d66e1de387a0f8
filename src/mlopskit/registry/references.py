"""How a version is named: 3, "3", "@alias", a stage, or "latest"."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidName
from mlopskit.names import check_identifier, check_label
from mlopskit.registry.stages import NUMBERED

if TYPE_CHECKING:
    from mlopskit.registry.stages import StageGraph

Ref = int | str

LATEST: Final = "latest"
HIGHEST: Final = 2**63 - 1


def parsed(ref: Ref, stages: StageGraph) -> Ref:
    """Return a reference as a number, ``"@alias"``, a stage, or ``"latest"``.

    Raises:
        InvalidName: If it is none of these.
    """
    if isinstance(ref, bool):
        raise InvalidName("version", ref, "a bool is no number")
    if not isinstance(ref, str):
        return _number(_index(ref))
    check_label("version", ref)
    if ref.isascii() and ref.isdigit():
        return _number(int(ref)) if len(ref) < 20 else _number(HIGHEST + 1)
    if ref.startswith("@"):
        return "@" + check_identifier("alias", ref[1:])
    if ref in stages.order or ref == LATEST:
        return ref
    raise InvalidName(
        "version",
        ref,
        f"use a number, '@alias', 'latest', or a stage ({', '.join(stages.order)})",
    )


def check_alias(alias: str, stages: StageGraph) -> str:
    """Return an alias, or refuse one that could be taken for a version or a stage.

    Raises:
        InvalidName: If it is reserved or cannot be kept.
    """
    check_identifier("alias", alias)
    if alias.lower() == LATEST or alias.lower() in {stage.lower() for stage in stages.order}:
        raise InvalidName("alias", alias, "it is reserved; promote() moves a version to a stage")
    if NUMBERED.match(alias):
        raise InvalidName("alias", alias, "it reads as the number of a version")
    return alias


def _index(ref: Any) -> int:
    try:
        return operator.index(ref)  # NumPy's integers have one too.
    except TypeError:
        raise InvalidName("version", ref, "use a number, or a text") from None


def _number(number: int) -> int:
    if not 0 < number <= HIGHEST:
        raise InvalidName("version", number, "versions are numbered from 1")
    return number

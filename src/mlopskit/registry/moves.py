"""Who held which stage, read off the history alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlopskit.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from mlopskit.registry.entities import Action, HistoryEntry
    from mlopskit.registry.stages import StageGraph

MOVES: Final[frozenset[Action]] = frozenset(["registered", "promoted", "displaced", "rolled_back"])


def stages_of(entries: Iterable[HistoryEntry]) -> dict[int, str]:
    """Return the stage that each version is in, those that entered theirs last at the end."""
    found: dict[int, str] = {}
    for entry in entries:
        if entry.version is None:
            continue
        if entry.action in MOVES and entry.after is not None:
            found.pop(entry.version, None)
            found[entry.version] = entry.after
        elif entry.action == "deleted":
            found.pop(entry.version, None)
    return found


def holder(entries: Iterable[HistoryEntry], stage: str) -> int | None:
    """Return the version that entered a stage last and is still there."""
    inside = [version for version, there in stages_of(entries).items() if there == stage]
    return inside[-1] if inside else None


def holder_at(entries: Iterable[HistoryEntry], stage: str, when: datetime) -> int | None:
    """Return the version that held a stage at a time."""
    return holder([entry for entry in entries if entry.at <= when], stage)


def earlier_holder(
    name: str, entries: Sequence[HistoryEntry], stage: str, held: int | None, graph: StageGraph
) -> int:
    """Return the version that a rollback puts back into a stage.

    It comes back from where displaced versions go, or forward from an earlier stage. It is not
    taken out of a later one: what relies on that stage has not asked.

    Args:
        name: The model's name, for errors.
        entries: The history of the versions that are there.
        stage: The stage to roll back.
        held: The version that holds it now.
        graph: The stages.

    Raises:
        Conflict: If no version held the stage before, or that one is in a later stage now.
    """
    found = _under(entries, stage, held)
    if found is None:
        whom = "now" if held is None else f"version {held}"
        raise Conflict(
            f"No version of {name!r} held {stage!r} before {whom}. promote() puts another there."
        )
    now = stages_of(entries)[found]
    if now != graph.retired and now in graph.order[graph.order.index(stage) + 1 :]:
        raise Conflict(
            f"Version {found} of {name!r} held {stage!r} before, and is in {now!r} now, from where "
            f"it is not taken. Promote another version to {stage!r}, or roll {now!r} back first."
        )
    return found


def _under(entries: Iterable[HistoryEntry], stage: str, held: int | None) -> int | None:
    """Return the version under the holder in the pile of those that held a stage.

    A promotion puts a version on the pile; a rollback takes all above its version away, and a
    deleted version is in no pile.
    """
    pile: list[int] = []
    for entry in entries:
        if entry.version is None:
            continue
        if entry.action == "deleted":
            pile = [version for version in pile if version != entry.version]
        elif entry.after == stage and entry.action == "promoted":
            pile.append(entry.version)
        elif entry.after == stage and entry.action == "rolled_back":
            while pile and pile[-1] != entry.version:
                pile.pop()
    if held in pile:
        while pile.pop() != held:
            pass
        while pile and pile[-1] == held:
            pile.pop()
    return pile[-1] if pile else None


def held_since(entries: Iterable[HistoryEntry], when: datetime, free: Iterable[str]) -> set[int]:
    """Return the versions that were in a stage other than the free ones at a time or after it."""
    unheld = set(free)
    known = list(entries)
    earlier = stages_of(entry for entry in known if entry.at <= when)
    found = {version for version, stage in earlier.items() if stage not in unheld}
    found |= {
        entry.version
        for entry in known
        if entry.at > when
        and entry.version is not None
        and entry.action in MOVES
        and entry.after not in unheld
    }
    return found

"""The two ends of a transfer: whether they are one store, and how a run of either is compared."""

from __future__ import annotations

import dataclasses
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from mlopskit.errors import Conflict, InvalidName
from mlopskit.tracking.snapshot import OPEN, Snapshot, differences, snapshot_of
from mlopskit.tracking.values import check_run_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlopskit.redaction import Redactor
    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Artifact, RunRecord
    from mlopskit.tracking.snapshot import Source


class SameStore(Conflict):
    """Source and destination are one store; nothing was changed.

    Args:
        source: `Tracker.target` of the source.
        destination: That of the destination, which may be another name of it.
    """

    def __init__(self, source: str, destination: str) -> None:
        if source == destination:
            said = f"{source} is both the source and the destination."
        else:
            said = (
                f"{source} and {destination} are both the source and the destination: two names of "
                "one store, whose runs are the same. (If one was restored from a copy of the "
                "other, make an experiment or a run in one of them, which tells them apart.)"
            )
        super().__init__(f"{said} Name another tracker for one.")
        self.source = source
        self.destination = destination


def check_two_stores(src: Source, dst: Tracker) -> None:
    """See that what is read is not what is written, under whatever name.

    Raises:
        SameStore: If it is.
        Unavailable: If that has to be asked, and an end does not answer.
    """
    if src.target == dst.target:
        raise SameStore(src.target, dst.target)
    # Of several trackers the first is read. Exported runs are no tracker.
    read: Sequence[Tracker] = getattr(src, "sinks", tuple)()[:1]
    for one in read:
        for other in dst.sinks():
            if one.is_same_store(other):
                raise SameStore(one.target, other.target)


def id_at_destination(src: Source, id: str) -> str:
    """Return a run's own id where it can be kept, else one that is made of it and its source."""
    try:
        return check_run_id(id)
    except InvalidName:
        return sha256(f"{src.target}\0{id}".encode()).hexdigest()[:32]


def ids_there(dst: Tracker) -> dict[str, str]:
    """Return the id of every run at a destination, by the id that a copy of it has.

    They differ where mlopskit did not write the run. A copy that lies beside its original counts.
    """
    found: dict[str, str] = {}
    for run in dst.search_runs(limit=None):
        own = id_at_destination(dst, run.id)
        if own not in found or run.id == own:
            found[own] = run.id
    return found


def as_copied(
    source: Source, run: RunRecord, renamed: Callable[[str], str], clean: Redactor
) -> Snapshot:
    """Read a run as a copy of it reads: without secrets, and with ids that every tracker takes.

    Args:
        source: Where it is.
        run: The run.
        renamed: Returns the id of a copy for that of a run.
        clean: Removes secrets.

    Raises:
        NotFound: If it has gone in the meantime.
        Unavailable: If its tool does not answer.
    """
    whole = snapshot_of(source, run)
    # A lost run that nobody has ended goes on being judged by its process and its heartbeat.
    ended = run.ended_at or (None if run.status in OPEN else run.started_at)
    known: dict[str, Any] = {
        "id": renamed(run.id),
        "parent_id": None if run.parent_id is None else renamed(run.parent_id),
        "params": clean.value(dict(run.params)),
        "tags": {key: clean.value(text, key) for key, text in run.tags.items()},
        "notes": clean.text(run.notes),
        "inputs": tuple(
            each.model_copy(update={"run_id": renamed(each.run_id)}) for each in run.inputs
        ),
        "ended_at": ended,
    }
    artifacts = [
        each.model_copy(update={"metadata": clean.value(dict(each.metadata))})
        for each in whole.artifacts
    ]
    return dataclasses.replace(whole, run=run.model_copy(update=known), artifacts=artifacts)


def completed(one: Snapshot, other: Snapshot) -> Snapshot:
    """Return a run with what its own tool does not know of its files, as another one has it."""
    there = {each.name: each for each in other.artifacts}

    def filled(each: Artifact) -> Artifact:
        known = there.get(each.name)
        if known is None:
            return each
        both = {"digest": known.digest, "logged_as": known.logged_as}
        missing = {name: value for name, value in both.items() if not getattr(each, name)}
        return each.model_copy(update=missing)

    return dataclasses.replace(one, artifacts=[filled(each) for each in one.artifacts])


def unlike(wanted: Snapshot, found: Snapshot) -> tuple[Snapshot, Snapshot, list[str]]:
    """Compare two runs; return them as they were compared, and in what they differ."""
    left, right = completed(wanted, found), completed(found, wanted)
    return left, right, differences(left, right)


def without_twins(
    runs: Sequence[RunRecord], own: Mapping[str, str], read: Callable[[RunRecord], Snapshot]
) -> list[RunRecord]:
    """Return runs of which each has an id of its own at the destination.

    A source may hold a run that mlopskit did not write, and a copy of it that came back. Where
    both are equal, the one that has the id already stands for them.

    Args:
        runs: The runs.
        own: By their ids, those that they get.
        read: Reads one of them.

    Raises:
        Conflict: If two runs would get one id, and differ.
    """
    chosen: dict[str, RunRecord] = {}
    for run in runs:
        new = own[run.id]
        other = chosen.setdefault(new, run)
        if other is run:
            continue
        why = unlike(read(other), read(run))[2]
        if why:
            raise Conflict(
                f"The runs {other.id} and {run.id} of {run.experiment!r} would both get the id "
                f"{new}, and differ: {'; '.join(why)}. One seems to be a copy of the other. Delete "
                "one of them, or choose with a filter; nothing was copied."
            )
        if run.id == new:
            chosen[new] = run
    return [run for run in runs if chosen[own[run.id]] is run]

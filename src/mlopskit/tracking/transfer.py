"""Copies runs from one tracker to another, whole: or names what is not equal.

A run is read, written to a journal that nobody sees yet, and delivered from there as every run is:
a destination that is down, or a kill at any moment, leaves either nothing or a whole journal, which
the next transfer or sync delivers. What is at the destination already, and equal, is left alone, so
that a transfer can be repeated. A run keeps its id; one that mlopskit did not write, whose id is
not of 32 hexadecimal digits, gets one that is always the same.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from mlopskit.errors import Conflict, CopyDiffers, InvalidName, Unavailable
from mlopskit.tracking import replay
from mlopskit.tracking.progress import bar
from mlopskit.tracking.snapshot import OPEN, differences, has_grown, snapshot_of
from mlopskit.tracking.values import check_run_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Artifact, RunRecord
    from mlopskit.tracking.journal import Journal
    from mlopskit.tracking.snapshot import Snapshot, Source

    Told = Callable[[int, int, RunRecord], None]

logger = logging.getLogger(__name__)


class RunsDiffer(Conflict):
    """Runs of the same id are at the destination, and hold something else.

    Args:
        found: What differs.
        replaced_by: What the caller passes to replace them.

    Attributes:
        found: What differs.
    """

    def __init__(self, found: str, replaced_by: str = "replace=True") -> None:
        super().__init__(f"{found}\nPass {replaced_by} to replace them; nothing was copied.")
        self.found = found


class TransferReport(BaseModel):
    """What a transfer did.

    Attributes:
        source: `Tracker.target` of the source.
        destination: Likewise.
        copied: The ids, at the destination, of the runs that were copied now.
        present: The ids of those that were there already, and equal.
        digests: By these ids, the digest of the run at the source and at the destination: over all
            that a run holds, files by their digests; empty where nothing was verified.
        left_out: By these ids, the keys of which a run that mlopskit did not write has values that
            cannot be copied: texts, histograms, images and the like of a W&B history.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    destination: str
    copied: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    digests: Mapping[str, tuple[str, str]] = {}
    left_out: Mapping[str, tuple[str, ...]] = {}


def transfer_runs(
    src: Source,
    dst: Tracker,
    where: str = "",
    experiment: str | None = None,
    *,
    verify: bool = True,
    replace: bool = False,
    told: Told | None = None,
    progress: bool = False,
) -> TransferReport:
    """Copy runs, the oldest first, with all that they hold.

    Args:
        src: Where they are.
        dst: Where they go.
        where: A filter, as `Tracker.search_runs` takes it.
        experiment: Only runs of this experiment.
        verify: Read every run back, and compare it with its source.
        replace: Delete a run of the same id that holds something else, where it would be refused.
        told: Is given how many runs are done, how many there are, and the run that comes next.
        progress: Show a bar, on a terminal or in a notebook.

    Raises:
        Conflict: If the destination has a run of the same id that differs; nothing is written
            (`RunsDiffer`).
        CopyDiffers: If a copy does not read back equal; the rest is copied nevertheless.
        Unavailable: If either end cannot be reached; call again to go on.
        InvalidInput: If the filter cannot be read.
        NotFound: If the file or folder of the source does not exist; it is not made.
    """
    if src.target == dst.target:
        raise Conflict(f"{src.target} is both the source and the destination.")
    # Trackers have these two questions; other sources need not.
    getattr(src, "check_there", lambda: None)()
    dst.sync()
    work = _Work(src, dst, list(src.search_runs(where, experiment, limit=None))[::-1])
    present, clashes = work.compared(progress=progress)
    if clashes and not replace:
        listed = "\n".join(f"  {run}: {'; '.join(why)}" for run, why in list(clashes.items())[:5])
        raise RunsDiffer(
            f"{len(clashes)} of {len(work.runs)} runs are at {dst.target} already, and differ:\n"
            f"{listed}"
        )
    copied: list[str] = []
    different: dict[str, Sequence[str]] = {}
    with bar("runs copied", asked=progress) as shown:
        for done, run in enumerate(work.runs):
            shown.at(done, len(work.runs), run.name)
            if told is not None:
                told(done, len(work.runs), run)
            own = work.own[run.id]
            if own in present:
                continue
            if own in clashes or own in work.grown:
                dst.delete_run(own)
            wanted = work.copy(run)
            copied.append(own)
            if verify and (why := work.difference(own, wanted)):
                different[own] = why
        shown.at(len(work.runs), len(work.runs))
    if different:
        raise CopyDiffers(dst.target, different)
    return TransferReport(
        source=src.target,
        destination=dst.target,
        copied=tuple(copied),
        present=tuple(sorted(present)),
        digests=work.digests,
        left_out=work.left_out,
    )


def id_at_destination(src: Source, id: str) -> str:
    """Return a run's own id where it can be kept, else one that is made of it and its source."""
    try:
        return check_run_id(id)
    except InvalidName:
        return sha256(f"{src.target}\0{id}".encode()).hexdigest()[:32]


class _Work:
    """Some runs on their way.

    Attributes:
        own: The id that each has at the destination.
        digests: By these, the digests of those that were compared.
        left_out: By these, the keys of what cannot be copied.
        grown: By these, the runs whose copy nobody ended and whose source has gone on since.
    """

    def __init__(self, src: Source, dst: Tracker, runs: Sequence[RunRecord]) -> None:
        self.runs = runs
        self.own = {run.id: id_at_destination(src, run.id) for run in runs}
        self.digests: dict[str, tuple[str, str]] = {}
        self.left_out: dict[str, tuple[str, ...]] = {}
        self.grown: set[str] = set()
        self._src = src
        self._dst = dst

    def compared(self, *, progress: bool) -> tuple[set[str], dict[str, list[str]]]:
        """Return those that are at the destination and equal, and in what the others differ."""
        there = {run.id for run in self._dst.search_runs(limit=None)} if self.runs else set()
        both = [run for run in self.runs if self.own[run.id] in there]
        present: set[str] = set()
        clashes: dict[str, list[str]] = {}
        with bar("runs compared", asked=progress and both != []) as shown:
            for done, run in enumerate(both):
                shown.at(done, len(both), run.name)
                own = self.own[run.id]
                wanted = self._wanted(run)
                if why := self.difference(own, wanted):
                    found = snapshot_of(self._dst, self._dst.get_run(own))
                    if self._dst.reuses_ids and has_grown(found, _completed(wanted, found)):
                        self.grown.add(own)
                    else:
                        clashes[own] = why
                else:
                    present.add(own)
            shown.at(len(both), len(both))
        return present, clashes

    def difference(self, own: str, wanted: Snapshot) -> list[str]:
        """Compare a run with its copy."""
        found = snapshot_of(self._dst, self._dst.get_run(own))
        wanted = _completed(wanted, found)
        self.digests[own] = (wanted.digest, found.digest)
        return differences(wanted, found)

    def copy(self, run: RunRecord) -> Snapshot:
        """Copy one run; return it with the digests that its files have."""
        wanted = self._wanted(run)
        kept: list[Artifact] = []

        def fill(journal: Journal) -> None:
            kept.extend(self._kept(run.id, each, journal) for each in wanted.artifacts)
            for raw in replay.raws(dataclasses.replace(wanted, artifacts=kept)):
                journal.append(raw)

        report = self._dst.take_over(wanted.run.id, wanted.run.owner, fill)
        if report.pending:
            raise Unavailable(self._dst.target, "; ".join(report.pending.values()))
        if report.rejected:
            logger.error(
                "%s refused %d records of run %s.", self._dst.target, report.rejected, run.id
            )
        return dataclasses.replace(wanted, artifacts=kept)

    def _wanted(self, run: RunRecord) -> Snapshot:
        """Return a run as it should read at the destination: without secrets of other writers."""
        clean = self._dst.context.redactor
        # A lost run that nobody has ended goes on being judged by its process and its heartbeat.
        ended = run.ended_at or (None if run.status in OPEN else run.started_at)
        inputs = tuple(
            each.model_copy(update={"run_id": self._renamed(each.run_id)}) for each in run.inputs
        )
        known: dict[str, Any] = {
            "id": self._renamed(run.id),
            "parent_id": None if run.parent_id is None else self._renamed(run.parent_id),
            "params": clean.value(dict(run.params)),
            "tags": {key: clean.value(text, key) for key, text in run.tags.items()},
            "notes": clean.text(run.notes),
            "inputs": inputs,
            "ended_at": ended,
        }
        unread: Callable[[str], tuple[str, ...]] = getattr(self._src, "unread_keys", lambda _: ())
        if keys := unread(run.id):
            self.left_out[self._renamed(run.id)] = keys
        whole = snapshot_of(self._src, run)
        return dataclasses.replace(whole, run=run.model_copy(update=known))

    def _renamed(self, id: str) -> str:
        return self.own.get(id) or id_at_destination(self._src, id)

    def _kept(self, id: str, artifact: Artifact, journal: Journal) -> Artifact:
        """Put the bytes of a file into a journal; return it with the digest that they have."""
        logged_as = artifact.logged_as or artifact.name
        if artifact.uri is not None:
            return artifact.model_copy(update={"logged_as": logged_as})
        part = journal.path / "part"
        try:
            self._src.fetch_artifact(id, artifact, part)
            digest, size = journal.files.put(part)
        finally:
            part.unlink(missing_ok=True)
        known = {"digest": digest, "size": size, "logged_as": logged_as}
        return artifact.model_copy(update=known)


def _completed(wanted: Snapshot, found: Snapshot) -> Snapshot:
    """Return a run with what its own tool does not know of its files, as it was found."""
    there = {each.name: each for each in found.artifacts}

    def completed(each: Artifact) -> Artifact:
        other = there.get(each.name)
        if other is None:
            return each
        known = {"digest": other.digest, "logged_as": other.logged_as}
        missing = {name: value for name, value in known.items() if not getattr(each, name)}
        return each.model_copy(update=missing)

    return dataclasses.replace(wanted, artifacts=[completed(each) for each in wanted.artifacts])

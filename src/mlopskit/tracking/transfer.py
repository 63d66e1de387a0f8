"""Copies runs from one tracker to another, whole: or names what is not equal.

A run is read, written to a journal that nobody sees yet, and delivered from there as every run is:
a destination that is down, or a kill at any moment, leaves either nothing or a whole journal, which
the next transfer or sync delivers. What is at the destination already, and equal, is left alone, so
that a transfer can be repeated. Ctrl-C lets the run on its way arrive, and leaves the rest. A run
keeps its id; one that mlopskit did not write, whose id is not of 32 hexadecimal digits, gets one
that is always the same.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from mlopskit.errors import Conflict, CopyDiffers, MlopskitError, StorageError, Unavailable
from mlopskit.tracking import replay
from mlopskit.tracking.progress import bar
from mlopskit.tracking.snapshot import differences, has_grown
from mlopskit.tracking.transfer_ends import (
    SameStore,
    as_copied,
    check_two_stores,
    completed,
    id_at_destination,
    ids_there,
    unlike,
    without_twins,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Artifact, RunRecord
    from mlopskit.tracking.journal import Journal
    from mlopskit.tracking.snapshot import Snapshot, Source

    Told = Callable[[int, int, RunRecord], None]

__all__ = [
    "CannotReplace",
    "NotCopied",
    "RunsDiffer",
    "SameStore",
    "TransferReport",
    "id_at_destination",
    "transfer_runs",
]

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


class CannotReplace(Conflict):
    """Runs of the same id are at the destination, differ, and must stay; nothing was copied."""


class NotCopied(StorageError):
    """Some runs could not be read to their end, and nothing of them was copied. The others were.

    Args:
        source: `Tracker.target` of the source.
        failures: Why, by the id that the run has there.
        others: How many are at the destination now.

    Attributes:
        failures: Why, by the id that the run has at the source.
    """

    def __init__(
        self, source: str, failures: Mapping[str, MlopskitError], others: int, more: str = ""
    ) -> None:
        shown = [f"  {run}: {why}" for run, why in list(failures.items())[:5]]
        if len(failures) > 5:
            shown.append(f"  and {len(failures) - 5} more")
        were = f"{len(failures)} run{'s' * (len(failures) > 1)}"
        super().__init__(
            f"{were} of {source} could not be read, and nothing of them was copied:\n"
            + "\n".join(shown)
            + f"\nRuns that are at the destination, whole: {others}. "
            "The same call goes on from here." + (f"\n{more}" if more else "")
        )
        self.failures = failures


class TransferReport(BaseModel):
    """What a transfer did.

    Attributes:
        source: `Tracker.target` of the source.
        destination: Likewise.
        copied: The ids, at the destination, of the runs that were copied now.
        present: The ids of those that were there already, and equal.
        digests: By these ids, the digest of the run at the source and at the destination: over all
            that a run holds, files by their digests; empty where nothing was verified.
        left_out: By these ids, what a run that mlopskit did not write has and cannot be copied:
            the keys of a W&B history that have texts, histograms, images and the like;
            ``summary.<key>`` for what only its summary has and is neither number nor text; and
            ``files/<name>`` for a saved file that is gone.
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
        Conflict: If the destination has a run of the same id that differs (`RunsDiffer`), which
            it cannot have replaced (`CannotReplace`), or is the source (`SameStore`); nothing is
            written.
        CopyDiffers: If a copy does not read back equal; the rest is copied nevertheless.
        NotCopied: If a run cannot be read to its end; the rest is copied nevertheless. Where it is
            the only one, the reason itself is raised.
        Unavailable: If either end cannot be reached; call again to go on.
        InvalidInput: If the filter cannot be read.
        NotFound: If the file or folder of the source does not exist; it is not made.
    """
    # Trackers have these questions; other sources need not.
    getattr(src, "check_there", lambda: None)()
    check_two_stores(src, dst)
    pending = dst.sync().pending
    work = _Work(src, dst, list(src.search_runs(where, experiment, limit=None))[::-1])
    work.check_delivered(pending)
    present, clashes = work.compared(progress=progress)
    work.check_replaceable(clashes)
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
            if own in present or run.id in work.failures:
                continue
            try:
                wanted = work.copy(run)
            except _Unread as exc:
                work.failures[run.id] = exc.why
                continue
            except KeyboardInterrupt as exc:
                if why := work.unsettled():
                    exc.add_note(f"Run {own} may be at {dst.target} in part: {why}.")
                raise
            copied.append(own)
            if verify and (unequal := work.difference(own, wanted)):
                different[own] = unequal
        shown.at(len(work.runs), len(work.runs))
    differ = CopyDiffers(dst.target, different) if different else None
    if len(work.runs) == 1 and work.failures:
        raise next(iter(work.failures.values()))
    if work.failures:
        there = len(present) + len(copied) - len(different)
        raise NotCopied(src.target, work.failures, there, str(differ or "")) from next(
            iter(work.failures.values())
        )
    if differ:
        raise differ
    return TransferReport(
        source=src.target,
        destination=dst.target,
        copied=tuple(copied),
        present=tuple(sorted(present)),
        digests=work.digests,
        left_out=work.left_out,
    )


class _Unread(Exception):
    """A run of the source cannot be read to its end.

    Attributes:
        why: The error.
    """

    def __init__(self, why: MlopskitError) -> None:
        super().__init__(str(why))
        self.why = why


class _Work:
    """Some runs on their way.

    Attributes:
        own: The id that each has at the destination.
        digests: By these, the digests of those that were compared.
        left_out: By these, the keys of what cannot be copied.
        grown: By these, the runs whose copy nobody ended and whose source has gone on since.
        there: By these, the id of the run that is at the destination: another one where mlopskit
            did not write it.
        failures: By their ids at the source, why runs cannot be read.
    """

    def __init__(self, src: Source, dst: Tracker, runs: Sequence[RunRecord]) -> None:
        self.own = {run.id: id_at_destination(src, run.id) for run in runs}
        self.digests: dict[str, tuple[str, str]] = {}
        self.left_out: dict[str, tuple[str, ...]] = {}
        self.grown: set[str] = set()
        self.there: dict[str, str] = {}
        self.failures: dict[str, MlopskitError] = {}
        self._src = src
        self._dst = dst
        self.runs = without_twins(runs, self.own, self._wanted)

    def check_delivered(self, pending: Mapping[str, str]) -> None:
        """See that nothing of these runs is still on its way to the destination.

        Args:
            pending: What `Tracker.sync` could not deliver.

        Raises:
            Unavailable: If something is: a second copy would be added to it.
        """
        ids = set(self.own.values())
        for journal, why in pending.items():
            elsewhere = all(each.startswith("waits for a sync of ") for each in why.split("; "))
            if journal.partition(".")[0] in ids and not elsewhere:
                raise Unavailable(self._dst.target, why)

    def check_replaceable(self, clashes: Mapping[str, Sequence[str]]) -> None:
        """See that runs which differ may be replaced at all.

        Raises:
            CannotReplace: If their ids would be used up, or they hold what no copy has.
        """
        target = self._dst.target
        for own, why in clashes.items():
            there = self.there[own]
            said = f"The run {there} is at {target} already, and differs: {'; '.join(why)}. "
            if there == own and not self._dst.reuses_ids:
                raise CannotReplace(
                    f"{said}It cannot be replaced: that server never takes the id of a deleted run "
                    "again. Name another destination; nothing was copied."
                )
            if keys := self._dst.unread_keys(there):
                raise CannotReplace(
                    f"{said}It holds what a copy does not: {', '.join(keys)}. Delete it there "
                    "yourself if it may go, or name another destination; nothing was copied."
                )

    def compared(self, *, progress: bool) -> tuple[set[str], dict[str, list[str]]]:
        """Return those that are at the destination and equal, and in what the others differ."""
        self.there = ids_there(self._dst) if self.runs else {}
        both = [run for run in self.runs if self.own[run.id] in self.there]
        present: set[str] = set()
        clashes: dict[str, list[str]] = {}
        with bar("runs compared", asked=progress and both != []) as shown:
            for done, run in enumerate(both):
                shown.at(done, len(both), run.name)
                own = self.own[run.id]
                try:
                    wanted = self._read(run)
                except _Unread as exc:
                    self.failures[run.id] = exc.why
                    continue
                wanted, found, why = unlike(wanted, self._found(own))
                self.digests[own] = (wanted.digest, found.digest)
                if not why:
                    present.add(own)
                elif self._dst.reuses_ids and has_grown(found, wanted):
                    self.grown.add(own)
                else:
                    clashes[own] = why
            shown.at(len(both), len(both))
        return present, clashes

    def difference(self, own: str, wanted: Snapshot) -> list[str]:
        """Compare a run with its copy."""
        found = self._found(own)
        wanted = completed(wanted, found)
        self.digests[own] = (wanted.digest, found.digest)
        return differences(wanted, found)

    def copy(self, run: RunRecord) -> Snapshot:
        """Copy one run; return it with the digests that its files have.

        A run that it replaces is deleted once all of this one is kept here.

        Raises:
            _Unread: If it cannot be read to its end; then nothing has changed.
        """
        wanted = self._read(run)
        kept: list[Artifact] = []

        def fill(journal: Journal) -> None:
            kept.extend(self._kept(run.id, each, journal) for each in wanted.artifacts)
            for raw in replay.raws(dataclasses.replace(wanted, artifacts=kept)):
                journal.append(raw)

        own = wanted.run.id
        report = self._dst.take_over(own, wanted.run.owner, fill, replaces=self.there.pop(own, ""))
        if report.pending:
            target = self._dst.target
            said = f"Unavailable: {target} cannot be reached: "
            raise Unavailable(
                target, "; ".join(x.removeprefix(said) for x in report.pending.values())
            )
        if report.rejected:
            logger.error(
                "%s refused %d records of run %s.", self._dst.target, report.rejected, run.id
            )
        return dataclasses.replace(wanted, artifacts=kept)

    def unsettled(self) -> str:
        """Deliver what is on its way, so that Ctrl-C leaves whole runs; say why where it cannot."""
        try:
            pending = self._dst.sync().pending
        except KeyboardInterrupt:
            return "Ctrl-C was pressed again"
        except MlopskitError as exc:
            return str(exc)
        return "; ".join(pending.values())

    def _read(self, run: RunRecord) -> Snapshot:
        """Read a run of the source.

        Raises:
            _Unread: If that fails for a reason of its own; an end that is down is `Unavailable`.
        """
        try:
            return self._wanted(run)
        except Unavailable:
            raise
        except MlopskitError as exc:
            raise _Unread(exc) from exc

    def _wanted(self, run: RunRecord) -> Snapshot:
        """Return a run as it should read at the destination."""
        unread: Callable[[str], tuple[str, ...]] = getattr(self._src, "unread_keys", lambda _: ())
        if keys := unread(run.id):
            self.left_out[self._renamed(run.id)] = keys
        return as_copied(self._src, run, self._renamed, self._dst.context.redactor)

    def _found(self, own: str) -> Snapshot:
        """Return the run that is at the destination under an id, or would have it."""
        dst = self._dst
        run = dst.get_run(self.there.get(own, own))
        return as_copied(dst, run, partial(id_at_destination, dst), dst.context.redactor)

    def _renamed(self, id: str) -> str:
        return self.own.get(id) or id_at_destination(self._src, id)

    def _kept(self, id: str, artifact: Artifact, journal: Journal) -> Artifact:
        """Put the bytes of a file into a journal; return it with the digest that they have."""
        logged_as = artifact.logged_as or artifact.name
        if artifact.uri is not None:
            return artifact.model_copy(update={"logged_as": logged_as})
        part = journal.path / "part"
        try:
            self._fetch(id, artifact, part)
            digest, size = journal.files.put(part)
        finally:
            part.unlink(missing_ok=True)
        known = {"digest": digest, "size": size, "logged_as": logged_as}
        return artifact.model_copy(update=known)

    def _fetch(self, id: str, artifact: Artifact, path: Path) -> None:
        try:
            self._src.fetch_artifact(id, artifact, path)
        except Unavailable:
            raise
        except MlopskitError as exc:
            raise _Unread(exc) from exc

"""Journals that other processes left: delivered, ended where they do not say how, and removed."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mlopskit.errors import MlopskitError, NotFound
from mlopskit.tracking import journal_folders as journals
from mlopskit.tracking import records
from mlopskit.tracking.entities import SyncReport
from mlopskit.tracking.journal_reader import Reader
from mlopskit.tracking.place import Place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.tracking.delivery import Delivery
    from mlopskit.tracking.journal_folders import About

SETTLE_S: Final = 0.1


def adopt(path: Path, deliveries: Mapping[str, Delivery], report: SyncReport) -> SyncReport:
    """Deliver one journal that another process left, unless that process still lives.

    Args:
        path: The journal.
        deliveries: By target; what goes elsewhere is left to those who deliver there.
        report: What has been done before.

    Returns:
        The report, and what has been done now.
    """
    try:
        claim = journals.claim(path)
    except MlopskitError as exc:
        return added(report, pending={path.stem: str(exc)})
    if claim is None:
        return report  # Its process lives, or another sync is at it.
    try:
        return _adopted(path, deliveries, report)
    except MlopskitError as exc:
        return added(report, pending={path.stem: str(exc)})
    finally:
        claim.let_go()


def by_age(path: Path) -> tuple[str, bool, int, str]:
    """Sort the journals of a run: its own before those of forked children, the oldest first."""
    said = journals.about(path)
    run = path.name.partition(".")[0]
    return (run, False, 0, path.name) if said is None else (run, said.child, said.begun_ns, "")


def added(
    report: SyncReport,
    *,
    delivered: int = 0,
    rejected: int = 0,
    pending: dict[str, str] | None = None,
    damaged: dict[str, str] | None = None,
) -> SyncReport:
    """Return a report with more in it."""
    return SyncReport(
        delivered=report.delivered + delivered,
        rejected=report.rejected + rejected,
        pending={**report.pending, **(pending or {})},
        damaged={**report.damaged, **(damaged or {})},
    )


def _adopted(path: Path, deliveries: Mapping[str, Delivery], report: SyncReport) -> SyncReport:
    about = journals.about(path)
    if about is None:
        reason = f"its {journals.ABOUT} cannot be read, so nobody knows where it belongs"
        return added(report, pending={path.stem: reason})
    places = {target: Place(path, about.run_id, target) for target in about.targets}
    if not about.child:
        _end(path, about, min(place.reached for place in places.values()))
    waiting = {}
    for target, place in places.items():
        place.closed = True
        delivery = deliveries.get(target)
        if delivery is None:
            if place.pending:
                waiting[target] = f"waits for a sync of {target}"
            continue
        try:
            if about.replaces:
                _make_way(delivery, place, about.replaces)
            if not _settled(delivery, place, delivery.sink.flush_timeout_s):
                waiting[target] = "it was taken, and is not known to be stored yet"
        except Exception as exc:  # noqa: BLE001 - said in the report; the journal stays
            waiting[target] = f"{type(exc).__name__}: {exc}"
        report = added(report, delivered=place.delivered, rejected=place.rejected)
    damage = {str(each): each for place in places.values() for each in place.damage}
    if damage:
        report = added(report, damaged={path.stem: "; ".join(damage)})
    for place in places.values():
        place.reader.close()
    if waiting:
        return added(report, pending={path.stem: "; ".join(waiting.values())})
    journals.remove(path)
    return report


def _make_way(delivery: Delivery, place: Place, run_id: str) -> None:
    """Delete the run that a journal replaces, once: what is there later came from the journal."""
    if place.has_way:
        return
    with suppress(NotFound):
        delivery.sink.remove_run(run_id)
    place.made_way()


def _settled(delivery: Delivery, place: Place, patience_s: float) -> bool:
    """Deliver a journal that nobody writes; tell whether it was stored for good in time."""
    deadline = time.monotonic() + patience_s
    while not delivery.deliver(place):
        if time.monotonic() > deadline:
            return False
        time.sleep(SETTLE_S)
    return True


def _end(path: Path, about: About, offset: int) -> None:
    """Write that a run was lost, where its journal does not say how it ended."""
    reader = Reader(path, offset)
    begun, died_ms = offset > 0, 0
    try:
        while found := reader.read(whole=True):
            for _, record in found:
                if record[0] == "end":
                    return
                begun, died_ms = True, int(record[1])
    finally:
        reader.close()
    if not begun:
        return  # Its process died before it said that there is a run.
    died_ms = died_ms or int(path.stat().st_mtime * 1000)
    journals.add_to(path, records.ended("lost", about.owner, died_ms))

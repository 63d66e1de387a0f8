"""What was found online, judged by its age and laid out by column."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from mlopskit.features.entities import FeatureStatus, OnlineFeatures
from mlopskit.features.values import MICROSECOND, microseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from mlopskit.features.references import Selection
    from mlopskit.features.rows import Lookup

    Record = tuple[int, Mapping[str, Any]]

_ABSENT: Final = object()


def answer(
    selection: Selection,
    asked: Lookup,
    found: Sequence[Sequence[Record | None]],
    max_age: timedelta | None,
    now: datetime | str | None,
) -> OnlineFeatures:
    """Give every value a status, whatever the store did about its age.

    Args:
        selection: What was asked for.
        asked: The keys that were asked for.
        found: For each view, the record of each key.
        max_age: The oldest that a value may be; where the view's ttl is shorter, that decides.
        now: The moment to judge by; the clock if it is None.
    """
    size = len(selection.references)
    values: list[list[Any]] = [[] for _ in range(size)]
    statuses: list[list[FeatureStatus]] = [[] for _ in range(size)]
    times: list[list[int | None]] = [[] for _ in range(size)]
    moment = time.time_ns() // 1000 if now is None else microseconds("now", now)
    # Clocks differ, so an event may well lie a little ahead of ours; not ahead of a moment given.
    newest = None if now is None else moment
    for view, records in zip(selection.views, found, strict=True):
        limits = [limit // MICROSECOND for limit in (view.ttl, max_age) if limit is not None]
        oldest = moment - min(limits) if limits else None
        for feature, at in selection.columns[view.name]:
            _judge(feature, records, oldest, newest, into=(values[at], statuses[at], times[at]))
    return OnlineFeatures(
        asked.entities,
        selection.references,
        selection.names,
        values=values,
        statuses=statuses,
        event_times=times,
    )


def _judge(
    feature: str,
    records: Sequence[Record | None],
    oldest: int | None,
    newest: int | None,
    *,
    into: tuple[list[Any], list[FeatureStatus], list[int | None]],
) -> None:
    missing, expired = FeatureStatus.MISSING, FeatureStatus.EXPIRED
    fresh, null = FeatureStatus.FRESH, FeatureStatus.NULL
    values, statuses, times = into
    for record in records:
        value: Any = None
        status = missing
        event: int | None = None
        if record is not None and (newest is None or record[0] <= newest):
            known = record[1].get(feature, _ABSENT)
            # A record older than the feature itself says nothing about it.
            if known is not _ABSENT:
                event = record[0]
                if oldest is not None and event < oldest:
                    status = expired
                elif known is None:
                    status = null
                else:
                    value, status = known, fresh
        values.append(value)
        statuses.append(status)
        times.append(event)

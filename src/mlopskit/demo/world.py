"""The prepared year: what happened at which hour, and which labels were known at which time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlopskit.demo.data import DAY, HOUR, NEVER, month_start
from mlopskit.demo.features import EVENT, VIEWS
from mlopskit.demo.model import LABEL
from mlopskit.demo.steps import FLIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.demo.data import Floats, Ints

    Bools = np.ndarray[Any, np.dtype[np.bool_]]

Columns = dict[str, list[Any]]
# Four or five in the morning in New York, seconds after midnight UTC.
DAWN: Final = 9 * HOUR


@dataclass(frozen=True)
class Hour:
    """One full hour at which predictions are asked for.

    Attributes:
        now: The hour, in seconds since 1970.
        learned: By view, what became known since the hour before it, as plain columns.
        first: The first row of the flights that are asked about.
        end: The row behind the last.
    """

    now: int
    learned: dict[str, Columns]
    first: int
    end: int

    @property
    def time(self) -> datetime:
        """The hour as a time in UTC."""
        return instant(self.now)


class World:
    """The files of `mlopskit.demo.steps.prepare`, read once.

    Attributes:
        folder: Where the files are.
        flights: One row per flight, in order of the hour at which it is asked about.
        asked: That hour of every row, in seconds since 1970.
        known: When the label of every row became known; `NEVER` where it does not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flights: pa.Table = pq.read_table(folder / FLIGHTS).combine_chunks()
        self.asked = _seconds(self.flights[EVENT])
        known = self.flights["known"]
        self.known = np.where(
            known.is_null().to_numpy(), NEVER, _seconds(known.fill_null(instant(0)))
        )

    def __len__(self) -> int:
        return int(self.flights.num_rows)

    def hours(self, month: int) -> list[Hour]:
        """Return every hour of a month in which a flight leaves, in order."""
        start, end = month_start(month), month_start(month + 1)
        first, last = np.searchsorted(self.asked, [start, end])
        times, firsts = np.unique(self.asked[first:last], return_index=True)
        if not len(times):
            return []
        ends = np.append(firsts[1:], last - first)
        # The first hour brings along what became known since the month began.
        since = np.concatenate([[start - HOUR], times[:-1]])
        learned = {view: list(self._slices(view, since, times)) for view in VIEWS}
        return [
            Hour(
                now=int(now),
                learned={view: learned[view][i] for view in VIEWS if learned[view][i]},
                first=int(first + firsts[i]),
                end=int(first + ends[i]),
            )
            for i, now in enumerate(times)
        ]

    def days(self, month: int) -> list[list[Hour]]:
        """Return the hours of a month day by day; a day begins before the first flight leaves."""
        return [
            list(day)
            for _, day in itertools.groupby(
                self.hours(month), lambda hour: (hour.now - DAWN) // DAY
            )
        ]

    def counts(self) -> dict[str, int]:
        """Return how many events there are of every view."""
        files = {view: self.folder / f"{view}.parquet" for view in VIEWS}
        return {view: pq.read_metadata(file).num_rows for view, file in files.items()}

    def rows(self, start: int, end: int) -> Ints:
        """Return the rows asked about from one time until before another."""
        return np.arange(*np.searchsorted(self.asked, [start, end]), dtype=np.int64)

    def labelled(self, rows: Ints, *, by: int) -> tuple[Bools, Floats]:
        """Return which rows had a label by a time, and the labels of these."""
        there = self.known[rows] <= by
        late = self.flights[LABEL].take(pa.array(rows[there]))
        return there, late.to_numpy().astype(np.float64)

    def _slices(self, view: str, since: Ints, until: Ints) -> Iterator[Columns]:
        """Yield the events after one time and up to another, for every pair of times."""
        first, last = instant(int(since[0])), instant(int(until[-1]))
        between = [(EVENT, ">", first), (EVENT, "<=", last)]
        table = pq.read_table(self.folder / f"{view}.parquet", filters=between).combine_chunks()
        known = _seconds(table[EVENT])
        columns = {name: table[name].to_pylist() for name in table.column_names if name != EVENT}
        # Many events share an hour, and making a time costs more than looking one up.
        times = {second: instant(second) for second in np.unique(known).tolist()}
        columns[EVENT] = [times[second] for second in known.tolist()]
        begins = np.searchsorted(known, since, side="right")
        ends = np.searchsorted(known, until, side="right")
        for begin, end in zip(begins, ends, strict=True):
            part = {name: values[begin:end] for name, values in columns.items()}
            yield part if begin < end else {}


def instant(seconds: int) -> datetime:
    """Return seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def _seconds(column: Any) -> Ints:
    numbers: Ints = column.cast(pa.timestamp("s", "UTC")).cast(pa.int64()).to_numpy()
    return numbers

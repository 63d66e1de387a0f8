"""The history of a run, from its ``.wandb`` file: a column for each key, and its media.

A mapping in a row becomes keys of several parts, which are joined by dots here; a key with a dot
remains one part, so two keys may have one name.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlopskit.tracking import wandb_messages as messages
from mlopskit.tracking.wandb_log import RunFile
from mlopskit.tracking.wandb_values import decoded, is_number, put

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.tracking.wandb_values import KeyPath

MOST_TEXTS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a history that have a number for one key, as columns of equal length.

    Attributes:
        steps: W&B's own step of each row.
        timestamps: W&B's time of each row, in seconds since 1970-01-01 UTC; NaN if it has none.
        values: The numbers: floats, and ints where no float is that number.
        beside: What the same rows have for other keys; None where a row has nothing.
    """

    steps: array[int]
    timestamps: array[float]
    values: list[int | float]
    beside: Mapping[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Media:
    """An image, table, histogram or the like in a row of the history.

    Attributes:
        key: The key it was logged under, its parts joined by dots.
        step: W&B's own step.
        timestamp: W&B's time in seconds since 1970-01-01 UTC.
        type: W&B's word for it, such as ``image-file``.
        files: Its files, relative to the folder ``files``; see `OfflineRun.file`.
        said: All that W&B has of it.
    """

    key: str
    step: int
    timestamp: float
    type: str
    files: tuple[str, ...]
    said: Mapping[str, Any]


class Column:
    """What the rows have for one key: 16 bytes for a number, and beside them what is none.

    Texts are decoded when somebody asks, or when there are `MOST_TEXTS` of them.
    """

    __slots__ = ("numbers", "odd", "rows", "texts")

    def __init__(self) -> None:
        self.rows = array("q")
        self.numbers = array("d")
        self.odd: dict[int, Any] = {}
        self.texts: dict[int, bytes] = {}

    def settle(self) -> Column:
        """Decode the texts, and return the column."""
        begin = len(self.rows)
        try:
            self.numbers.extend(array("d", map(float, self.texts.values())))
        except ValueError:
            for at, text in enumerate(self.texts.values(), begin):
                try:
                    self.numbers.append(float(text))
                except ValueError:
                    self.numbers.append(math.nan)
                    self.odd[at] = decoded(text)
        for at, text in enumerate(self.texts.values(), begin):
            if (
                15 < len(text) < 400
                and text.lstrip(b"-").isdigit()
                and int(text) != self.numbers[at]
            ):
                self.odd[at] = int(text)
        self.rows.extend(self.texts)
        self.texts.clear()
        return self

    def values(self) -> list[Any]:
        """Return what each of the rows has."""
        values: list[Any] = self.settle().numbers.tolist()
        for at, value in self.odd.items():
            values[at] = value
        return values

    def beside(self, rows: list[int]) -> list[Any]:
        """Return what other rows have, or None."""
        values = self.values()
        if self.rows.tolist() == rows:
            return values
        found = dict(zip(self.rows, values, strict=True))
        return [found.get(row) for row in rows]

    def any_number(self) -> bool:
        """Tell whether there is a number."""
        self.settle()
        return len(self.odd) < len(self.rows) or any(map(is_number, self.odd.values()))


class Table:
    """The history of one file, filled as far as the file has come."""

    def __init__(self, path: Path) -> None:
        self._file = RunFile(path)
        self.columns: dict[str, Column] = {}
        self._heads: dict[bytes, Column] = {}
        self._media: list[tuple[int, str, dict[str, Any]]] = []
        self._count = 0

    def read(self) -> None:
        """Take in what is new."""
        for message in self._file.messages():
            tag, at = messages.body(message)
            if (
                tag == messages.HISTORY
                and (items := messages.items_of(message, at, tag)) is not None
            ):
                self._take(items, media=b"_type" in message)
            elif tag != messages.SUMMARY:
                record = self._file.parsed(message)
                if record is not None and record.HasField("history"):
                    self._take([messages.pair_of(item) for item in record.history.item], media=True)

    def columns_of(self, name: str) -> list[float]:
        """Return every number of one key."""
        column = self.columns.get(name, Column()).settle()
        return [each for each in column.values() if is_number(each)]

    def steps(self, rows: list[int]) -> array[int]:
        """Return W&B's own steps of rows; -1 for a row that has none."""
        return array("q", [int(step) for step in self._own("_step", rows, -1)])

    def times(self, rows: list[int]) -> array[float]:
        """Return the times of rows, in seconds; NaN for a row that has none."""
        return array("d", self._own("_timestamp", rows, math.nan))

    def media(self) -> list[Media]:
        """Return the media of all rows."""
        rows = [row for row, _, _ in self._media]
        stamps = zip(self.steps(rows), self.times(rows), strict=True)
        return [
            _medium(key, step, time, said)
            for (_, key, said), (step, time) in zip(self._media, stamps, strict=True)
        ]

    def _take(self, items: list[tuple[bytes, bytes]], *, media: bool) -> None:
        row = self._count
        if media:
            items, found = _media(items)
            self._media.extend((row, key, said) for key, said in found)
        heads = self._heads
        for head, text in items:
            column = heads.get(head)
            if column is None:
                column = heads[head] = self.columns.setdefault(
                    ".".join(messages.path_of(head)), Column()
                )
            column.texts[row] = text
        self._count += 1
        if self._count % MOST_TEXTS == 0:
            for column in self.columns.values():
                column.settle()

    def _own(self, name: str, rows: list[int], otherwise: float) -> list[float]:
        column = self.columns.get(name, Column()).settle()
        if len(column.rows) == self._count and not column.odd:
            return [column.numbers[row] for row in rows]
        return [each if is_number(each) else otherwise for each in column.beside(rows)]


def _media(
    items: list[tuple[bytes, bytes]],
) -> tuple[list[tuple[bytes, bytes]], list[tuple[str, dict[str, Any]]]]:
    """Split the items of a row into plain ones and media, each by its key."""
    paths = [messages.path_of(head) for head, _ in items]
    owners: dict[KeyPath, dict[str, Any]] = {
        path[:-1]: {}
        for path, (_, text) in zip(paths, items, strict=True)
        if len(path) > 1 and path[-1] == "_type" and text[:1] == b'"'
    }
    plain = []
    for path, item in zip(paths, items, strict=True):
        owner = next((path[:n] for n in range(1, len(path)) if path[:n] in owners), None)
        if owner is None:
            plain.append(item)
        else:
            put(owners[owner], path[len(owner) :], decoded(item[1]))
    return plain, [(".".join(path), said) for path, said in owners.items() if said]


def _medium(key: str, step: int, timestamp: float, said: dict[str, Any]) -> Media:
    files = said.get("filenames")
    if not isinstance(files, list):
        files = [said.get("path")]
    names = tuple(each for each in files if isinstance(each, str))
    return Media(key, step, timestamp, str(said.get("_type")), names, said)

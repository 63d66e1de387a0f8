"""W&B's own files of a run, read without a server and while the run still writes them.

A folder ``offline-run-<time>-<id>`` holds ``run-<id>.wandb`` and ``files/``. The ``.wandb`` file is
a header of seven bytes and then LevelDB's log: blocks of 32 KiB with frames (CRC-32, length, type)
that make up protobuf messages ``Record``. As seen with W&B 0.31:

* The file grows whenever a block is full, and at least every 15 seconds
  (``x_transaction_log_flush_interval``), when the run ends, and when its process was killed.
* W&B's service writes a whole float as an integer (``1.0`` as ``1``), a number beyond 64 bits as
  a float, ``-0.0`` as ``-0``, and keeps NaN and the infinities as words. In a config NaN is null,
  and a key loses its leading dashes.
* A mapping in a row becomes keys of several parts; a key with a dot remains one part.

Nothing here is locked: one thread at a time may use a `RunFile` or an `OfflineRun`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import os
import re
import struct
import zlib
from array import array
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote, urlsplit

from mlopskit.errors import IntegrityError, InvalidInput, NotFound, StorageError
from mlopskit.storage import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import BinaryIO

    Path_ = tuple[str, ...]  # a key of a mapping in mappings

BLOCK: Final = 32768
MAGIC: Final = b":W&B\xe1\xbe\x00"
FULL, FIRST, LAST, LOST = 1, 2, 4, 0  # 3 is a frame in the middle
_FRAME: Final = struct.Struct("<IHB")
_SEEDS: Final = {kind: zlib.crc32(bytes([kind])) for kind in (1, 2, 3, 4)}
_KINDS: Final = re.compile(rb"[\x01-\x04]")
MOST_TEXTS: Final = 1 << 16
_FOLDER: Final = re.compile(r"(offline-)?run-(\d{8}_\d{6})-.+")
_HISTORY, _SUMMARY, _ITEM, _STEP = 0x12, 0x1A, 0x0A, 0x12  # tags on the wire
_VALUE_JSON: Final = b"\x82\x01"


# The log.


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a file that are part of no record any more.

    Attributes:
        offset: Where they begin, in bytes.
        length: How many they are.
        reason: What is wrong with them.
    """

    offset: int
    length: int
    reason: str


class RunFile:
    """A ``.wandb`` file, read from where the last look ended.

    Attributes:
        path: The file.
        offset: Up to where it has been read, in bytes; always the end of a record or of damage.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self._damage: list[Damage] = []
        self._tail: Damage | None = None

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What was passed over so far, and what at the end is more than unfinished."""
        return (*self._damage, self._tail) if self._tail else tuple(self._damage)

    def records(self) -> Iterator[Any]:
        """Yield W&B's messages ``Record`` that came since the last look.

        Raises:
            NotFound: If the file is gone.
            StorageError: If it is no file of W&B's, became shorter, or cannot be read.
        """
        for message in self.messages():
            if (record := self.parsed(message)) is not None:
                yield record

    def messages(self) -> Iterator[bytes]:
        """Yield the same as bytes. An unfinished end is left for the next look.

        Raises:
            NotFound: If the file is gone.
            StorageError: If it is no file of W&B's, became shorter, or cannot be read.
        """
        parts: list[bytes] = []
        for start, stop, kind, payload in self._frames():
            if kind == FULL and not parts:
                self.offset = stop
                yield payload
                continue
            if kind == LOST:
                self._lose(stop, _reason(payload))
                parts = []
                continue
            if kind in (FULL, FIRST):
                if parts:
                    self._lose(start, "the end of this record is missing")
                parts = []
            elif not parts:
                self._lose(stop, "the beginning of this record is missing")
                continue
            parts.append(payload)
            if kind in (FULL, LAST):
                self.offset = stop
                yield b"".join(parts)
                parts = []

    def parsed(self, message: bytes) -> Any:
        """Return a message as W&B's ``Record``; None, with damage named, if it is none."""
        # It has no types, and comes with wandb.
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415

        try:
            return _protocol().Record.FromString(message)
        except DecodeError:
            size = len(message)
            self._damage.append(Damage(self.offset - size, size, "this is no record of W&B's"))
            return None

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield start, end, type and payload of each frame, and of each stretch that is lost."""
        self._tail = None
        with self._open() as file:
            if not self._begin(file):
                return
            at = self.offset
            while data := self._read(file, BLOCK - at % BLOCK):
                whole = (at + len(data)) % BLOCK == 0
                place, end = 0, len(data)
                while end - place >= _FRAME.size:
                    crc, length, kind = _FRAME.unpack_from(data, place)
                    stop = place + _FRAME.size + length
                    payload = data[place + _FRAME.size : stop]
                    seed = _SEEDS.get(kind)
                    if seed is not None and stop <= end and zlib.crc32(payload, seed) == crc:
                        yield at + place, at + stop, kind, payload
                        place = stop
                        continue
                    found = _next_frame(data, place + 1)
                    if found is None and not whole:
                        torn = seed is not None and end < stop <= BLOCK - at % BLOCK
                        if not torn:
                            rest = data[place:]
                            self._tail = Damage(at + place, len(rest), _reason(rest))
                        return
                    stop = end if found is None else found
                    yield at + place, at + stop, LOST, data[place:stop]
                    place = stop
                if not whole:
                    return
                at += end

    def _lose(self, stop: int, reason: str) -> None:
        begin = self.offset
        if self._damage and self._damage[-1].offset + self._damage[-1].length == begin:
            last = self._damage.pop()
            begin, reason = last.offset, last.reason
        self._damage.append(Damage(begin, stop - begin, reason))
        self.offset = stop

    def _begin(self, file: BinaryIO) -> bool:
        """Go to where the last look ended; tell whether there is something."""
        with disk_errors(self.path):
            size = os.fstat(file.fileno()).st_size
            head = file.read(len(MAGIC))
            file.seek(max(self.offset, len(MAGIC)))
        if not MAGIC.startswith(head):
            raise StorageError(f"{self.path} is no file of W&B's: it begins with {head!r}.")
        if size < self.offset:
            raise StorageError(
                f"{self.path} became shorter: {size} bytes, of which {self.offset} were read."
            )
        if len(head) < len(MAGIC):
            return False
        self.offset = max(self.offset, len(MAGIC))
        return True

    def _open(self) -> BinaryIO:
        with disk_errors(self.path):
            try:
                return open(self.path, "rb", buffering=1 << 20)
            except FileNotFoundError as exc:
                raise NotFound("file of a W&B run", str(self.path)) from exc

    def _read(self, file: BinaryIO, size: int) -> bytes:
        with disk_errors(self.path):
            return file.read(size)


def _next_frame(data: bytes, place: int) -> int | None:
    """Return where the first whole frame begins from a place on, told by its checksum."""
    for found in _KINDS.finditer(data, place + _FRAME.size - 1):
        start = found.end() - _FRAME.size
        crc, length, kind = _FRAME.unpack_from(data, start)
        stop = start + _FRAME.size + length
        if stop <= len(data) and zlib.crc32(data[start + _FRAME.size : stop], _SEEDS[kind]) == crc:
            return start
    return None


def _reason(lost: bytes) -> str:
    return "the checksum does not match" if any(lost) else "there are only zeros"


# What a message says. Most of a file are rows of the history and of the summary: W&B's classes take
# three times as long to read them as these lines, which leave what looks unusual to the classes.


def _protocol() -> Any:
    """Return W&B's classes. They have no types, and importing them imports all of W&B."""
    from wandb.proto import wandb_internal_pb2  # noqa: PLC0415 - only who has such files pays

    return wandb_internal_pb2


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _body(message: bytes) -> tuple[int, int]:
    """Return the tag of what a record holds, and where that begins, behind its number."""
    at = _varint(message, 1)[1] if message[:1] == b"\x08" else 0
    return (message[at], at) if at < len(message) else (0, at)


def _items(message: bytes, at: int, tag: int) -> list[tuple[bytes, bytes]] | None:
    """Return the items of a row, each as its encoded key and its JSON text.

    None if the row is not laid out as W&B's service does it.
    """
    try:
        length, at = _varint(message, at + 1)
        end = at + length
        if end != len(message):
            return None
        items = []
        while at < end:
            what, length = message[at], message[at + 1]
            at += 2
            if length >= 0x80:
                length, at = _varint(message, at - 1)
            if what == _ITEM:
                item = message[at : at + length]
                place = item[1] + 2  # behind a key of one part
                if item[place : place + 2] != _VALUE_JSON or item[place + 2] != length - place - 3:
                    place = _behind_key(item)
                size, begin = item[place + 2], place + 3
                if size >= 0x80:
                    size, begin = _varint(item, place + 2)
                if item[place : place + 2] != _VALUE_JSON or begin + size != len(item):
                    return None
                items.append((item[:place], item[begin:]))
            elif what != _STEP or tag != _HISTORY:
                return None
            at += length
    except IndexError:
        return None
    return items


def _behind_key(item: bytes) -> int:
    at = 0
    while item[at] in (0x0A, 0x12):  # key, nested_key
        length = item[at + 1]
        at += 2
        if length >= 0x80:
            length, at = _varint(item, at - 1)
        at += length
    return at


@lru_cache(maxsize=4096)
def _path(head: bytes) -> Path_:
    """Return the parts of an encoded key."""
    item = _protocol().HistoryItem.FromString(head)
    return tuple(item.nested_key) or (item.key,)


def _pair(item: Any) -> tuple[bytes, bytes]:
    """Return an item as `_items` has it."""
    key = _protocol().HistoryItem(key=item.key, nested_key=item.nested_key)
    return key.SerializeToString(), item.value_json.encode()


def _int(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


_JSON: Final = json.JSONDecoder(parse_int=_int)


def _decoded(text: str | bytes) -> Any:
    """Return the value of a JSON text, or what is none as it is."""
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    try:
        return _JSON.decode(shown)
    except (ValueError, RecursionError):
        return shown


class _Json(bytes):
    """A JSON text that nobody asked for yet."""

    __slots__ = ()


def _put(tree: dict[str, Any], path: Path_, value: Any) -> None:
    """Set a value in mappings of mappings."""
    for part in path[:-1]:
        below = tree.get(part)
        if isinstance(below, _Json):
            below = _decoded(below)
        tree[part] = tree = below if isinstance(below, dict) else {}
    tree[path[-1]] = value


def _remove(tree: dict[str, Any], path: Path_) -> None:
    for part in path[:-1]:
        below = tree.get(part)
        if isinstance(below, _Json):
            below = tree[part] = _decoded(below)
        if not isinstance(below, dict):
            return
        tree = below
    tree.pop(path[-1], None)


def _plain(value: Any) -> Any:
    """Return mappings of mappings with all JSON texts decoded."""
    if isinstance(value, _Json):
        return _decoded(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


# The history.


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


class _Column:
    """What the rows have for one key: 16 bytes for a number, and beside them what is none.

    Texts are decoded when somebody asks, or when there are `MOST_TEXTS` of them.
    """

    __slots__ = ("numbers", "odd", "rows", "texts")

    def __init__(self) -> None:
        self.rows = array("q")
        self.numbers = array("d")
        self.odd: dict[int, Any] = {}
        self.texts: dict[int, bytes] = {}

    def settle(self) -> _Column:
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
                    self.odd[at] = _decoded(text)
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
        return len(self.odd) < len(self.rows) or any(map(_is_number, self.odd.values()))


class _Table:
    """The history of one file, filled as far as the file has come."""

    def __init__(self, path: Path) -> None:
        self._file = RunFile(path)
        self.columns: dict[str, _Column] = {}
        self._heads: dict[bytes, _Column] = {}
        self._media: list[tuple[int, str, dict[str, Any]]] = []
        self._count = 0

    def read(self) -> None:
        """Take in what is new."""
        for message in self._file.messages():
            tag, at = _body(message)
            if tag == _HISTORY and (items := _items(message, at, tag)) is not None:
                self._take(items, media=b"_type" in message)
            elif tag != _SUMMARY:
                record = self._file.parsed(message)
                if record is not None and record.HasField("history"):
                    self._take([_pair(item) for item in record.history.item], media=True)

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
                column = heads[head] = self.columns.setdefault(".".join(_path(head)), _Column())
            column.texts[row] = text
        self._count += 1
        if self._count % MOST_TEXTS == 0:
            for column in self.columns.values():
                column.settle()

    def _own(self, name: str, rows: list[int], otherwise: float) -> list[float]:
        column = self.columns.get(name, _Column()).settle()
        if len(column.rows) == self._count and not column.odd:
            return [column.numbers[row] for row in rows]
        return [each if _is_number(each) else otherwise for each in column.beside(rows)]


def _media(
    items: list[tuple[bytes, bytes]],
) -> tuple[list[tuple[bytes, bytes]], list[tuple[str, dict[str, Any]]]]:
    """Split the items of a row into plain ones and media, each by its key."""
    paths = [_path(head) for head, _ in items]
    owners: dict[Path_, dict[str, Any]] = {
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
            _put(owners[owner], path[len(owner) :], _decoded(item[1]))
    return plain, [(".".join(path), said) for path, said in owners.items() if said]


def _medium(key: str, step: int, timestamp: float, said: dict[str, Any]) -> Media:
    files = said.get("filenames")
    if not isinstance(files, list):
        files = [said.get("path")]
    names = tuple(each for each in files if isinstance(each, str))
    return Media(key, step, timestamp, str(said.get("_type")), names, said)


# Artifacts.


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an artifact, or a reference.

    Attributes:
        path: Its name within the artifact.
        digest: Base64 of the MD5, or of what `algorithm` says; of a reference whatever its store
            gave.
        size: In bytes; None of a reference that was not looked at.
        ref: The address of a reference.
        local_path: Where W&B keeps the bytes until it has sent them.
        algorithm: ``MD5`` or ``XXH128``.
    """

    path: str
    digest: str
    size: int | None
    ref: str | None = None
    local_path: str | None = None
    algorithm: str = "MD5"


@dataclass(frozen=True, slots=True)
class LoggedArtifact:
    """An artifact that a run logged.

    Attributes:
        name: W&B's name, without a version: W&B gives that when it has the artifact.
        type: W&B's type.
        description: What was said of it.
        metadata: Its metadata.
        aliases: Its aliases; W&B adds ``latest``.
        digest: The digest of its manifest, in hexadecimal.
        folder: The folder of the run, for bytes that were moved along with it.
    """

    name: str
    type: str
    description: str
    metadata: Mapping[str, Any]
    aliases: tuple[str, ...]
    digest: str
    folder: Path
    _contents: tuple[Entry, ...] = field(repr=False)
    _manifest: str = field(repr=False)

    def entries(self) -> tuple[Entry, ...]:
        """Return what is in it. Beyond 100,000 entries W&B writes them to a file of its own.

        Raises:
            NotFound: If that file is gone.
            StorageError: If it cannot be read.
        """
        if not self._manifest:
            return self._contents
        path = self._here(self._manifest)
        if path is None:
            raise NotFound("manifest of a W&B artifact", self._manifest)
        try:
            with disk_errors(path), gzip.open(path, "rt", encoding="utf-8") as lines:
                return tuple(_entry_of(json.loads(line)) for line in lines)
        except (EOFError, ValueError, KeyError, zlib.error) as exc:
            raise StorageError(f"{path} is no manifest of W&B's: {exc}.") from exc

    def path_of(self, entry: Entry) -> Path:
        """Return where the bytes of an entry lie on this machine, unverified.

        Raises:
            NotFound: If they do not.
        """
        place = entry.local_path
        if not place and entry.ref:
            address = urlsplit(entry.ref)
            place = unquote(address.path) if address.scheme == "file" else None
        path = self._here(place) if place else None
        if path is None:
            raise NotFound("local copy of", f"{self.name}/{entry.path}")
        return path

    def verified(self, entry: Entry) -> Path:
        """Return where the bytes of an entry lie, once their size and digest are right.

        Raises:
            NotFound: If they are not on this machine.
            IntegrityError: If they are not what was logged.
        """
        path = self.path_of(entry)
        what = f"{self.name}/{entry.path}"
        with disk_errors(path):
            size = path.stat().st_size
            if entry.size is not None and size != entry.size:
                raise IntegrityError(what, f"of {entry.size} bytes", f"of {size} bytes")
            found = _digest_of(path, entry.algorithm)
        if found != entry.digest:
            raise IntegrityError(what, entry.digest, found)
        return path

    def _here(self, place: str) -> Path | None:
        """Return a path that W&B noted, or where it is if the folders around it were moved."""
        path = Path(place)
        if path.is_file():
            return path
        parts = path.parts
        if ".." in parts:
            return None
        for root in (self.folder, *self.folder.absolute().parents[:2]):
            for begin in range(1, len(parts) - 1):  # never by its last name alone
                moved = root.joinpath(*parts[begin:])
                if moved.is_file():
                    return moved
        return None


def _digest_of(path: Path, algorithm: str) -> str:
    if algorithm == "MD5":
        with path.open("rb") as file:
            made = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        return base64.b64encode(made.digest()).decode()
    if algorithm == "XXH128":
        import xxhash  # noqa: PLC0415 - comes with wandb; few artifacts ask for it

        other = xxhash.xxh128()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                other.update(chunk)
        return base64.b64encode(other.digest()).decode()
    raise StorageError(f"{path} has a digest of an unknown kind, {algorithm!r}.")


def _entry_of(said: Mapping[str, Any]) -> Entry:
    """Return an entry of a line of a manifest's file."""
    return Entry(
        path=said["path"],
        digest=said["digest"],
        size=said.get("size"),
        ref=said.get("ref"),
        local_path=said.get("local_path"),
        algorithm=str((said.get("extra") or {}).get("alg", "MD5")),
    )


def _artifact(record: Any, folder: Path) -> LoggedArtifact:
    contents = tuple(
        Entry(
            path=each.path,
            digest=each.digest,
            size=None if each.ref and not each.size else each.size,
            ref=each.ref or None,
            local_path=each.local_path or None,
            algorithm=next(
                (str(_decoded(e.value_json)) for e in each.extra if e.key == "alg"), "MD5"
            ),
        )
        for each in record.manifest.contents
    )
    metadata = _decoded(record.metadata) if record.metadata else {}
    return LoggedArtifact(
        name=record.name,
        type=record.type,
        description=record.description,
        metadata=metadata if isinstance(metadata, dict) else {},
        aliases=tuple(record.aliases),
        digest=record.digest,
        folder=folder,
        _contents=contents,
        _manifest=record.manifest.manifest_file_path,
    )


# The run.


@dataclass(frozen=True, slots=True)
class Defined:
    """What ``define_metric`` said of a key.

    Attributes:
        name: The key, or a pattern with ``*``.
        step_metric: The key that counts its steps.
        summary: Which values the summary shall have: ``min``, ``max``, ``mean``, ``last`` ...
        goal: ``minimize`` or ``maximize``.
        hidden: Whether pages leave it out.
    """

    name: str
    step_metric: str | None
    summary: tuple[str, ...]
    goal: str | None
    hidden: bool


@dataclass(slots=True, eq=False)
class OfflineRun:
    """One folder of a run. Empty until `read` is called, which takes in what is new each time.

    Attributes:
        path: The ``.wandb`` file.
        id: W&B's id. A run that several processes went on with has a folder for each; see `by_id`.
        project: W&B's project.
        entity: W&B's entity; empty if none was named.
        name: What pages call it.
        group: Its group.
        job_type: Its job type.
        notes: Its notes.
        tags: Its tags.
        host: The machine it ran on.
        sweep_id: The sweep it belongs to.
        config: The config, without what W&B keeps for itself.
        started_at: When it began.
        exit_code: None while it goes on, and for ever if it was killed.
        ended_at: When it ended, to the second.
        defined: What ``define_metric`` said, by key or pattern.
        artifacts: What it logged, in its order.
    """

    path: Path
    id: str = field(init=False)
    project: str = field(init=False, default="")
    entity: str = field(init=False, default="")
    name: str = field(init=False, default="")
    group: str | None = field(init=False, default=None)
    job_type: str | None = field(init=False, default=None)
    notes: str = field(init=False, default="")
    tags: tuple[str, ...] = field(init=False, default=())
    host: str = field(init=False, default="")
    sweep_id: str | None = field(init=False, default=None)
    config: dict[str, Any] = field(init=False, default_factory=dict)
    started_at: datetime | None = field(init=False, default=None)
    exit_code: int | None = field(init=False, default=None)
    ended_at: datetime | None = field(init=False, default=None)
    defined: dict[str, Defined] = field(init=False, default_factory=dict)
    artifacts: list[LoggedArtifact] = field(init=False, default_factory=list)
    _file: RunFile = field(init=False, repr=False)
    _table: _Table | None = field(init=False, default=None, repr=False)
    _summary: dict[str, Any] = field(init=False, default_factory=dict, repr=False)
    _latest: dict[bytes, bytes] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.id = self.path.name.removeprefix("run-").removesuffix(".wandb")
        self._file = RunFile(self.path)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.path.parent

    @property
    def online(self) -> bool:
        """Whether this is the local copy of a run that W&B's server had from the beginning."""
        return not self.folder.name.startswith("offline-")

    @property
    def synced(self) -> bool:
        """Whether ``wandb sync`` has sent it."""
        return self.path.with_name(self.path.name + ".synced").exists()

    @property
    def written_at(self) -> datetime:
        """When the file last grew: every 15 seconds or so, while the run goes on.

        Raises:
            NotFound: If the file is gone.
        """
        with disk_errors(self.path):
            try:
                return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
            except FileNotFoundError as exc:
                raise NotFound("file of a W&B run", str(self.path)) from exc

    @property
    def begun_at(self) -> datetime:
        """When it began: to the second, by the folder's name, as long as it is not read."""
        if self.started_at is not None:
            return self.started_at
        named = _FOLDER.fullmatch(self.folder.name)
        with suppress(ValueError):
            if named:
                return datetime.strptime(named[2], "%Y%m%d_%H%M%S").astimezone(UTC)
        return datetime.fromtimestamp(0, UTC)

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What of the file could not be read."""
        return self._file.damage

    @property
    def summary(self) -> dict[str, Any]:
        """The summary: W&B's last values, and what the run set. Nested as W&B has it."""
        found = {key: _plain(value) for key, value in self._summed().items()}
        found.pop("_wandb", None)
        return found

    def read(self) -> Self:
        """Take in what is new, and return the run. Its history is read when it is asked for.

        Raises:
            NotFound: If the file is gone.
            StorageError: If it is no file of W&B's, became shorter, or cannot be read.
        """
        for message in self._file.messages():
            tag, at = _body(message)
            if tag == _HISTORY:
                continue
            if tag == _SUMMARY and (items := _items(message, at, tag)) is not None:
                latest = self._latest
                for head, text in items:
                    latest.pop(head, None)  # so that it stands behind what it may replace
                    latest[head] = text
            elif (record := self._file.parsed(message)) is not None:
                self._take(record)
        return self

    def metrics(self) -> tuple[str, ...]:
        """Return the keys of the history that have numbers, but W&B's own."""
        columns = self._rows().columns
        own = ("_step", "_timestamp", "_runtime")
        return tuple(key for key in columns if key not in own and columns[key].any_number())

    def history(self, key: str, *beside: str) -> Rows:
        """Return every number that was logged under a key, in its order.

        Args:
            key: The key; the parts of one that W&B nested are joined by dots.
            beside: Other keys to have of the same rows, such as one that counts steps.

        Raises:
            NotFound: If no row has a number there.
        """
        table = self._rows()
        column = table.columns.get(key)
        if column is None or not column.any_number():
            raise NotFound("metric", key, self.metrics())
        rows, values = column.rows.tolist(), column.values()
        if column.odd:
            found = [pair for pair in zip(rows, values, strict=True) if _is_number(pair[1])]
            rows, values = [row for row, _ in found], [value for _, value in found]
        return Rows(
            steps=table.steps(rows),
            timestamps=table.times(rows),
            values=values,
            beside={name: table.columns.get(name, _Column()).beside(rows) for name in beside},
        )

    def others(self, key: str) -> list[tuple[int, Any]]:
        """Return what was logged under a key and is no number: W&B's step, and the value."""
        table = self._rows()
        column = table.columns.get(key, _Column()).settle()
        found = [at for at, value in column.odd.items() if not _is_number(value)]
        steps = table.steps([column.rows[at] for at in found])
        return [(step, column.odd[at]) for step, at in zip(steps, found, strict=True)]

    def other_keys(self) -> set[str]:
        """Return the keys of the history that have values that are no numbers, but W&B's own."""
        columns = self._rows().columns
        plain = {
            key
            for key, column in columns.items()
            if not key.startswith("_")
            and any(
                not _is_number(each) for each in column.settle().odd.values() if each is not None
            )
        }
        return plain | {each.key for each in self.media()}

    def media(self) -> list[Media]:
        """Return the images, tables and the like of the history, in their order."""
        return self._rows().media()

    def forget(self) -> None:
        """Give back the memory of the history: 16 bytes for each number, more for texts."""
        self._table = None

    def file(self, name: str) -> Path:
        """Return where a file of the run lies, such as one of `Media.files`.

        Raises:
            InvalidInput: If the name leads out of the folder ``files``.
            NotFound: If it is not there.
        """
        root = self.folder / "files"
        path = root / name
        with disk_errors(path):
            if not path.resolve().is_relative_to(root.resolve()):
                raise InvalidInput(f"{name!r} leads out of {root}.")
        if not path.is_file():
            raise NotFound("file of the run", name)
        return path

    def _rows(self) -> _Table:
        if self._table is None:
            self._table = _Table(self.path)
        self._table.read()
        return self._table

    def _summed(self) -> dict[str, Any]:
        """Return the summary as JSON texts in mappings of mappings."""
        for head, text in self._latest.items():
            _put(self._summary, _path(head), _Json(text))
        self._latest.clear()
        return self._summary

    def _take(self, record: Any) -> None:
        what = record.WhichOneof("record_type")
        if what == "run":
            self._describe(record.run)
        elif what == "config":
            self._configure(record.config, {})
        elif what == "summary":
            summary = self._summed()
            for each in record.summary.update:
                path = tuple(each.nested_key) or (each.key,)
                _put(summary, path, _Json(each.value_json.encode()))
            for each in record.summary.remove:
                _remove(summary, tuple(each.nested_key) or (each.key,))
        elif what == "metric":
            self._define(record.metric)
        elif what == "artifact":
            self.artifacts.append(_artifact(record.artifact, self.folder))
        elif what == "exit":
            self.exit_code = record.exit.exit_code
            if self.started_at is not None:
                self.ended_at = self.started_at + timedelta(seconds=record.exit.runtime)

    def _describe(self, run: Any) -> None:
        self.project, self.entity, self.name = run.project, run.entity, run.display_name
        self.group, self.job_type = run.run_group or None, run.job_type or None
        self.notes, self.tags, self.host = run.notes, tuple(run.tags), run.host
        self.sweep_id = run.sweep_id or None
        if run.HasField("start_time"):
            self.started_at = datetime.fromtimestamp(0, UTC) + timedelta(
                seconds=run.start_time.seconds, microseconds=run.start_time.nanos // 1000
            )
        self._configure(run.config, dict(self.config))

    def _configure(self, config: Any, before: Mapping[str, Any]) -> None:
        """Take a config, or a change of it.

        When tags or notes change, W&B's service writes the whole config again, with 1.0 as 1 and
        -0.0 as 0: what is equal `before` stays.
        """
        for each in config.update:
            path = tuple(each.nested_key) or (each.key,)
            if path[0] == "_wandb":
                continue
            value = _decoded(each.value_json)
            if len(path) > 1 or path[0] not in before or before[path[0]] != value:
                _put(self.config, path, value)
        for each in config.remove:
            _remove(self.config, tuple(each.nested_key) or (each.key,))

    def _define(self, metric: Any) -> None:
        name = metric.name or metric.glob_name
        goals = {1: "minimize", 2: "maximize"}
        self.defined[name] = Defined(
            name=name,
            step_metric=metric.step_metric or None,
            summary=tuple(each.name for each, _ in metric.summary.ListFields()),
            goal=goals.get(metric.goal),
            hidden=metric.options.hidden,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def find_runs(folder: Path) -> Iterator[OfflineRun]:
    """Yield the runs below a folder, not read yet, in the order of their folders' names.

    Looks into the folder, and into ``wandb`` and ``.wandb`` in it. Runs that were online have
    such folders too; see `OfflineRun.online`.

    Raises:
        StorageError: If a folder cannot be listed.
    """
    found: dict[Path, str] = {}
    for base in (folder, folder / "wandb", folder / ".wandb"):
        for each in _listed(base):
            named = _FOLDER.fullmatch(each.name)
            if named:
                found.update((path, named[2]) for path in _listed(each) if _is_run(path))
    for path in sorted(found, key=lambda path: (found[path], path)):
        yield OfflineRun(path)


def by_id(runs: Iterable[OfflineRun]) -> dict[str, list[OfflineRun]]:
    """Return the folders of each run by its id, in the order begun."""
    found: dict[str, list[OfflineRun]] = {}
    for run in runs:
        found.setdefault(run.id, []).append(run)
    for parts in found.values():
        parts.sort(key=lambda run: (run.begun_at, run.path))
    return found


def _is_run(path: Path) -> bool:
    return path.name.startswith("run-") and path.suffix == ".wandb"


def _listed(folder: Path) -> list[Path]:
    with disk_errors(folder):
        try:
            return list(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

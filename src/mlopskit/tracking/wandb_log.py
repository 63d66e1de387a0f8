"""W&B's file of one run, ``run-<id>.wandb``, read as it grows.

It is a log of LevelDB's form: a header of seven bytes, then blocks of 32 KiB with frames of a
CRC-32, a length and a type, which make up protobuf messages ``Record``.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wandb.proto import wandb_internal_pb2 as _protocol

from mlopskit.tracking.entities import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

protocol: Any = _protocol  # made of descriptors, without types
BLOCK: Final = 32768
HEADER: Final = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
HISTORY, SUMMARY = 2, 3
COMMON: Final = frozenset((1, 16, 19, 200))  # num, control, uuid, _info
_FRAME = struct.Struct("<IHB")


class Frames:
    """The messages of a file, from where the last look ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = HEADER

    def new(self) -> Iterator[bytes]:
        """Yield the messages that are whole by now. A torn tail is left for the next look.

        Raises:
            FileNotFoundError: If the file is gone.
        """
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        at, base, begun = 0, self.offset, b""
        while True:
            left = BLOCK - (base + at) % BLOCK
            if left < _FRAME.size:
                at += left
                continue
            if at + _FRAME.size > len(data):
                return
            crc, length, kind = _FRAME.unpack_from(data, at)
            end = at + _FRAME.size + length
            payload = data[at + _FRAME.size : end]
            if kind not in (FULL, FIRST, MIDDLE, LAST) or len(payload) < length:
                return
            if zlib.crc32(payload, zlib.crc32(bytes([kind]))) != crc:
                return
            at = end
            if kind in (FULL, FIRST):
                begun = payload
            else:
                begun += payload
            if kind in (FULL, LAST):
                self.offset = base + at
                yield begun


class Tail:
    """Looks for the marks that `wandb_writer` puts into a run's summary."""

    def __init__(self, path: Path) -> None:
        self._frames = Frames(path)
        self._last: int | None = None

    def mark(self) -> int | None:
        """Return the last mark that is in the file."""
        try:
            for message in self._frames.new():
                if b"_mk/mark" in message and kind_of(message) == SUMMARY:
                    for update in protocol.Record.FromString(message).summary.update:
                        if update.key == "_mk/mark":
                            self._last = int(json.loads(update.value_json))
        except FileNotFoundError:
            return self._last
        return self._last


def kind_of(message: bytes) -> int:
    """Return the field of ``Record`` that says what it is: `HISTORY`, `SUMMARY` or another one.

    Walks over the fields that every message has, which come first or last.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        field = tag >> 3
        if field not in COMMON:
            return field
        length, at = _varint(message, at)
        if tag & 7 == 2:
            at += length
    return 0


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


@dataclass(slots=True)
class Logged:
    """An artifact as the file has it."""

    name: str
    type: str
    metadata: dict[str, Any]
    entries: dict[str, tuple[int, str]]

    def files(self) -> list[Artifact]:
        """Return the files of an artifact that mlopskit did not log."""
        return [
            Artifact(
                name=f"{self.name}/{path}",
                size=size,
                digest="",
                type=self.type,
                logged_as=self.name,
            )
            for path, (size, _) in self.entries.items()
        ]

    def local_path(self, name: str) -> Path | None:
        """Return where the bytes of a file lie."""
        found = self.entries.get(name.removeprefix(f"{self.name}/"))
        return Path(found[1]) if found and found[1] else None


class Log:
    """What the file of one run says, beside its history.

    Attributes:
        run: The last message about the run itself.
        config: The config.
        summary: The entries of the summary that mlopskit wrote.
        artifacts: What was logged, in its order.
        exit_code: None while the run goes on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run: Any = protocol.RunRecord()
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.artifacts: list[Logged] = []
        self.exit_code: int | None = None
        self.ended_ms: int | None = None
        self._frames = Frames(path)

    @property
    def started_ms(self) -> int:
        """When the folder was begun."""
        return int(self.run.start_time.ToMilliseconds())

    def read(self) -> None:
        """Take in what is new.

        Raises:
            FileNotFoundError: If the file is gone.
        """
        for message in self._frames.new():
            kind = kind_of(message)
            if kind == HISTORY or (kind == SUMMARY and b"_mk/last" not in message):
                continue
            record = protocol.Record.FromString(message)
            what = record.WhichOneof("record_type")
            if what == "run":
                self.run = record.run
                self._configure(record.run.config)
            elif what == "config":
                self._configure(record.config)
            elif what == "summary":
                for update in record.summary.update:
                    if update.key:
                        self.summary[update.key] = json.loads(update.value_json)
            elif what == "artifact":
                self._keep(record.artifact)
            elif what == "exit":
                self.exit_code = record.exit.exit_code
                self.ended_ms = self.started_ms + 1000 * record.exit.runtime

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the history. Values are Python's; those of a mapping are left out."""
        for message in Frames(self.path).new():
            if kind_of(message) == HISTORY:
                row = {}
                for item in protocol.Record.FromString(message).history.item:
                    nested = item.nested_key
                    row[".".join(nested) if nested else item.key] = json.loads(item.value_json)
                yield row

    def _configure(self, config: Any) -> None:
        for update in config.update:
            if update.nested_key:
                continue
            self.config[update.key] = json.loads(update.value_json)
        for each in config.remove:
            self.config.pop(each.key, None)

    def _keep(self, artifact: Any) -> None:
        entries = {
            each.path: (int(each.size), str(each.local_path)) for each in artifact.manifest.contents
        }
        metadata = json.loads(artifact.metadata) if artifact.metadata else {}
        self.artifacts.append(Logged(artifact.name, artifact.type, metadata, entries))

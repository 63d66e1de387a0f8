"""What happened to a model, in texts that are added to a list and never changed.

A text begins with a seal: a digest of what it says and of the seal before. So damage is noticed,
and a text that was taken out; not who did it, who could make the seals too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import BackendError, IntegrityError
from mlopskit.registry.entities import HistoryEntry
from mlopskit.registry.standing import told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.registry.lines import Line
    from mlopskit.registry.standing import Past

    Attached = tuple[int, str, bytes]  # To which version, of which kind, what.


SEAL: Final = 24  # Characters.


@dataclass(slots=True)
class _Book:
    """A chronicle as far as this process has read it."""

    texts: list[str] = field(default_factory=list)
    entries: list[HistoryEntry] = field(default_factory=list)
    attached: dict[tuple[int, str], bytes] = field(default_factory=dict)

    @property
    def seal(self) -> str:
        """The seal of the last text."""
        return self.texts[-1][:SEAL] if self.texts else ""


class Chronicle(ABC):
    """What happened to each model of a registry, in texts that are added and never changed.

    One text may hold several lines, which are then there together or not at all. The id of an entry
    is its place among all lines of its model, from 1.

    Args:
        actor: Who adds to it.
    """

    def __init__(self, actor: str) -> None:
        self._actor = actor
        # Without a lock, which a fork could leave held for ever: no book that is in here changes.
        self._books: dict[str, _Book] = {}

    # What a tool gives.

    @abstractmethod
    def _texts(self, name: str) -> list[str]:
        """Return every text of a model's chronicle, the first one first; none if there is none."""

    @abstractmethod
    def _all_texts(self) -> dict[str, list[str]]:
        """Return the texts of every model that has a chronicle."""

    @abstractmethod
    def _put(self, name: str, place: int, text: str) -> bool:
        """Add a text if nobody else has put one there; make the chronicle if there is none.

        No two texts are equal, so that a text which is there already was put by this call, or by
        one whose answer was lost.

        Args:
            name: The model's name.
            place: One more than there were texts.
            text: ASCII, of any length.

        Returns:
            Whether the text stands at the place now.
        """

    def _forget(self, name: str) -> None:
        """Keep nothing of what was read of a model's chronicle: it was damaged, on its way perhaps.

        A tool's own class that keeps texts forgets them here.
        """
        self._books.pop(name, None)

    # What a registry asks.

    def read(self, name: str) -> list[HistoryEntry]:
        """Return every entry of a model, the first one first; none if it has no chronicle."""
        return list(self._book(name, self._texts(name)).entries)

    def read_all(self) -> dict[str, list[HistoryEntry]]:
        """Return the entries of every model that has a chronicle."""
        found = self._all_texts()
        return {name: list(self._book(name, found[name]).entries) for name in sorted(found)}

    def attachment(self, name: str, version: int, kind: str) -> bytes | None:
        """Return the bytes of a kind that were attached to a version last."""
        return self._book(name, self._texts(name)).attached.get((version, kind))

    def append(
        self,
        name: str,
        lines: Sequence[Line | Past],
        last: int,
        attached: Attached | None = None,
    ) -> list[HistoryEntry] | None:
        """Add lines together.

        Args:
            name: The model's name.
            lines: What to add, the first thing first.
            last: The id of the last entry that the caller has read; 0 if there was none.
            attached: Bytes to keep for a version, in the place of earlier ones of that kind.

        Returns:
            The new entries; or None, and nothing is written, if meanwhile another was added.
        """
        book = self._books.get(name)
        if book is None or (book.entries[-1].id if book.entries else 0) != last:
            book = self._book(name, self._texts(name))
            if (book.entries[-1].id if book.entries else 0) != last:
                return None
        before = book.entries[-1] if book.entries else None
        entries = told(lines, before, datetime.now(UTC), self._actor)
        text = _text(entries, attached, book.seal)
        if not self._put(name, len(book.texts) + 1, text):
            return None
        self._book(name, [*book.texts, text])
        return entries

    def _book(self, name: str, texts: list[str]) -> _Book:
        """Return what texts say. What was read before is not read again."""
        book = self._books.get(name)
        if book is None or book.texts != texts[: len(book.texts)]:
            book = _Book()
        if len(texts) > len(book.texts):
            fresh = _Book(list(book.texts), list(book.entries), dict(book.attached))
            try:
                for text in texts[len(book.texts) :]:
                    _take(fresh, name, text)
            except IntegrityError:
                self._forget(name)
                raise
            book = fresh
        self._books[name] = book
        return book


def _text(entries: Sequence[HistoryEntry], attached: Attached | None, before: str) -> str:
    """Return entries as a text that differs from any other, sealed behind the seal before."""
    said: dict[str, Any] = {
        "nonce": secrets.token_hex(8),
        "lines": [_plain(entry) for entry in entries],
    }
    if attached is not None:
        version, kind, content = attached
        said["attached"] = [version, kind, base64.b64encode(content).decode()]
    body = json.dumps(said, separators=(",", ":"))
    return _seal(before, body) + body


def _seal(before: str, body: str) -> str:
    return hashlib.blake2b((before + body).encode(), digest_size=SEAL // 2).hexdigest()


def _plain(entry: HistoryEntry) -> dict[str, Any]:
    """Return what is not the same in every entry, for JSON that may hold infinities."""
    said = entry.model_dump(exclude={"name", "id"}, exclude_defaults=True)
    return {**said, "at": entry.at.isoformat()}


def _take(book: _Book, name: str, text: str) -> None:
    """Read one text more."""
    place = len(book.texts) + 1
    seal, body = text[:SEAL], text[SEAL:]
    if (right := _seal(book.seal, body)) != seal:
        raise IntegrityError(f"The text {place} of the chronicle of {name!r}", seal, right)
    try:
        said = json.loads(body)
        for line in said["lines"]:
            own = {"name": name, "id": len(book.entries) + 1}
            entry = HistoryEntry.model_validate({**line, **own})
            if entry.version is not None and entry.action in ("registered", "deleted"):
                gone = entry.version
                book.attached = {k: v for k, v in book.attached.items() if k[0] != gone}
            book.entries.append(entry)
        if "attached" in said:
            version, kind, content = said["attached"]
            book.attached[version, kind] = base64.b64decode(content)
    except (ValueError, KeyError, TypeError) as exc:
        raise BackendError(
            f"The text {place} of the chronicle of {name!r} cannot be read: {exc}"
        ) from exc
    book.texts.append(text)

"""Files on their way into an artifact of W&B's: read twice, and the same both times."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlopskit.errors import StorageError
from mlopskit.registry.wandb_api import CHUNK
from mlopskit.storage import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# What S3 and its likes take in one request.
LARGEST: Final = 5 << 30


@dataclass(frozen=True, slots=True)
class Content:
    """A file to be.

    Attributes:
        name: Its path in the artifact.
        size: Its bytes.
        md5: Their digest in base64, as W&B has it.
        source: The bytes, or where they lie.
    """

    name: str
    size: int
    md5: str
    source: bytes | Path

    @classmethod
    def of(
        cls, name: str, source: bytes | Path, also: Callable[[bytes], object] | None = None
    ) -> Content:
        """Read bytes once.

        Args:
            name: Their path in the artifact.
            source: The bytes, or where they lie.
            also: Is told each piece of them.
        """
        size, digest = 0, hashlib.md5(usedforsecurity=False)
        for piece in _pieces(source):
            digest.update(piece)
            if also is not None:
                also(piece)
            size += len(piece)
        if size > LARGEST:
            raise StorageError(
                f"{name!r} has {size} bytes, and W&B takes {LARGEST} in one request. Split it."
            )
        return cls(name, size, base64.b64encode(digest.digest()).decode(), source)

    def again(self, told: Callable[[int], object]) -> Iterator[bytes]:
        """Yield the bytes once more.

        Raises:
            StorageError: If they have changed.
        """
        digest = hashlib.md5(usedforsecurity=False)
        left = self.size
        for piece in _pieces(self.source):
            digest.update(piece)
            left -= len(piece)
            same = base64.b64encode(digest.digest()).decode() == self.md5
            if left < 0 or (left == 0 and not same):
                break
            told(len(piece))
            yield piece
        if left or base64.b64encode(digest.digest()).decode() != self.md5:
            raise StorageError(
                f"{self.source!s} was changed while it was stored. Nothing was made."
            )


def unheard(size: int) -> None:
    """Be told how many bytes were sent, where nobody wants to know."""


def _pieces(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with disk_errors(source), source.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece

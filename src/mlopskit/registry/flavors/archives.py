"""Zip files of models: what is checked before anything unpacks one."""

from __future__ import annotations

import stat
import zipfile
from typing import TYPE_CHECKING, Final

from mlopskit.errors import InvalidModel

if TYPE_CHECKING:
    from pathlib import Path

# A zip of arrays seldom shrinks by more; a bomb does.
LARGEST_RATIO: Final = 200
FREE_BYTES: Final = 64 << 20
MOST_ENTRIES: Final = 100_000


def check_archive(path: Path, label: str) -> list[str]:
    """Check a zip's table of contents, and return the names in it.

    Raises:
        InvalidModel: If it is no zip, something lies before or after it, a name occurs twice or
            could leave its folder, an entry is a link or a device, or it unpacks to far more.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            comment, start = archive.comment, archive.start_dir
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as exc:
        raise InvalidModel(f"{label} is no sound zip file: {exc}") from exc
    names = [entry.filename for entry in entries]
    with path.open("rb") as file:
        head = file.read(4)
    problem = None
    if head != b"PK\x03\x04" or comment or min((e.header_offset for e in entries), default=1):
        problem = "holds bytes before or after its zip file"
    elif len(names) > MOST_ENTRIES or start > path.stat().st_size:
        problem = f"has {len(names)} entries"
    elif len({name.casefold() for name in names}) != len(names):
        problem = "holds a name twice"
    for entry in entries:
        parts = entry.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] in ("", "~") or ":" in parts[0] or "\0" in entry.orig_filename:
            problem = f"holds {entry.filename!r}, which could leave its folder"
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = f"holds {entry.filename!r}, which is no ordinary file"
    size = sum(entry.file_size for entry in entries)
    if size > FREE_BYTES and size > LARGEST_RATIO * path.stat().st_size:
        problem = f"would unpack to {size} bytes, which no sound model does"
    if problem:
        raise InvalidModel(f"{label} {problem}.")
    return names

"""Files and folders as values: stored by content, and laid out again for whoever reads them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit.errors import IntegrityError, InvalidName
from mlopskit.names import check_path
from mlopskit.storage import digest_of, disk_errors, make_private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlopskit.storage import Blobs


class Unstorable(Exception):
    """A value that cannot be stored exactly. Its text is the reason."""


def described(path: Path, put: Callable[[Path | bytes], tuple[str, int]]) -> dict[str, Any]:
    """Return the document of a path: its name and contents, or its text where nothing is there.

    Raises:
        Unstorable: If it holds what has no contents, such as a socket or a link to a folder.
        StorageError: If it cannot be read, or its contents cannot be stored.
    """
    with disk_errors(path):
        if path.is_file():
            return {"name": _checked(path.resolve().name, path), "file": _blob(path, put)}
        if path.is_dir():
            name = path.name or path.resolve().name or "folder"
            return {"name": _checked(name, path), "folder": dict(_contents(path, put))}
        if path.exists():
            raise Unstorable(f"{path} is neither a file nor a folder")
    return {"text": str(path)}


class Files:
    """Lays stored files and folders out under their own names, read-only.

    Equal contents of equal name share one place, so that a path stays valid from run to run.
    """

    def __init__(self, root: Path, blobs: Blobs) -> None:
        self.root = root
        self._blobs = blobs

    def checkout(self, document: dict[str, Any]) -> Path:
        """Return a path where the file or folder of a document lies, complete and verified.

        Raises:
            NotFound: If contents are gone from the store.
            IntegrityError: If contents have changed since they were stored.
        """
        if "text" in document:
            return Path(document["text"])
        name = check_path("file", document["name"])
        wanted = _listing(name, document)
        text = json.dumps(document, sort_keys=True).encode()
        place = self.root / hashlib.sha256(text).hexdigest()
        if not self._complete(place, wanted):
            self._lay_out(place, wanted)
        return place / name

    def _complete(self, place: Path, wanted: dict[str, str | None]) -> bool:
        if not place.is_dir():
            return False
        with disk_errors(place):
            found = {each.relative_to(place).as_posix(): each for each in place.rglob("*")}
            if set(found) != set(wanted):
                return False
            return all(
                each.is_dir() if wanted[name] is None else digest_of(each) == wanted[name]
                for name, each in found.items()
            )

    def _lay_out(self, place: Path, wanted: dict[str, str | None]) -> None:
        make_private_folder(self.root)
        with disk_errors(place):
            draft = Path(tempfile.mkdtemp(dir=self.root, prefix="."))
            try:
                for name, digest in sorted(wanted.items()):
                    path = draft / name
                    if digest is None:
                        path.mkdir(mode=0o700)
                    else:
                        self._put(digest, path)
                self._put_in_place(draft, place, wanted)
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    def _put_in_place(self, draft: Path, place: Path, wanted: dict[str, str | None]) -> None:
        while True:
            try:
                os.rename(draft, place)
            except OSError:
                if not place.is_dir():
                    raise
            else:
                return
            if self._complete(place, wanted):
                return  # another thread or process was quicker
            away = Path(tempfile.mkdtemp(dir=self.root, prefix="."))
            with suppress(FileNotFoundError):
                os.rename(place, away)
            shutil.rmtree(away, ignore_errors=True)

    def _put(self, digest: str, path: Path) -> None:
        try:
            blob = self._blobs.verify(digest)
        except IntegrityError:
            # Out of the way, so that the next run makes it anew.
            self._blobs.path(digest).unlink(missing_ok=True)
            raise
        try:
            os.link(blob, path)
        except OSError:  # another disk, or one without links
            shutil.copyfile(blob, path)
            path.chmod(0o400)


def _listing(name: str, document: dict[str, Any]) -> dict[str, str | None]:
    """List what must lie in a place: the digest of every file, None for every folder."""
    if "file" in document:
        return {name: document["file"]["blob"]}
    listing: dict[str, str | None] = {name: None}
    for inner, blob in document["folder"].items():
        path = f"{name}/{check_path('file', inner)}"
        listing[path] = None if blob is None else blob["blob"]
    return listing


def _contents(
    folder: Path, put: Callable[[Path | bytes], tuple[str, int]]
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    for path in sorted(folder.rglob("*")):
        name = _checked(path.relative_to(folder).as_posix(), path)
        if path.is_file():
            yield name, _blob(path, put)
        elif path.is_dir() and not path.is_symlink():
            yield name, None
        else:
            raise Unstorable(f"{path} is a link to a folder, or neither a file nor a folder")


def _blob(path: Path, put: Callable[[Path | bytes], tuple[str, int]]) -> dict[str, Any]:
    digest, size = put(path)
    return {"blob": digest, "size": size}


def _checked(name: str, path: Path) -> str:
    try:
        return check_path("file", name)
    except InvalidName as exc:
        raise Unstorable(f"{path}: {exc}") from exc

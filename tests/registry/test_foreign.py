"""What others registered has no manifest: one is made of its files, and verifies nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry.shelf import Shelf, ShelfRegistry

from mlopskit.errors import InvalidModel, InvalidName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry.entities import ModelVersion

pytestmark = pytest.mark.core


class OpenShelf(ShelfRegistry):
    """A shelf with files that others put there."""

    theirs: tuple[tuple[str, bytes], ...] = ()

    def _foreign_files(self, version: ModelVersion) -> Iterator[tuple[str, Callable[[Path], Any]]]:
        for path, content in self.theirs:
            yield path, partial(_write, content)


def _write(content: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_the_files_of_others_are_what_they_are_now(shelf: Shelf, tmp_path: Path) -> None:
    registry = OpenShelf(shelf)
    registry.add("churn")
    registry.theirs = (("a/w.bin", b"1"), ("b.txt", b"2"))

    out = registry.download("churn", 1, tmp_path / "out")
    assert (out / "a" / "w.bin").read_bytes() == b"1"
    manifest = registry.manifest("churn", 1)
    assert [(file.path, file.size) for file in manifest.files] == [("a/w.bin", 1), ("b.txt", 1)]
    assert manifest.flavor == "folder"


@pytest.mark.parametrize("path", ["../out.txt", "/etc/x", "a/../../x"])
def test_no_file_of_others_leaves_its_folder(shelf: Shelf, tmp_path: Path, path: str) -> None:
    registry = OpenShelf(shelf)
    registry.add("churn")
    registry.theirs = ((path, b"1"),)

    with pytest.raises(InvalidName):
        registry.download("churn", 1, tmp_path / "out" / "deep")
    assert list(tmp_path.rglob("*.txt")) == []


def test_a_version_of_others_without_files_is_said(shelf: Shelf, tmp_path: Path) -> None:
    OpenShelf(shelf).add("churn")
    with pytest.raises(InvalidModel, match="no files of version 1 of 'churn'"):
        OpenShelf(shelf).download("churn", 1, tmp_path / "out")
    with pytest.raises(InvalidModel, match=r"version 1 of 'churn'.* no digest"):
        ShelfRegistry(shelf).download("churn", 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""A disk without room: an error at once, and everything that was acknowledged is there."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.disks import small_disk

from mlopskit.errors import StorageError
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from pathlib import Path


def test_a_full_disk_loses_no_version_and_leaves_no_half_one(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "common").write_bytes(b"c" * 50_000)
    with small_disk(tmp_path / "small", "3m") as disk:
        registered = 0
        with LocalRegistry(disk / "registry") as registry:
            registry.register("churn", source, code="x")
            with pytest.raises(StorageError):
                for number in range(2, 1000):
                    (source / "weights").write_bytes(bytes([number % 256]) * (100_000 + number))
                    registry.register("churn", source, code="x")
                    registered = number
            promoted = 0
            with suppress(StorageError):
                for number in range(1, registered + 1):
                    registry.promote("churn", number, "production", why="w" * 9000)
                    promoted = number
            assert registered > 2

        # What is full can still be read.
        with LocalRegistry(disk / "registry") as registry:
            check(registry, tmp_path / "before", registered, promoted)
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        with LocalRegistry(disk / "registry") as registry:
            check(registry, tmp_path / "after", registered, promoted)
            assert registry.register("churn", source, code="x").version == registered + 1
            registry.gc(window=timedelta(0), dry_run=False)
            check(registry, tmp_path / "later", registered, promoted, more=1)
        assert not list((disk / "registry").rglob("*.part"))


def check(
    registry: LocalRegistry, folder: Path, registered: int, promoted: int, more: int = 0
) -> None:
    versions = registry.list_versions("churn")
    assert [each.version for each in versions] == list(range(1, registered + 1 + more))
    for each in versions[:registered]:
        out = registry.download("churn", each.version, folder / str(each.version))
        if each.version > 1:
            assert (out / "weights").stat().st_size == 100_000 + each.version
        assert (out / "common").read_bytes() == b"c" * 50_000
    held = [each.version for each in versions if each.stage == "production"]
    assert held == ([promoted] if promoted else [])

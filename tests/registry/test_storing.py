"""How files get into a registry, and what becomes of them on a disk that spoils some."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import IntegrityError, InvalidModel, StorageError
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.registry import Registry

pytestmark = pytest.mark.core


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with LocalRegistry(tmp_path / "registry") as opened:
        yield opened


def test_good_bytes_heal_spoiled_ones_of_the_same_name(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights" * 100)
    registry.register("churn", path)
    (stored,) = (
        each
        for each in (tmp_path / "registry" / "blobs").rglob("*")
        if each.is_file() and each.read_bytes() == path.read_bytes()
    )
    stored.chmod(0o600)
    stored.write_bytes(b"WEIGHTS" * 100)
    with pytest.raises(IntegrityError):
        registry.download("churn", 1, tmp_path / "spoiled")

    registry.register("churn", path)

    for number in (1, 2):
        out = registry.download("churn", number, tmp_path / str(number))
        assert (out / "weights.bin").read_bytes() == path.read_bytes()
    assert "stored anew" in caplog.text
    assert stored.stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("size", [1 << 20, 50 << 20])
def test_a_source_that_changes_while_it_is_stored_is_no_version(
    registry: Registry, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"w" * (8 << 20))

    def told(done: int, total: int) -> None:
        if done == 1 << 20:
            os.truncate(path, size)

    with pytest.raises(StorageError, match="changed while it was stored"):
        registry.register("churn", path, told=told)
    assert registry.list_models() == []


def test_a_source_that_is_no_file_is_named_as_such(registry: Registry, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(InvalidModel, match="neither a file nor a folder"):
        registry.register("churn", tmp_path / "pipe")


def test_a_link_is_followed_where_it_is_the_source_itself(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "epoch-9.bin").write_bytes(b"nine")
    (tmp_path / "best.bin").symlink_to("epoch-9.bin")

    registry.register("churn", tmp_path / "best.bin")

    assert (registry.download("churn", 1, tmp_path / "out") / "best.bin").read_bytes() == b"nine"


def test_equal_files_registered_at_once_stay_whole(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(os.urandom(1 << 20))
    threads = [
        threading.Thread(target=registry.register, args=(f"m{number}", path)) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number in range(6):
        out = registry.download(f"m{number}", 1, tmp_path / str(number))
        assert (out / "weights.bin").read_bytes() == path.read_bytes()


def test_an_integer_of_another_library_is_a_number(registry: Registry, tmp_path: Path) -> None:
    class Int64:
        def __index__(self) -> int:
            return 1

    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    registry.register("churn", path)

    number: Any = Int64()
    assert registry.get_version("churn", number).version == 1

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlopskit.errors import IntegrityError, InvalidInput, NotFound, StorageError
from mlopskit.storage import Blobs, check_digest, digest_of, make_private_folder, write_whole

pytestmark = pytest.mark.core

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.part")]


def test_a_file_is_written_whole_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "note.txt"

    write_whole(path, "größe")

    assert path.read_text(encoding="utf-8") == "größe"
    assert mode(path) == 0o600
    assert mode(path.parent) == mode(path.parent.parent) == 0o700
    assert parts(tmp_path) == []


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_whole(path, b"old")

    with pytest.raises(TypeError):
        write_whole(path, object())  # type: ignore[arg-type]  # fails after the file is open

    assert path.read_bytes() == b"old"
    assert parts(tmp_path) == []


def test_a_folder_that_cannot_be_made_names_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StorageError, match=r"cannot be made.*--home, MLOPSKIT_HOME"):
        make_private_folder(tmp_path / "file" / "below")


def test_equal_bytes_are_stored_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    source = tmp_path / "hello.txt"
    source.write_bytes(b"hello")

    assert blobs.put(b"hello") == blobs.put(source) == (HELLO, 5)
    assert digest_of(blobs.path(HELLO)) == HELLO
    assert len([p for p in blobs.root.rglob("*") if p.is_file()]) == 1


def test_an_empty_file_is_a_blob_too(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest, size = blobs.put(b"")

    assert size == 0
    assert blobs.verify(digest).read_bytes() == b""


def test_a_changed_byte_is_found_wherever_it_is_read(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    digest, _ = blobs.put(b"hello")
    path = blobs.path(digest)
    path.chmod(0o600)
    path.write_bytes(b"hellO")

    with pytest.raises(IntegrityError, match="has changed since it was stored"):
        blobs.verify(digest)
    with pytest.raises(IntegrityError):
        blobs.copy(digest, tmp_path / "out")

    assert not (tmp_path / "out").exists()
    assert parts(tmp_path) == []


def test_bytes_that_were_cut_are_replaced_when_they_come_again(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    digest, _ = blobs.put(b"hello")
    blobs.path(digest).chmod(0o600)
    blobs.path(digest).write_bytes(b"hel")

    blobs.put(b"hello")

    assert blobs.verify(digest).read_bytes() == b"hello"


@pytest.mark.parametrize("digest", [HELLO, "sha256:../../etc/passwd", "md5:" + "0" * 32, ""])
def test_unknown_and_malformed_digests_are_not_found(tmp_path: Path, digest: str) -> None:
    with pytest.raises(NotFound):
        Blobs(tmp_path).verify(digest)


def test_a_source_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")

    with pytest.raises(StorageError):
        blobs.put(tmp_path / "missing")

    assert parts(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_an_error_at_once(tmp_path: Path) -> None:
    limited = (
        "import resource, sys; from pathlib import Path; from mlopskit.errors import StorageError\n"
        "from mlopskit.storage import Blobs\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "try: Blobs(Path(sys.argv[1])).put(bytes(1 << 20))\n"
        "except StorageError as exc: print('refused', exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path / "b")], capture_output=True, text=True
    )

    assert done.stdout.startswith("refused"), done.stderr
    assert [p for p in (tmp_path / "b").rglob("*") if p.is_file()] == []


def test_sixteen_writers_of_the_same_bytes_do_not_disturb_each_other(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlopskit.storage import Blobs\n"
        "blobs = Blobs(Path(sys.argv[1]))\n"
        "for i in range(50): blobs.verify(blobs.put(b'%d' % i)[0])\n"
    )
    root = str(tmp_path / "blobs")
    writers = [subprocess.Popen([sys.executable, "-c", code, root]) for _ in range(16)]

    assert [writer.wait() for writer in writers] == [0] * 16
    assert len([p for p in Path(root).rglob("*") if p.is_file()]) == 50


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    blobs = Blobs(tmp_path)
    for number in range(50):
        blobs.put(b"%d" % number)

    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after <= before + 1


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Return a blob of another store."""
    other = Blobs(tmp_path / "other")
    return other.path(other.put(b"hello")[0])


def test_a_blob_of_another_store_is_linked(tmp_path: Path, others: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")

    assert blobs.put(others, digest=HELLO, link=True) == (HELLO, 5)
    assert blobs.put(others, digest=HELLO, link=True) == (HELLO, 5)

    assert blobs.verify(HELLO).samefile(others)
    assert others.stat().st_nlink == 2
    assert parts(tmp_path) == []
    others.unlink()
    assert blobs.verify(HELLO).read_bytes() == b"hello"


def test_a_link_replaces_bytes_that_were_cut(tmp_path: Path, others: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    blobs.put(b"hello")
    blobs.path(HELLO).chmod(0o600)
    blobs.path(HELLO).write_bytes(b"hel")

    blobs.put(others, digest=HELLO, link=True)

    assert blobs.verify(HELLO).samefile(others)


@pytest.mark.parametrize("mode", [0o600, 0o420, 0o402])
def test_a_file_that_somebody_may_write_is_copied(tmp_path: Path, others: Path, mode: int) -> None:
    others.chmod(mode)

    Blobs(tmp_path / "blobs").put(others, digest=HELLO, link=True)

    assert others.stat().st_nlink == 1
    assert not Blobs(tmp_path / "blobs").verify(HELLO).samefile(others)


def test_a_symbolic_link_and_a_file_without_a_digest_are_copied(
    tmp_path: Path, others: Path
) -> None:
    (tmp_path / "symlink").symlink_to(others)

    Blobs(tmp_path / "a").put(tmp_path / "symlink", digest=HELLO, link=True)
    Blobs(tmp_path / "b").put(others, link=True)

    assert others.stat().st_nlink == 1
    for name in ("a", "b"):
        assert not Blobs(tmp_path / name).verify(HELLO).is_symlink()


def test_a_file_that_cannot_be_linked_is_copied(
    tmp_path: Path, others: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)

    assert Blobs(tmp_path / "blobs").put(others, digest=HELLO, link=True) == (HELLO, 5)
    assert not Blobs(tmp_path / "blobs").verify(HELLO).samefile(others)


@pytest.mark.parametrize("source", [b"hellO", "file"])
def test_other_bytes_than_were_promised_are_refused(tmp_path: Path, source: bytes | str) -> None:
    blobs = Blobs(tmp_path / "blobs")
    if isinstance(source, str):
        (tmp_path / source).write_bytes(b"hellO")

    with pytest.raises(IntegrityError):
        blobs.put(source if isinstance(source, bytes) else tmp_path / source, digest=HELLO)

    assert [path for path in blobs.root.rglob("*") if path.is_file()] == []


MIB = 1 << 20


@pytest.mark.parametrize(
    ("pieces", "size"),
    [
        ({}, 0),
        ({}, 1),
        ({}, 3 * MIB),
        ({}, 3 * MIB + 1),
        ({0: b"x"}, 3 * MIB),
        ({3 * MIB - 1: b"x"}, 3 * MIB),
        ({5 * MIB + 5: b"x" * MIB, 20 * MIB - 3: b"yyy"}, 40 * MIB + 7),
        ({0: bytes(2 * MIB), 2 * MIB: b"x"}, 4 * MIB),
    ],
)
def test_a_sparse_file_keeps_its_bytes_and_its_holes(
    tmp_path: Path, pieces: dict[int, bytes], size: int
) -> None:
    source, got = tmp_path / "source", tmp_path / "got"
    with source.open("wb") as file:
        for place, content in pieces.items():
            file.seek(place)
            file.write(content)
        file.truncate(size)
    blobs = Blobs(tmp_path / "blobs")

    digest, found = blobs.put(source)
    blobs.copy(digest, got)

    assert found == size
    assert got.read_bytes() == source.read_bytes()
    for path in (got, blobs.path(digest)):
        assert path.stat().st_blocks * 512 <= sum(map(len, pieces.values())) + 4 * MIB


def test_a_pipe_is_stored_like_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["sh", "-c", f"printf hello > '{tmp_path / 'pipe'}'"])

    assert Blobs(tmp_path / "blobs").put(tmp_path / "pipe") == (HELLO, 5)
    assert writer.wait() == 0


def test_bytes_are_removed_once_and_for_all(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    blobs.put(b"hello")

    assert blobs.has(HELLO)
    blobs.remove(HELLO)
    blobs.remove(HELLO)

    assert not blobs.has(HELLO)


@pytest.mark.parametrize("digest", ["", "sha256:", HELLO.upper(), HELLO + "\n", "md5:" + "0" * 64])
def test_a_digest_is_written_in_one_way(digest: str) -> None:
    assert check_digest(HELLO) == HELLO
    with pytest.raises(InvalidInput, match="no digest such as"):
        check_digest(digest)


def test_a_file_system_that_knows_no_holes_is_read_byte_by_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "SEEK_DATA", 99)  # The answer is EINVAL, as of such a file system.
    (tmp_path / "large").write_bytes(b"x" * 2 * MIB)

    digest, _ = Blobs(tmp_path / "blobs").put(tmp_path / "large")

    assert digest == digest_of(tmp_path / "large")

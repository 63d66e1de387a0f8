"""Journals: what is written whole reads back, what is not is waited for, skipped, or named."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput, StorageError
from mlopskit.tracking import journal_folders as journals
from mlopskit.tracking.frames import HEAD, LARGEST, MARKER
from mlopskit.tracking.journal import SEGMENT, Journal
from mlopskit.tracking.journal_folders import About
from mlopskit.tracking.journal_reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.core

ABOUT = About("a" * 32, ("local:/x",), "me")
LIMIT = 1 << 30


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journals", ABOUT, limit=LIMIT)
    yield made
    made.close()


def segments(journal: Journal) -> list[Path]:
    return sorted(journal.path.glob("*.log"))


def everything(path: Path, *, whole: bool = True) -> tuple[list[list[Any]], list[str]]:
    """Read a journal to its end; return its records and its damage."""
    reader = Reader(path)
    found: list[list[Any]] = []
    while some := reader.read(whole=whole):
        found += [record for _, record in some]
    damage = [str(each) for each in reader.damage]
    reader.close()
    return found, damage


def metrics(number: int) -> list[Any]:
    return ["metrics", number, 0, {"loss": 0.5}]


def test_a_journal_says_whose_it_is(journal: Journal) -> None:
    assert journals.about(journal.path) == ABOUT
    assert journals.claim(journal.path) is None

    journal.close()

    claim = journals.claim(journal.path)
    assert claim is not None
    assert journals.claim(journal.path) is None
    claim.let_go()


def test_records_come_back_in_order_across_segments(journal: Journal) -> None:
    rows: list[list[Any]] = [["x", number, "y" * 100_000] for number in range(120)]
    for row in rows:
        journal.append(row)

    assert len(segments(journal)) == 3
    assert everything(journal.path, whole=False) == (rows, [])
    assert Reader(journal.path).size() == journal.end


def test_segments_that_everybody_has_are_removed_while_the_run_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ABOUT, limit=3 * SEGMENT)
    reader = Reader(journal.path)

    for number in range(400):
        journal.append(["x", number, "y" * 100_000])
        assert [record[1] for _, record in reader.read()] == [number]
        journal.reclaim(reader.offset)

    assert journal.end > 9 * SEGMENT
    assert len(segments(journal)) <= 2
    assert everything(journal.path)[1] == []
    journal.close()


def test_a_limit_holds_for_what_lies_on_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ABOUT, limit=1000)
    with pytest.raises(StorageError, match="limit of 1000 bytes"):
        for number in range(1000):
            journal.append(metrics(number))

    found, damage = everything(journal.path)

    assert 0 < len(found) < 1000
    assert damage == []
    journal.close()


def test_a_record_that_is_too_large_is_refused_whole(journal: Journal) -> None:
    journal.append(metrics(0))
    with pytest.raises(InvalidInput, match="as an artifact"):
        journal.append(["x", 0, "y" * LARGEST])
    journal.append(metrics(1))

    assert everything(journal.path) == ([metrics(0), metrics(1)], [])


def test_a_torn_frame_is_waited_for_until_nobody_writes_any_more(journal: Journal) -> None:
    journal.append(["one"])
    torn = HEAD.pack(MARKER, 500, 7) + b"still being written"
    with segments(journal)[0].open("ab") as file:
        file.write(torn)
    reader = Reader(journal.path)

    assert [record for _, record in reader.read()] == [["one"]]
    assert reader.read() == []
    assert reader.size() - reader.offset == len(torn)

    assert reader.read(whole=True) == []
    assert reader.size() == reader.offset
    assert reader.damage == []  # It was never acknowledged.
    reader.close()


def test_damage_between_whole_frames_is_skipped_and_named(journal: Journal) -> None:
    journal.append(["one"])
    at = journal.end
    with segments(journal)[0].open("ab") as file:
        file.write(HEAD.pack(MARKER, 100, 7) + b"only a part")
    journal.append(["two"])

    found, damage = everything(journal.path)

    assert found == [["one"], ["two"]]
    assert damage == [f"{HEAD.size + 11} bytes at {at} (their checksum is wrong)"]


def test_every_flipped_byte_costs_one_record_and_is_named(journal: Journal) -> None:
    rows = [metrics(number) for number in range(3)]
    for row in rows:
        journal.append(row)
    journal.close()
    (path,) = segments(journal)
    whole = path.read_bytes()

    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        found, damage = everything(journal.path)
        assert len(found) == 2
        assert all(record in rows for record in found)
        # A length that grew at the very end cannot be told from a frame that was cut short.
        assert damage or at >= len(whole) * 2 // 3


@pytest.mark.parametrize("seed", range(20))
def test_wherever_a_journal_is_cut_what_is_whole_is_kept(journal: Journal, seed: int) -> None:
    chance = random.Random(seed)
    ends = []
    for number in range(50):
        journal.append(["x", number, "y" * chance.randrange(300)])
        ends.append(journal.end)
    journal.close()
    (path,) = segments(journal)
    size = chance.randrange(path.stat().st_size)
    os.truncate(path, size)

    found, damage = everything(journal.path)

    assert len(found) == sum(end <= size for end in ends)
    assert damage == []


def test_a_missing_segment_is_named(journal: Journal) -> None:
    for number in range(120):
        journal.append(["x", number, "y" * 100_000])
    missing = segments(journal)[1]
    size = missing.stat().st_size
    begin = int(missing.stem)
    missing.unlink()

    found, damage = everything(journal.path)

    assert 60 < len(found) < 120
    assert damage == [f"{size} bytes at {begin} (they are missing)"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe"])
def test_what_says_nothing_of_itself_is_no_journal(journal: Journal, content: bytes) -> None:
    (journal.path / "about.json").write_bytes(content)

    assert journals.about(journal.path) is None


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_holds_no_lock_of_its_parent(tmp_path: Path) -> None:
    began, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        journal = Journal(tmp_path, ABOUT, limit=LIMIT)
        journal.append(metrics(0))
        child = os.fork()
        if child == 0:
            os.write(tell, b"%d" % os.getpid())
            signal.pause()
        signal.pause()
    child = int(os.read(began, 20))
    (path,) = tmp_path.glob("*.journal")
    assert journals.claim(path) is None

    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)

    claim = journals.claim(path)
    os.kill(child, signal.SIGKILL)
    for end in (began, tell):
        os.close(end)
    assert claim is not None
    claim.let_go()


def test_what_was_left_of_a_making_or_a_removal_is_swept(tmp_path: Path, journal: Journal) -> None:
    journal.append(metrics(0))
    folder = journal.path.parent
    gone = folder / ".x.journal.0000.gone"
    stillborn = folder / ".y.new"
    for left in (gone, stillborn):
        (left / "files").mkdir(parents=True)
    (stillborn / "lock").write_bytes(b"")

    journals.sweep(folder)

    assert [path.name for path in folder.iterdir()] == [journal.path.name]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_journal_that_is_being_made_is_swept_by_nobody(tmp_path: Path) -> None:
    sweeping = os.fork()
    if sweeping == 0:
        try:
            while True:
                journals.sweep(tmp_path)
        finally:
            os._exit(1)
    try:
        for number in range(1000):
            journal = Journal(tmp_path, ABOUT, limit=LIMIT)
            journal.append(metrics(number))
            journal.close()
            journals.remove(journal.path)
    finally:
        os.kill(sweeping, signal.SIGKILL)
        os.waitpid(sweeping, 0)


def test_what_could_not_be_synced_is_synced_by_the_next_try(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.sync()
    for number in range(50):
        journal.append(["x", number, "y" * 100_000])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(StorageError, match="Too many open files"):
            journal.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    synced: list[str] = []
    real = os.fsync

    def noted(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", noted)

    journal.sync()

    assert {str(each) for each in segments(journal)} <= set(synced)
    assert len(segments(journal)) == 2


def test_a_sync_waits_for_what_another_thread_is_putting_on_the_disk(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, released = threading.Event(), threading.Event()
    real = os.fsync

    def slow(fd: int) -> None:
        entered.set()
        assert released.wait(30)
        real(fd)

    monkeypatch.setattr(os, "fsync", slow)
    journal.append(metrics(0))
    first = threading.Thread(target=journal.sync)
    first.start()
    assert entered.wait(30)
    entered.clear()
    journal.append(metrics(1))
    second = threading.Thread(target=journal.sync)
    second.start()
    ahead = entered.wait(0.3)
    released.set()
    first.join()
    second.join()

    assert not ahead
    assert entered.is_set()

"""A ``.wandb`` file: what is whole is read; damage costs no more than itself, and is named."""

from __future__ import annotations

import os
import random
import shutil
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import MlopskitError, NotFound, StorageError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("wandb")

from tests.tracking.wandb_written import ordered, written

from mlopskit.tracking.wandb_log import BLOCK, RunFile
from mlopskit.tracking.wandb_offline_run import OfflineRun

HEADER = 7


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs that W&B's SDK wrote."""
    return written(tmp_path_factory.mktemp("wandb"))


def spans(path: Path) -> list[tuple[int, int, bytes]]:
    """Return where each record begins and ends, and the record."""
    file = RunFile(path)
    spans = []
    begin = HEADER
    for message in file.messages():
        spans.append((begin, file.offset, message))
        begin = file.offset
    return spans


@pytest.fixture(scope="module", params=["hard", "rows"])
def sample(request: pytest.FixtureRequest, root: Path, tmp_path_factory: Any) -> Path:
    """Return the beginning of a file: records over several blocks, or many in each."""
    (path,) = root.glob(f"wandb/*-{request.param}/*.wandb")
    short: Path = tmp_path_factory.mktemp("short") / "run-short.wandb"
    short.write_bytes(path.read_bytes()[: 4 * BLOCK + 1000])
    return short


def test_a_bit_that_flips_costs_no_more_than_its_record(sample: Path, tmp_path: Path) -> None:
    whole, original = spans(sample), sample.read_bytes()
    chosen = random.Random(1)
    path = tmp_path / "run-hit.wandb"
    edges = [place + by for place, _, _ in whole[:20] for by in range(8)]
    end = whole[-1][1]
    for at in [*edges, *(chosen.randrange(HEADER, end) for _ in range(150))]:
        data = bytearray(original)
        data[at] ^= 1 << chosen.randrange(8)
        path.write_bytes(data)
        file = RunFile(path)
        kept = [message for begin, stop, message in whole if not begin <= at < stop]

        assert list(file.messages()) in (kept, [m for _, _, m in whole])  # the latter: in padding
        hit = [each for each in file.damage if each.offset <= at < each.offset + each.length]
        assert len(file.damage) == len(hit) <= 1
        assert hit or file.offset <= at or at % BLOCK > BLOCK - HEADER


def test_a_file_cut_off_anywhere_ends_there(sample: Path, tmp_path: Path) -> None:
    whole, original = spans(sample), sample.read_bytes()
    chosen = random.Random(2)
    path = tmp_path / "run-cut.wandb"
    cuts = [*range(12), *(chosen.randrange(len(original)) for _ in range(150))]
    cuts += [edge + by for edge in (BLOCK, 2 * BLOCK) for by in range(-8, 9)]
    for cut in cuts:
        path.write_bytes(original[:cut])
        file = RunFile(path)

        assert list(file.messages()) == [message for _, stop, message in whole if stop <= cut]
        assert file.damage == ()


def test_a_file_that_grows_is_read_once(sample: Path, tmp_path: Path) -> None:
    original = sample.read_bytes()
    chosen = random.Random(3)
    path = tmp_path / "run-grown.wandb"
    path.touch()
    file, run = RunFile(path), OfflineRun(path)
    seen: list[bytes] = []
    written = 0
    with path.open("ab") as grown:
        while written < len(original):
            written += grown.write(original[written : written + chosen.randrange(1, 20_000)])
            grown.flush()
            seen += file.messages()
            run.read()
            run.metrics()

    at_once = OfflineRun(sample).read()
    assert seen == [message for _, _, message in spans(sample)]
    assert list(file.messages()) == []
    assert ordered(run.summary) == ordered(at_once.summary)
    assert {key: run.history(key) for key in run.metrics() if key != "nan"} == {
        key: at_once.history(key) for key in at_once.metrics() if key != "nan"
    }
    assert run.metrics() == at_once.metrics()


def test_a_hole_in_the_middle_is_named_and_passed_over(sample: Path, tmp_path: Path) -> None:
    whole, data = spans(sample), bytearray(sample.read_bytes())
    begin, end = BLOCK - 5000, 2 * BLOCK + 3000
    data[begin:end] = bytes(end - begin)
    path = tmp_path / "run-hole.wandb"
    path.write_bytes(data)
    file = RunFile(path)

    assert list(file.messages()) == [m for a, b, m in whole if b <= begin or a >= end]
    (hole,) = file.damage
    assert hole.offset <= begin
    assert hole.offset + hole.length >= end


def test_zeros_at_the_end_are_named_until_something_stands_there(
    sample: Path, tmp_path: Path
) -> None:
    whole, original = spans(sample), sample.read_bytes()
    end = whole[-1][1]
    path = tmp_path / "run-zeros.wandb"
    path.write_bytes(original[:end] + bytes(100))
    file = RunFile(path)

    assert len(list(file.messages())) == len(whole)
    assert [(each.offset, each.length) for each in file.damage] == [(end, 100)]
    assert "zeros" in file.damage[0].reason
    path.write_bytes(original[:end] + original[end - (whole[-1][1] - whole[-1][0]) : end])
    list(file.messages())
    assert file.damage == ()


def test_noise_never_raises_more_than_our_errors(sample: Path, tmp_path: Path) -> None:
    original = sample.read_bytes()
    chosen = random.Random(4)
    path = tmp_path / "run-noise.wandb"
    refused = 0
    for _ in range(40):
        data = bytearray(original)
        for _ in range(chosen.randrange(1, 6)):
            at = chosen.choice([0, chosen.randrange(len(data))])
            size = chosen.randrange(1, 3 * BLOCK)
            data[at : at + size] = chosen.randbytes(size)
        path.write_bytes(data)
        run = OfflineRun(path)
        try:
            run.read()
            assert run.damage
            for key in run.metrics():
                run.history(key)
            run.media()
        except MlopskitError:
            refused += 1
    assert 0 < refused < 40


def framed(message: bytes) -> bytes:
    """Return a message as a frame of its own, whose checksum is right."""
    return struct.pack("<IHB", zlib.crc32(b"\x01" + message), len(message), 1) + message


@pytest.mark.parametrize("message", [b"\x08", b"\x08\xff"])
def test_a_frame_that_holds_no_record_is_named_and_passed_over(
    message: bytes, sample: Path, tmp_path: Path
) -> None:
    original = sample.read_bytes()
    begin = spans(sample)[0][1]
    path = tmp_path / "run-forged.wandb"
    path.write_bytes(original[:begin] + framed(message))
    run = OfflineRun(path).read()

    assert [(each.offset, each.length) for each in run.damage] == [(begin + HEADER, len(message))]
    assert run.metrics() == ()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run-other.wandb"
    path.write_text("something else")
    with pytest.raises(StorageError, match="no file of W&B's"):
        OfflineRun(path).read()
    with pytest.raises(NotFound, match=r"run-gone\.wandb"):
        OfflineRun(tmp_path / "run-gone.wandb").read()
    with pytest.raises(StorageError, match="cannot be used"):
        OfflineRun(tmp_path).read()


def test_a_file_that_became_shorter_is_refused(sample: Path, tmp_path: Path) -> None:
    path = tmp_path / "run-short.wandb"
    shutil.copyfile(sample, path)
    file = RunFile(path)
    list(file.messages())
    os.truncate(path, BLOCK)
    with pytest.raises(StorageError, match="became shorter"):
        list(file.messages())

"""W&B's own files, as its SDK writes them, are read as they were logged."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import IntegrityError, InvalidInput, NotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.wandb_offline_run import OfflineRun

pytest.importorskip("wandb")

from tests.tracking.wandb_written import ordered, surroundings, written

from mlopskit.tracking import wandb_messages
from mlopskit.tracking.wandb_folders import by_id, find_runs

ROWS = 20_000

LIVE = """
import sys, wandb

run = wandb.init(mode="offline", project="p", id="live", config={"text": "x" * 100_000},
                 settings=wandb.Settings(x_transaction_log_flush_interval=0.05))
i = 0
for line in sys.stdin:
    for _ in range(int(line)):
        run.log({"i": i})
        i += 1
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs that W&B's SDK wrote."""
    return written(tmp_path_factory.mktemp("wandb"))


def found(root: Path, id: str) -> OfflineRun:
    return by_id(find_runs(root))[id][0].read()


@pytest.fixture
def hard(root: Path) -> OfflineRun:
    return found(root, "hard")


@pytest.fixture
def shown(root: Path) -> OfflineRun:
    return found(root, "shown")


def test_the_runs_of_a_folder_are_found_in_the_order_begun(root: Path) -> None:
    runs = list(find_runs(root))

    assert sorted(run.id for run in runs) == ["hard", "rows", "shown", "twice", "twice"]
    assert [run.begun_at for run in runs] == sorted(run.begun_at for run in runs)
    assert [run.path for run in find_runs(root / "wandb")] == [run.path for run in runs]
    assert list(find_runs(root / "nothing here")) == []


def test_a_run_says_what_was_said_of_it(hard: OfflineRun) -> None:
    assert (hard.project, hard.entity, hard.name) == ("p", "team", "näme")
    assert (hard.group, hard.job_type, hard.notes) == ("g", "train", "n\nö")
    assert hard.tags == ("a", "ü", "later")
    assert hard.exit_code == 3
    assert hard.started_at is not None
    assert hard.ended_at is not None
    assert hard.started_at <= hard.ended_at <= hard.written_at
    assert not hard.online
    assert not hard.synced
    assert hard.damage == ()


def test_a_config_comes_back_as_w_and_b_took_it(hard: OfflineRun) -> None:
    config = dict(hard.config)
    assert config.pop("long") == "x" * 100_000
    assert math.copysign(1, config.pop("minus")) == -1  # later W&B writes it again as 0
    assert type(config["whole"]) is float
    assert config == {
        "whole": 2.0,
        "big": 2**60,
        "inf": math.inf,
        "dashes": "x",
        "nan": None,
        "nested": {"new": 1},
        "a.b": 3,
        "$": "$x",
        "ключ": "日本",
        "late": {"x": 1},
    }


def test_what_define_metric_said_is_there(hard: OfflineRun) -> None:
    assert hard.defined["val/*"].step_metric == "epoch"
    assert hard.defined["loss"].summary == ("min", "max")
    assert hard.defined["loss"].goal is None


NUMBERS = {
    "inf": math.inf,
    "-inf": -math.inf,
    "big": 2**60,
    "bigger": 2**53 + 1,
    "least": -(2**63),
    "beyond": float(2**64),
    "tiny": 5e-324,
    "sum": 0.1 + 0.2,
    "whole": 7,
    "a.b": 4,
    "ключ": 5,
    "$k": 6,
    "d.x": 1,
    "d.y.z": 2.5,
    "k" * 200: 8,
}


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_is_exactly_the_one_logged(hard: OfflineRun, key: str) -> None:
    rows = hard.history(key)

    assert rows.values == [NUMBERS[key]]
    assert rows.steps.tolist() == [0]
    assert hard.started_at is not None
    assert 0 <= rows.timestamps[0] - hard.started_at.timestamp() < 60


def test_nan_and_minus_zero_are_kept(hard: OfflineRun) -> None:
    assert math.isnan(hard.history("nan").values[0])
    assert math.copysign(1, hard.history("zero").values[0]) == -1


def test_what_is_no_number_stands_apart(hard: OfflineRun) -> None:
    assert hard.others("flag") == [(0, True)]
    assert hard.others("text") == [(0, "ü\x12")]
    assert hard.others("none") == [(0, None)]
    assert hard.others("list") == [(0, [1, 2.5])]
    assert hard.others("loss") == [(7, "diverged")]
    assert hard.others("never logged") == []
    assert {"flag", "text", "none", "list"}.isdisjoint(hard.metrics())
    with pytest.raises(NotFound, match=r"metric 'text'.*bigger"):
        hard.history("text")


def test_steps_are_w_and_bs_own_and_a_past_one_was_dropped(hard: OfflineRun) -> None:
    rows = hard.history("loss", "epoch", "text", "never logged")

    assert rows.steps.tolist() == [0, 5, 6]
    assert rows.values == [3, 2, 1.5]
    assert rows.beside["epoch"] == [None, None, 2]
    assert rows.beside["text"] == ["ü\x12", None, None]
    assert rows.beside["never logged"] == [None, None, None]


def test_the_summary_has_the_last_values_and_what_was_set(hard: OfflineRun) -> None:
    summary = hard.summary

    assert summary["loss"] == {"min": 1.5, "max": 3}
    assert summary["best"] == {"q": {"w": 2**60}}
    assert summary["d"] == {"x": 1, "y": {"z": 2.5}}
    assert summary["a.b"] == 4
    assert math.isnan(summary["nan"])
    assert math.copysign(1, summary["zero"]) == -1
    assert "gone" not in summary
    assert "_wandb" not in summary


def test_many_rows_come_back_in_order_with_a_key_that_counts_steps(root: Path) -> None:
    run = found(root, "rows")
    rows = run.history("loss", "_mk/step", "_mk/at", "even")

    assert rows.steps.tolist() == list(range(ROWS))
    assert rows.values == [1 / (i + 1) for i in range(ROWS)]
    assert rows.beside["_mk/step"] == list(range(ROWS, 0, -1))
    assert rows.beside["_mk/at"][::999] == [f"{i}:a:b" for i in range(0, ROWS, 999)]
    assert rows.beside["even"][:4] == [0, None, 2, None]
    assert run.history("even").steps.tolist() == list(range(0, ROWS, 2))
    assert list(rows.timestamps) == sorted(rows.timestamps)
    run.forget()
    assert run.history("loss") == run.history("loss")


def test_the_quick_way_reads_what_w_and_bs_classes_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = [found(root, name) for name in ("hard", "shown")]
    monkeypatch.setattr(wandb_messages, "items_of", lambda *_: None)
    slow = [found(root, name) for name in ("hard", "shown")]

    for one, two in zip(quick, slow, strict=True):
        assert one.metrics() == two.metrics()
        for key in one.metrics():
            assert repr(one.history(key)) == repr(two.history(key))
        assert ordered(one.summary) == ordered(two.summary)
        assert one.media() == two.media()


def test_the_rows_are_those_of_w_and_bs_own_reader(hard: OfflineRun) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(hard.path)],
        env=surroundings(hard.folder),
        check=True,
        capture_output=True,
        timeout=60,
    )
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    words = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    theirs = [line["history"]["item"] for line in lines if line["type"] == "history"]
    table: dict[int, dict[str, Any]] = {int(row["_step"]): {} for row in theirs}
    for key in hard.metrics():
        rows = hard.history(key)
        for step, value in zip(rows.steps, rows.values, strict=True):
            table[step][key] = value
    for row in theirs:
        mine = table[int(row["_step"])]
        numbers = {key: words.get(value, value) for key, value in row.items() if key in mine}
        assert repr({key: float(numbers[key]) for key in sorted(mine)}).replace(
            "-0.0", "0.0"
        ) == repr({key: float(mine[key]) for key in sorted(mine)}).replace("-0.0", "0.0")
    assert sum(map(len, table.values())) == len(NUMBERS) + 7


# Media and artifacts.


def test_media_are_listed_with_the_files_they_lie_in(shown: OfflineRun, root: Path) -> None:
    media = {each.key: each for each in shown.media()}

    assert {key: each.type for key, each in media.items()} == {
        "image": "image-file",
        "images": "images/separated",
        "deep.image": "image-file",
        "table": "table-file",
        "histogram": "histogram",
    }
    assert {each.step for each in media.values()} == {1}
    assert len(media["images"].files) == 2
    assert media["histogram"].files == ()
    assert media["histogram"].said["values"] == [1, 2]
    for name in (*media["image"].files, *media["images"].files, *media["deep.image"].files):
        assert shown.file(name).read_bytes()[:4] == b"\x89PNG"
    table = json.loads(shown.file(media["table"].files[0]).read_text())
    assert table["data"] == [[1], [2]]
    assert set(shown.metrics()) == {"m", "deep.n"}
    assert shown.history("m").values == [1, 2]


def test_a_file_outside_of_the_run_is_refused(shown: OfflineRun) -> None:
    with pytest.raises(InvalidInput, match="leads out of"):
        shown.file(f"../{shown.path.name}")
    with pytest.raises(NotFound):
        shown.file("media/none.png")


def test_artifacts_are_listed_and_their_bytes_verified(shown: OfflineRun, root: Path) -> None:
    named = {each.name: each for each in shown.artifacts}
    model = named["model"]

    assert (model.type, model.description) == ("model", "what it is")
    assert model.metadata == {"k": [1, "ü"]}
    assert set(model.aliases) == {"best", "latest"}
    entries = {each.path: each for each in model.entries()}
    assert set(entries) == {"f.txt", "dir/ü.txt", "far", "near"}
    assert entries["f.txt"].digest == "XUFAKrxLKna5cZ2REBfFkg=="
    assert entries["f.txt"].size == 5
    assert model.verified(entries["f.txt"]).read_text() == "hello"
    assert model.verified(entries["dir/ü.txt"]).read_text() == "below"
    assert model.verified(entries["near"]) == root / "source" / "d" / "ü.txt"
    assert (entries["far"].ref, entries["far"].size) == ("s3://bucket/key", None)
    with pytest.raises(NotFound, match="local copy"):
        model.verified(entries["far"])


def test_a_digest_may_be_of_another_kind(shown: OfflineRun) -> None:
    other = next(each for each in shown.artifacts if each.name == "other")
    (entry,) = other.entries()

    assert entry.algorithm == "XXH128"
    assert other.verified(entry).read_text() == "hello"


def test_a_manifest_may_be_a_file_of_its_own(shown: OfflineRun) -> None:
    many = next(each for each in shown.artifacts if each.name == "many")

    assert [many.verified(each).read_text() for each in many.entries()] == ["x", "y", "z"]


@pytest.mark.parametrize("line", ["1", '{"path": "f", "digest": "d", "extra": [1]}', "{", "{}"])
def test_a_manifest_of_something_else_is_refused(
    line: str, shown: OfflineRun, tmp_path: Path
) -> None:
    many = next(each for each in shown.artifacts if each.name == "many")
    path = tmp_path / "manifest.jl.gz"
    path.write_bytes(gzip.compress(line.encode()))

    with pytest.raises(StorageError, match="no manifest of W&B's"):
        dataclasses.replace(many, _manifest=str(path)).entries()


def test_a_folder_that_was_moved_still_has_its_artifacts(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(root, moved, symlinks=True)
    away = root.with_name("away")
    root.rename(away)
    try:
        run = found(moved, "shown")
        contents = {
            entry.path: each.verified(entry)
            for each in run.artifacts
            if each.name in ("model", "many")
            for entry in each.entries()
            if entry.ref is None
        }
        assert {path.is_relative_to(moved) for path in contents.values()} == {True}
        assert contents["x.txt"].read_text() == "x"
        contents["f.txt"].write_text("jello")
        model = next(each for each in run.artifacts if each.name == "model")
        hit = next(each for each in model.entries() if each.path == "f.txt")
        with pytest.raises(IntegrityError, match=r"model/f\.txt"):
            model.verified(hit)
        contents["f.txt"].write_text("longer")
        with pytest.raises(IntegrityError, match="6 bytes"):
            model.verified(hit)
        contents["f.txt"].unlink()
        with pytest.raises(NotFound):
            model.path_of(hit)
    finally:
        away.rename(root)


# Several folders.


def test_the_folders_of_one_run_are_joined_in_the_order_begun(root: Path) -> None:
    unread = by_id(reversed(list(find_runs(root))))["twice"]
    read = by_id(run.read() for run in reversed(list(find_runs(root))))["twice"]

    assert [run.folder for run in unread] == [run.folder for run in read]
    assert [run.config for run in read] == [{"a": 1.0, "b": 1}, {"c": 2}]
    assert [run.history("m").values for run in read] == [[1.5], [2.5]]
    assert read[0].begun_at < read[1].begun_at


def test_the_local_copy_of_an_online_run_is_told_apart(hard: OfflineRun, tmp_path: Path) -> None:
    name = hard.folder.name.removeprefix("offline-")
    shutil.copytree(hard.folder, tmp_path / ".wandb" / name)
    (tmp_path / ".wandb" / name / "run-hard.wandb.synced").touch()
    (run,) = find_runs(tmp_path)

    assert run.online
    assert run.synced
    assert run.read().name == "näme"


# A process that writes.


def until(deadline_s: float = 60) -> Iterator[None]:
    """Yield again and again, with a little patience between."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        yield
        time.sleep(0.02)
    pytest.fail("it did not come in time")


def test_a_run_is_read_while_it_is_written_and_after_it_is_killed(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", LIVE], env=surroundings(tmp_path), stdin=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdin is not None
        print(1000, file=writer.stdin, flush=True)
        for _ in until():
            runs = list(find_runs(tmp_path))
            if runs:
                break
        (run,) = runs
        seen = 0
        for _ in until():
            if "i" in run.read().metrics():
                values = run.history("i").values
                assert values == list(range(len(values)))
                assert len(values) >= seen
                seen = len(values)
                if seen == 1000:
                    break
        assert run.exit_code is None
        assert run.config == {"text": "x" * 100_000}
        print(500, file=writer.stdin, flush=True)
        for _ in until():
            if len(run.history("i").values) > 1000:
                break
        seen = len(run.history("i").values)
        writer.send_signal(signal.SIGKILL)
    finally:
        writer.kill()
        writer.wait()
        if writer.stdin is not None:
            writer.stdin.close()
    values = run.read().history("i").values
    assert len(values) >= seen
    assert values == list(range(len(values)))
    assert run.damage == ()
    assert run.exit_code is None
    assert run.ended_at is None

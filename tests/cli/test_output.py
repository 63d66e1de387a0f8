"""What is printed, to a pipe and to a terminal."""

from __future__ import annotations

import errno
import json
import os
import pty
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from tests.programs import launched

from mlopskit.cli import output
from mlopskit.cli.safe import safe
from mlopskit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本 🙂", "plain é 日本 🙂"),
        ("red \x1b[31m", "red \\x1b[31m"),
        ("two\nlines\tand a tab\r", "two\\nlines\\tand a tab\\r"),
        ("C1 \x9b31m", "C1 \\x9b31m"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_nothing_that_steers_a_terminal_reaches_it(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_lines_are_aligned_by_what_is_seen_and_nothing_is_cut(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "x" * 500

    output.table(["a", "b"], [["日本", long], ["1", None], ["two\nlines", output.Styled("!", "")]])

    assert capsys.readouterr().out.splitlines() == [
        "A           B",
        f"日本        {long}",
        "1           -",
        "two\\nlines  !",
    ]


def test_json_is_strict_and_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"nan": float("nan"), "inf": [float("inf"), -float("inf")], "é": "\x9b"})

    text = capsys.readouterr().out
    assert text.isascii()
    assert json.loads(text) == {"nan": "NaN", "inf": ["Infinity", "-Infinity"], "é": "\x9b"}


def test_a_time_is_shown_in_utc() -> None:
    when = datetime(2013, 7, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))

    assert output.moment(when) == "2013-06-30 23:30:00Z"
    assert output.moment(when.astimezone(UTC)) == "2013-06-30 23:30:00Z"
    assert output.moment(None) == ""


def test_pairs_keep_every_digit() -> None:
    assert output.pairs({"b": 0.1 + 0.2, "a": "x y", "n": float("nan")}) == (
        "a=x y b=0.30000000000000004 n=nan"
    )


def test_bytes_are_counted_in_a_pipe_and_rounded_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = [0, 1023, 1024, 1536, 10**9, 10**20]

    assert [output.size(each) for each in counts] == [str(each) for each in counts]
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    assert [output.size(each) for each in counts] == [
        "0",
        "1023",
        "1.0 KiB",
        "1.5 KiB",
        "953.7 MiB",
        "88817.8 PiB",
    ]


def test_a_terminal_gets_a_table_and_a_pipe_gets_lines(process: Callable[..., Done]) -> None:
    arguments = ("config", "-c", "tracking=local:" + "y" * 200)
    piped = process(*arguments)

    seen = on_terminal(*arguments)

    assert "y" * 200 in piped.out
    assert "\x1b" not in piped.out
    assert "\x1b[1m" in seen
    assert seen.count("y") >= 200, "a long value is folded, not cut"
    assert "…" not in seen


def on_terminal(*arguments: str, columns: int = 80) -> str:
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    environ.pop("NO_COLOR", None)
    with launched(
        [sys.executable, "-m", "mlopskit", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environ,
    ):
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux says so when the other end is closed.
                chunk = b""
            if not chunk:
                break
            seen += chunk
    os.close(ours)
    return seen.decode()


def test_a_report_has_the_mode_of_any_file_or_the_one_it_had(tmp_path: Path) -> None:
    new, old = tmp_path / "new.html", tmp_path / "old.html"
    old.write_text("before")
    old.chmod(0o604)
    before = os.umask(0o027)
    try:
        output.write_report(new, "a")
        output.write_report(old, "b")
    finally:
        os.umask(before)

    assert (new.read_text(), stat.S_IMODE(new.stat().st_mode)) == ("a", 0o640)
    assert (old.read_text(), stat.S_IMODE(old.stat().st_mode)) == ("b", 0o604)
    assert sorted(each.name for each in tmp_path.glob("*.*")) == ["new.html", "old.html"]


def test_a_report_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    """Who has the old one open goes on reading it, and a link stays one."""
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    page.write_text("before")
    link.symlink_to(page)
    with page.open() as reader:
        output.write_report(link, "after")
        assert reader.read() == "before"

    assert link.is_symlink()
    assert page.read_text() == "after"


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    page.write_text("before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        output.write_report(page, "after")

    assert [each.read_text() for each in tmp_path.glob("*.*")] == ["before"]


def test_a_report_may_go_to_what_is_no_file(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    output.write_report(fifo, "text")

    assert os.read(reader, 99) == b"text"
    os.close(reader)
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.parametrize(("count", "shown"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs")])
def test_one_is_not_plural(count: int, shown: str) -> None:
    assert output.counted(count, "run") == shown

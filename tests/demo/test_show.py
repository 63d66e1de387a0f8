from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING

import pytest
from rich.console import Console

from mlopskit.demo.live import LiveShow, for_stream
from mlopskit.demo.plain import PlainShow
from mlopskit.demo.words import visible

if TYPE_CHECKING:
    from tests.demo.conftest import Made

    from mlopskit.demo.result import DemoResult
    from mlopskit.demo.show import Show

pytestmark = pytest.mark.core

HOSTILE = "<script>alert('x')</script> & \x1b[31mred \"quoted\" \u202e"


def play(show: Show, result: DemoResult) -> None:
    """Show a whole replay."""
    with show:
        show.begin(3, 12, result.tools)
        with show.step("Read the flights") as step:
            step.note, step.cached = "336,776 flights", True
        for month in result.months:
            show.month_begins(month.month, month.live_version, 589)
            show.hours_passed(589, month.rows)
            show.month_ends(month)
        show.end(result)


def plain(result: DemoResult) -> str:
    stream = io.StringIO()
    play(PlainShow(stream), result)
    return stream.getvalue()


def live(result: DemoResult) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    play(LiveShow(console), result)
    return stream.getvalue()


def test_a_pipe_gets_plain_lines_and_a_terminal_a_live_table() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(for_stream(io.StringIO()), PlainShow)
    stream: IO[str] = Terminal()
    assert isinstance(for_stream(stream), LiveShow)


def test_plain_lines_hold_no_control_character(made: Made) -> None:
    text = plain(made(text=HOSTILE))
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "\\x1b[31mred" in text


def test_a_live_show_cannot_be_commanded_by_what_it_shows(made: Made) -> None:
    text = live(made(text=HOSTILE))
    assert "\x1b[31mred" not in text
    assert "\u202e" not in text
    assert "\\x1b[31mred" in text


@pytest.mark.parametrize("show", [plain, live])
def test_both_end_with_the_table_the_report_and_the_commands(show: object, made: Made) -> None:
    result = made(text="mlopskit runs --experiment flights")
    assert callable(show)
    text = show(result)
    tail = text[text.rindex("decision") :]
    for month in result.months:
        assert month.name in tail
        assert f"{month.auc_first:.3f}" in tail
    assert str(result.report) in tail
    assert "mlopskit runs --experiment flights" in tail
    assert "5,999 of 6,000 requests answered over HTTP, 1 lost" in tail


@pytest.mark.parametrize("show", [plain, live])
def test_what_came_from_the_cache_says_so(show: object, made: Made) -> None:
    assert callable(show)
    line = next(
        line
        for line in show(made()).splitlines()
        if "Read the flights" in line and "336,776" in line
    )
    assert "cached" in line


def test_a_table_of_plain_lines_has_a_line_for_each_month(made: Made) -> None:
    lines = plain(made()).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("month "))
    assert lines[head + 1].split()[:6] == ["March", "28834", "2/8", "0.720", "0.735", "v1"]
    assert lines[head + 10].startswith("December")


def test_control_characters_are_written_out() -> None:
    assert visible("a\x1b[2J\u202eb\n") == "a\\x1b[2J\\u202eb\\n"
    assert visible("ÄÖ 東京 ≤") == "ÄÖ 東京 ≤"

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from mlopskit.demo import report
from mlopskit.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.demo.conftest import Made

VOID = {"meta", "line", "polyline", "polygon", "circle", "rect", "br"}

HOSTILE = "<script>alert('x')</script> & \x1b[31mred \"quoted\" \u202e"


class Reader(HTMLParser):
    """Reads a page strictly: every tag is closed, in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_small_file_that_refers_to_no_other(tmp_path: Path, made: Made) -> None:
    path = report.write_report(made(tmp_path / "demo" / "flights.html"))
    page = path.read_text()
    assert path.stat().st_size < 1_000_000
    assert not re.search(r"https?:|//|@import|url\(", page)
    read = Reader(page)
    assert not read.open
    assert not read.tags & {"script", "link", "img", "iframe", "object", "base"}
    assert not {name for name, _ in read.attributes} & {"src", "href", "srcset", "onload"}


def test_nothing_in_the_report_can_become_markup(made: Made) -> None:
    page = report.render(made(text=HOSTILE))
    read = Reader(page)
    assert not read.open
    assert "script" not in read.tags
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_the_report_reads_on_a_phone_and_in_the_dark(made: Made) -> None:
    page = report.render(made())
    assert 'content="width=device-width' in page
    assert "prefers-color-scheme:dark" in page
    assert "@media(max-width" in page


@pytest.mark.parametrize("months", [1, 2, 10])
def test_any_number_of_months_is_drawn(months: int, made: Made) -> None:
    page = report.render(made(months=months))
    assert page.count("<tr><th>") == months + 1
    assert "nan" not in page
    assert "March" in page


def test_every_month_tells_its_numbers_and_its_reasons(made: Made) -> None:
    page = report.render(made(text="because it rained"))
    for month in made().months:
        assert month.name in page
        assert f"{month.auc_live:.3f}" in page
    assert page.count("<li>because it rained</li>") == 10 + 6
    assert "5,999" in page


def test_a_report_that_cannot_be_written_is_an_error_of_storage(tmp_path: Path, made: Made) -> None:
    (tmp_path / "demo").write_text("a file where a folder should be")
    with pytest.raises(StorageError):
        report.write_report(made(tmp_path / "demo" / "flights.html"))

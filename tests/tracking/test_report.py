"""What a notebook shows of runs."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from mlopskit.kit import Kit

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("msgspec")


class Cells(HTMLParser):
    """Gathers what stands in the cells of a page, and which tags it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a cell."""
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        """End a table: what follows is in no cell."""
        if tag == "table":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        """Add to the last cell."""
        if self.cells:
            self.cells[-1] += data


def test_a_list_of_runs_is_a_table(tmp_path: Path) -> None:
    """With the metrics and params that they share, and nothing hostile."""
    with Kit(tracking="local", home=tmp_path) as kit:
        for number in range(3):
            with kit.tracker.start_run(
                "<script>alert(1)</script>", name=f"run & {number}", params={"lr": 0.1 * number}
            ) as run:
                run.log_metric("acc@1", number / 7)
        found = kit.tracker.search_runs(limit=2)
        page = found._repr_html_()
    read = Cells(page)

    assert "script" not in read.tags
    assert read.tags.count("tr") == 3
    assert {"metrics.acc@1", "params.lr", "run & 2", "0.285714"} <= set(read.cells)
    assert "2 runs, and more: the limit kept them back." in page
    assert type(found)()._repr_html_() == "<p>No runs.</p>"


def test_a_run_and_its_record_are_shown(tmp_path: Path) -> None:
    """The open one too, without a question to its backend."""
    with Kit(tracking="local", home=tmp_path) as kit:
        with kit.tracker.start_run(
            "e", name="<b>", notes="n", params={"deep": {"a": "x" * 99}}
        ) as run:
            run.log_metric("loss", 0.5, step=3)
            open_page = run._repr_html_()
        record = kit.tracker.get_run(run.id)
    read = Cells(record._repr_html_())

    assert "running" in Cells(open_page).cells
    assert "records delivered" in open_page
    assert "<b>" not in record._repr_html_().replace("<b style", "")
    assert {"loss", "0.5", "3", "e", "n", run.id} <= set(read.cells)


def test_importing_prints_nothing() -> None:
    """Whatever is imported."""
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import mlopskit as mk\nfor name in dir(mk): getattr(mk, name)\n",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")

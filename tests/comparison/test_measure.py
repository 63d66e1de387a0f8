"""Tools are compared by what they really do."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

import pytest

import mlopskit as mk
from mlopskit import plugins
from mlopskit.comparison import measure
from mlopskit.comparison.page import markdown, page
from mlopskit.comparison.workload import CASES, SENT
from mlopskit.errors import InvalidInput, UnknownBackend

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.comparison import ToolComparison

pytest.importorskip("mlflow")
pytest.importorskip("wandb")
pytest.importorskip("msgspec")
# Its first test waits for all that is compared.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> ToolComparison:
    """Compare three tools."""
    told: list[str] = []
    comparison = mk.compare(
        *("local", "mlflow", "wandb"),
        html=tmp_path_factory.mktemp("page") / "page.html",
        outage_s=15,
        times=1,
        told=told.append,
    )
    assert len(told) == 5
    return comparison


def test_what_tools_are_known_to_change_is_found(found: ToolComparison) -> None:
    """By their own clients; through mlopskit all of it is kept."""
    fates = {
        (each.tool, each.way, f"{verdict.kind}: {verdict.what}"): verdict.fate
        for each in found.results
        for verdict in each.verdicts
    }

    assert [each.error for each in found.results] == [""] * 5
    for each in found.results:
        assert len(each.verdicts) == len(CASES)
        if each.way == "mlopskit":
            assert each.count("kept") == len(CASES), each
    assert fates["mlflow", "native", "metric: an infinity"] == "changed"
    assert fates["mlflow", "native", "param: a text of 100,000 characters"] == "changed"
    assert fates["mlflow", "native", "param: a lone surrogate"] == "refused"
    assert fates["mlflow", "native", "metric: a name with an @"] == "refused"
    assert fates["mlflow", "native", "metric: steps that go back"] == "kept"
    assert fates["mlflow", "native", "metric: the step 2**63"] == "refused"
    assert fates["wandb", "native", "metric: steps that go back"] == "lost"
    assert fates["wandb", "native", "param: a tuple, under the key '$'"] == "changed"
    assert fates["wandb", "native", "metric: NaN"] == "kept"
    assert fates["wandb", "native", "metric: a bool"] == "kept"
    assert fates["mlflow", "native", "param: another value, on purpose"] == "refused"
    assert fates["wandb", "native", "param: another value, on purpose"] == "kept"


def test_what_it_costs_is_measured(found: ToolComparison) -> None:
    """In sane orders of magnitude; without a server our program ends."""
    for each in found.results:
        assert 0 < each.p50_us <= each.p99_us
        assert each.points_per_s > 10
        assert each.stored_bytes is not None
        assert each.stored_bytes > 1000
        assert each.made == ""
        assert (each.outage is None) == (each.tool == "local")
        if each.outage is not None and each.way == "mlopskit":
            assert (each.outage.ended, each.outage.code, each.outage.left) == (True, 0, SENT)
            assert each.death is not None
            assert (each.death.error, each.death.found_after_sync) == ("", SENT)
        assert each.import_s > 0
    assert {"Python", "mlopskit", "mlflow", "wandb"} <= found.versions.keys()
    assert found.capabilities["resume"]["local"] == "native"


def test_nothing_was_imported_before_its_import_was_measured(found: ToolComparison) -> None:
    """Neither mlopskit nor the tool: a second import takes no time."""
    assert [each.imported_before for each in found.results] == [()] * 5


def test_what_was_imported_before_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Such as by an interpreter that imports it at every start."""
    (tmp_path / "sitecustomize.py").write_text("import mlopskit.redaction\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    comparison = mk.compare("local", outage_s=0, times=1)

    assert "mlopskit.redaction" in comparison.results[0].imported_before
    assert "means nothing: local through mlopskit: mlopskit" in page(comparison)


def test_the_page_and_the_markdown_hold_all_of_it(found: ToolComparison) -> None:
    """In one file that loads nothing."""
    text, plain = page(found), markdown(found)

    assert not re.search(r"(src|href)=", text)
    for case in CASES:
        assert escape(case.what) in text
        assert case.what in plain
    assert f"| all | {len(CASES)} of {len(CASES)} |" in plain
    assert found.machine in plain
    assert "CPUs, load" in found.machine
    assert plain.count("\n## ") == 6
    assert "| mlflow through mlopskit |" in plain.partition("## When the server dies")[2]
    assert len({line.count("|") for line in plain.split("## ")[1].splitlines() if "|" in line}) == 1


def test_a_tool_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rest goes on; one that nobody knows is an error."""
    real = plugins.backends

    def without(domain: str) -> list[mk.BackendInfo]:
        import dataclasses

        return [
            dataclasses.replace(each, installed=False) if each.name == "wandb" else each
            for each in real(domain)
        ]

    monkeypatch.setattr(measure, "backends", without)
    comparison = mk.compare("wandb", "local", outage_s=0, times=1)

    assert [each.error for each in comparison.results] == ["pip install 'mlopskit[wandb]'"] * 2 + [
        ""
    ]
    assert "Not compared" in page(comparison)
    with pytest.raises(UnknownBackend, match="mlflow"):
        mk.compare("mlfow")
    with pytest.raises(InvalidInput, match="0 times"):
        mk.compare("local", times=0)

"""What programs meet whose server dies while they log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlopskit.comparison import outages, server_child
from mlopskit.comparison.page import markdown, page
from mlopskit.comparison.result import Death, ToolComparison, ToolResult
from mlopskit.comparison.workload import BEFORE, SENT

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("mlflow")
pytest.importorskip("wandb")
pytest.importorskip("msgspec")


@pytest.mark.parametrize("tool", ["mlflow", "wandb"])
def test_through_mlopskit_a_server_that_dies_costs_no_value(tool: str) -> None:
    """No call raises, the program ends well, and the values come with the sync."""
    death = outages.death(tool, "mlopskit", 60)

    assert death.error == ""
    assert (death.ended, death.code, death.exception) == (True, 0, "")
    assert (death.acknowledged, death.found_after_sync) == (SENT, SENT)
    assert death.found < SENT
    assert not death.at_least
    assert 0 < death.blocked_s <= death.took_s


def test_mlflow_itself_waits_for_its_server() -> None:
    """In the first call that it does not answer; what was acknowledged before is there."""
    death = outages.death("mlflow", "native", 1)

    assert death.error == ""
    assert (death.ended, death.code, death.exception) == (False, None, "")
    assert (death.acknowledged, death.found, death.found_after_sync) == (BEFORE, BEFORE, None)
    assert (death.at_least, death.in_finish) == (True, False)
    assert death.blocked_s <= death.took_s


def test_wandb_itself_waits_at_the_end_of_the_run() -> None:
    """What it left on the disk is sent by its own sync."""
    death = outages.death("wandb", "native", 3)

    assert death.error == ""
    assert (death.ended, death.exception) == (False, "")
    assert (death.acknowledged, death.found_after_sync) == (SENT, SENT)
    assert (death.at_least, death.in_finish) == (True, True)


def test_a_server_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last line that it said."""
    monkeypatch.setattr(outages, "free_port", lambda: 70_000)

    death = outages.death("wandb", "native", 1)

    assert "its server ended with 1" in death.error
    assert "port must be 0-65535" in death.error


def test_the_stand_in_has_after_a_kill_what_it_answered_for(tmp_path: Path) -> None:
    """Runs, what was streamed into them, and files."""
    first = server_child.Keeping(0, tmp_path / "kept")
    first.answer("UpsertBucket", {"name": "r", "project": "p"})
    lines = {"wandb-history.jsonl": {"offset": 0, "content": ['{"_step": 0, "loss": 0.5}']}}
    first.stream("r", {"files": lines})
    first.files["/storage/x"] = b"bytes"

    again = server_child.Keeping(0, tmp_path / "kept")

    assert again.runs == first.runs
    assert again.rows("r") == [{"_step": 0, "loss": 0.5}]
    assert dict(again.files) == {"/storage/x": b"bytes"}
    assert again.files.get("/storage/y") is None


def test_every_way_to_end_is_shown() -> None:
    """A lower bound is called so; what was not measured says why."""
    deaths = (
        Death(ended=True, code=0, took_s=5, blocked_s=4, acknowledged=100, found_after_sync=100),
        Death(took_s=20, blocked_s=18.7, at_least=True, in_finish=True, acknowledged=100),
        Death(ended=True, code=1, took_s=3, exception="Gone: away", acknowledged=40, found=40),
        Death(error="it has no uvicorn"),
    )
    results = tuple(
        ToolResult(tool=f"tool{at}", way="native", death=each) for at, each in enumerate(deaths)
    )
    comparison = ToolComparison(domain="tracking", date="2026-01-02", results=results)
    text = markdown(comparison).partition("## When the server dies")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| tool")]

    assert [row.split(" | ")[1:] for row in rows] == [
        [
            "ends well within 5.0 s",
            "4.0 s: `a call that logs`",
            *("100 of 100", "0 of 100", "100 of 100 |"),
        ],
        [
            "still waits after 20 s",
            "at least 18.7 s: `the end of the run`",
            *("100 of 100", "0 of 100", "nothing to send |"),
        ],
        [
            "fails within 3.0 s: `Gone: away`",
            "0.0 s: `a call that logs`",
            *("40 of 100", "40 of 40", "nothing to send |"),
        ],
        ["not measured: `it has no uvicorn`", "-", "-", "-", "- |"],
    ]
    assert "at least 18.7 s" in page(comparison)

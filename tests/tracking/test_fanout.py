"""A list of trackers keeps the contract of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.kit import Kit
from mlopskit.testing.tracking import Line, TrackerContract

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.core


class TestFanOut(TrackerContract):
    processes = 3

    @pytest.fixture
    def line(self, tmp_path: Path) -> Line:
        return [
            {"backend": "local", "location": str(tmp_path / name), "flush_timeout_s": 60}
            for name in ("one", "two")
        ]


def test_three_tools_get_every_record_from_one_journal(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    line: list[dict[str, Any]] = [
        {"backend": "local", "location": str(tmp_path / "local")},
        {"backend": "mlflow", "location": f"sqlite:///{tmp_path}/m.db"},
        {"backend": "wandb", "mode": "offline", "folder": str(tmp_path / "wandb")},
        {"backend": "mlflow", "location": "http://127.0.0.1:9", "connect_timeout_s": 1},
    ]
    home = tmp_path / "home"
    with Kit(tracking=line, home=home) as kit:
        run = kit.tracker.start_run("e", name="all of them", params={"lr": 0.1, "deep": (1, 2)})
        for step in (3, 1, 2):
            run.log_metrics({"loss": step * 0.5, "acc@1": float("inf")}, step=step)
        run.log_text("hello", "notes.txt")
        run.finish(timeout_s=60)
        *good, down = run.delivery.values()
        records = [tracker.read_run(run.id) for tracker in kit.tracker.sinks()[:3]]
        series = [t.read_metric_history(run.id, "loss") for t in kit.tracker.sinks()[:3]]
        left = [path.name for path in (home / "tracking" / "journal").glob("*.journal")]

    assert [(each.delivered, each.pending) for each in good] == [(7, 0)] * 3
    assert (down.delivered, down.pending > 0) == (0, True)
    assert "127.0.0.1" in down.error
    for record in records:
        assert (record.name, record.experiment, record.status) == ("all of them", "e", "finished")
        assert record.params == {"lr": 0.1, "deep": (1, 2)}
        assert record.metrics == {"loss": 1.5, "acc@1": float("inf")}
    assert [list(each.steps) for each in series] == [[3, 1, 2]] * 3
    assert len(left) == 1  # It waits for the last of them.

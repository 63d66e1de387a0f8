"""What the process and its machine use, as metrics."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.tool import Context
from mlopskit.tracking.local import LocalTracker
from mlopskit.tracking.system import SystemSampler, check_interval

if TYPE_CHECKING:
    from pathlib import Path


def test_a_sample_says_what_is_used() -> None:
    pytest.importorskip("psutil")
    samples: list[dict[str, float]] = []
    sampler = SystemSampler(samples.append)
    ballast = bytearray(64 << 20)

    sampler.sample()

    (found,) = samples
    assert all(name.startswith("system/") and type(each) is float for name, each in found.items())
    assert 0 < found["system/memory_percent"] < 100
    assert found["system/process_memory_mib"] > len(ballast) >> 20
    assert found["system/cpu_percent"] >= 0


def test_samples_come_while_a_run_is_open_and_end_with_it(tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    tracker = LocalTracker(tmp_path / "store", system_metrics_s=0.1)
    tracker.context = Context(home=tmp_path)
    before = threading.active_count()
    with tracker.start_run() as run:
        while True:
            seen = tracker.get_run(run.id).last_steps.get("system/cpu_percent", -1)
            if seen >= 2:
                break
        run.log_metric("loss", 1.0)
    history = tracker.get_metric_history(run.id, "system/memory_percent")
    record = tracker.get_run(run.id)
    tracker.close()

    assert list(history.steps) == list(range(len(history)))
    assert record.last_steps["loss"] == 0  # Samples do not count as the run's own steps.
    assert threading.active_count() <= before


@pytest.mark.parametrize("value", [-1, 0.01, "often", True, float("nan")])
def test_an_interval_that_makes_no_sense_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="system_metrics_s"):
        check_interval(value)


def test_without_psutil_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psutil", None)

    assert check_interval(0) == 0.0
    with pytest.raises(MissingDependency, match=r"mlopskit\[system\]"):
        check_interval(5)

"""The run that an integration holds, and the values that it makes plain."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.integrations.trainings import the_run, trackers

from mlopskit.errors import Conflict, UnknownBackend
from mlopskit.integrations.held import HeldRun
from mlopskit.integrations.plain import plain
from mlopskit.kit import Kit
from mlopskit.tracking.ranks import this_rank


class Color(Enum):
    RED = "red"


@dataclass
class Config:
    where: Path
    colors: tuple[Color, ...]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"a": (1, [2.5, None, True]), 3: "x"}, {"a": (1, [2.5, None, True]), 3: "x"}),
        (Config(Path("a/b"), (Color.RED,)), {"where": "a/b", "colors": ("red",)}),
        (Namespace(lr=np.float64(0.1)), {"lr": 0.1}),
        ({"b", "a"}, ["a", "b"]),
        (range(3), [0, 1, 2]),
        (b"xy", "b'xy'"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (torch.tensor([1.5, 2.5]), [1.5, 2.5]),
        (torch.tensor(1.5), 1.5),
        (np.int64(3), 3),
        (torch.float32, "torch.float32"),
        (torch.nn.Linear, "torch.nn.modules.linear.Linear"),
        (len, "builtins.len"),
        ({(1, 2): 1, Color.RED: 2}, {"(1, 2)": 1, "red": 2}),
    ],
)
def test_what_no_param_can_be_becomes_plain(value: Any, kept: Any) -> None:
    found = plain(value)

    assert (found, type(found)) == (kept, type(kept))


def test_what_holds_itself_ends_somewhere() -> None:
    endless: list[Any] = []
    endless.append(endless)

    assert "[...]" in str(plain(endless))


def test_the_rank_is_read_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert this_rank() == 0
    monkeypatch.setenv("RANK", "3")
    assert this_rank() == 3


def test_an_unknown_line_is_an_error() -> None:
    with pytest.raises(UnknownBackend):
        HeldRun("mlfow", {}).open()


def test_a_finished_run_is_an_error(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        run = tracker.start_run()
        run.finish()
        with pytest.raises(Conflict):
            HeldRun(run, {}).log_metrics({"loss": 1})


def test_a_tracker_that_cannot_resume_has_its_run_left_open(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    line = {"backend": "wandb", "mode": "offline", "folder": str(tmp_path / "wandb")}
    with Kit(tracking=line, home=tmp_path) as kit:
        held = HeldRun(kit.tracker, {})
        held.log_metrics({"acc@1": 0.5}, 0)
        held.pause("finished")
        held.log_metrics({"f1(macro)": 0.25}, 1)
        assert the_run(kit.tracker).status == "running"
        held.end("finished")

        record = the_run(kit.tracker)
        assert record.metrics == {"acc@1": 0.5, "f1(macro)": 0.25}
        assert record.status == "finished"


def test_an_unreachable_tool_does_not_stop_a_training(tmp_path: Path) -> None:
    line: list[Any] = [
        {"backend": "local", "location": str(tmp_path / "local")},
        {"backend": "mlflow", "location": "http://127.0.0.1:9", "connect_timeout_s": 1},
    ]
    with Kit(tracking=line, home=tmp_path) as kit:
        kit.tracker.flush_timeout_s = 2
        held = HeldRun(kit.tracker, {})
        held.log_metrics({"loss": 1}, 0)
        held.end("finished")

        (record,) = kit.tracker.sinks()[0].search_runs()
        assert (record.status, record.metrics) == ("finished", {"loss": 1})


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("lightning", "lightning"),
        ("accelerate", "accelerate"),
        ("transformers", "transformers"),
        ("keras", "keras"),
        ("optuna", "optuna"),
        ("sklearn", "scikit-learn"),
    ],
)
def test_a_missing_library_is_named_with_what_installs_it(module: str, package: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; import mlopskit.integrations.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("mlopskit.errors.MissingDependency")
    assert f"needs {package!r}" in last
    assert f"pip install 'mlopskit[{module}]'" in last

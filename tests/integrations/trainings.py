"""What every trainer is given here: names and values that trackers like to change."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlopskit.kit import Kit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import RunRecord

PARAMS: dict[str, Any] = {
    "lr": 0.1,
    "flag": True,
    "nothing": None,
    "layers": (64, 32),
    "nested": {"deep": {"er": [1, 2.5, "x"]}},
    "a thousand": "x" * 1000,
    "very long": "yz" * 50_000,
}
SCALARS: dict[str, Any] = {
    "acc@1": 0.5,
    "f1(macro)": np.float32(0.25),
    "np64": np.float64(0.1),
    "np_int": np.int64(7),
    "torch": torch.tensor(1.5),
    "torch_of_one": torch.tensor([2.5]),
}
AS_NUMBERS = {
    "acc@1": 0.5,
    "f1(macro)": 0.25,
    "np64": 0.1,
    "np_int": 7.0,
    "torch": 1.5,
    "torch_of_one": 2.5,
}
LINES = ["local", "mlflow", "fan-out"]


def line(kind: str, tmp_path: Path) -> Any:
    """Return a config line by a word."""
    mlflow = f"mlflow:sqlite:///{tmp_path}/m.db"
    local = {"backend": "local", "location": str(tmp_path / "local")}
    return {"local": local, "mlflow": mlflow, "fan-out": [local, mlflow]}[kind]


@contextlib.contextmanager
def trackers(kind: str, tmp_path: Path) -> Iterator[tuple[Tracker, list[Tracker]]]:
    """Open a tracker, and say which trackers it writes to."""
    with Kit(tracking=line(kind, tmp_path), home=tmp_path / "home") as kit:
        kit.tracker.flush_timeout_s = 60
        yield kit.tracker, list(kit.tracker.sinks())


def the_run(tracker: Tracker) -> RunRecord:
    """Return the only run there is."""
    (record,) = tracker.search_runs()
    return record

"""W&B offline keeps what the tracking interface promises, in W&B's own files."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from mlopskit import plugins
from mlopskit.testing.tracking import TrackerContract

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.testing.tracking import Line
    from mlopskit.tool import Tool

wandb = pytest.importorskip("mlopskit.tracking.wandb")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B's service from reporting anywhere."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


class TestWandbOffline(TrackerContract):
    """The contract, on files."""

    processes: ClassVar[int] = 3  # each starts a service of W&B's, which takes a second of CPU

    @pytest.fixture
    def line(self, tmp_path: Path) -> Line:
        """Return the line of an empty folder."""
        return {
            "backend": "wandb",
            "location": "team/churn",
            "mode": "offline",
            "folder": str(tmp_path / "store"),
        }

    def test_the_table_is_read_without_importing_the_backend(self, tool: Tool) -> None:
        """The table is that of a server; offline it differs in the lines that say so."""
        table = plugins.declared("tracking", "wandb")["CAPABILITIES"]
        differing = {line.name for line in tool.capabilities if line.note not in table[line.name]}
        assert differing == set(wandb.OFFLINE) - {"offline"}

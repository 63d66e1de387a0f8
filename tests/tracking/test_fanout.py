"""A list of trackers keeps the contract of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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

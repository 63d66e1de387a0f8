"""The embedded tracker keeps the contract, and what only it promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlopskit.testing.tracking import Line, TrackerContract

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.core


class TestLocalTracker(TrackerContract):
    @pytest.fixture
    def line(self, tmp_path: Path) -> Line:
        return {"backend": "local", "location": str(tmp_path / "store"), "flush_timeout_s": 60}

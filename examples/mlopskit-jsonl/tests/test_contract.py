"""The public contract of a tracker, over ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlopskit.testing import TrackerContract

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.testing.tracking import Line


class TestJsonlTracker(TrackerContract):
    @pytest.fixture
    def line(self, tmp_path: Path) -> Line:
        return f"jsonl:{tmp_path / 'runs'}"

"""The public contract of a tracker, over ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mlopskit_jsonl import JsonlTracker

from mlopskit.testing import TrackerContract

if TYPE_CHECKING:
    from pathlib import Path


class TestJsonlTracker(TrackerContract):
    @pytest.fixture
    def tracker(self, tmp_path: Path) -> JsonlTracker:
        return JsonlTracker(tmp_path / "runs")

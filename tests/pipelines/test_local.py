from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlopskit.pipelines.local import LocalRunner
from mlopskit.testing import RunnerContract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlopskit.pipelines import Runner

pytestmark = pytest.mark.core


class TestOneWorker(RunnerContract):
    @pytest.fixture
    def open_tool(self, tmp_path: Path) -> Callable[[], Runner]:
        return lambda: LocalRunner(tmp_path / "pipelines")


class TestFourWorkers(RunnerContract):
    @pytest.fixture
    def open_tool(self, tmp_path: Path) -> Callable[[], Runner]:
        return lambda: LocalRunner(tmp_path / "pipelines", workers=4)

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlopskit.features.local import LocalFeatureStore
from mlopskit.testing import FeatureStoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class TestLocalFeatureStore(FeatureStoreContract):
    @pytest.fixture
    def tool(self, tmp_path: Path) -> Iterator[LocalFeatureStore]:
        with LocalFeatureStore(tmp_path / "store") as store:
            yield store

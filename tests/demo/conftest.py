from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import pyarrow as pa

    from mlopskit.demo.data import Flights


@pytest.fixture(scope="session")
def flights() -> Flights:
    """Every real flight of the year."""
    from mlopskit.demo import data

    return data.read_flights(data.find())


@pytest.fixture(scope="session")
def weather() -> pa.Table:
    """The real weather of the year."""
    from mlopskit.demo import data

    return data.read_weather(data.find())

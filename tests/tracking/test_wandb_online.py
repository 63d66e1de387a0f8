"""W&B online keeps what the tracking interface promises, against a server on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from tests.tracking.wandb_loopback import KEY, WandbServer

from mlopskit.testing.tracking import TrackerContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.testing.tracking import Line

wandb = pytest.importorskip("mlopskit.tracking.wandb")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B's service from reporting anywhere."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    """Return a server."""
    with WandbServer() as running:
        yield running


def line_of(server: WandbServer, project: str = "churn") -> Line:
    """Return the line of a project of the server."""
    return {
        "backend": "wandb",
        "location": f"team/{project}",
        "base_url": server.url,
        "api_key": KEY,
        "settings": {"x_file_stream_transmit_interval": 1.0},
    }


class TestWandbOnline(TrackerContract):
    """The contract, on a server."""

    processes: ClassVar[int] = 3  # each starts a service of W&B's, which takes a second of CPU
    points: ClassVar[int] = 10_000  # the server is written in Python, and reads every row

    @pytest.fixture
    def line(self, server: WandbServer, request: pytest.FixtureRequest) -> Line:
        """Return the line of an empty project."""
        server.runs.clear()
        server.artifacts.clear()
        return line_of(server)

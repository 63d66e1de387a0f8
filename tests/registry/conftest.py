"""What tests of registries share: a file to register, receivers of webhooks, and tools' servers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry.receiver import SECRET, Receiver
from tests.registry.shelf import Shelf
from tests.tracking.servers import mlflow_server

from mlopskit.registry.local import LocalRegistry
from mlopskit.testing.wandb_server import WandbServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write a file that can be registered."""
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Make a tool that can do next to nothing."""
    return Shelf(tmp_path / "blobs")


# Webhooks.


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return where the embedded registry lies."""
    return tmp_path / "registry"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def opened(home: Path, receiver: Receiver) -> Iterator[Callable[..., LocalRegistry]]:
    """Open the registry with a webhook to the receiver; options are those of the webhook."""
    made: list[LocalRegistry] = []

    def open_(**options: Any) -> LocalRegistry:
        hook = {"url": receiver.url, "secret": SECRET, **options}
        made.append(LocalRegistry(home, webhooks=[hook]))
        return made[-1]

    yield open_
    receiver.release.set()
    for each in made:
        each.close()


# MLflow.


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty database of MLflow's once: its migrations take seconds."""
    path: Path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path) -> str:
    """Return the address of an empty database of MLflow's."""
    path = tmp_path / "store" / "m.db"
    path.parent.mkdir()
    shutil.copy(empty_store, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[int]:
    """Run MLflow's server, and return its port."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(empty_store, folder / "m.db")
    with mlflow_server(f"sqlite:///{folder}/m.db", folder) as (port, _):
        yield port


# W&B.


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """Run a W&B server on the loopback interface. W&B's service reports nowhere else."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with WandbServer() as running:
        yield running
        assert running.unknown == []

"""What the tests of webhooks share: a receiver, and a registry that tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.registry.receiver import SECRET, Receiver

from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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

"""The way to MLflow as tracking goes it; `mlopskit.mlflow_stores` has what the registry shares."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlopskit import mlflow_stores
from mlopskit.mlflow_stores import checked_uri, look_into, public_uri, reach, remember, store_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "checked_uri",
    "look_into",
    "public_uri",
    "reach",
    "remember",
    "store_lock",
    "translated",
]


@contextmanager
def translated(target: str, id: str = "") -> Iterator[None]:
    """Turn the exceptions of MLflow, and of what it stands on, into ours.

    Args:
        target: What cannot be reached if that is the reason.
        id: The run that was asked for.
    """
    with mlflow_stores.translated(target, "run", id):
        yield

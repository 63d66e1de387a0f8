"""The way to MLflow as tracking goes it; `mlopskit.mlflow_stores` has what the registry shares."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mlflow.entities import ViewType

from mlopskit import mlflow_stores
from mlopskit.mlflow_stores import checked_uri, look_into, public_uri, reach, remember, store_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

__all__ = [
    "checked_uri",
    "look_into",
    "public_uri",
    "reach",
    "remember",
    "store_lock",
    "tells_the_same",
    "translated",
]

PAGE: Final = 500


@contextmanager
def translated(target: str, id: str = "") -> Iterator[None]:
    """Turn the exceptions of MLflow, and of what it stands on, into ours.

    Args:
        target: What cannot be reached if that is the reason.
        id: The run that was asked for.
    """
    with mlflow_stores.translated(target, "run", id):
        yield


def tells_the_same(one: MlflowClient, other: MlflowClient) -> bool:
    """Tell whether two addresses lead to one store, by what is told there.

    MLflow gives an experiment its number and the millisecond of its making, and a run an id that no
    other run has. What is made between the questions does not matter: the first is asked twice.
    """
    for told in (_experiments, _runs):
        first, second, last = told(one), told(other), told(one)
        if not first <= second <= last:
            return False
    return True


def _experiments(client: MlflowClient) -> set[tuple[object, ...]]:
    found: set[tuple[object, ...]] = set()
    token = None
    while True:
        page = client.search_experiments(ViewType.ALL, max_results=PAGE, page_token=token)
        found |= {(each.experiment_id, each.creation_time) for each in page}
        token = page.token
        if not token:
            return found


def _runs(client: MlflowClient) -> set[tuple[object, ...]]:
    ids = sorted({str(each) for each, _ in _experiments(client)})
    found: set[tuple[object, ...]] = set()
    token = None
    while ids:
        page = client.search_runs(ids, "", ViewType.ALL, PAGE, ["attributes.start_time ASC"], token)
        found |= {(each.info.run_id, each.info.artifact_uri) for each in page}
        token = page.token
        if not token:
            break
    return found

"""What tests of the registry in MLflow share: its stores, emptied. To make one takes seconds."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.registry import Registry

MARKS = [
    # SQLAlchemy's pool is collected with its engine, which MLflow never disposes of.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def emptied(database: str) -> str:
    """Empty a database, and return it."""
    psycopg = importlib.import_module("psycopg")
    connection = psycopg.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "select tablename from pg_tables where schemaname = 'public'"
            " and tablename <> 'alembic_version'"
        )
        tables = ", ".join(f'"{name}"' for (name,) in cursor.fetchall())
        cursor.execute(f"truncate {tables} restart identity cascade")
    connection.close()
    return database


def emptied_server(port: int) -> str:
    """Empty a server, and return its URI."""
    mlflow = importlib.import_module("mlflow")
    uri = f"http://127.0.0.1:{port}"
    client = mlflow.MlflowClient(uri, uri)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    for each in client.search_experiments():
        if each.name != "Default":
            client.rename_experiment(each.experiment_id, f"{each.name} {os.urandom(4).hex()}")
            client.delete_experiment(each.experiment_id)
    return uri


@pytest.fixture
def registry(uri: str) -> Iterator[Registry]:
    """Open the registry on an empty database."""
    backend: Any = importlib.import_module("mlopskit.registry.mlflow")
    with backend.MlflowRegistry(uri) as made:
        yield made


@pytest.fixture
def client(uri: str) -> Any:
    """Return MLflow's own client of the same database."""
    return importlib.import_module("mlflow").MlflowClient(uri, uri)

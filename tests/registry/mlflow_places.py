"""MLflow's stores for tests, emptied: to make one takes seconds."""

from __future__ import annotations

import importlib
import os


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

"""MLflow's own client of its registry."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow.entities.model_registry import ModelVersion

    from mlopskit.config import Line

STAGE: Final = "Production"
MODEL: Final = "model"
EXPERIMENT: Final = "mlopskit-compare"


class Client:
    """`mlflow.MlflowClient`: a version's files and metrics are those of a run that it names."""

    def __init__(self, line: Line, folder: Path, has: frozenset[str]) -> None:
        self.folder, self.has, self._line = folder, has, line
        # What downloads and loads has no client: it asks where this process is told to.
        mlflow.set_tracking_uri(str(line.location))
        mlflow.set_registry_uri(str(line.location))
        self._client = MlflowClient(line.location, line.location)
        found = self._client.get_experiment_by_name(EXPERIMENT)
        files = (folder / "files").as_uri() if "disk" in has else None
        self._experiment = (
            self._client.create_experiment(EXPERIMENT, files)
            if found is None
            else found.experiment_id
        )

    def register(
        self,
        name: str,
        source: Path,
        *,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        description: str = "",
    ) -> int:
        run = self._client.create_run(self._experiment).info.run_id
        self._client.log_artifacts(run, str(source), MODEL)
        for key, value in (metrics or {}).items():
            self._client.log_metric(run, key, value)
        self._client.set_terminated(run)
        try:
            self._client.create_registered_model(name)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        uri = f"{self._client.get_run(run).info.artifact_uri}/{MODEL}"
        made = self._client.create_model_version(
            name, uri, run, dict(tags or {}), description=description
        )
        return int(made.version)

    def download(self, name: str, version: int, to: Path) -> Path:
        to.mkdir()
        uri = f"models:/{name}/{version}"
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(to)))

    def tags(self, name: str, version: int) -> Mapping[str, str]:
        found: Mapping[str, str] = self._version(name, version).tags
        return found

    def metrics(self, name: str, version: int) -> Mapping[str, float]:
        run = self._client.get_run(str(self._version(name, version).run_id))
        found: Mapping[str, float] = run.data.metrics
        return found

    def description(self, name: str, version: int) -> str:
        return str(self._version(name, version).description or "")

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self._client.set_registered_model_alias(name, alias, str(version))

    def by_alias(self, name: str, alias: str) -> int:
        return int(self._client.get_model_version_by_alias(name, alias).version)

    def promote(self, name: str, version: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Stages are deprecated, and nothing took their place.
            self._client.transition_model_version_stage(
                name, str(version), STAGE, archive_existing_versions=True
            )

    def in_production(self, name: str) -> list[int]:
        found = self._client.search_model_versions(f"name = '{name}'")
        return [int(each.version) for each in found if each.current_stage == STAGE]

    def delete(self, name: str, version: int) -> None:
        self._client.delete_model_version(name, str(version))

    def delete_model(self, name: str) -> None:
        self._client.delete_registered_model(name)

    def register_pickle(self, name: str, model: object, scratch: Path) -> int:
        folder = scratch / "saved"
        mlflow.pyfunc.save_model(str(folder), python_model=Holding(model))
        return self.register(name, folder)

    def load(self, name: str, version: int) -> object:
        loaded: object = mlflow.pyfunc.load_model(f"models:/{name}/{version}")
        return loaded

    def history(self, name: str) -> list[tuple[str, int | None]]:  # noqa: ARG002
        raise LookupError("MlflowClient has no call that tells it")

    def another(self) -> Client:
        return Client(self._line, self.folder, self.has)

    def close(self) -> None:
        """Do nothing: MLflow keeps its connections for the life of the process."""

    def _version(self, name: str, version: int) -> ModelVersion:
        return self._client.get_model_version(name, str(version))


class Holding(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined] # MLflow has no types
    """A model of MLflow's that holds an object, which is pickled with it."""

    def __init__(self, held: object) -> None:
        self.held = held

    def predict(self, model_input: list[str]) -> list[str]:
        """Answer with the question."""
        return model_input

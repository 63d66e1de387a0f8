"""The models of MLflow 3 that a run logged: MLflow keeps them beside the run, not among its files.

Their files are listed as artifacts of the run below the model's name, where ``runs:/<run>/<name>``
has them too; of several models of one name the oldest has it, and each later one
``<name>-<model id>``. The metadata of each file says what MLflow knows of the model.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mlflow.exceptions import MlflowException

from mlopskit.errors import NotFound
from mlopskit.tracking.entities import Artifact
from mlopskit.tracking.mlflow_artifacts import RunFiles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as MlflowRun

MODEL_ID: Final = "mlflow_model_id"
TYPE: Final = "model"
# Servers before MLflow 3 know no such models.
UNKNOWN: Final = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")


class RunModels:
    """The models of one run.

    Args:
        client: MLflow's.
        run: MLflow's.
        taken: The names that files of the run itself begin with.
    """

    def __init__(self, client: MlflowClient, run: MlflowRun, taken: Collection[str] = ()) -> None:
        self._client = client
        self._run = run
        self._taken = taken

    def files(self) -> Iterator[Artifact]:
        """Yield each file as an artifact of the run."""
        taken = set(self._taken)
        for model in self._models():
            name = model.name if model.name not in taken else f"{model.name}-{model.model_id}"
            taken.add(name)
            said = _said(model)
            at = datetime.fromtimestamp(model.creation_timestamp / 1000, UTC)
            for path, size in RunFiles(self._client, self._run, model.artifact_location).walk():
                yield Artifact(
                    name=f"{name}/{path}",
                    size=size,
                    digest="",
                    type=TYPE,
                    metadata=said,
                    logged_as=name,
                    logged_at=at,
                )

    def where(self, artifact: Artifact) -> tuple[str, str]:
        """Return where the model of a file lies, and the name of the file there.

        Raises:
            NotFound: If the run has no such model any more.
        """
        for model in self._models():
            if model.model_id == artifact.metadata[MODEL_ID]:
                return model.artifact_location, artifact.name.removeprefix(artifact.logged_as + "/")
        raise NotFound("model of the run", artifact.name)

    def _models(self) -> list[LoggedModel]:
        """Return the models, the oldest first."""
        info = self._run.info
        found: list[LoggedModel] = []
        token = None
        while True:
            try:
                page = self._client.search_logged_models(
                    [info.experiment_id],
                    filter_string=f"source_run_id = '{info.run_id}'",
                    page_token=token,
                )
            except MlflowException as exc:
                if exc.error_code in UNKNOWN or "error code 404" in str(exc):
                    return []
                raise
            found += page
            token = page.token
            if not token:
                return sorted(found, key=lambda each: (each.creation_timestamp, each.model_id))


def _said(model: LoggedModel) -> dict[str, Any]:
    """Return what MLflow knows of a model."""
    said: dict[str, Any] = {
        MODEL_ID: model.model_id,
        "mlflow_model_name": model.name,
        "mlflow_model_type": model.model_type,
        "mlflow_model_params": dict(model.params or {}),
        "mlflow_model_tags": dict(model.tags or {}),
        "mlflow_model_metrics": [
            {"key": each.key, "value": each.value, "step": each.step, "dataset": each.dataset_name}
            for each in sorted(model.metrics or [], key=_order)
        ],
    }
    return {key: value for key, value in said.items() if value}


def _order(metric: Any) -> tuple[str, int, int, str]:
    return metric.key, metric.timestamp, metric.step, str(metric.dataset_name)

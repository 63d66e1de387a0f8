"""MLflow's own client."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Metric

from mlopskit.comparison.workload import CLOSED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.comparison.workload import Opening


class Client:
    """`mlflow.MlflowClient`, which is what MLflow's fluent calls come down to."""

    alone = False

    def __init__(self, opening: Opening) -> None:
        self._client = MlflowClient(_uri(opening))
        self.id = self._client.create_run(self._experiment(opening)).info.run_id

    def _experiment(self, opening: Opening) -> str:
        found = self._client.get_experiment_by_name(opening.name)
        if found is not None:
            return str(found.experiment_id)
        files = (opening.folder / "files").as_uri() if opening.private else None
        return str(self._client.create_experiment(opening.name, files))

    def log_param(self, key: str, value: Any) -> None:
        self._client.log_param(self.id, key, value)

    def change_param(self, key: str, value: Any) -> None:
        self.log_param(key, value)  # There is no other call.

    def log_metric(self, key: str, value: float, step: int) -> None:
        self._client.log_metric(self.id, key, value, step=step)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        now = int(time() * 1000)
        self._client.log_batch(self.id, [Metric(k, v, now, step) for k, v in values.items()])

    def set_tag(self, key: str, value: str) -> None:
        self._client.set_tag(self.id, key, value)

    def log_file(self, name: str, content: bytes) -> None:
        parent, _, last = name.rpartition("/")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, last)
            path.write_bytes(content)
            self._client.log_artifact(self.id, str(path), parent or None)

    def finish(self) -> None:
        self._client.set_terminated(self.id)

    def end(self) -> None:
        self.finish()

    def params(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._client.get_run(self.id).data.params
        return found

    def points(self, key: str) -> list[tuple[int, Any]]:
        return [(each.step, each.value) for each in self._client.get_metric_history(self.id, key)]

    def tags(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self._client.get_run(self.id).data.tags
        return found

    def file(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(self.id, name, folder)).read_bytes()

    @staticmethod
    def stored(opening: Opening, id: str) -> list[tuple[int, Any]]:
        found = MlflowClient(_uri(opening)).get_metric_history(id, "loss")
        return [(each.step, each.value) for each in found]

    @staticmethod
    def sync(opening: Opening) -> bool:  # noqa: ARG004 - MLflow's client keeps nothing of its own
        return False

    @staticmethod
    def left(folder: Path) -> int:  # noqa: ARG004 - MLflow's client keeps nothing of its own
        return 0


def _uri(opening: Opening) -> str | None:
    if opening.outage:
        return CLOSED
    return f"sqlite:///{opening.folder}/mlflow.db" if opening.private else opening.location

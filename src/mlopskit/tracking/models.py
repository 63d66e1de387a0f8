"""Models that runs logged, and nobody registered."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidInput, NotFound
from mlopskit.names import check_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import RunRecord


def best_run(
    tracker: Tracker,
    metric: str,
    *,
    higher_is_better: bool,
    experiment: str | None,
    where: str,
) -> RunRecord:
    """Return the run whose last value of a metric is best.

    Raises:
        NotFound: If no run that matches has the metric, or none has a number there.
        InvalidInput: If the filter cannot be read.
    """
    quoted = '"' + metric.replace('"', '""') + '"'
    order = f"metrics.{quoted} {'desc' if higher_is_better else 'asc'}"
    runs = tracker.search_runs(where, experiment, order_by=order, limit=1)
    value = runs[0].metrics.get(metric) if runs else None
    if value is None or value != value:  # noqa: PLR0124 - NaN
        raise NotFound("run with the metric", metric)
    return runs[0]


def only_model(tracker: Tracker, run_id: str) -> str:
    """Return the name of the one model that a run logged.

    Raises:
        NotFound: If it logged none.
        InvalidInput: If it logged several.
    """
    models = _models(tracker, run_id)
    if not models:
        raise NotFound(f"model of the run {run_id}", "any")
    if len(models) > 1:
        raise InvalidInput(
            f"The run {run_id} logged several models: {', '.join(models)}. Pass the name of one."
        )
    return models[0]


def fetch_model(tracker: Tracker, run_id: str, name: str, folder: Path) -> Mapping[str, Any]:
    """Write the files of a run's model into an empty folder; return what was logged beside it.

    Raises:
        NotFound: If the run logged nothing of that name.
        IntegrityError: If the bytes are no longer those that were logged.
        InvalidName: If a file of it could leave the folder.
    """
    files = [each for each in tracker.list_artifacts(run_id) if each.logged_as == name]
    if not files:
        raise NotFound(f"model of the run {run_id}", name, _models(tracker, run_id))
    for file in files:
        inside = file.name.removeprefix(f"{name}/")
        if inside == file.name:
            inside = PurePosixPath(file.name).name
        tracker.fetch_artifact(run_id, file, folder / check_path("file of a model", inside))
    return files[0].metadata


def _models(tracker: Tracker, run_id: str) -> list[str]:
    artifacts = tracker.list_artifacts(run_id)
    return sorted({each.logged_as for each in artifacts if each.type == "model"})

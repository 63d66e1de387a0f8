"""Models that runs log, and nobody has registered."""

from __future__ import annotations

from os import PathLike
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, NotFound, Unsupported
from mlopskit.names import check_path
from mlopskit.tracking import tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.tool import Context
    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import RunRecord


# What is said of the example, and the folder where it lies if it is a table. Who saves an object
# and keeps its example in another form says so under the same name.
EXAMPLE: Final = "input_example"


def sources_of(
    model: Any, example: Any, folder: Path, context: Context
) -> tuple[dict[str, Path | bytes], dict[str, Any]]:
    """Return the files of a model with its example among them, and what is known of it.

    Args:
        model: An object, or the path of a file or folder.
        example: A few rows to ask it with, or None.
        folder: An empty folder, for what has to be written.
        context: That of the tracker; it knows how objects are saved.

    Raises:
        InvalidInput: If there is nothing at the path, or the example cannot be kept.
        InvalidModel: If no flavor takes the object, or its flavor cannot save it.
        Unsupported: If the tracker was opened without a kit, and the model is an object.
    """
    is_path = isinstance(model, str | PathLike)
    found = _at(model) if is_path else {}
    said: dict[str, Any] = {}
    if context.save_model is not None:
        if example is not None or not is_path:
            said = dict(context.save_model(model, folder, example))
    elif not is_path:
        raise Unsupported(
            "tracking",
            "this tracker",
            "log_model of an object",
            "it was opened without a kit, which knows the flavors; save the model to a file",
        )
    written: dict[str, Path | bytes] = dict(_files(folder))
    if example is not None and EXAMPLE not in said:
        table = tables.table(example, context.redactor)
        written |= {f"{EXAMPLE}/{rel or tables.ROWS}": each for rel, each in table.files.items()}
        said[EXAMPLE] = EXAMPLE
    for name in sorted(found.keys() & written.keys()):
        raise InvalidInput(
            f"The model has a file {name!r} of its own, where its example would be kept. Rename "
            "it, or log the model without input_example."
        )
    return {**found, **written}, said


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
    # Not every backend forgets what was logged by the name before.
    newest = max((each.logged_at for each in files if each.logged_at), default=None)
    files = [each for each in files if each.logged_at == newest]
    for file in files:
        inside = file.name.removeprefix(f"{name}/")
        if inside == file.name:
            inside = PurePosixPath(file.name).name
        tracker.fetch_artifact(run_id, file, folder / check_path("file of a model", inside))
    return files[0].metadata


def _at(path: str | PathLike[str]) -> dict[str, Path | bytes]:
    """Return the file at a path by its name, or those of a folder by their places in it."""
    if path == "":  # No text at all would be the working folder, and is a slip.
        raise InvalidInput("There is nothing to keep: the path is empty.")
    there = Path(path)
    if not there.exists():
        raise InvalidInput(f"There is no file {str(there)!r} to keep as a model.")
    return dict(_files(there)) if there.is_dir() else {there.name: there}


def _files(folder: Path) -> Mapping[str, Path]:
    found = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in found}


def _models(tracker: Tracker, run_id: str) -> list[str]:
    artifacts = tracker.list_artifacts(run_id)
    return sorted({each.logged_as for each in artifacts if each.type == "model"})

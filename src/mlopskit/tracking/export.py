"""A run as plain files, for whoever has no mlopskit.

``run.json``
    ``{"format": 1, "run": {...}, "params": {...}, "artifacts": [...]}``. Params are JSON; what JSON
    has no word for is tagged as in `values`, and floats that are not finite as
    ``{"$": "float", "v": "nan"}``.
``metrics.csv``
    ``key,step,timestamp,value``: every point in the order logged, the time in ISO 8601 and UTC, the
    value so that it reads back exactly.
``artifacts/``
    The files of the run under their names. References are fetched only on request.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import Conflict, InvalidInput
from mlopskit.storage import disk_errors, make_private_folder
from mlopskit.tracking.values import MARK, pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.tracking.base import Tracker

FORMAT: Final = 1
HEADER: Final = ("key", "step", "timestamp", "value")


def export_run(
    tracker: Tracker,
    id: str,
    folder: Path,
    *,
    artifacts: bool = True,
    references: bool = False,
    force: bool = False,
) -> Path:
    """Write a run to a folder, which appears when all of it is written.

    Args:
        tracker: Where the run is.
        id: The run.
        folder: The folder to make.
        artifacts: Whether its files are exported too.
        references: Whether remote data that it only refers to is fetched too.
        force: Replace the folder if it is there.

    Returns:
        The folder.

    Raises:
        NotFound: If there is no such run.
        Conflict: If the folder is there, and `force` is false.
        IntegrityError: If a file is no longer what was logged.
        StorageError: If it cannot be written.
    """
    if folder.exists() and not force:
        raise Conflict(f"{folder} is there already. Choose another folder, or pass force=True.")
    run = tracker.get_run(id)
    files = tracker.list_artifacts(id)
    part = make_private_folder(folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        said = run.model_dump(mode="json", exclude={"params", "metrics", "last_steps"})
        whole = {
            "format": FORMAT,
            "run": said,
            "params": _strict(pack(dict(run.params))),
            "artifacts": [_strict(each.model_dump(mode="json")) for each in files],
        }
        with disk_errors(part):
            text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
            (part / "run.json").write_text(text, encoding="utf-8", errors="surrogatepass")
            with (part / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(HEADER)
                for key in run.metrics:
                    history = tracker.get_metric_history(id, key)
                    points = zip(history.steps, history.timestamps, history.values, strict=True)
                    rows.writerows((key, int(s), _time(t), _number(v)) for s, t, v in points)
        for each in files:
            if artifacts and (references or each.uri is None):
                tracker.download_artifact(id, each.name, part / "artifacts")
        with disk_errors(folder):
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def read_params(folder: Path) -> dict[str, Any]:
    """Return the params of an exported run, as they were logged.

    Raises:
        InvalidInput: If it is no exported run.
    """
    try:
        text = (folder / "run.json").read_text(encoding="utf-8", errors="surrogatepass")
        found: dict[str, Any] = unpack(_loose(json.loads(text)["params"]))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InvalidInput(f"{folder} is no exported run: {exc}.") from exc
    return found


def _strict(value: Any) -> Any:
    """Return JSON without NaN and infinities, which JSON has no word for."""
    if isinstance(value, list):
        return [_strict(each) for each in value]
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return {MARK: "float", "v": repr(value)}
    return value


def _loose(value: Any) -> Any:
    if isinstance(value, list):
        return [_loose(each) for each in value]
    if isinstance(value, dict):
        if value.get(MARK) == "float":
            return float(value["v"])
        return {key: _loose(each) for key, each in value.items()}
    return value


def _time(ms: int) -> str:
    return datetime.fromtimestamp(int(ms) / 1000, UTC).isoformat(timespec="milliseconds")


def _number(value: Any) -> str:
    return repr(value.item() if hasattr(value, "item") else value)

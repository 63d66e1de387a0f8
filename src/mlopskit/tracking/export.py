"""A run as plain files, for whoever has no mlopskit.

``run.json``
    ``{"format": 1, "run": {...}, "typed_params": {...}, "artifacts": [...]}``: what a `RunRecord`
    holds, in plain JSON. Tuples are lists, keys are texts, and NaN and infinities are the texts
    ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. ``typed_params`` has the params once more, from
    which `read_params` makes what was logged: the values that JSON has no word for are written as
    in `values`, and ``{"$": "float", "v": "nan"}`` is a float that is not finite.
``metrics.csv``
    ``key,step,timestamp,value``: every point in the order logged, the time in ISO 8601 and UTC, the
    value so that it reads back exactly.
``artifacts/``
    The files of the run under their names. References are fetched only on request.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import Conflict, InvalidInput
from mlopskit.names import check_path
from mlopskit.storage import disk_errors, write_whole, writing
from mlopskit.tracking.values import MARK, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Artifact, RunRecord

FORMAT: Final = 1
ABOUT: Final = "run.json"
HEADER: Final = ("key", "step", "timestamp", "value")


def export_run(
    tracker: Tracker,
    id: str,
    folder: Path | str,
    *,
    artifacts: bool = True,
    references: bool = False,
    force: bool = False,
    told: Callable[[Artifact], None] | None = None,
) -> Path:
    """Write a run to a folder, which appears when all of it is written.

    Args:
        tracker: Where the run is.
        id: The run.
        folder: The folder to make.
        artifacts: Whether its files are exported too.
        references: Whether remote data that it only refers to is fetched too.
        force: Replace the folder if an export is there.
        told: Is given each file before it is copied, to show how far it is.

    Returns:
        The folder.

    Raises:
        NotFound: If there is no such run.
        Conflict: If the folder is there, and `force` is false or it is no export.
        IntegrityError: If a file is no longer what was logged.
        StorageError: If it cannot be written.
    """
    folder = Path(folder)
    run = tracker.get_run(id)
    files = tracker.list_artifacts(id)
    _check_place(folder, force=force)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    with disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
    try:
        _write_about(part / ABOUT, run, files)
        _write_metrics(part / "metrics.csv", tracker, run)
        for each in files:
            if artifacts and (references or each.uri is None):
                if told is not None:
                    told(each)
                # Not `download_artifact`: it lists the artifacts for each of them.
                place = part / "artifacts" / check_path("artifact", each.name)
                tracker._download(id, each, place)
        _check_place(folder, force=force)
        _put_in_place(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def read_params(folder: Path | str) -> dict[str, Any]:
    """Return the params of an exported run, as they were logged.

    Raises:
        InvalidInput: If it is no exported run.
    """
    try:
        said = json.loads(Path(folder, ABOUT).read_text(encoding="utf-8"))
        found: dict[str, Any] = unpack(_loose(said["typed_params"]))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InvalidInput(f"{folder} is no exported run: {exc}.") from exc
    return found


def _check_place(folder: Path, *, force: bool) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if not force:
        raise Conflict(f"{folder} is there already. Choose another folder, or force it.")
    if folder.is_symlink() or not (folder / ABOUT).is_file():
        raise Conflict(f"{folder} is there, and is no export to replace. Choose another folder.")


def _put_in_place(part: Path, folder: Path) -> None:
    with disk_errors(folder):
        if not folder.exists():
            part.rename(folder)
            return
        old = part.with_suffix(".old")
        folder.rename(old)
        try:
            part.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _write_about(path: Path, run: RunRecord, files: Sequence[Artifact]) -> None:
    whole = {
        "format": FORMAT,
        "run": _plain(run.model_dump(exclude={"owner"})),
        "typed_params": _strict(pack(dict(run.params))),
        "artifacts": [_plain(each.model_dump()) for each in files],
    }
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    # Half of a surrogate pair has no bytes in UTF-8; it becomes the escape that JSON has for it.
    write_whole(path, text.encode("utf-8", errors="backslashreplace"))


def _write_metrics(path: Path, tracker: Tracker, run: RunRecord) -> None:
    with writing(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogatepass", newline="")
        rows = csv.writer(text)
        rows.writerow(HEADER)
        for key in run.metrics:
            history = tracker.get_metric_history(run.id, key)
            points = zip(history.steps, history.timestamps, history.values, strict=True)
            rows.writerows((key, int(s), _time(t), _number(v)) for s, t, v in points)
        text.detach()


def _plain(value: Any) -> Any:
    """Return what every reader of JSON understands."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value.isoformat() if isinstance(value, datetime) else value


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

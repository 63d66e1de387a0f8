"""A run as plain files, for whoever has no mlopskit.

``run.json``
    ``{"format": 1, "run": {...}, "artifacts": [...], "typed_params": {...}, "exact": {...}}``: what
    a `RunRecord` holds, in plain JSON. Tuples are lists, keys are texts, and NaN and infinities are
    the texts ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. ``typed_params`` has the params once
    more, from which `read_params` makes what was logged: the values that JSON has no word for are
    written as in `values`, and ``{"$": "float", "v": "nan"}`` is a float that is not finite.
    ``exact`` has the rest once more, with such floats, from which `ExportedRuns` reads it.
``metrics.csv``
    ``key,step,timestamp,value``: every point in the order logged, the time in ISO 8601 and UTC, the
    value so that it reads back exactly.
``metrics.parquet``
    On request, in its place: ``key`` (text), ``step`` (int64), ``timestamp`` (ms, UTC), ``value``
    (float64), and ``exact``: null, or JSON with the ``step`` or ``value`` that these cannot hold.
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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from mlopskit.errors import Conflict, InvalidInput, MissingDependency
from mlopskit.names import check_path
from mlopskit.storage import disk_errors, write_whole, writing
from mlopskit.tracking.values import MARK, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Artifact, Number, RunRecord

FORMAT: Final = 1
ABOUT: Final = "run.json"
CSV: Final = "metrics.csv"
PARQUET: Final = "metrics.parquet"
ARTIFACTS: Final = "artifacts"
ROWS_AT_ONCE: Final = 100_000
INT64: Final = range(-(1 << 63), 1 << 63)
HEADER: Final = ("key", "step", "timestamp", "value")


def export_run(
    tracker: Tracker,
    id: str,
    folder: Path | str,
    *,
    metrics: Literal["csv", "parquet"] = "csv",
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
        metrics: The format of its points; Parquet needs ``pyarrow``.
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
        MissingDependency: If Parquet is asked for and ``pyarrow`` is not installed.
    """
    if metrics not in _WRITERS:
        raise InvalidInput(f"metrics is {metrics!r}; it may be 'csv' or 'parquet'.")
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
        _WRITERS[metrics](part, _rows(tracker, run))
        for each in files:
            if artifacts and (references or each.uri is None):
                if told is not None:
                    told(each)
                place = part / ARTIFACTS / check_path("artifact", each.name)
                tracker.fetch_artifact(id, each, place)
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
        found: dict[str, Any] = unpack(loose(said["typed_params"]))
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
        "exact": _strict(
            {
                "run": run.model_dump(mode="json", exclude={"owner", "params"}),
                "artifacts": [each.model_dump(mode="json") for each in files],
            }
        ),
    }
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    # Half of a surrogate pair has no bytes in UTF-8; it becomes the escape that JSON has for it.
    write_whole(path, text.encode("utf-8", errors="backslashreplace"))


def _rows(tracker: Tracker, run: RunRecord) -> Iterator[tuple[str, int, int, Number]]:
    for key in run.metrics:
        history = tracker.get_metric_history(run.id, key)
        columns = (history.steps, history.timestamps, history.values)
        plain = (each.tolist() if hasattr(each, "tolist") else each for each in columns)
        yield from ((key, *point) for point in zip(*plain, strict=True))


def _write_csv(folder: Path, points: Iterator[tuple[str, int, int, Number]]) -> None:
    with writing(folder / CSV) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogatepass", newline="")
        rows = csv.writer(text)
        rows.writerow(HEADER)
        rows.writerows((key, step, _time(at), repr(value)) for key, step, at, value in points)
        text.detach()


def _write_parquet(folder: Path, points: Iterator[tuple[str, int, int, Number]]) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415 - only who asks for Parquet needs it
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as exc:
        raise MissingDependency("Parquet", "pyarrow", "pip install 'mlopskit[local]'") from exc
    types = (pa.string(), pa.int64(), pa.timestamp("ms", "UTC"), pa.float64(), pa.string())
    schema = pa.schema(list(zip((*HEADER, "exact"), types, strict=True)))
    with disk_errors(folder), pq.ParquetWriter(folder / PARQUET, schema) as file:
        while some := list(islice(points, ROWS_AT_ONCE)):
            rows = [
                (key, min(max(step, INT64[0]), INT64[-1]), at, _near(value), _exact(step, value))
                for key, step, at, value in some
            ]
            columns = list(zip(*rows, strict=True))
            file.write_table(pa.table([list(each) for each in columns], schema=schema))


_WRITERS: Final = {"csv": _write_csv, "parquet": _write_parquet}


def _near(value: Number) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _exact(step: int, value: Number) -> str | None:
    """Return as JSON what the columns of a Parquet file cannot hold."""
    odd: dict[str, int] = {} if step in INT64 else {"step": step}
    if isinstance(value, int):
        odd["value"] = value
    return json.dumps(odd) if odd else None


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


def loose(value: Any) -> Any:
    """Return JSON with the NaN and infinities that an export writes as mappings."""
    if isinstance(value, list):
        return [loose(each) for each in value]
    if isinstance(value, dict):
        if value.get(MARK) == "float":
            return float(value["v"])
        return {key: loose(each) for key, each in value.items()}
    return value


def _time(ms: int) -> str:
    return datetime.fromtimestamp(int(ms) / 1000, UTC).isoformat(timespec="milliseconds")

"""The events of a view: those in its Parquet files, then those that were pushed to it."""

from __future__ import annotations

import glob
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from mlopskit.errors import InvalidInput, NotFound, StorageError
from mlopskit.features.frames import key_array, microseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mlopskit.features.entities import FeatureView

logger = logging.getLogger(__name__)

ARROW_TYPES: Final = {
    "bool": pa.bool_(),
    "bytes": pa.binary(),
    "date": pa.date32(),
    "float": pa.float64(),
    "int": pa.int64(),
    "str": pa.string(),
    "timestamp": pa.timestamp("us", "UTC"),
}
ARROW_REFUSALS: Final = (
    pa.ArrowInvalid,
    pa.ArrowTypeError,
    pa.ArrowNotImplementedError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class History:
    """Events of one view in the order in which they count: a later place beats an earlier one.

    Attributes:
        keys: The join keys, an array each.
        times: Event times in microseconds since 1970.
        created: When each was written, in microseconds; 0 where that is unknown.
        features: The features that were asked for.
    """

    keys: list[pa.Array]
    times: NDArray[np.int64]
    created: NDArray[np.int64]
    features: pa.Table


def fingerprint(view: FeatureView, source: str | None, revision: int) -> str:
    """Return a digest of what a materialize would read: definition, files and pushes."""
    parts = [view.model_dump_json(), str(revision)]
    for path in [] if source is None else _files(view, source):
        found = path.stat()
        parts.append(f"{path}:{found.st_size}:{found.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read(
    view: FeatureView,
    source: str | None,
    pushed: Sequence[tuple[Any, ...]],
    features: Sequence[str],
) -> History:
    """Read the events of a view.

    Args:
        view: Its definition.
        source: The absolute path of its source.
        pushed: Key, event time, created and values of each pushed event.
        features: The features to read.

    Raises:
        NotFound: If the source is not there.
        InvalidInput: If a column is missing, or of a wrong type.
        StorageError: If a file cannot be read as Parquet.
    """
    if source is None:
        return _ordered(view, _from_pushed(view, pushed, features))
    stored = _from_source(view, source, features)
    if not pushed:
        return _ordered(view, stored)
    return _ordered(view, _together(view, stored, _from_pushed(view, pushed, features)))


def _ordered(view: FeatureView, history: History) -> History:
    if view.created is None:
        return history
    # Stable: of events written at one time, the last one read counts.
    order = np.argsort(history.created, kind="stable")
    return History(
        [key.take(pa.array(order)) for key in history.keys],
        history.times[order],
        history.created[order],
        history.features.take(order),
    )


def _from_source(view: FeatureView, source: str, features: Sequence[str]) -> History:
    what = f"The source of the view {view.name!r}"
    table = _table(view, source, features)
    times = microseconds(table[view.timestamp], f"{what}, column {view.timestamp!r}", up=True)
    created = (
        microseconds(table[view.created], f"{what}, column {view.created!r}", up=True)
        if view.created
        else pa.array(np.zeros(len(table), np.int64))
    )
    keys = [key_array(table[name], f"{what}, column {name!r}") for name in view.entities]
    if lacking := sum(column.null_count for column in (*keys, times)):
        logger.warning("%s has %d null keys or times: such rows are left out.", what, lacking)
        valid = [np.asarray(column.is_valid()) for column in (*keys, times)]
        whole = pa.array(np.logical_and.reduce(valid))
        table, times, created = table.filter(whole), times.filter(whole), created.filter(whole)
        keys = [key.filter(whole) for key in keys]
    return History(
        keys,
        np.asarray(times).astype(np.int64, copy=False),
        np.asarray(created.fill_null(-(2**63))).astype(np.int64, copy=False),
        pa.table({name: _decoded(table[name]) for name in features}),
    )


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def _table(view: FeatureView, source: str, features: Sequence[str]) -> pa.Table:
    created = () if view.created is None else (view.created,)
    names = [*view.entities, *features, view.timestamp, *created]
    folder = source if Path(source).is_dir() else None
    try:
        tables = [_file(view, str(path), folder, names) for path in _files(view, source)]
    except (pa.ArrowException, OSError) as exc:
        raise StorageError(
            f"The source {source} of the view {view.name!r} cannot be read as Parquet: {exc}."
        ) from exc
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as exc:
        raise InvalidInput(
            f"The files of the view {view.name!r} at {source} disagree on a type: {exc}."
        ) from exc


def _file(view: FeatureView, path: str, folder: str | None, names: Sequence[str]) -> pa.Table:
    # Only below a folder that was named does a part such as "year=2024" stand for a column.
    hive = {} if folder is None else {"partitioning": "hive", "partition_base_dir": folder}
    dataset = ds.dataset([path], format="parquet", **hive)
    for name in names:
        if name not in dataset.schema.names:
            raise InvalidInput(
                f"{path}, a source of the view {view.name!r}, lacks the column {name!r}. "
                f"It has: {', '.join(map(repr, dataset.schema.names))}."
            )
    return dataset.to_table(columns=list(names))


def _files(view: FeatureView, source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        found = [p for p in sorted(path.rglob("*.parquet")) if _finished(p.relative_to(path))]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(p) for p in sorted(glob.glob(source, recursive=True)) if Path(p).is_file()]
    if not found:
        raise NotFound(f"Parquet file for the view {view.name!r} at", source)
    return found


def _finished(path: Path) -> bool:
    # Writers of folders put what is not finished under names that begin so.
    return not any(part.startswith((".", "_")) for part in path.parts)


def _from_pushed(
    view: FeatureView, pushed: Sequence[tuple[Any, ...]], features: Sequence[str]
) -> History:
    what = f"What was pushed to {view.name!r}"
    keys = [
        key_array(pa.array([row[0][i] for row in pushed]), f"{what}, join key {name!r}")
        for i, name in enumerate(view.entities)
    ]
    columns = {name: _array(view, name, [row[3].get(name) for row in pushed]) for name in features}
    return History(
        keys,
        np.array([row[1] for row in pushed], np.int64),
        np.array([row[2] for row in pushed], np.int64),
        pa.table(columns),
    )


def _array(view: FeatureView, name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, type=ARROW_TYPES.get(view.dtypes.get(name, "")))
    except ARROW_REFUSALS as exc:
        raise InvalidInput(
            f"The feature {name!r} of the view {view.name!r} holds values of several types among "
            f"what was pushed: {exc}."
        ) from exc


def _together(view: FeatureView, stored: History, pushed: History) -> History:
    keys = []
    for name, first, then in zip(view.entities, stored.keys, pushed.keys, strict=True):
        if first.type != then.type and not (pa.types.is_null(first.type)):
            raise InvalidInput(
                f"The join key {name!r} of the view {view.name!r} is {first.type} in its source, "
                f"and {then.type} in what was pushed to it."
            )
        keys.append(pa.concat_arrays([first.cast(then.type), then]))
    columns = {
        name: _joined(view, name, stored.features[name], pushed.features[name])
        for name in stored.features.column_names
    }
    return History(
        keys,
        np.concatenate([stored.times, pushed.times]),
        np.concatenate([stored.created, pushed.created]),
        pa.table(columns),
    )


def _joined(
    view: FeatureView, name: str, stored: pa.ChunkedArray, pushed: pa.ChunkedArray
) -> pa.ChunkedArray:
    """Put pushed values behind stored ones, in the source's type where they fit it exactly."""
    kind = stored.type
    try:
        suited = _suited(pushed, kind)
        if suited is None:
            kind = pa.float64()
            stored, suited = stored.cast(kind), pushed.cast(kind)
    except ARROW_REFUSALS as exc:
        raise InvalidInput(
            f"The feature {name!r} of the view {view.name!r} is {kind} in its source, and a pushed "
            f"value does not fit: {exc}."
        ) from exc
    return pa.chunked_array([*stored.chunks, *suited.chunks], kind)


def _suited(pushed: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Return pushed values in the type of the source, or None if only floats hold them exactly."""
    if pushed.type == kind:
        return pushed
    if not (_is_number(pushed.type) and _is_number(kind)):
        if not (pa.types.is_null(pushed.type) or _family(pushed.type) == _family(kind)):
            raise pa.ArrowTypeError(f"it is {pushed.type}")
        return pushed.cast(kind)
    try:
        suited = pushed.cast(kind)
    except pa.ArrowInvalid:
        return None
    # A cast to a narrower float rounds in silence.
    there, back = (np.asarray(each.drop_null()) for each in (pushed, suited.cast(pushed.type)))
    return suited if np.array_equal(there, back, equal_nan=True) else None


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _family(kind: pa.DataType) -> str:
    for prefix in ("large_", "fixed_size_"):
        kind = str(kind).removeprefix(prefix)
    return str(kind).partition("[")[0].partition("<")[0].removesuffix("_view")

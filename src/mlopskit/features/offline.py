"""The join of rows to what was known at their time.

DuckDB finds, for each row, the place of the event that answers it; Arrow fetches the values from
those places. So there is one answer per row by construction, and values keep their exact types.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlopskit.errors import BackendError, InvalidInput
from mlopskit.features.frames import TIME
from mlopskit.features.values import MICROSECOND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from mlopskit.features.entities import FeatureView
    from mlopskit.features.rows import Key
    from mlopskit.features.sources import History

# Nothing but the tables handed to it: no files, no network, no extensions.
DUCKDB_CONFIG: Final[dict[str, Any]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
}
NEWEST_AT_OR_BEFORE: Final = """
select row, place from spine asof join {events} as known
on spine.key = known.key and spine.time >= known.time
"""
# Of several events of one key and one time, an as-of join picks any: so they meet it one by one.
LAST_OF_EACH_TIME: Final = "(select key, time, max(place) as place from events group by key, time)"


@contextmanager
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB of one's own: threads and forks never meet in it."""
    try:
        connection = duckdb.connect(":memory:", config=DUCKDB_CONFIG)
        try:
            yield connection
        finally:
            connection.close()
    except duckdb.Error as exc:
        raise BackendError(f"DuckDB could not join the features: {exc}.") from exc


def as_of(
    duck: duckdb.DuckDBPyConnection, view: FeatureView, spine: pa.Table, history: History
) -> pa.Array:
    """Return, for each row of the spine, the place of the event that answers it, or null.

    It is the newest event at or before the row's time and within the view's ttl; among events of
    one key and one time, the last in place.

    Raises:
        InvalidInput: If a join key has another type here than in the history.
    """
    places = np.full(spine.num_rows, -1, np.int64)
    asked, known = _codes(view, spine, history)
    times = np.asarray(spine[TIME].combine_chunks().fill_null(0))
    askable = np.flatnonzero((asked >= 0) & np.asarray(spine[TIME].is_valid()))
    useful = np.flatnonzero(known >= 0)
    if len(askable) and len(useful):
        key, time = known[useful], history.times[useful]
        events = LAST_OF_EACH_TIME if _may_repeat(key, time) else "events"
        found = _query(
            duck,
            NEWEST_AT_OR_BEFORE.format(events=events),
            spine={"row": askable, "key": asked[askable], "time": times[askable]},
            events={"place": useful, "key": key, "time": time},
        )
        rows, answers = found["row"], found["place"]
        if view.ttl is not None:
            alive = times[rows] - history.times[answers] <= view.ttl // MICROSECOND
            rows, answers = rows[alive], answers[alive]
        places[rows] = answers
    return pa.array(places, mask=places < 0)


def newest(
    duck: duckdb.DuckDBPyConnection, history: History, first: int, last: int
) -> NDArray[np.int64]:
    """Return the places of the newest event of each key within a window, in the order of keys."""
    inside = np.flatnonzero((history.times >= first) & (history.times <= last))
    # Stable, so that among events of one time the last in place stays the last.
    inside = inside[np.argsort(history.times[inside], kind="stable")]
    if not len(inside):
        return inside
    keys = _combined([_dense(key) for key in history.keys])[inside]
    found = _query(
        duck,
        "select max(rank) as rank from events group by key",
        events={"rank": np.arange(len(inside)), "key": keys},
    )
    places = inside[found["rank"]]
    names = [str(i) for i in range(len(history.keys))]
    table = pa.table([key.take(pa.array(places)) for key in history.keys], names)
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names])
    ordered: NDArray[np.int64] = places[np.asarray(order)]
    return ordered


def behind(history: History, places: NDArray[np.int64], done: Key | None) -> NDArray[np.int64]:
    """Return the places that stand behind a key; all of them if it is None, or not among them."""
    if done is None:
        return places
    columns = [key.take(pa.array(places)).to_pylist() for key in history.keys]
    keys = list(zip(*columns, strict=True))
    return places[keys.index(done) + 1 :] if done in keys else places


def _codes(
    view: FeatureView, spine: pa.Table, history: History
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number for each key of the spine and of the history; -1 where it cannot match."""
    asked, known = [], []
    for name, theirs in zip(view.entities, history.keys, strict=True):
        ours = spine[name].combine_chunks()
        if pa.types.is_null(ours.type) or pa.types.is_null(theirs.type):
            nobody = np.full(len(ours), -1, np.int64), np.full(len(theirs), -1, np.int64)
            asked.append(nobody[0])
            known.append(nobody[1])
            continue
        if ours.type != theirs.type:
            raise InvalidInput(
                f"The join key {name!r} is {ours.type} in the frame of entities and {theirs.type} "
                f"in the view {view.name!r}. Give both one type."
            )
        values = ours.unique().drop_null()
        asked.append(_index_in(ours, values))
        known.append(_index_in(theirs, values))
    split = spine.num_rows
    both = _combined([np.concatenate(pair) for pair in zip(asked, known, strict=True)])
    return both[:split], both[split:]


def _index_in(column: pa.Array, values: pa.Array) -> NDArray[np.int64]:
    found = pc.index_in(column, value_set=values)
    return np.asarray(found.cast(pa.int64()).fill_null(-1))


def _dense(column: pa.Array) -> NDArray[np.int64]:
    return _index_in(column, column.unique())


def _combined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Number the combinations of several columns of numbers; -1 where any is negative."""
    codes = parts[0]
    for part in parts[1:]:
        # Numbers stay below the count of rows, so that a product of two fits 64 bits.
        pairs = np.where((codes < 0) | (part < 0), -1, codes * (part.max(initial=0) + 1) + part)
        distinct, codes = np.unique(pairs, return_inverse=True)
        codes = codes.reshape(-1) - (1 if len(distinct) and distinct[0] < 0 else 0)
    return codes


def _may_repeat(key: NDArray[np.int64], time: NDArray[np.int64]) -> bool:
    """Tell whether two events may have one key and one time; a false alarm costs only time."""
    # Equal pairs have equal sums; that unequal ones do is rare, whatever overflows.
    mixed = key.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + time.astype(np.uint64)
    mixed.sort()
    return bool((mixed[1:] == mixed[:-1]).any())


def _query(
    duck: duckdb.DuckDBPyConnection, sql: str, **tables: dict[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.int64]]:
    for name, columns in tables.items():
        duck.register(name, pa.table(columns))
    found = duck.sql(sql).to_arrow_table()
    return {name: np.asarray(found[name].combine_chunks()) for name in found.column_names}

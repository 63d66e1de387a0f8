"""From a frame to its profile, in one pass over each column."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import narwhals as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlopskit.errors import InvalidInput
from mlopskit.monitoring.exact import exact_sum
from mlopskit.monitoring.profile import (
    AnyColumn,
    CategoricalColumn,
    NumericColumn,
    OtherColumn,
    Profile,
)
from mlopskit.redaction import REDACTED, Redactor, is_secret_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Groups of a numeric column: a value that fills one of 96 quantiles has a group of its own, 32
# equal steps follow the tails, and a column with at most 64 values is counted value by value.
QUANTILES: Final = 96
STEPS: Final = 32
TAILS: Final = (0.001, 0.002, 0.004, 0.006, 0.994, 0.996, 0.998, 0.999)
FEW_VALUES: Final = 64
CELLS: Final = 8192
# Most values of a categorical column that are counted by name.
MOST_CATEGORIES: Final = 256
LONGEST_VALUE: Final = 128
PLAIN: Final = Redactor()
CATEGORICAL: Final = (nw.String, nw.Categorical, nw.Enum, nw.Boolean, nw.Object)


def profile(
    frame: Any, what: str, like: Profile | None = None, redactor: Redactor = PLAIN
) -> Profile:
    """Return the profile of a frame, in the groups of `like` or in groups of its own.

    A value that is a secret is kept as its digest alone, and none of a column named like one.

    Raises:
        InvalidInput: If it is no frame, or has no rows or no columns.
    """
    opened = _opened(frame, what)
    n = len(opened)
    if not n or not opened.columns:
        raise InvalidInput(
            f"{what} has {n} rows and {len(opened.columns)} columns, so there is nothing to "
            "compare. Give one row at least."
        )
    known = like.columns if like is not None else {}
    # What is not counted in groups of `like` is only noted: there is nothing to compare it with,
    # and groups that every partition chose for itself would not merge.
    columns = {
        name: _column(opened[name], known.get(name), redactor, alone=like is None)
        for name in opened.columns
    }
    return Profile(n=n, columns=columns)


def _opened(frame: Any, what: str) -> nw.DataFrame[Any]:
    try:
        if isinstance(frame, Mapping):
            frame = pa.table({name: np.asarray(values) for name, values in frame.items()})
        elif isinstance(frame, pa.RecordBatch):
            frame = pa.Table.from_batches([frame])
        opened: nw.DataFrame[Any] = nw.from_native(frame, eager_only=True)
        names = opened.columns
    except (TypeError, ValueError, nw.exceptions.NarwhalsError) as exc:
        raise InvalidInput(
            f"{what} is a {type(frame).__name__} that cannot be read as a frame ({exc}). Give a "
            "pandas or polars DataFrame, a pyarrow Table, or a mapping of names to arrays of one "
            "length and one dimension; collect a lazy frame first."
        ) from exc
    odd = [name for name in cast("list[object]", names) if not isinstance(name, str)]
    if odd:
        raise InvalidInput(f"{what} has the column {odd[0]!r}: the names of columns must be text.")
    if len(set(names)) < len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise InvalidInput(f"{what} has several columns of the name {twice[0]!r}.")
    return opened


def _column(
    series: nw.Series[Any], like: AnyColumn | None, redactor: Redactor, *, alone: bool
) -> AnyColumn:
    dtype = series.dtype
    nulls = int(series.null_count())
    rows = {"dtype": str(dtype), "n": len(series), "nulls": nulls}
    if nulls == len(series):
        return _without_values(rows, like)
    if dtype.is_numeric() and (alone or isinstance(like, NumericColumn)):
        values = _floats(series.drop_nulls() if nulls else series)
        nans = np.isnan(values)
        missing = int(np.count_nonzero(nans))
        rows["nans"] = missing
        if missing == len(values):
            return _without_values(rows, like)
        grid = like if isinstance(like, NumericColumn) else None
        return _numeric(values[~nans] if missing else values, rows, grid)
    if is_secret_key(series.name):
        return OtherColumn(**rows)
    if dtype in CATEGORICAL and (alone or isinstance(like, CategoricalColumn)):
        grid_of_values = like if isinstance(like, CategoricalColumn) else None
        return _categorical(_counted(series, nulls), rows, grid_of_values, redactor)
    return OtherColumn(**rows)


def _without_values(rows: dict[str, Any], like: AnyColumn | None) -> AnyColumn:
    """Return a column in which every value is missing: it is of the type that was expected."""
    if isinstance(like, NumericColumn):
        empty = (0,) * len(like.counts)
        rows["dtype"] = like.dtype
        return NumericColumn(**rows, edges=like.edges, counts=empty, centre=like.centre)
    if isinstance(like, CategoricalColumn):
        rows["dtype"] = like.dtype
        return CategoricalColumn(
            **rows, counts=dict.fromkeys(like.counts, 0), complete=like.complete
        )
    return OtherColumn(**rows)


def _floats(series: nw.Series[Any]) -> Floats:
    values: NDArray[Any] = series.to_numpy()
    if values.dtype == object:
        values = np.array([float(value) for value in values])
    return values.astype(np.float64, copy=False)


def _numeric(values: Floats, rows: dict[str, Any], like: NumericColumn | None) -> NumericColumn:
    infinite = np.isinf(values)
    finite = values[~infinite] if infinite.any() else values
    edges = np.array(like.edges) if like is not None else make_edges(finite)
    centre = like.centre if like is not None else _centre(finite)
    places = places_of(values, edges)
    with np.errstate(over="ignore"):
        squares = np.square(finite - centre)
    exact = bool(np.isfinite(squares).all())
    return NumericColumn(
        **rows,
        edges=tuple(edges.tolist()),
        counts=tuple(np.bincount(places, minlength=len(edges) + 1).tolist()),
        centre=centre,
        positive_infinities=int(np.count_nonzero(values == np.inf)),
        negative_infinities=int(np.count_nonzero(values == -np.inf)),
        minimum=float(finite.min()) if len(finite) else None,
        maximum=float(finite.max()) if len(finite) else None,
        total=exact_sum(finite),
        squares=exact_sum(squares) if exact else None,
    )


def places_of(values: Floats, edges: Floats) -> NDArray[np.intp]:
    """Return for each value how many edges lie below it: `searchsorted`, several times as fast.

    Equal cells are looked up in a table. The cell of a value never falls as the value grows, so
    that only values that share their cell with an edge have to be searched for.
    """
    low, high = edges[len(edges) // 50], edges[-1 - len(edges) // 50]
    with np.errstate(over="ignore"):
        scale = CELLS / (high - low) if high > low else 0.0
    if len(values) < CELLS or not 0.0 < scale < np.inf:
        return np.searchsorted(edges, values, side="left")
    cells_of_edges = _cells(edges, low, scale)
    below = np.searchsorted(cells_of_edges, np.arange(CELLS), side="left")
    shared = np.zeros(CELLS, dtype=bool)
    shared[cells_of_edges] = True
    cells = _cells(values, low, scale)
    places = below[cells]
    unclear = np.flatnonzero(shared[cells])
    places[unclear] = np.searchsorted(edges, values[unclear], side="left")
    return places


def _cells(values: Floats, low: float, scale: float) -> NDArray[np.int64]:
    with np.errstate(over="ignore"):
        return np.clip((values - low) * scale, 0, CELLS - 1).astype(np.int64)


def make_edges(finite: Floats) -> Floats:
    """Return the edges that a reference's finite values give to its column.

    The values are an array of shape (n,), in any order.
    """
    ordered = np.sort(finite)
    if not len(ordered):
        return np.array([0.0])
    is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    distinct = ordered[is_first]
    if len(distinct) <= FEW_VALUES:
        return _with_value_below(distinct, distinct)
    quantiles = ordered[np.arange(1, QUANTILES + 1) * (len(ordered) - 1) // QUANTILES]
    heavy = quantiles[1:][quantiles[1:] == quantiles[:-1]]
    tails = ordered[(np.array(TAILS) * (len(ordered) - 1)).astype(np.intp)]
    low, high = ordered[0], ordered[-1]
    way = np.linspace(0.0, 1.0, STEPS + 1)
    steps = low * (1.0 - way) + high * way
    return _with_value_below(np.concatenate([quantiles, tails, steps]), np.append(heavy, low))


def _with_value_below(edges: Floats, alone: Floats) -> Floats:
    """Return the edges in order, with one right below every value that has a group of its own."""
    with np.errstate(over="ignore"):  # There is nothing below the lowest float.
        below = np.nextafter(alone, -np.inf)
    found: Floats = np.unique(np.concatenate([edges, below])) + 0.0
    return found[np.isfinite(found)]  # -0.0 becomes 0.0


def _centre(finite: Floats) -> float:
    return float(np.partition(finite, len(finite) // 2)[len(finite) // 2]) if len(finite) else 0.0


def _counted(series: nw.Series[Any], nulls: int) -> dict[str, int]:
    try:
        array = (series.drop_nulls() if nulls else series).to_arrow()
        if pa.types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        if not pa.types.is_boolean(array.type):
            array = array.cast(pa.large_string())
        counted = pc.value_counts(array)
        pairs = zip(
            counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        values = Counter(map(_shown, series.drop_nulls().to_list()))
        pairs = zip(values.keys(), values.values(), strict=True)
    found: dict[str, int] = {}
    for value, count in pairs:
        name = short(value if isinstance(value, str) else _shown(value))
        found[name] = found.get(name, 0) + count
    return found


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def short(value: str) -> str:
    """Return a value as it is kept: a long one as its beginning and its digest.

    What is no Unicode (a lone surrogate) is escaped, since JSON could not carry it.
    """
    value = value.encode("utf-8", "backslashreplace").decode()
    if len(value) <= LONGEST_VALUE:
        return value
    return f"{value[:100]}... (sha256:{hashlib.sha256(value.encode()).hexdigest()[:16]})"


def _categorical(
    found: dict[str, int],
    rows: dict[str, Any],
    like: CategoricalColumn | None,
    redactor: Redactor,
) -> CategoricalColumn | OtherColumn:
    present = sum(found.values())
    if like is not None:
        if any(value.startswith(REDACTED) for value in like.counts):
            found = {_public(value, redactor): count for value, count in found.items()}
        counts = {value: found.get(value, 0) for value in like.counts}
        rest = present - sum(counts.values())
        return CategoricalColumn(**rows, counts=counts, other=rest, complete=like.complete)
    if len(found) > MOST_CATEGORIES and 2 * len(found) > present:
        return OtherColumn(**rows)
    ordered = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    kept = {_public(value, redactor): count for value, count in ordered[:MOST_CATEGORIES]}
    rest = present - sum(kept.values())
    return CategoricalColumn(**rows, counts=kept, other=rest, complete=not rest)


def _public(value: str, redactor: Redactor) -> str:
    """Return a value as it may be stored: a secret as its digest, which still tells it apart."""
    if redactor.text(value) == value:
        return value
    return f"{REDACTED} (sha256:{hashlib.sha256(value.encode()).hexdigest()[:16]})"

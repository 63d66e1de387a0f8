"""Frames of any kind, through narwhals into Arrow and back again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import narwhals as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlopskit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TIME: Final = "__time"
UTC_MICROSECONDS: Final = pa.timestamp("us", "UTC")

Frame = nw.DataFrame[Any]


def opened(frame: Any) -> Frame:
    """Return a frame as narwhals sees it.

    Raises:
        InvalidInput: If it is no frame, is lazy, or has two columns of one name.
    """
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    try:
        found: Frame = nw.from_native(frame, eager_only=True)
        names = found.columns
    except ValueError as exc:
        raise InvalidInput(f"The frame cannot be read: {exc}") from exc
    except TypeError as exc:
        raise InvalidInput(
            f"A {type(frame).__name__} is no frame that can be read here. Give a pandas or polars "
            "DataFrame or a pyarrow Table; collect a lazy one first."
        ) from exc
    if len(set(names)) < len(names):
        raise InvalidInput(f"The frame has two columns of one name: {names}.")
    return found


def spine(frame: Frame, keys: Iterable[str], timestamp: str) -> pa.Table:
    """Return the join keys and the times of the rows, times rounded down to the microsecond.

    Raises:
        InvalidInput: If a column is missing, or has a type that cannot be joined.
    """
    what = "The frame of entities"
    table = _arrow(frame, [*keys, timestamp], what)
    columns = {key: key_array(table[key], f"{what}, column {key!r}") for key in keys}
    columns[TIME] = microseconds(table[timestamp], f"{what}, column {timestamp!r}")
    return pa.table(columns)


def joined(frame: Frame, table: pa.Table) -> Any:
    """Return the frame, in its own type, with the columns of an Arrow table after its own."""
    namespace = nw.get_native_namespace(frame)
    if frame.implementation.is_pandas():
        # narwhals has no way to say how nulls among ints and bools should look in pandas.
        native = frame.to_native()
        added = [_pandas(column, namespace, native.index) for column in table.columns]
        pieces = dict(zip(table.column_names, added, strict=True))
        return namespace.concat([native, namespace.DataFrame(pieces, index=native.index)], axis=1)
    right = nw.from_arrow(table, backend=frame.implementation)
    return nw.concat([frame, right], how="horizontal").to_native()


def columns(
    given: Any, names: Sequence[str], what: str, times: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Return columns of a frame as lists of plain values; those of `times` in microseconds.

    Raises:
        InvalidInput: If it is no frame, or a column is missing or cannot be read.
    """
    table = _arrow(opened(given), names, what)
    found = {}
    for name in names:
        where = f"{what}, column {name!r}"
        if name in times:
            found[name] = microseconds(table[name], where, up=True).to_pylist()
        else:
            found[name] = plain(table[name], where)
    return found


def plain(column: pa.ChunkedArray | pa.Array, what: str) -> list[Any]:
    """Return a column as Python values; times become aware ones in UTC.

    Raises:
        InvalidInput: If a time is finer than a microsecond.
    """
    if pa.types.is_timestamp(column.type):
        try:
            column = column.cast(pa.timestamp("us", column.type.tz))
        except pa.ArrowInvalid as exc:
            raise InvalidInput(f"{what}: times must be whole microseconds: {exc}.") from exc
        column = column.cast(pa.int64()).cast(UTC_MICROSECONDS)
    values: list[Any] = column.to_pylist()
    return values


def microseconds(
    column: pa.ChunkedArray | pa.Array, what: str, *, up: bool = False
) -> pa.ChunkedArray | pa.Array:
    """Return times as int64 microseconds since 1970; naive ones are UTC.

    Nanoseconds are rounded up for events and down for the rows that look at them, so that rounding
    never shows a row what came after it.

    Raises:
        InvalidInput: If the column holds no times, or times out of range.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return column.cast(pa.int64())
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("us")).cast(pa.int64())
    if not pa.types.is_timestamp(kind):
        raise InvalidInput(
            f"{what}: the type is {kind}, which is no time. Give timestamps or dates."
        )
    if kind.unit != "ns":
        try:
            return column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
        except pa.ArrowInvalid as exc:
            raise InvalidInput(f"{what}: a time is out of range: {exc}.") from exc
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    counts = np.asarray(column.cast(pa.int64()).fill_null(0))
    rounded = -(-counts // 1000) if up else counts // 1000
    return pa.array(rounded, mask=np.asarray(column.is_null()))


def key_array(column: pa.ChunkedArray | pa.Array, what: str) -> pa.Array:
    """Return a column of join keys as one array of int64, text or bool.

    Raises:
        InvalidInput: If it holds anything else: floats with fractions, times, lists.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    try:
        if pa.types.is_floating(kind):
            # pandas turns a column of ints with a gap into floats, and the gap into NaN.
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
            return column.cast(pa.int64())
        if pa.types.is_integer(kind):
            return column.cast(pa.int64())
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
            return column.cast(pa.string())
    except pa.ArrowInvalid as exc:
        raise InvalidInput(f"{what}: a value cannot be a key: {exc}.") from exc
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column
    raise InvalidInput(
        f"{what}: the type is {kind}. A key is text, a bool, or an integer of 64 bits."
    )


def _arrow(frame: Frame, names: Sequence[str], what: str) -> pa.Table:
    for name in names:
        if name not in frame.columns:
            raise InvalidInput(
                f"{what} lacks the column {name!r}. It has: "
                f"{', '.join(map(repr, frame.columns)) or 'none'}."
            )
    frame = frame.select(list(dict.fromkeys(names)))
    if frame.implementation.is_pandas_like():
        frame = _without_zones(frame)
    try:
        return frame.to_arrow()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as exc:
        raise InvalidInput(f"{what} has a column of mixed or unknown types: {exc}.") from exc


def _without_zones(frame: Frame) -> Frame:
    # On its way to Arrow, pandas 3.1 warns about every time with a zone. Naive ones are UTC here.
    zoned = [
        nw.col(name).dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        for name, dtype in frame.schema.items()
        if isinstance(dtype, nw.Datetime) and dtype.time_zone is not None
    ]
    return frame.with_columns(*zoned) if zoned else frame


def _pandas(column: pa.ChunkedArray, pandas: Any, index: Any) -> Any:
    types = {pa.bool_(): pandas.BooleanDtype()}
    for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"):
        types[getattr(pa, name.lower())()] = getattr(pandas, f"{name}Dtype")()
    # A plain int64 with a gap would become a float, and lose what does not fit one.
    series = column.to_pandas(types_mapper=types.get if column.null_count else None)
    series.index = index
    return series

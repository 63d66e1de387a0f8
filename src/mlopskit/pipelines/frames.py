"""Arrays and tables as bytes: NumPy's own format, and Arrow's.

Nothing is imported here that the value's own library has not imported already. What would not
come back equal is refused with the reason, so that a cached step never returns something else.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa

NUMPY_KINDS: Final = "biufcSUmMV"
LONGEST_HEADER: Final = 1 << 20
# What Arrow's own pandas metadata leaves out.
FREQUENCY: Final = b"mlopskit.frequency"
UNNAMED: Final = b"mlopskit.unnamed"


def to_bytes(value: Any) -> tuple[str, bytes] | str | None:
    """Return a value's kind and bytes; the reason if they would not be exact; None if unknown."""
    kind = _kind(value)
    if kind is None:
        return None
    try:
        if kind.startswith("numpy"):
            return _array_reason(value) or (kind, _array_bytes(value))
        if kind.startswith("polars"):
            return kind, _polars_bytes(value)
        if kind.startswith("pyarrow"):
            return kind, _arrow_bytes(value)
        return _pandas(kind, value)
    except Exception as exc:  # noqa: BLE001 - libraries raise what they like about odd contents
        return f"{type(exc).__name__}: {exc}"


def is_mutable(value: Any) -> bool:
    """Tell whether a value is an array or a frame that can be changed in place, and has `copy`."""
    return _kind(value) in ("numpy.ndarray", "pandas.DataFrame", "pandas.Series")


def from_bytes(kind: str, content: bytes) -> Any:
    """Return the value of which `to_bytes` made these."""
    if kind.startswith("numpy"):
        import numpy as np  # noqa: PLC0415 - only values that need it

        array = np.lib.format.read_array(
            io.BytesIO(content), allow_pickle=False, max_header_size=LONGEST_HEADER
        )
        return array[()] if kind == "numpy.generic" else array
    if kind.startswith("polars"):
        import polars as pl  # noqa: PLC0415 - only values that need it

        frame = pl.read_ipc(io.BytesIO(content))
        return frame.to_series() if kind == "polars.Series" else frame
    import pyarrow as pa  # noqa: PLC0415 - only values that need it

    with pa.ipc.open_stream(content) as reader:
        table = reader.read_all()
    return table if kind == "pyarrow.Table" else _pandas_value(kind, table)


def _kind(value: Any) -> str | None:
    """Name the kind of value, looking only at libraries that are imported."""
    kind = type(value)
    if (numpy := sys.modules.get("numpy")) is not None:
        if kind is numpy.ndarray:
            return "numpy.ndarray"
        if isinstance(value, numpy.generic):
            return "numpy.generic"
    for library, name in [
        ("pandas", "DataFrame"),
        ("pandas", "Series"),
        ("polars", "DataFrame"),
        ("polars", "Series"),
        ("pyarrow", "Table"),
    ]:
        module = sys.modules.get(library)
        # A library that is still being imported by another thread has no such name yet.
        if module is not None and kind is getattr(module, name, None):
            return f"{library}.{name}"
    return None


def _array_reason(value: np.ndarray[Any, Any] | np.generic) -> str:
    import numpy as np  # noqa: PLC0415 - the value is NumPy's, so it is imported already

    dtype = value.dtype
    if dtype.hasobject:
        return f"its dtype {dtype} holds Python objects"
    if dtype.kind not in NUMPY_KINDS or dtype.metadata:
        return f"its dtype {dtype} is not kept by NumPy's file format"
    if np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) != dtype:
        return f"its dtype {dtype} is not kept by NumPy's file format"
    return ""


def _array_bytes(value: Any) -> bytes:
    import numpy as np  # noqa: PLC0415 - the value is NumPy's, so it is imported already

    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(value), allow_pickle=False)
    return buffer.getvalue()


def _polars_bytes(value: pl.DataFrame | pl.Series) -> bytes:
    import polars as pl  # noqa: PLC0415 - the value is Polars', so it is imported already

    frame = value.to_frame() if isinstance(value, pl.Series) else value
    buffer = io.BytesIO()
    frame.write_ipc(buffer, compression="zstd")
    return buffer.getvalue()


def _arrow_bytes(table: pa.Table) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - only values that need it

    buffer = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(buffer, table.schema, options=options) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def _pandas(kind: str, value: Any) -> tuple[str, bytes] | str:
    try:
        import pyarrow as pa  # noqa: PLC0415 - only values that need it
    except ImportError:
        return "pyarrow is not installed; pip install 'mlopskit[local]'"
    table = pa.Table.from_pandas(value.to_frame() if kind == "pandas.Series" else value)
    metadata = dict(table.schema.metadata or {})
    # The frequency of a period is part of its type, and travels with it.
    if type(value.index).__name__ != "PeriodIndex" and getattr(value.index, "freqstr", None):
        metadata[FREQUENCY] = value.index.freqstr.encode()
    if kind == "pandas.Series" and value.name is None:
        metadata[UNNAMED] = b"yes"
    table = table.replace_schema_metadata(metadata)
    content = _arrow_bytes(table)
    back = from_bytes(kind, content)
    if not _same(value, back):
        return "Arrow would change its types or its index"
    return kind, content


def _pandas_value(kind: str, table: pa.Table) -> Any:
    frame = table.to_pandas()
    metadata = table.schema.metadata or {}
    if FREQUENCY in metadata:
        frame.index.freq = metadata[FREQUENCY].decode()
    if kind == "pandas.DataFrame":
        return frame
    series = frame.iloc[:, 0]
    series.attrs = frame.attrs
    return series.rename(None) if UNNAMED in metadata else series


def _same(one: Any, other: Any) -> bool:
    for mine, theirs in [(one.index, other.index), (one.axes[-1], other.axes[-1])]:
        if _axis(mine) != _axis(theirs) or not mine.equals(theirs):
            return False
        if mine.dtype != theirs.dtype or list(mine.names) != list(theirs.names):
            return False
        if getattr(mine, "freq", None) != getattr(theirs, "freq", None):
            return False
    return bool(_types(one) == _types(other) and one.attrs == other.attrs and one.equals(other))


def _axis(index: Any) -> str:
    """Name a kind of index; a range that comes back written out holds the same labels."""
    name = type(index).__name__
    return "Index" if name == "RangeIndex" else name


def _types(value: Any) -> list[Any]:
    return list(value.dtypes) if value.ndim == 2 else [value.dtype, value.name]

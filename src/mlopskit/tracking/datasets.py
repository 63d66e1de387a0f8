"""What data a run was given: its fingerprint, its columns and its size, never the data itself.

The fingerprint is SHA-256 over the columns in a canonical form, so that a frame of pandas, polars
or pyarrow with equal content has an equal one: the name and the type of each column, the places of
its nulls, and its values (ints and bools as 64 bits, floats as 64 bits with one NaN, times in
nanoseconds UTC, texts in UTF-8 with their lengths, all little-endian). The order of columns and
rows counts; an index of pandas does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.names import check_label
from mlopskit.storage import check_digest, digest_of
from mlopskit.tracking.entities import Dataset

if TYPE_CHECKING:
    from mlopskit.redaction import Redactor

TAKEN: Final = (
    "a frame of pandas, polars or pyarrow, arrays of NumPy, a list of mappings, a mapping of "
    "columns, or the path of a file or folder"
)


def describe(
    data: Any, name: str, *, role: str, uri: str | None, digest: str, redactor: Redactor
) -> Dataset:
    """Return what a run remembers of data.

    Args:
        data: As `TAKEN` says; None where only its address is known.
        name: What the run calls it.
        role: What it is for.
        uri: Where it lies.
        digest: Of its content, where `data` is None.
        redactor: Removes the secrets in names and addresses.

    Raises:
        InvalidInput: If it is none of these, or a digest is given beside data.
        InvalidName: If a name cannot be kept.
        MissingDependency: If tables are given and what reads them is not installed.
    """
    clean = redactor.text
    found: dict[str, Any]
    if data is None:
        if uri is None:
            raise InvalidInput("Data that is not given needs the uri where it lies.")
        found = {"source": "uri", "digest": check_digest(digest) if digest else ""}
    elif digest:
        raise InvalidInput("The digest of data that is given is found here; leave it out.")
    elif isinstance(data, str | PathLike):
        found = _of_path(Path(data))
    else:
        found = _of_table(data)
    found["columns"] = tuple((clean(each), kind) for each, kind in found.get("columns", ()))
    return Dataset(
        name=clean(check_label("dataset", name)),
        role=clean(check_label("role", role)),
        uri=None if uri is None else clean(uri),
        **found,
    )


def _of_path(path: Path) -> dict[str, Any]:
    if path.is_file():
        return {"source": "file", "digest": digest_of(path)}
    if not path.is_dir():
        raise InvalidInput(f"There is no file or folder {str(path)!r} to take a fingerprint of.")
    hasher = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        hasher.update(f"{file.relative_to(path).as_posix()}\0{digest_of(file)}\n".encode())
    return {"source": "folder", "digest": f"sha256:{hasher.hexdigest()}"}


def _of_table(data: Any) -> dict[str, Any]:
    try:
        import narwhals.stable.v1 as nw  # noqa: PLC0415 - the core reads no tables
        import numpy as np  # noqa: F401, PLC0415 - likewise
        import pyarrow as pa  # noqa: PLC0415 - likewise
    except ImportError as exc:
        raise MissingDependency(
            "the fingerprint of a table", str(exc.name), "pip install 'mlopskit[local]'"
        ) from exc
    source = type(data).__module__.partition(".")[0]
    try:
        if source not in ("pandas", "polars", "pyarrow"):
            source, data = _tabular(data)
        if source == "pandas":
            data = data.reset_index(drop=True)
            data = data.set_axis([str(each) for each in data.columns], axis=1)
        table = data if isinstance(data, pa.Table) else _arrow(nw, data)
    except (pa.ArrowException, TypeError, ValueError) as exc:
        raise InvalidInput(f"This has no fingerprint ({exc}). Pass {TAKEN}.") from exc
    hasher = hashlib.sha256()
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = _hash_column(hasher, name, column)
        columns.append((name, kind))
    return {
        "source": source,
        "digest": f"sha256:{hasher.hexdigest()}",
        "rows": table.num_rows,
        "columns": tuple(columns),
    }


def _arrow(nw: Any, data: Any) -> Any:
    frame = nw.from_native(data)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    return frame.to_arrow()


def _tabular(data: Any) -> tuple[str, Any]:
    """Return plain data as a table of pyarrow, and what it was."""
    import numpy as np  # noqa: PLC0415 - seen to be there
    import pyarrow as pa  # noqa: PLC0415 - seen to be there

    if hasattr(data, "detach"):  # torch
        data = data.detach().cpu().numpy()
    if isinstance(data, np.ndarray):
        flat = data.reshape(len(data), -1) if data.ndim else data.reshape(1, 1)
        return "numpy", pa.table({str(at): flat[:, at] for at in range(flat.shape[1])})
    if isinstance(data, Mapping):
        flats = {str(key): _column(each) for key, each in data.items()}
        return "columns", pa.table(flats)
    if isinstance(data, Sequence) and not isinstance(data, bytes):
        if not all(isinstance(row, Mapping) for row in data):
            raise TypeError("its rows are no mappings")
        keys = dict.fromkeys(key for row in data for key in row)
        return "rows", pa.table({str(key): [row.get(key) for row in data] for key in keys})
    raise TypeError(f"it is a {type(data).__name__}")


def _column(values: Any) -> Any:
    if getattr(values, "ndim", 1) != 1:
        return [row.tobytes() for row in values]
    return values


def _hash_column(hasher: Any, name: str, column: Any) -> str:
    """Add one column, and return its type in a word."""
    import numpy as np  # noqa: PLC0415 - seen to be there
    import pyarrow as pa  # noqa: PLC0415 - seen to be there
    import pyarrow.compute as pc  # noqa: PLC0415 - seen to be there

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind, array = _canonical(array)
    hasher.update(f"{len(name.encode())}:".encode() + name.encode() + f":{kind}:".encode())
    nulls = array.is_null()
    hasher.update(np.packbits(nulls.to_numpy(zero_copy_only=False)).tobytes())
    if kind == "text":
        filled = array.fill_null("")
        lengths = pc.binary_length(filled).to_numpy(zero_copy_only=False).astype("<i8")
        hasher.update(lengths.tobytes())
        hasher.update(_joined(filled))
    elif kind == "null":
        hasher.update(str(len(array)).encode())
    elif kind == "other":
        for each in array.to_pylist():
            text = repr(each).encode()
            hasher.update(f"{len(text)}:".encode() + text)
    else:
        values = array.fill_null(0).to_numpy(zero_copy_only=False)
        if kind == "float":
            values = np.where(np.isnan(values), np.nan, values)
        hasher.update(values.astype("<f8" if kind == "float" else "<i8", copy=False).tobytes())
    return kind


def _canonical(array: Any) -> tuple[str, Any]:
    """Return the type of a column in a word, and the column in the form that is hashed."""
    import pyarrow as pa  # noqa: PLC0415 - seen to be there
    import pyarrow.compute as pc  # noqa: PLC0415 - seen to be there

    types, held = pa.types, array.type
    kind, form = "other", array
    if types.is_null(held):
        kind = "null"
    elif types.is_boolean(held):
        kind, form = "bool", array.cast(pa.int8()).cast(pa.int64())
    elif types.is_uint64(held) and len(array) and (pc.max(array).as_py() or 0) >> 63:
        pass
    elif types.is_integer(held):
        kind, form = "int", array.cast(pa.int64())
    elif types.is_floating(held):
        # What pandas has as a NaN, polars and pyarrow may have as a null.
        floats = array.cast(pa.float64())
        kind, form = "float", pc.if_else(pc.is_nan(floats), pa.scalar(None, pa.float64()), floats)
    elif types.is_string(held) or types.is_large_string(held) or types.is_string_view(held):
        kind, form = "text", array.cast(pa.large_string())
    elif types.is_timestamp(held):
        kind, form = "datetime", array.cast(pa.timestamp("ns", held.tz)).cast(pa.int64())
    elif types.is_date(held):
        kind, form = "date", array.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
    elif types.is_duration(held):
        kind, form = "duration", array.cast(pa.duration("ns")).cast(pa.int64())
    return kind, form


def _joined(array: Any) -> Any:
    """Return the bytes of all texts of a large-string array, one behind the other."""
    _, offsets, content = array.buffers()
    if content is None or len(array) == 0:
        return b""
    import numpy as np  # noqa: PLC0415 - seen to be there

    places = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return memoryview(content)[int(places[0]) : int(places[-1])]

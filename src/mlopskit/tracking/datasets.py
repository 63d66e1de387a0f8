"""What data a run was given: its fingerprint, its columns and its size, never the data itself.

The fingerprint is SHA-256 over the columns in a canonical form, so that a frame of pandas, polars
or pyarrow with equal content has an equal one: the numbers of columns and rows; then the name and
the type of each column, the places of its nulls, and its values, all little-endian. Integers of any
width are 64 bits, floats are 64 bits, times are nanoseconds UTC (microseconds where a column
reaches beyond the years 1677 to 2262), texts are UTF-8 with their lengths, categories are their
values, and lists and structs are what they hold. The order of columns and rows counts.

- A NaN is a null: pandas cannot tell them apart. For the same reason a column of ints with nulls
  differs between pandas, which holds floats unless told otherwise, and the other two.
- The index of a pandas frame does not count.
- Arrays of more than two dimensions, or wider than 256 columns, are one column, of which the type,
  the shape and the bytes count.
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
    from collections.abc import Callable
    from decimal import Decimal

    from mlopskit.redaction import Redactor

WIDEST: Final = 256
_FIXED: Final = {"bool": "<i1", "float": "<f8"}
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
    fingerprint = _Fingerprint()
    try:
        source, columns = _columns(fingerprint, data)
    except Exception as exc:  # Whatever a library raises for a frame that Arrow cannot hold.
        raise InvalidInput(f"This has no fingerprint ({exc}). Pass {TAKEN}.") from exc
    names = [name for name, _ in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"Two columns are called {twice[0]!r}.")
    lengths = sorted({len(column) for _, column in columns})
    if len(lengths) > 1:
        raise InvalidInput(f"The columns are of unequal length: {lengths}.")
    rows = lengths[0] if lengths else 0
    fingerprint.text(f"{len(columns)} {rows}")
    found = []
    for name, column in columns:
        fingerprint.text(name)
        found.append((name, fingerprint.column(column)))
    return {"source": source, "digest": fingerprint.digest, "rows": rows, "columns": tuple(found)}


def _columns(tools: _Fingerprint, data: Any) -> tuple[str, list[tuple[str, Any]]]:
    """Return what data is, and its columns: arrays of pyarrow; tensors are arrays of NumPy."""
    pa, np = tools.pa, tools.np
    source = _library(data)
    if source in ("pandas", "polars", "pyarrow"):
        return source, _of_frame(tools, data)
    data = _array(data)
    if isinstance(data, np.ndarray):
        if data.ndim > 2 or (data.ndim == 2 and data.shape[1] > WIDEST):
            return "numpy", [("0", data)]
        flat = data.reshape(-1, 1) if data.ndim < 2 else data
        return "numpy", [(str(at), pa.array(flat[:, at])) for at in range(flat.shape[1])]
    if isinstance(data, Mapping):
        return "columns", [(str(key), _column(tools, each)) for key, each in data.items()]
    if isinstance(data, Sequence) and not isinstance(data, bytes):
        if not all(isinstance(row, Mapping) for row in data):
            raise TypeError("its rows are no mappings")
        keys = dict.fromkeys(key for row in data for key in row)
        return "rows", [(str(key), pa.array([row.get(key) for row in data])) for key in keys]
    raise TypeError(f"it is a {type(data).__name__}")


def _of_frame(tools: _Fingerprint, data: Any) -> list[tuple[str, Any]]:
    if hasattr(data, "iloc"):
        if not hasattr(data, "columns"):
            raise TypeError(f"a {type(data).__name__} is no frame")
        data = data.reset_index(drop=True)
        data = data.set_axis([str(each) for each in data.columns], axis=1)
    if not isinstance(data, tools.pa.Table | tools.pa.RecordBatch):
        frame = tools.nw.from_native(data)
        if isinstance(frame, tools.nw.LazyFrame):
            frame = frame.collect()
        objects = [name for name, kind in frame.schema.items() if kind == tools.nw.Object]
        if objects and not hasattr(data, "iloc"):
            raise TypeError(f"the column {objects[0]!r} holds objects")
        data = frame.to_arrow()
    return list(zip(data.schema.names, data.columns, strict=True))


def _column(tools: _Fingerprint, values: Any) -> Any:
    values = _array(values)
    if isinstance(values, tools.np.ndarray) and values.ndim > 1:
        return values
    if _library(values) == "polars":
        return values.to_arrow()
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise TypeError(f"a {type(values).__name__} is no column")
    return tools.pa.array(values, from_pandas=_library(values) == "pandas" or None)


def _array(values: Any) -> Any:
    """Return a tensor of torch as an array of NumPy, and anything else as it is."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


class _Fingerprint:
    """A hash of columns, and the libraries that read them.

    Raises:
        MissingDependency: If one of these is not installed.
    """

    def __init__(self) -> None:
        try:
            import narwhals.stable.v1 as nw  # noqa: PLC0415 - the core reads no tables
            import numpy as np  # noqa: PLC0415 - likewise
            import pyarrow as pa  # noqa: PLC0415 - likewise
            import pyarrow.compute as pc  # noqa: PLC0415 - likewise
        except ImportError as exc:
            package = str(exc.name).partition(".")[0]
            raise MissingDependency(
                "the fingerprint of a table", package, "pip install 'mlopskit[local]'"
            ) from exc
        self.nw, self.np, self.pa, self.pc = nw, np, pa, pc
        self._hasher = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hasher.hexdigest()}"

    def text(self, text: str) -> None:
        """Add a text and its length, so that no two sequences of texts add the same bytes."""
        content = text.encode("utf-8", "surrogatepass")
        self._hasher.update(len(content).to_bytes(8, "little") + content)

    def column(self, column: Any) -> str:
        """Add a column, and return its type in a word."""
        if isinstance(column, self.np.ndarray):
            return self._tensor(column)
        if isinstance(column, self.pa.ChunkedArray):
            chunks = column.chunks or [self.pa.array([], column.type)]
            column = self.pa.concat_arrays(chunks)
        return self._values(column)

    def _tensor(self, array: Any) -> str:
        if array.dtype.hasobject:
            raise InvalidInput(f"An array of {array.dtype} of shape {array.shape} has no digest.")
        kind = f"{array.dtype.name}[{', '.join(map(str, array.shape[1:]))}]"
        self.text(f"{kind} {len(array)}")
        whole = self.np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        self._hasher.update(whole.reshape(-1).view(self.np.uint8).data)
        return kind

    def _values(self, array: Any) -> str:
        """Add an array of pyarrow, and return its type in a word."""
        types, pa = self.pa.types, self.pa
        while types.is_dictionary(array.type) or isinstance(array.type, pa.BaseExtensionType):
            dictionary = types.is_dictionary(array.type)
            array = array.dictionary_decode() if dictionary else array.storage
        kind, form = self._canonical(array)
        self.text(f"{kind} {len(array)}")
        nulls = form.is_null().to_numpy(zero_copy_only=False)
        self._hasher.update(self.np.packbits(nulls).data)
        if kind == "list":
            self._hasher.update(self._fixed(self.pc.list_value_length(form), "<i8"))
            return f"list[{self._values(form.flatten())}]"
        if kind == "struct":
            for field, child in zip(form.type, form.flatten(), strict=True):
                self.text(field.name)
                self._values(child)
        elif kind in ("text", "bytes"):
            self._hasher.update(self._fixed(self.pc.binary_length(form), "<i8"))
            self._hasher.update(self._joined(form))
        elif kind in ("decimal", "other"):
            for each in form.to_pylist():
                self.text(_digits(each) if kind == "decimal" else repr(each))
        elif kind != "null":
            self._hasher.update(self._fixed(form, _FIXED.get(kind, "<i8")))
        return kind

    def _fixed(self, array: Any, form: str) -> Any:
        """Return values of a fixed width as an array of NumPy, 0 where one is null."""
        values = array.fill_null(0).to_numpy(zero_copy_only=False)
        return self.np.ascontiguousarray(values.astype(form, copy=False))

    def _joined(self, array: Any) -> Any:
        """Return the bytes of all texts of a large array, one behind the other, without nulls."""
        if array.null_count:
            array = array.drop_null()
        _, offsets, content = array.buffers()
        if content is None or len(array) == 0:
            return b""
        places = self.np.frombuffer(offsets, dtype=self.np.int64)
        first, last = places[array.offset], places[array.offset + len(array)]
        return memoryview(content)[int(first) : int(last)]

    def _canonical(self, array: Any) -> tuple[str, Any]:
        """Return the type of a column in a word, and the column in the form that is hashed."""
        pa, pc, types, held = self.pa, self.pc, self.pa.types, array.type
        if types.is_unsigned_integer(held):
            large = (pc.max(array).as_py() or 0) >> 63
            return ("uint", array) if large else ("int", array.cast(pa.int64()))
        if types.is_timestamp(held):
            return "datetime", self._ticks(array, lambda unit: pa.timestamp(unit, held.tz))
        if types.is_duration(held):
            return "duration", self._ticks(array, pa.duration)
        kind, form = self._form(held)
        array = array if form == held else array.cast(form)
        if kind == "float":
            array = pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array)
        elif kind in ("date", "time"):
            array = (array.cast(pa.int32()) if kind == "date" else array).cast(pa.int64())
        return kind, array

    def _form(self, held: Any) -> tuple[str, Any]:
        pa, types = self.pa, self.pa.types
        for tests, kind, form in (
            (("string", "large_string", "string_view"), "text", pa.large_string()),
            (
                ("binary", "large_binary", "binary_view", "fixed_size_binary"),
                "bytes",
                pa.large_binary(),
            ),
            (("boolean",), "bool", pa.int8()),
            (("signed_integer",), "int", pa.int64()),
            (("floating",), "float", pa.float64()),
            (("date",), "date", pa.date32()),
            (("time",), "time", pa.time64("ns")),
            (("list", "large_list", "fixed_size_list"), "list", held),
            (("struct",), "struct", held),
            (("decimal",), "decimal", held),
            (("null",), "null", held),
        ):
            if any(getattr(types, f"is_{test}")(held) for test in tests):
                return kind, form
        return "other", held

    def _ticks(self, array: Any, type_of: Callable[[str], Any]) -> Any:
        """Return times in nanoseconds, or all of them in microseconds where one does not fit."""
        try:
            ticks = array.cast(type_of("ns"))
        except self.pa.ArrowInvalid:
            self.text("us")
            ticks = array.cast(type_of("us"))
        return ticks.cast(self.pa.int64())


def _digits(number: Decimal | None) -> str:
    """Return a decimal without the zeros that only its column's scale has put there."""
    if number is None:
        return ""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text

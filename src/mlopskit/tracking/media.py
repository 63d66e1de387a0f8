"""Figures, images and tables as bytes."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidInput

if TYPE_CHECKING:
    from mlopskit.redaction import Redactor


def json_of(value: Any) -> bytes:
    """Return nested plain values as indented JSON.

    Raises:
        InvalidInput: If JSON cannot hold them.
    """
    try:
        return json.dumps(value, indent=1, ensure_ascii=False, default=_scalar).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInput(f"This cannot be written as JSON: {exc}.") from exc


def figure(fig: Any, name: str) -> bytes:
    """Return a figure of matplotlib or plotly in the format that the name's suffix says.

    Raises:
        InvalidInput: If it is neither, or cannot be written in that format.
    """
    suffix = PurePosixPath(name).suffix.lstrip(".").lower()
    try:
        if hasattr(fig, "savefig"):
            buffer = io.BytesIO()
            fig.savefig(buffer, format=suffix or "png")
            return buffer.getvalue()
        if hasattr(fig, "to_html") and suffix in ("html", "htm"):
            return str(fig.to_html()).encode()
        if hasattr(fig, "to_image"):
            return bytes(fig.to_image(format=suffix or "png"))
    except (ValueError, ImportError) as exc:
        raise InvalidInput(f"The figure cannot be written as {name!r}: {exc}.") from exc
    raise InvalidInput(
        f"This is no figure of matplotlib or plotly: {type(fig).__name__}. "
        "Write it to a file and use log_artifact."
    )


def image(img: Any, name: str) -> bytes:
    """Return an image of Pillow in the format of the name's suffix, or an array as PNG.

    Raises:
        InvalidInput: If it is neither, or has a shape or type that no PNG has.
    """
    if hasattr(img, "save") and hasattr(img, "mode"):
        buffer = io.BytesIO()
        suffix = PurePosixPath(name).suffix.lstrip(".").upper()
        img.save(buffer, format={"": "PNG", "JPG": "JPEG"}.get(suffix, suffix))
        return buffer.getvalue()
    if not hasattr(img, "shape") or not hasattr(img, "dtype"):
        raise InvalidInput(f"This is no image: {type(img).__name__}. Pass an array or a PIL image.")
    return _png(img)


def table(rows: Any, redactor: Redactor) -> bytes:
    """Return rows or columns as JSON with the names of the columns once.

    Raises:
        InvalidInput: If it is no table, or JSON cannot hold a cell.
    """
    names, data = _columns(rows)
    return json_of({"columns": names, "data": [_clean(names, row, redactor) for row in data]})


def _clean(names: list[str], row: list[Any], redactor: Redactor) -> list[Any]:
    return [redactor.value(cell, name) for name, cell in zip(names, row, strict=True)]


def _columns(rows: Any) -> tuple[list[str], list[list[Any]]]:
    if hasattr(rows, "to_pylist"):  # pyarrow
        rows = rows.to_pylist()
    elif hasattr(rows, "to_dicts"):  # polars
        rows = rows.to_dicts()
    elif hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # pandas
        rows = rows.to_dict("records")
    if isinstance(rows, Mapping):
        lengths = {len(column) for column in rows.values()}
        if len(lengths) > 1:
            raise InvalidInput(f"The columns of a table are of unequal length: {sorted(lengths)}.")
        return [str(n) for n in rows], [list(row) for row in zip(*rows.values(), strict=True)]
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise InvalidInput(
            f"This is no table: {type(rows).__name__}. Pass a list of mappings, a mapping of "
            "columns, or a frame."
        )
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    return names, [[row.get(name) for name in names] for row in rows]


def _png(array: Any) -> bytes:
    """Encode an array as PNG (W3C PNG, third edition): one filterless scanline per row."""
    import numpy as np  # noqa: PLC0415 - whoever passes an array has it

    pixels = np.asarray(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    colour = {2: 0, 3: {3: 2, 4: 6}.get(pixels.shape[-1])}.get(pixels.ndim)
    if colour is None or 0 in pixels.shape:
        raise InvalidInput(
            f"An image of shape {pixels.shape} is none of (height, width[, 1, 3 or 4])."
        )
    if pixels.dtype.kind == "f":
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise InvalidInput("An image of floats must be from 0 to 1.")
        pixels = np.round(pixels * 255).astype(np.uint8)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype != np.uint8:
        raise InvalidInput(f"An image of {pixels.dtype} must be of uint8, bools, or floats.")
    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _scalar(value: Any) -> Any:
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} has no JSON")

"""Images, figures, sound and pages as files that a run can keep."""

from __future__ import annotations

import io
import json
import operator
import struct
import wave
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput
from mlopskit.tracking.values import check_text

if TYPE_CHECKING:
    from collections.abc import Sequence

# What Pillow writes of an array, too; under any other name an array is a PNG.
_OTHER_FORMATS: Final = frozenset({".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Media:
    """Something that a run can show, as files.

    Attributes:
        type: What it is: ``image``, ``images``, ``figure``, ``audio``, ``html``, ``table``, or the
            name of a chart.
        files: Their bytes, or where these lie, by the path below the name that it is logged by;
            a single file has the path ``""``.
        metadata: What a reader wants to know at a glance, as plain JSON.
    """

    type: str
    files: Mapping[str, bytes | Path]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def json_of(value: Any) -> bytes:
    """Return nested plain values as indented JSON.

    Raises:
        InvalidInput: If JSON cannot hold them.
    """
    try:
        return json.dumps(value, indent=1, ensure_ascii=False, default=_scalar).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInput(f"This cannot be written as JSON: {exc}.") from exc


def plain_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of a mapping as it comes back from JSON: tuples become lists.

    NaN and infinities pass, as Python's json writes and reads them.

    Raises:
        InvalidInput: If JSON cannot hold it, or a key is no text.
    """
    try:
        _check_keys(value)
        copy: dict[str, Any] = json.loads(json.dumps(value, default=_scalar))
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInput(f"This cannot be kept as metadata: {exc}.") from exc
    return copy


def image(img: Any, name: str, *, caption: str | None = None) -> Media:
    """Return an image of Pillow, or an array, in the format of the name's suffix; PNG without one.

    An array needs Pillow for any format but PNG.

    Raises:
        InvalidInput: If it is neither, or has a shape or type that the format has not.
    """
    content, width, height = _drawn(img, PurePosixPath(name).suffix)
    said: dict[str, Any] = {"width": width, "height": height}
    if caption is not None:
        said["caption"] = check_text("A caption", caption)
    return Media("image", {"": content}, said)


def images(imgs: Sequence[Any], *, captions: Sequence[str] | None = None) -> Media:
    """Return several images as PNG files ``000.png``, ``001.png`` and so on.

    Raises:
        InvalidInput: If one is no image, there is none, or there are not as many captions.
    """
    if not imgs:
        raise InvalidInput("A list of images is empty.")
    if captions is not None and (isinstance(captions, str) or len(captions) != len(imgs)):
        raise InvalidInput(f"{len(imgs)} images need as many captions, in a list.")
    drawn = [_drawn(img, ".png") for img in imgs]
    said: dict[str, Any] = {"sizes": [[width, height] for _, width, height in drawn]}
    if captions is not None:
        said["captions"] = [check_text("A caption", each) for each in captions]
    return Media(
        "images", {f"{at:03}.png": content for at, (content, _, _) in enumerate(drawn)}, said
    )


def figure(fig: Any, name: str) -> Media:
    """Return a figure of Matplotlib or Plotly in the format that the name's suffix says.

    Matplotlib writes PNG unless the suffix says otherwise. Plotly writes its own JSON, or for
    ``.html`` a page of about 5 MB that opens offline; pictures need its package ``kaleido``.

    Raises:
        InvalidInput: If it is neither, or cannot be written in that format.
    """
    suffix = PurePosixPath(name).suffix.lstrip(".").lower()
    try:
        if hasattr(fig, "savefig"):
            buffer = io.BytesIO()
            fig.savefig(buffer, format=suffix or "png")
            return Media("figure", {"": buffer.getvalue()}, {"format": suffix or "png"})
        if hasattr(fig, "to_plotly_json"):
            return Media("figure", {"": _plotly(fig, suffix)}, {"format": suffix or "plotly"})
    except (ValueError, ImportError, RuntimeError) as exc:
        raise InvalidInput(f"The figure cannot be written as {name!r}: {exc}.") from exc
    raise InvalidInput(
        f"This is no figure of matplotlib or plotly: {type(fig).__name__}. "
        "Write it to a file and use log_artifact."
    )


def audio(samples: Any, rate: int | None, *, caption: str | None = None) -> Media:
    """Return sound as a WAV file of 16 bits (Multimedia Programming Interface, IBM/Microsoft 1991).

    Args:
        samples: (n,) or (n, channels), of int16 or of floats from -1 to 1; or the path of a file,
            which is kept as it is.
        rate: In Hz; needed for samples. A WAV file says its own.
        caption: A text about it.

    Raises:
        InvalidInput: If it is none of these.
    """
    said: dict[str, Any] = {}
    if caption is not None:
        said["caption"] = check_text("A caption", caption)
    if isinstance(samples, str | Path):
        path = Path(samples)
        if not path.is_file():
            raise InvalidInput(f"There is no file {str(path)!r} of sound.")
        return Media("audio", {"": path}, _heard(path, rate) | said)
    rate = _rate(rate)
    pcm = _pcm(samples)
    count, channels = pcm.shape
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    said |= {"rate": rate, "seconds": count / rate, "channels": channels}
    return Media("audio", {"": buffer.getvalue()}, said)


def html(page: str | Path) -> Media:
    """Return a page: its text, or the path of its file.

    Raises:
        InvalidInput: If it is neither.
    """
    if isinstance(page, Path):
        if not page.is_file():
            raise InvalidInput(f"There is no page {str(page)!r}.")
        return Media("html", {"": page})
    try:
        return Media("html", {"": check_text("A page", page).encode()})
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"The page cannot be written in UTF-8: {exc}.") from exc


def is_figure(value: Any) -> bool:
    """Tell whether it is a figure of Matplotlib or Plotly."""
    return hasattr(value, "savefig") or hasattr(value, "to_plotly_json")


def is_image(value: Any) -> bool:
    """Tell whether it is an image of Pillow, or an array with as many dimensions as one."""
    if hasattr(value, "save") and hasattr(value, "mode"):
        return True
    return hasattr(value, "dtype") and getattr(value, "ndim", 0) in (2, 3)


def _plotly(fig: Any, suffix: str) -> bytes:
    if suffix in ("html", "htm"):
        return str(fig.to_html(include_plotlyjs=True)).encode()
    if suffix in ("", "json"):
        return str(fig.to_json()).encode()
    return bytes(fig.to_image(format=suffix))


def _drawn(img: Any, suffix: str) -> tuple[bytes, int, int]:
    """Return the bytes of an image, its width and its height."""
    if hasattr(img, "save") and hasattr(img, "mode"):
        buffer = io.BytesIO()
        kind = suffix.lstrip(".").upper()
        try:
            img.save(buffer, format={"": "PNG", "JPG": "JPEG"}.get(kind, kind))
        except (KeyError, OSError) as exc:
            raise InvalidInput(f"The image cannot be written as {suffix!r}: {exc}.") from exc
        width, height = img.size
        return buffer.getvalue(), width, height
    if not hasattr(img, "shape") or not hasattr(img, "dtype"):
        raise InvalidInput(f"This is no image: {type(img).__name__}. Pass an array or a PIL image.")
    if suffix.lower() in _OTHER_FORMATS:
        return _drawn(_pillow(_pixels(img), suffix), suffix)
    content = _png(_pixels(img))
    width, height = struct.unpack_from(">II", content, 16)
    return content, width, height


def _pillow(pixels: Any, suffix: str) -> Any:
    try:
        from PIL import Image  # noqa: PLC0415 - only arrays in formats other than PNG need it
    except ImportError as exc:
        raise InvalidInput(
            f"An array is written as {suffix!r} by Pillow, which is not installed; name it '.png'."
        ) from exc
    return Image.fromarray(pixels)


def _rate(rate: Any) -> int:
    try:
        hertz = 0 if isinstance(rate, bool) else operator.index(rate)
    except TypeError:
        hertz = 0
    if hertz <= 0:
        raise InvalidInput(f"The rate is {rate!r}; samples need one in Hz, an int.")
    return hertz


def _heard(path: Path, rate: Any) -> dict[str, Any]:
    """Return what a WAV file says of itself; of any other file no more than its rate if given."""
    try:
        with wave.open(str(path)) as file:
            hertz, channels = file.getframerate(), file.getnchannels()
            return {"rate": hertz, "seconds": file.getnframes() / hertz, "channels": channels}
    except (wave.Error, EOFError, ZeroDivisionError):
        return {} if rate is None else {"rate": _rate(rate)}


def _pcm(samples: Any) -> Any:
    import numpy as np  # noqa: PLC0415 - whoever passes samples has it

    array = np.asarray(samples)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not 1 <= array.shape[1] <= 64:
        raise InvalidInput(f"Samples of shape {array.shape} are none of (n,) or (n, channels).")
    if array.dtype == np.int16:
        return array
    if array.dtype.kind != "f":
        raise InvalidInput(f"Samples of {array.dtype} must be int16, or floats from -1 to 1.")
    if not (np.isfinite(array).all() and (np.abs(array) <= 1).all()):
        raise InvalidInput("Samples of floats must be from -1 to 1.")
    return np.round(array * 32767).astype(np.int16)


def _check_keys(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                raise InvalidInput(f"The key {key!r} of metadata is no text.")
            _check_keys(each)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_keys(each)


def _pixels(array: Any) -> Any:
    """Return an array as uint8 of (height, width) or (height, width, 3 or 4)."""
    import numpy as np  # noqa: PLC0415 - whoever passes an array has it

    pixels = np.asarray(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))) or (
        0 in pixels.shape
    ):
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
    return pixels


def _png(pixels: Any) -> bytes:
    """Encode pixels as PNG (W3C PNG, third edition): one filterless scanline per row."""
    colour = 0 if pixels.ndim == 2 else {3: 2, 4: 6}[pixels.shape[2]]
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

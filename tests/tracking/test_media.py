"""Figures, images and tables as files of a run."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput
from mlopskit.redaction import Redactor
from mlopskit.tracking import media

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.core


def pixels_of(png: bytes) -> tuple[int, int, int, bytes]:
    """Return the width, height, colour type and raw scanlines of a PNG, checking its CRCs."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", png, at + 8 + size)[0] == zlib.crc32(kind + data)
        chunks[kind] = data
        at += size + 12
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    return width, height, colour, zlib.decompress(chunks[b"IDAT"])


@pytest.mark.parametrize(
    ("shape", "colour"), [((2, 3), 0), ((2, 3, 1), 0), ((2, 3, 3), 2), ((2, 3, 4), 6)]
)
def test_an_array_becomes_a_png_with_its_pixels(shape: tuple[int, ...], colour: int) -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)[::-1]

    width, height, found, lines = pixels_of(media.image(array, "x.png"))

    assert (width, height, found) == (3, 2, colour)
    assert lines == b"".join(b"\0" + row.tobytes() for row in array)


def test_floats_and_bools_are_scaled() -> None:
    np = pytest.importorskip("numpy")

    assert pixels_of(media.image(np.array([[0.0, 0.5, 1.0]]), "x"))[3] == b"\0\x00\x80\xff"
    assert pixels_of(media.image(np.array([[True, False]]), "x"))[3] == b"\0\xff\x00"


def test_what_is_no_image_is_refused() -> None:
    np = pytest.importorskip("numpy")
    for wrong in (
        np.zeros((2, 3, 5)),
        np.zeros((0, 3)),
        np.array([[2.0]]),
        np.zeros((2, 2), int),
        "x",
    ):
        with pytest.raises(InvalidInput):
            media.image(wrong, "x.png")


def test_a_figure_is_drawn_in_the_format_of_its_name() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure()
    figure.subplots().plot([1, 2])

    assert media.figure(figure, "roc.png").startswith(b"\x89PNG")
    assert b"<svg" in media.figure(figure, "roc.svg")
    with pytest.raises(InvalidInput, match=r"roc\.xyz"):
        media.figure(figure, "roc.xyz")
    with pytest.raises(InvalidInput, match="str"):
        media.figure("no figure", "x.png")


@pytest.mark.parametrize(
    "rows",
    [
        [{"a": 1, "token": "abcdef"}, {"a": None, "token": ""}],
        {"a": [1, None], "token": ["abcdef", ""]},
    ],
)
def test_rows_and_columns_become_the_same_table(rows: Any) -> None:
    assert json.loads(media.table(rows, Redactor())) == {
        "columns": ["a", "token"],
        "data": [[1, "[redacted]"], [None, ""]],
    }


@pytest.mark.parametrize("package", ["pandas", "polars", "pyarrow"])
def test_frames_are_tables(package: str) -> None:
    library = pytest.importorskip(package)
    frame = (library.table if package == "pyarrow" else library.DataFrame)(
        {"a": [1, 2], "b": ["x", "y"]}
    )

    assert json.loads(media.table(frame, Redactor())) == {
        "columns": ["a", "b"],
        "data": [[1, "x"], [2, "y"]],
    }


def test_what_is_no_table_is_refused() -> None:
    for wrong in (3, ["x"], {"a": [1], "b": [1, 2]}, [{"a": object()}]):
        with pytest.raises(InvalidInput):
            media.table(wrong, Redactor())


def test_local_tracking_needs_no_numpy(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = """
import sys
for name in ("numpy", "pandas", "pyarrow", "scipy", "duckdb", "msgspec"):
    sys.modules[name] = None
import mlopskit
with mlopskit.Kit(home=sys.argv[1]) as kit:
    with kit.tracker.start_run("e", params={"a": (1,)}) as run:
        run.log_metrics({"loss": 0.5, "big": 2**53 + 1}, step=2)
        run.log_table([{"a": 1}], "t.json")
    history = kit.tracker.get_metric_history(run.id, "loss")
    print(list(history.steps), list(history.values), type(history.values).__name__)
    print(kit.tracker.get_metric_history(run.id, "big").values)
"""
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert said.stdout.split("\n")[:2] == ["[2] [0.5] array", "(9007199254740993,)"]

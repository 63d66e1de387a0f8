"""Images, figures, sound and pages as files of a run."""

from __future__ import annotations

import io
import json
import struct
import wave
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput
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


def only(made: media.Media) -> bytes:
    """Return the bytes of a single file."""
    ((path, content),) = made.files.items()
    assert path == ""
    assert isinstance(content, bytes)
    return content


@pytest.mark.parametrize(
    ("shape", "colour"), [((2, 3), 0), ((2, 3, 1), 0), ((2, 3, 3), 2), ((2, 3, 4), 6)]
)
def test_an_array_becomes_a_png_with_its_pixels(shape: tuple[int, ...], colour: int) -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)[::-1]

    width, height, found, lines = pixels_of(only(media.image(array, "x.png")))

    assert (width, height, found) == (3, 2, colour)
    assert lines == b"".join(b"\0" + row.tobytes() for row in array)


def test_floats_and_bools_are_scaled() -> None:
    np = pytest.importorskip("numpy")

    assert pixels_of(only(media.image(np.array([[0.0, 0.5, 1.0]]), "x")))[3] == b"\0\x00\x80\xff"
    assert pixels_of(only(media.image(np.array([[True, False]]), "x")))[3] == b"\0\xff\x00"


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

    assert only(media.figure(figure, "roc.png")).startswith(b"\x89PNG")
    assert only(media.figure(figure, "roc")).startswith(b"\x89PNG")
    assert b"<svg" in only(media.figure(figure, "roc.svg"))
    with pytest.raises(InvalidInput, match=r"roc\.xyz"):
        media.figure(figure, "roc.xyz")
    with pytest.raises(InvalidInput, match="str"):
        media.figure("no figure", "x.png")


def test_a_figure_of_plotly_is_data_or_a_page() -> None:
    graphs = pytest.importorskip("plotly.graph_objects")
    figure = graphs.Figure(data=graphs.Scatter(x=[1, 2], y=[3, 4]))

    data = media.figure(figure, "plot")
    page = media.figure(figure, "plot.html")

    assert data.metadata == {"format": "plotly"}
    assert json.loads(only(data))["data"][0]["type"] == "scatter"
    assert b"plotly.js" in only(page)
    assert b"cdn.plot.ly" not in only(page).partition(b"<body>")[0]


def test_images_of_a_list_have_their_captions() -> None:
    np = pytest.importorskip("numpy")
    pixels = np.zeros((2, 3), dtype=np.uint8)

    made = media.images([pixels, pixels.T], captions=["a", "b"])

    assert list(made.files) == ["000.png", "001.png"]
    assert made.metadata == {"captions": ["a", "b"], "sizes": [[3, 2], [2, 3]]}
    for captions in (["a"], "ab"):
        with pytest.raises(InvalidInput, match="as many captions"):
            media.images([pixels, pixels], captions=captions)
    with pytest.raises(InvalidInput, match="empty"):
        media.images([])


def test_an_array_is_written_in_the_format_of_its_name() -> None:
    np = pytest.importorskip("numpy")
    images = pytest.importorskip("PIL.Image")
    pixels = np.full((4, 6, 3), 200, dtype=np.uint8)

    made = media.image(pixels, "x.JPG")

    picture = images.open(io.BytesIO(only(made)))
    assert (picture.format, picture.size) == ("JPEG", (6, 4))
    assert made.metadata == {"width": 6, "height": 4}
    assert only(media.image(pixels, "at_loss_0.5")).startswith(b"\x89PNG")
    with pytest.raises(InvalidInput, match="RGBA"):
        media.image(np.zeros((2, 2, 4), dtype=np.uint8), "x.jpg")


def test_pillow_writes_the_format_of_the_name() -> None:
    images = pytest.importorskip("PIL.Image")
    picture = images.new("RGB", (3, 2))

    assert only(media.image(picture, "x.jpg")).startswith(b"\xff\xd8")
    assert media.image(picture, "x.png", caption="c").metadata == {
        "caption": "c",
        "width": 3,
        "height": 2,
    }
    with pytest.raises(InvalidInput, match="xyz"):
        media.image(picture, "x.xyz")


@pytest.mark.parametrize("channels", [1, 2])
def test_samples_become_a_wav(channels: int) -> None:
    np = pytest.importorskip("numpy")
    samples = np.linspace(-1, 1, 800 * channels).reshape(800, channels)

    made = media.audio(samples, 8000, caption="c")

    with wave.open(io.BytesIO(only(made))) as file:
        assert file.getparams()[:4] == (channels, 2, 8000, 800)
        found = np.frombuffer(file.readframes(800), dtype="<i2").reshape(800, channels)
    assert (found == np.round(samples * 32767)).all()
    assert made.metadata == {"caption": "c", "rate": 8000, "seconds": 0.1, "channels": channels}


def test_what_is_no_sound_is_refused(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    wrong: list[tuple[Any, Any]] = [
        (np.zeros(8), None),
        (np.zeros(8), 0),
        (np.zeros(8), True),
        (np.zeros(8), 8000.0),
        (np.full(8, 1.5), 8000),
        (np.full(8, np.nan), 8000),
        (np.zeros(8, dtype=np.int32), 8000),
        (np.zeros((2, 2, 2)), 8000),
        (tmp_path / "none.wav", None),
    ]
    for samples, rate in wrong:
        with pytest.raises(InvalidInput):
            media.audio(samples, rate)


def test_a_wav_file_says_its_own_rate(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    path = tmp_path / "x.wav"
    path.write_bytes(only(media.audio(np.zeros(400, dtype=np.int16), np.int64(8000))))
    other = tmp_path / "x.ogg"
    other.write_bytes(b"OggS")

    assert media.audio(path, 16000, caption="c").metadata == {
        "rate": 8000,
        "seconds": 0.05,
        "channels": 1,
        "caption": "c",
    }
    assert media.audio(other, 16000).metadata == {"rate": 16000}
    assert media.audio(other, None).metadata == {}


def test_files_of_sound_and_pages_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    path.write_bytes(b"\xff\xfb")

    assert media.audio(str(path), None).files == {"": path}
    assert media.html(path).files == {"": path}
    assert only(media.html("<p>ü")) == "<p>ü".encode()
    with pytest.raises(InvalidInput, match="no page"):
        media.html(tmp_path / "none.html")
    with pytest.raises(InvalidInput, match="UTF-8"):
        media.html("\ud800")
    with pytest.raises(InvalidInput, match="text"):
        media.html(3)  # type: ignore[arg-type]  # on purpose


def test_metadata_is_plain_json() -> None:
    np = pytest.importorskip("numpy")
    given = {"a": (1, [None, np.float32(0.5)]), "b": {"c": "ü"}}

    copy = media.plain_json(given)

    assert copy == {"a": [1, [None, 0.5]], "b": {"c": "ü"}}
    loop: dict[str, object] = {}
    loop["a"] = [loop]
    for wrong in ({1: 2}, {"a": [{2: 3}]}, {"a": object()}, {"a": b"x"}, loop):
        with pytest.raises(InvalidInput):
            media.plain_json(wrong)  # type: ignore[arg-type]  # on purpose


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

"""Small pictures of charts, as SVG 1.1 that is drawn here: they need no plotting library."""

from __future__ import annotations

import re
from html import escape
from itertools import pairwise
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH: Final = 480
HEIGHT: Final = 360
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 44, 52
INK: Final = "#24292f"
FAINT: Final = "#d8dee4"
MOST_NAMED: Final = 16
MOST_IN_LEGEND: Final = 7
SMALLEST_TEXT: Final = 6
# XML 1.0 has no way to write these characters.
_NO_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# Okabe and Ito's colours, which people who see few colours can tell apart.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def lines(
    title: str,
    axes: tuple[str, str],
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    diagonal: bool = False,
    legend_left: bool = False,
) -> bytes:
    """Draw curves over the unit square: each a label, its x values and its y values."""
    scale = _Scale((0.0, 1.0), (0.0, 1.0))
    body = scale.frame(axes, (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0))
    if diagonal:
        (x0, y0), (x1, y1) = scale.at(0, 0), scale.at(1, 1)
        body.append(
            f'<path d="M{x0} {y0}L{x1} {y1}" stroke="{FAINT}" stroke-width="1.5" '
            'stroke-dasharray="4 4"/>'
        )
    for number, (_, xs, ys) in enumerate(curves):
        path = "L".join("{} {}".format(*scale.at(x, y)) for x, y in zip(xs, ys, strict=True))
        colour = COLOURS[number % len(COLOURS)]
        body.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    if not curves:
        body.append(_text(*scale.at(0.5, 0.5), "No curve: the labels occur never, or always."))
    body += _legend([label for label, _, _ in curves], left=legend_left)
    return _svg(title, body)


def bars(
    title: str, axes: tuple[str, str], edges: Sequence[float], counts: Sequence[float]
) -> bytes:
    """Draw the counts of neighbouring bins."""
    top = max([*counts, 1e-9])
    low, high = edges[0], edges[-1]
    scale = _Scale((low, high if high > low else low + 1), (0.0, top * 1.05))
    body = scale.frame(axes, _ticks(low, high), _ticks(0.0, top))
    for (left, right), count in zip(pairwise(edges), counts, strict=True):
        (x0, y0), (x1, y1) = scale.at(left, count), scale.at(right, 0)
        width = max(round(x1 - x0 - 0.5, 2), 0.5)
        body.append(
            f'<rect x="{x0}" y="{y0}" width="{width}" height="{round(y1 - y0, 2)}" '
            f'fill="{COLOURS[0]}"/>'
        )
    return _svg(title, body)


def grid(
    title: str, axes: tuple[str, str], labels: Sequence[str], cells: Sequence[Sequence[int]]
) -> bytes:
    """Draw a square of numbers, darker where they are larger.

    Rows and columns are those of `labels`, or fewer where neighbours were summed.
    """
    few = len(labels) <= MOST_NAMED
    side = (HEIGHT - TOP - BOTTOM) / max(len(cells), 1)
    left = LEFT + 56
    top = max(max((max(row) for row in cells), default=0), 1)
    whole = f"{side * len(cells):.2f}"
    ground = f'fill="{COLOURS[0]}" fill-opacity="0.04"'
    body = [f'<rect x="{left}" y="{TOP}" width="{whole}" height="{whole}" {ground}/>']
    for row, values in enumerate(cells):
        for column, value in enumerate(values):
            if not (value or few):
                continue
            share = value / top
            x, y = round(left + column * side, 2), round(TOP + row * side, 2)
            edge = ' stroke="#fff"' if few else ""
            body.append(
                f'<rect x="{x}" y="{y}" width="{side:.2f}" height="{side:.2f}" '
                f'fill="{COLOURS[0]}" fill-opacity="{0.96 * share:.3f}"{edge}/>'
            )
            size = min(11.0, 1.3 * side / len(str(value)))
            if few and size >= SMALLEST_TEXT:
                ink = "#fff" if share > 0.5 else INK
                middle = y + side / 2 + size * 0.36
                body.append(_text(x + side / 2, middle, f"{value}", fill=ink, size=size))
    if few:
        wide = max(3, int(side / 6.5))
        for number, label in enumerate(labels):
            centre = (number + 0.5) * side
            body.append(_text(left - 8, TOP + centre + 4, short(label, 15), anchor="end"))
            body.append(_text(left + centre, HEIGHT - BOTTOM + 18, short(label, wide)))
    else:
        axes = (f"{axes[0]} ({len(labels)} labels)", axes[1])
    body += _names(axes, middle=left + len(cells) * side / 2)
    return _svg(title, body)


class _Scale:
    """Where a value lies in the picture."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self._x, self._y = x, y

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 2),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 2),
        )

    def frame(self, axes: tuple[str, str], xs: Sequence[float], ys: Sequence[float]) -> list[str]:
        """Draw the ticks, a faint line for each, and the names of the axes."""
        body = []
        for x in xs:
            place, _ = self.at(x, self._y[0])
            body.append(
                f'<path d="M{place} {TOP}V{HEIGHT - BOTTOM}" stroke="{FAINT}" stroke-width="0.75"/>'
            )
            body.append(_text(place, HEIGHT - BOTTOM + 18, f"{x:.4g}"))
        for y in ys:
            _, place = self.at(self._x[0], y)
            body.append(
                f'<path d="M{LEFT} {place}H{WIDTH - RIGHT}" stroke="{FAINT}" stroke-width="0.75"/>'
            )
            body.append(_text(LEFT - 8, place + 4, f"{y:.4g}", anchor="end"))
        return body + _names(axes, middle=(LEFT + WIDTH - RIGHT) / 2)


def _names(axes: tuple[str, str], *, middle: float) -> list[str]:
    up = (TOP + HEIGHT - BOTTOM) / 2
    return [
        _text(middle, HEIGHT - 12, axes[0]),
        f'<g transform="translate(16 {up}) rotate(-90)">{_text(0, 0, axes[1])}</g>',
    ]


def _legend(labels: Sequence[str], *, left: bool) -> list[str]:
    """Name the colours in a lower corner, on a ground that the curves shine through."""
    shown = list(labels[:MOST_IN_LEGEND])
    if len(labels) > MOST_IN_LEGEND:
        shown.append(f"and {len(labels) - MOST_IN_LEGEND} more")
    if not shown:
        return []
    width, height = 30 + 6.5 * max(map(len, shown)), 16 * len(shown) + 6
    x = LEFT + 8 if left else WIDTH - RIGHT - 8 - width
    y = HEIGHT - BOTTOM - 8 - height
    body = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="#fff" fill-opacity="0.8"/>'
    ]
    for number, label in enumerate(shown):
        middle = y + 11 + 16 * number
        if number < MOST_IN_LEGEND:
            colour = COLOURS[number % len(COLOURS)]
            body.append(f'<path d="M{x + 6} {middle}h14" stroke="{colour}" stroke-width="3"/>')
        body.append(_text(x + 26, middle + 4, label, anchor="start"))
    return body


def short(text: str, most: int) -> str:
    """Return a text, or its beginning and an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers in a range."""
    if not high > low:
        return [low]
    step: float = 10.0 ** floor(log10((high - low) / 4)) if (high - low) / 4 else 0.0
    if not step:  # The range is of the smallest floats there are.
        return [low]
    for times in (5, 2):
        if (high - low) / (step * times) >= 3:
            step *= times
            break
    first = ceil(low / step - 1e-9)
    last = floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "middle",
    fill: str = INK,
    size: float | None = None,
) -> str:
    small = "" if size is None else f' font-size="{size:.3g}"'
    shown = _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
    return (
        f'<text x="{round(x, 2)}" y="{round(y, 2)}" text-anchor="{anchor}" fill="{fill}"{small}>'
        f"{escape(shown)}</text>"
    )


def _svg(title: str, body: Sequence[str]) -> bytes:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="11">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text x="{WIDTH / 2}" y="24" text-anchor="middle" font-size="14" font-weight="600" '
        f'fill="{INK}">{escape(title)}</text>'
    )
    return (head + "".join(body) + "</svg>\n").encode()

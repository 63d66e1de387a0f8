"""The report's drawings: SVG and HTML that need no script and no other file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mlopskit.demo.words import escape, score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlopskit.demo.result import Month

WIDE: Final = (900, 340)
NARROW: Final = (380, 300)
# A column at its threshold is half as bright as the brightest; what is drawn beyond it is capped.
BRIGHTEST: Final = 8.0


def auc_chart(months: Sequence[Month]) -> str:
    """Draw the AUC of the first and of the serving model by month, for a desk and for a phone."""
    return (
        f'<div class="wide">{_lines(months, *WIDE)}</div>'
        f'<div class="narrow">{_lines(months, *NARROW)}</div>'
    )


def heat_map(months: Sequence[Month], effects: Callable[[Month], Mapping[str, float]]) -> str:
    """Draw the size of drift of every column in every month; what drifted carries its number."""
    heads = "".join(f"<span>{escape(month.name[:3])}</span>" for month in months)
    rows = [f'<div class="heat head"><b></b>{heads}</div>']
    for column in months[0].effects:
        cells = "".join(_cell(month, column, effects(month)) for month in months)
        rows.append(f'<div class="heat"><b>{escape(column)}</b>{cells}</div>')
    return f'<div class="map" style="--months:{len(months)}">{"".join(rows)}</div>'


def _cell(month: Month, column: str, effects: Mapping[str, float]) -> str:
    effect = effects.get(column, math.nan)
    if math.isnan(effect):
        return f'<i class="none" title="{escape(column)}, {month.name}: not compared"></i>'
    threshold = month.thresholds.get(column) or 1.0
    ratio = effect / threshold
    bright = min(math.log2(1 + ratio) / math.log2(1 + BRIGHTEST), 1.0)
    drifted = ratio >= 1
    title = f"{column}, {month.name}: {effect:.3f}, drifted from {threshold:.2g}"
    number = f"{effect:.2f}".removeprefix("0") if drifted else ""
    kind = ' class="on"' if drifted else ""
    return f'<i{kind} style="--a:{bright:.2f}" title="{escape(title)}">{number}</i>'


def _lines(months: Sequence[Month], width: int, height: int) -> str:
    left, right, top, bottom = 46, 14, 16, 34
    values = [v for m in months for v in (m.auc_first, m.auc_live) if not math.isnan(v)]
    low, high = _range(values)

    def x(i: int) -> float:
        span = max(len(months) - 1, 1)
        return left + (width - left - right) * (i / span if len(months) > 1 else 0.5)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (high - value) / (high - low)

    label = "AUC by month of the first model and of the serving model"
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">']
    parts += [
        f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(value):.1f}" '
        f'y2="{y(value):.1f}"/><text class="tick" x="{left - 8}" y="{y(value) + 4:.1f}" '
        f'text-anchor="end">{value:.2f}</text>'
        for value in _ticks(low, high)
    ]
    parts += [
        f'<text class="tick" x="{x(i):.1f}" y="{height - 10}" text-anchor="middle">'
        f"{escape(month.name[:3])}</text>"
        for i, month in enumerate(months)
    ]
    parts += [
        _between(months, x, y),
        _curve("first", [(x(i), y(m.auc_first)) for i, m in enumerate(months)]),
        _curve("live", [(x(i), y(m.auc_live)) for i, m in enumerate(months)]),
    ]
    parts += [_mark(month, x(i), y(month.auc_live)) for i, month in enumerate(months)]
    return "".join([*parts, "</svg>"])


def _between(
    months: Sequence[Month], x: Callable[[int], float], y: Callable[[float], float]
) -> str:
    """Shade what lies between the two curves: a gain in one colour, a loss in another."""
    there = [m for m in months if not math.isnan(m.auc_first + m.auc_live)]
    points = [(x(months.index(m)), y(m.auc_live), y(m.auc_first)) for m in there]
    return "".join(map(_shade, points, points[1:]))


def _shade(one: tuple[float, float, float], other: tuple[float, float, float]) -> str:
    """Shade one month's step; where the curves cross in it, each side for itself."""
    gains = [first - live for _, live, first in (one, other)]  # Downwards is larger in SVG.
    if gains[0] * gains[1] < 0:
        at = gains[0] / (gains[0] - gains[1])
        x = one[0] + at * (other[0] - one[0])
        y = one[1] + at * (other[1] - one[1])
        return _shade(one, (x, y, y)) + _shade((x, y, y), other)
    if not any(gains):
        return ""
    corners = [(one[0], one[1]), (other[0], other[1]), (other[0], other[2]), (one[0], one[2])]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polygon class="{"gain" if sum(gains) > 0 else "loss"}" points="{path}"/>'


def _curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points if not math.isnan(y))
    return f'<polyline class="{name}" points="{path}"/>'


def _mark(month: Month, x: float, y: float) -> str:
    """Mark a month by what was decided at its end; hovering tells the numbers."""
    if math.isnan(y):
        return ""
    title = (
        f"{month.name}: first {score(month.auc_first)}, live {score(month.auc_live)} "
        f"(version {month.live_version}); {month.decision.outcome}"
    )
    shape = {
        "promoted": f'<circle class="promoted" cx="{x:.1f}" cy="{y:.1f}" r="6.5"/>',
        "refused": f'<rect class="refused" x="{x - 5.5:.1f}" y="{y - 5.5:.1f}" width="11" '
        f'height="11" transform="rotate(45 {x:.1f} {y:.1f})"/>',
        "kept": f'<circle class="kept" cx="{x:.1f}" cy="{y:.1f}" r="4"/>',
    }
    return f"<g>{shape[month.decision.outcome]}<title>{escape(title)}</title></g>"


def _range(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.5, 1.0
    return math.floor(min(values) * 50 - 0.5) / 50, math.ceil(max(values) * 50 + 0.5) / 50


def _ticks(low: float, high: float) -> list[float]:
    step = 0.02 if high - low <= 0.12 else 0.05
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]

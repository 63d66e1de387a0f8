"""The page of a sweep: one file, drawn in SVG, that opens offline on any screen.

Nothing in it is a link, a script or a font from elsewhere, and every value is escaped. Each trial
is a line through parallel axes, one for each parameter and the last for the value (Inselberg 1985);
the better its value, the darker it is.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import MissingDependency
from mlopskit.tracking.plots import COLOURS, FAINT, INK, short
from mlopskit.tracking.sweep_space import Integer, LogUniform, When
from mlopskit.tracking.values import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlopskit.tracking.sweep_result import SweepResult
    from mlopskit.tracking.sweep_trials import Done

MOST_ROWS: Final = 200
MOST_LINES: Final = 500
MOST_POINTS: Final = 2000
MOST_AXES: Final = 12
MOST_TICKS: Final = 8
LONGEST: Final = 60
WIDTH, HEIGHT, TOP, BOTTOM, SIDE = 960, 340, 40, 24, 70
STYLE: Final = (
    f"body{{margin:0;background:#fff;color:{INK};font:15px/1.5 system-ui,sans-serif}}"
    "main{max-width:1000px;margin:0 auto;padding:24px}h1{margin:0 0 4px}h2{margin:32px 0 8px}"
    f"svg{{width:100%;height:auto}}table{{border-collapse:collapse;width:100%;font-size:13px}}"
    f"td,th{{border-bottom:1px solid {FAINT};padding:4px 8px;text-align:left;"
    "font-variant-numeric:tabular-nums}.wide{overflow-x:auto}"
    ".note{color:#57606a}dl{display:flex;flex-wrap:wrap;gap:8px 32px;margin:16px 0}"
    "dt{color:#57606a;font-size:13px}dd{margin:0;font-size:20px;font-weight:600}"
    ".failed{color:#b42318}.pruned{color:#57606a}"
)


def page(result: SweepResult) -> str:
    """Return the result as one HTML page."""
    best = result.best
    title = escape(short(f"Sweep {result.name}", LONGEST))
    said = ""
    if best is not None:
        said = f"Trial {best.number} has the {_best_word(result)} {escape(result.metric)}: "
        said += f"{_text(best.value)}."
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{title}</h1><p>{said or 'No trial is complete.'}</p>{_figures(result)}"
        f"<h2>History</h2>{_history(result)}"
        f"<h2>Parallel coordinates</h2>{_parallel(result)}"
        f"{_importances(result)}<h2>Trials</h2>{_table(result)}</main></body></html>\n"
    )


def _best_word(result: SweepResult) -> str:
    return "least" if result.direction == "minimize" else "greatest"


def _figures(result: SweepResult) -> str:
    figures = {"trials": len(result.trials), **result.counts, "seed": result.seed}
    items = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items()
    )
    return f"<dl>{items}</dl>"


def _history(result: SweepResult) -> str:
    """Draw the value of each trial, and the best so far."""
    seen = [each for each in result.trials if each.value is not None and math.isfinite(each.value)]
    if not seen:
        return '<p class="note">No trial has a finite value.</p>'
    values = [each.value or 0.0 for each in seen]
    last = max(1, result.trials[-1].number)
    up = _scale(min(values), max(values))
    dots: list[str] = []
    steps: list[str] = []
    best = values[0]
    pick = min if result.direction == "minimize" else max
    for at, (each, value) in enumerate(zip(seen, values, strict=True)):
        x = round(SIDE + each.number / last * (WIDTH - 2 * SIDE), 1)
        new = pick(best, value)
        if new != best or not at:
            steps.append(f"{'H' if at else 'M'}{x}{'V' if at else ' '}{up(new)}")
        best = new
        if len(dots) < MOST_POINTS:
            label = escape(f"trial {each.number}: {_text(value)}")
            dots.append(f'<circle cx="{x}" cy="{up(value)}" r="3"><title>{label}</title></circle>')
    path = "".join(steps) + f"H{WIDTH - SIDE}"
    return _svg(
        f"The {escape(result.metric)} of each trial, and the best so far",
        _axis(SIDE - 10, result.metric, _ticks(min(values), max(values), up)),
        f'<g fill="{COLOURS[5]}">{"".join(dots)}</g>',
        f'<path d="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>',
        f'<text x="{SIDE}" y="{HEIGHT - 4}">trial 0</text>'
        f'<text x="{WIDTH - SIDE}" y="{HEIGHT - 4}" text-anchor="end">trial {last}</text>',
    )


def _parallel(result: SweepResult) -> str:
    """Draw a line for each complete trial, the best ones last, over the others."""
    seen = [each for each in result.trials if each.value is not None and math.isfinite(each.value)]
    sign = 1 if result.direction == "minimize" else -1
    ranked = sorted(seen, key=lambda each: sign * (each.value or 0.0))[:MOST_LINES]
    if not ranked:
        return '<p class="note">No trial has a finite value.</p>'
    names = [name for name in result.space.domains if _varies(name, ranked)]
    left_out = len(names) - MOST_AXES
    names = names[:MOST_AXES]
    apart = (WIDTH - 2 * SIDE) / max(1, len(names))
    axes, places = [], []
    for at, name in enumerate(names):
        place, ticks = _placed(result, name, ranked)
        places.append(place)
        axes.append(_axis(round(SIDE + at * apart, 1), name, ticks))
    values = [each.value or 0.0 for each in ranked]
    up = _scale(min(values), max(values))
    axes.append(
        _axis(WIDTH - SIDE, result.metric, _ticks(min(values), max(values), up), strong=True)
    )
    lines = []
    for rank, each in reversed(list(enumerate(ranked))):
        # A parameter that is not there leaves a gap, which the line crosses straight.
        stops = [
            f"{round(SIDE + at * apart, 1)} {place(each.params[name])}"
            for at, (name, place) in enumerate(zip(names, places, strict=True))
            if name in each.params
        ]
        stops.append(f"{WIDTH - SIDE} {up(each.value or 0.0)}")
        share = 1 - rank / max(1, len(ranked) - 1)
        label = escape(f"trial {each.number}: {_text(each.value)}")
        lines.append(
            f'<path d="M{"L".join(stops)}" stroke-opacity="{0.12 + 0.78 * share**3:.2f}">'
            f"<title>{label}</title></path>"
        )
    more = f'<p class="note">{left_out} more parameters are not drawn.</p>' if left_out > 0 else ""
    return (
        _svg(
            "Each trial as a line through its params and its value",
            f'<g fill="none" stroke="{COLOURS[0]}" stroke-width="1.5">{"".join(lines)}</g>',
            *axes,
        )
        + more
    )


def _varies(name: str, trials: Sequence[Done]) -> bool:
    return len({to_json(each.params.get(name)) for each in trials}) > 1


def _placed(
    result: SweepResult, name: str, trials: Sequence[Done]
) -> tuple[Callable[[Any], float], list[tuple[float, str]]]:
    """Say where a value of a parameter lies on its axis, and what is written there."""
    domain = result.space.domains[name]
    plain = domain.space if isinstance(domain, When) else domain
    found = [each.params[name] for each in trials if name in each.params]
    if all(type(each) in (int, float) for each in found) and hasattr(plain, "step"):
        log = isinstance(plain, LogUniform) or (isinstance(plain, Integer) and plain.log)
        if log and min(found) > 0:
            low, high = math.log(min(found)), math.log(max(found))
            up = _scale(low, high)
            marks = [low + share * (high - low) / 4 for share in range(5)]
            return lambda value: up(math.log(value)), [
                (up(mark), f"{math.exp(mark):.3g}") for mark in marks
            ]
        low, high = float(min(found)), float(max(found))
        up = _scale(low, high)
        return up, _ticks(low, high, up)
    names = {to_json(each): _shown(each) for each in found}
    kinds = sorted(names)
    place = _scale(0, max(1, len(kinds) - 1))
    where = {kind: place(at) for at, kind in enumerate(kinds)}
    shown = list(where.items())
    ticks = [(y, names[kind]) for kind, y in shown[:: max(1, math.ceil(len(shown) / MOST_TICKS))]]
    return lambda value: where[to_json(value)], ticks


def _scale(low: float, high: float) -> Callable[[float], float]:
    whole = high / 2 - low / 2  # Half of it, since the whole may be more than a float can hold.

    def at(value: float) -> float:
        share = (value / 2 - low / 2) / whole if whole > 0 else 0.5
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    return at


def _ticks(low: float, high: float, up: Callable[[float], float]) -> list[tuple[float, str]]:
    marks = [low] if low == high else [low + (high / 4 - low / 4) * part for part in range(5)]
    return [(up(mark), f"{mark:.4g}") for mark in marks]


def _axis(x: float, name: str, ticks: Sequence[tuple[float, str]], *, strong: bool = False) -> str:
    marks = "".join(
        f'<text x="{x - 6}" y="{y + 4}" text-anchor="end" stroke="#fff" stroke-width="3" '
        f'paint-order="stroke">{escape(short(text, 10))}</text>'
        for y, text in ticks
    )
    weight = ' font-weight="700"' if strong else ""
    label = escape(short(name, 14))
    return (
        f'<path d="M{x} {TOP}V{HEIGHT - BOTTOM}" stroke="{INK}" fill="none"/>{marks}'
        f'<text x="{x}" y="{TOP - 14}" text-anchor="middle"{weight}>{label}</text>'
    )


def _svg(label: str, *parts: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" font-size="11" '
        f'fill="{INK}">{"".join(parts)}</svg>'
    )


def _importances(result: SweepResult) -> str:
    try:
        shares = result.importances(quick=True)  # A forest may take seconds.
    except (MissingDependency, ValueError, RuntimeError):
        return ""  # Optuna refuses to weigh what does not vary.
    if not shares:
        return ""
    rows = "".join(
        f"<tr><td>{escape(short(name, LONGEST))}</td><td>{share:.1%}</td>"
        f'<td style="width:60%"><svg viewBox="0 0 100 4" preserveAspectRatio="none" '
        f'style="height:10px"><rect width="{100 * share:.1f}" height="4" fill="{COLOURS[0]}"/>'
        "</svg></td></tr>"
        for name, share in shares.items()
    )
    return f"<h2>What the value depends on</h2><table>{rows}</table>"


def _table(result: SweepResult) -> str:
    names = list(result.space.domains)
    sign = 1 if result.direction == "minimize" else -1
    ranked = sorted(
        result.trials,
        key=lambda each: (each.value is None, sign * (each.value or 0.0), each.number),
    )
    head = "".join(
        f"<th>{escape(short(each, LONGEST))}</th>"
        for each in ("trial", "state", result.metric, *names, "run")
    )
    rows = "".join(_row(each, names) for each in ranked[:MOST_ROWS])
    rest = len(ranked) - MOST_ROWS
    more = f'<p class="note">and {rest} more</p>' if rest > 0 else ""
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div>{more}"
    )


def _row(each: Done, names: Sequence[str]) -> str:
    state = f"{each.state}: {each.error}" if each.error else each.state
    cells = [str(each.number), state, _text(each.value)]
    cells += [_shown(each.params[name]) if name in each.params else "" for name in names]
    cells.append(each.run_id[:8])
    inner = "".join(f"<td>{escape(short(cell, LONGEST))}</td>" for cell in cells)
    return f'<tr class="{each.state}">{inner}</tr>'


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else repr(value)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"

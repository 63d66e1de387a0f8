"""The page of a comparison of runs: one file, which needs nothing else to be shown."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any, Final

from mlopskit.tracking.compare import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlopskit.tracking.compare import Course, RunComparison

WIDTH, HEIGHT, LEFT, BELOW, ROUND = 460, 220, 58, 24, 8
TICKS: Final = 4
LONGEST: Final = 300
# Told apart by those who see few colours too (Okabe and Ito, https://jfly.uni-koeln.de/color/).
COLOURS: Final = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00"),
    *("#cc79a7", "#56b4e9", "#8a8a8a", "#b8a900"),
)
STYLE: Final = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#17202c;--soft:#5c6a7c;--line:#e1e6ec;
--wins:#1a7f4b}
@media(prefers-color-scheme:dark){:root{--bg:#0e131a;--card:#171e28;--ink:#e8edf4;--soft:#94a2b5;
--line:#2a3441;--wins:#4cc38a}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 18px 60px}h1{margin:0 0 4px;font-size:1.8rem}
h2{font-size:1.1rem;margin:32px 0 8px}p{color:var(--soft);margin:.2rem 0 .6rem}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:12px}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;
padding:7px 14px;border-top:1px solid var(--line);font-variant-numeric:tabular-nums;
overflow-wrap:anywhere;min-width:8.5rem;max-width:24rem}
th{font-weight:600}thead th{border-top:0;vertical-align:bottom}
tbody th{color:var(--soft);font-weight:500}time,.digest{white-space:nowrap}code{font-size:.85em}
tr>:first-child{position:sticky;left:0;background:var(--card)}
@media(max-width:600px){main{padding:20px 12px 40px}th,td{padding:6px 9px}
tr>:first-child{min-width:6rem;max-width:8.5rem;font-size:.85rem}}
i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:7px}
.none{color:var(--soft)}.best,.wins{font-weight:600}.wins{color:var(--wins)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(420px,100%),1fr));gap:14px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:12px;
padding:12px 14px}figcaption{font-weight:600;overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto}text{fill:var(--soft);font-size:11px}
.grid{stroke:var(--line)}polyline{fill:none;stroke-width:2;stroke-linejoin:round}
circle{fill-opacity:0}circle:hover{fill-opacity:1}
"""


def page(comparison: RunComparison) -> str:
    """Return the page."""
    names = [column.label for column in comparison.columns]
    parts = [
        f"<h1>{len(names)} runs compared</h1>",
        _runs(comparison),
        _params(comparison, names),
        _metrics(comparison, names),
        _artifacts(comparison, names),
    ]
    title = escape(" · ".join(names))[:LONGEST]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _runs(comparison: RunComparison) -> str:
    rows = []
    for at, column in enumerate(comparison.columns):
        run = column.run
        began = "" if run.started_at is None else f"{run.started_at:%Y-%m-%d %H:%M:%S}"
        took = ""
        if run.started_at is not None and run.ended_at is not None:
            took = f"{(run.ended_at - run.started_at).total_seconds():.1f} s"
        head = [_key(at, column.label), f"<code>{escape(run.id)}</code>"]
        rest = [escape(run.status), f"<time>{began}</time>", took, escape(column.target)]
        rows.append([*head, escape(run.experiment), *rest])
    head = ["run", "id", "experiment", "status", "started", "took", "where"]
    return _table(head, rows)


def _params(comparison: RunComparison, names: Sequence[str]) -> str:
    found = ""
    for what, values, alike in (
        ("Params", comparison.params, comparison.same_params),
        ("Tags", comparison.tags, comparison.same_tags),
    ):
        if not values and not alike:
            continue
        rows = [[escape(key), *map(_value, row)] for key, row in values.items()]
        table = _table([what.lower()[:-1], *map(escape, names)], rows) if rows else ""
        said = f"{alike} {'is' if alike == 1 else 'are'} the same."
        found += f"<h2>{what} that differ</h2><p>{said}</p>{table}"
    return found


def _metrics(comparison: RunComparison, names: Sequence[str]) -> str:
    if not comparison.metrics:
        return ""
    rows = []
    for key, courses in comparison.metrics.items():
        winners, way = comparison.winners(key), comparison.directions.get(key)
        said = f'<br><span class="none">{way}d</span>' if way else ""
        cells = [_course(each, wins=at in winners) for at, each in enumerate(courses)]
        rows.append([escape(key) + said, *cells])
    charts = "".join(
        _chart(key, courses, names)
        for key, courses in comparison.metrics.items()
        if any(course is not None and len(course.values) > 1 for course in courses)
    )
    said = "The value at the last step, and below it the lowest and the highest of all."
    if comparison.directions:
        said += " Between them the best one, where a direction was given."
    return (
        f"<h2>Metrics</h2><p>{said}</p>"
        + _table(["metric", *map(escape, names)], rows)
        + (f'<h2>How they went</h2><div class="charts">{charts}</div>' if charts else "")
    )


def _course(course: Course | None, *, wins: bool) -> str:
    if course is None:
        return _value(ABSENT)
    said = f"{_value(course.last)} at step {course.last_step}"
    if course.best is not None:
        what = "best of all" if wins else "best"
        shown = f"{what}: {_value(course.best)} at step {course.best_step}"
        said += f'<br><b class="{"wins" if wins else "best"}">{shown}</b>'
    around = f"{_value(course.lowest)} to {_value(course.highest)}"
    return f'{said}<br><span class="none">{around}</span>'


def _artifacts(comparison: RunComparison, names: Sequence[str]) -> str:
    if not comparison.artifacts:
        return ""
    rows = [
        [
            escape(name),
            *map(_file, row),
            "same" if len(set(row)) == 1 else "",
        ]
        for name, row in comparison.artifacts.items()
    ]
    return "<h2>Files, by digest</h2>" + _table(["file", *map(escape, names), ""], rows)


def _chart(key: str, courses: Sequence[Course | None], names: Sequence[str]) -> str:
    """Draw the courses of one metric over their steps."""
    drawn = [(at, _finite(course)) for at, course in enumerate(courses) if course is not None]
    points = [pair for _, some in drawn for pair in some]
    if not points:
        return ""
    across = _Scale([step for step, _ in points], LEFT, WIDTH - ROUND)
    up = _Scale([value for _, value in points], HEIGHT - BELOW, ROUND)
    lines = []
    for value in up.ticks():
        y = up.place(value)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for step, anchor in ((across.low, "start"), (across.high, "end")):
        x = across.place(step)
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{step:.0f}</text>')
    for at, some in drawn:
        colour = COLOURS[at % len(COLOURS)]
        placed = [(across.place(step), up.place(value), step, value) for step, value in some]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in placed)
        lines.append(f'<polyline stroke="{colour}" points="{path}"/>')
        lines += [
            f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>'
            f"{escape(names[at])}: {value:.6g} at step {step}</title></circle>"
            for x, y, step, value in placed
        ]
    name = escape(key)
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name} over steps">'
        f"{''.join(lines)}</svg></figure>"
    )


def _finite(course: Course) -> list[tuple[int, float]]:
    pairs = zip(course.steps, course.values, strict=True)
    return [(step, value) for step, value in pairs if math.isfinite(value)]


class _Scale:
    """From numbers to places along an axis."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self.low, self.high = float(min(values)), float(max(values))
        self._begin, self._end = begin, end

    def place(self, value: float) -> float:
        """Return where a value lies; all of one value lie in the middle."""
        # Halved, so that the whole range of floats has a width.
        width = self.high / 2 - self.low / 2
        share = 0.5 if width == 0 else (value / 2 - self.low / 2) / width
        return self._begin + share * (self._end - self._begin)

    def ticks(self) -> list[float]:
        """Return a few values from the lowest to the highest."""
        if self.low == self.high:
            return [self.low]
        step = self.high / TICKS - self.low / TICKS
        return [self.low + step * at for at in range(TICKS)] + [self.high]


def _key(at: int, label: str) -> str:
    return f'<i style="background:{COLOURS[at % len(COLOURS)]}"></i>{escape(label)}'


def _value(value: Any) -> str:
    if value is ABSENT or value is None:
        return '<span class="none">-</span>'
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else repr(value)
    return escape(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


def _file(digest: str | None) -> str:
    if digest is None:
        return _value(ABSENT)
    short = digest[:19] if digest.startswith("sha256:") else digest[:LONGEST]
    return f'<code class="digest">{escape(short)}</code>'


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{each}</th>" for each in head)
    body = "".join(
        f"<tr><th>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )

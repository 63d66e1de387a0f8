"""The page of a drift report: one file, drawn in SVG, that opens offline on any screen.

Nothing in it is a link, a script or a font from elsewhere, and every value from the data is
escaped.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

from mlopskit.monitoring.style import STYLE

if TYPE_CHECKING:
    from mlopskit.monitoring.entities import ColumnDrift, DriftReport, Finding, Histogram

LARGEST_PAGE: Final = 190_000
LONGEST_NAME: Final = 80
MOST_FINDINGS: Final = 50
# A meter is full at four times the threshold.
FULL: Final = 4.0
SEVERITIES: Final = {"error": "breaks", "warning": "check", "info": "note"}
METHODS: Final = {
    "ks": "Kolmogorov-Smirnov distance",
    "chi2": "Cramer's V",
    "psi": "population stability index",
    "js": "Jensen-Shannon distance",
    "wasserstein": "Wasserstein distance in standard deviations",
}


def page(report: DriftReport) -> str:
    """Return the report as one HTML page under 200 KB."""
    columns = sorted(report.columns.values(), key=_urgency)
    head, foot = _head(report), "</main></body></html>\n"
    left = LARGEST_PAGE - len((head + foot).encode())
    cards: list[str] = []
    for column in columns:
        card = _card(column)
        left -= len(card.encode())
        if left < 0:
            break
        cards.append(card)
    rest = len(columns) - len(cards)
    note = ""
    if rest:
        note = (
            f'<p class="note">{rest} more columns, of the least drift, are left out to keep this '
            "page small. The JSON of the report has them all.</p>"
        )
    return f'{head}<section class="cards">{"".join(cards)}</section>{note}{foot}'


def _urgency(column: ColumnDrift) -> tuple[bool, bool, float]:
    return (not column.drifted, not column.tested, -_ratio(column))


def _ratio(column: ColumnDrift) -> float:
    return column.effect / column.threshold if column.threshold else float(column.effect > 0) * FULL


def _head(report: DriftReport) -> str:
    tested = sum(column.tested for column in report.columns.values())
    drifted = sum(column.drifted for column in report.columns.values())
    verdict = "Drift" if report.drifted else "No drift"
    sentence = f"{drifted} of {tested} tested columns drifted."
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{verdict}: {escape(sentence)}</title><style>{STYLE}</style></head><body><main>"
        f'<header class="{"bad" if report.drifted else "good"}"><p class="eyebrow">Drift report</p>'
        f"<h1>{verdict}</h1><p>{escape(sentence)}</p></header>"
        f"{_figures(report, tested)}{_findings(report.findings)}"
        f'<h2>Columns</h2><p class="note">A column drifted where the difference is significant '
        f"(adjusted p at most {report.alpha:g}, correction {escape(report.correction)}) and its "
        "effect reaches the mark on the meter.</p>"
        '<p class="legend"><span class="reference">reference</span>'
        '<span class="current">current</span></p>'
    )


def _figures(report: DriftReport, tested: int) -> str:
    figures = (
        ("columns drifted", f"{report.share_drifted:.0%}"),
        ("columns tested", f"{tested:,}"),
        ("rows now", f"{report.n_current:,}"),
        ("rows of the reference", f"{report.n_reference:,}"),
    )
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures)
    return f'<dl class="figures">{items}</dl>'


def _findings(findings: tuple[Finding, ...]) -> str:
    if not findings:
        return ""
    order = list(SEVERITIES)
    ordered = sorted(findings, key=lambda finding: order.index(finding.severity))
    items = "".join(
        f'<li class="{finding.severity}"><b>{SEVERITIES[finding.severity]}</b>'
        f"<span>{escape(_short(finding.message, 3 * LONGEST_NAME))}</span></li>"
        for finding in ordered[:MOST_FINDINGS]
    )
    rest = len(findings) - MOST_FINDINGS
    more = f'<p class="note">and {rest} more</p>' if rest > 0 else ""
    return f'<h2>Findings</h2><ul class="findings">{items}</ul>{more}'


def _card(column: ColumnDrift) -> str:
    state, word = _state(column)
    name = escape(_short(column.column, LONGEST_NAME))
    drawing = _drawing(column.histogram) if column.histogram else ""
    meter = _meter(column) if column.tested else ""
    return (
        f'<article class="{state}"><h3>{name}</h3><span class="badge">{word}</span>'
        f"{meter}{drawing}{_facts(column)}"
        f'<p class="reason">{escape(_short(column.reason, 300))}</p></article>'
    )


def _state(column: ColumnDrift) -> tuple[str, str]:
    if not column.tested:
        return "untested", "not tested"
    return ("drifted", "drifted") if column.drifted else ("steady", "steady")


def _meter(column: ColumnDrift) -> str:
    width = 100 * min(_ratio(column), FULL) / FULL
    mark = 100 / FULL
    label = escape(METHODS.get(column.method, column.method))
    return (
        f'<p class="effect"><b>{_number(column.effect)}</b> {label}, '
        f"counts from {_number(column.threshold)}</p>"
        f'<svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="6" rx="1"/>'
        f'<rect class="value" width="{width:.1f}" height="6" rx="1"/>'
        f'<rect class="mark" x="{mark - 0.3:.1f}" width=".6" height="6"/></svg>'
    )


def _drawing(histogram: Histogram) -> str:
    """Draw both sides' shares as pairs of bars, with the labels as tooltips."""
    top = max((*histogram.reference, *histogram.current), default=0.0)
    n = len(histogram.labels)
    if not n or not top:
        return ""
    step, bars = 300 / n, []
    rows = zip(histogram.labels, histogram.reference, histogram.current, strict=True)
    for i, (label, before, now) in enumerate(rows):
        title = f"{escape(label)}: {before:.1%} in the reference, {now:.1%} now"
        width = step * 0.42
        bars.append(
            f"<g><title>{title}</title>"
            f"{_bar('reference', i * step + step * 0.06, width, before / top)}"
            f"{_bar('current', i * step + step * 0.52, width, now / top)}</g>"
        )
    ends = (escape(histogram.labels[0]), escape(histogram.labels[-1]))
    return (
        f'<svg class="bars" viewBox="0 0 300 84" role="img" aria-label="Shares of both sides">'
        f'{"".join(bars)}<line x1="0" x2="300" y1="83" y2="83"/></svg>'
        f'<p class="ends"><span>{ends[0]}</span><span>{ends[1] if n > 1 else ""}</span></p>'
    )


def _bar(kind: str, x: float, width: float, share: float) -> str:
    height = 80 * share
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{83 - height:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}"/>'
    )


def _facts(column: ColumnDrift) -> str:
    facts = []
    if column.adjusted_p is not None:
        facts.append(("adjusted p", _p(column.adjusted_p)))
    facts.append(("missing", f"{column.missing_share:.1%}"))
    facts.append(("before", f"{column.reference_missing_share:.1%}"))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _p(value: float) -> str:
    return "&lt; 0.0001" if value < 1e-4 else f"{value:.4f}"


def _number(value: float) -> str:
    return (
        f"{value:.3g}"
        if value and not 1e-3 <= value < 1e6
        else f"{math.floor(value * 1e3) / 1e3:g}"
    )


def _short(text: str, longest: int) -> str:
    """Return text that fits its place and shows no direction marks or control characters."""
    shown = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"

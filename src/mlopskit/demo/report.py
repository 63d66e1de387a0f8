"""The demo's HTML report: one file that opens offline, at a desk and on a phone, day and night."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlopskit.demo.charts import auc_chart, heat_map
from mlopskit.demo.result import YEAR
from mlopskit.demo.style import STYLE
from mlopskit.demo.words import days, decision_line, duration, escape, headline, score, summary
from mlopskit.storage import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.demo.result import DemoResult, Month, Version

SHOWN: Final = 12


def write_report(result: DemoResult) -> Path:
    """Write the report to the place that the result names, whole or not at all.

    Raises:
        StorageError: If it cannot be written.
    """
    write_whole(result.report, render(result).encode())
    return result.report


def render(result: DemoResult) -> str:
    """Return the report as HTML. Everything in it is escaped, and it names no other file."""
    months = result.months
    title = headline(months[0].month, months[-1].month)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        (
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'\">"
        ),
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>",
        f'<header><p class="eyebrow">mlopskit demo</p><h1>{escape(title)}</h1>',
        f"<p>{_lead(result)}</p></header>",
        _figures(result),
        _section("How well the models ranked", _LEGEND + auc_chart(months), _AUC_NOTE),
        _section("Month by month", _months(result)),
        _section(
            "Drift from the first model's training data",
            heat_map(months, lambda month: month.effects_first),
            "Each cell is the size of a column's change against January and February. "
            "It is marked where that makes a drift.",
        ),
        _section(
            "Drift from the serving model's training data",
            heat_map(months, lambda month: month.effects),
            "The same against what the model that served the month was trained on: this is what "
            "the triggers look at, and what retraining takes back.",
        ),
        _section("Decisions, with their reasons", "".join(map(_decision, months))),
        _section(
            "Where each model comes from",
            "".join(_lineage(each, months) for each in result.versions),
        ),
        _footer(result),
        "</main></body></html>",
    ]
    return "".join(parts)


_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_LEGEND = (
    '<p class="legend"><span class="live-key">serving model</span>'
    '<span class="first-key">first model, never retrained</span>'
    '<span class="promoted-key">retrained model promoted at the month’s end</span>'
    '<span class="refused-key">refused by the gate</span></p>'
)
_AUC_NOTE = (
    "Area under the ROC curve on all flights of the month that had landed when it was judged: "
    "0.5 is guessing. Both models answered over HTTP, from the same online features."
)


def _lead(result: DemoResult) -> str:
    return escape(
        f"{result.prepared.flights:,} scheduled flights and {result.prepared.weather:,} hours of "
        f"weather of {YEAR}, replayed as they became known. A flight counts as late when it "
        "arrives more than 15 minutes after schedule. "
    )


def _figures(result: DemoResult) -> str:
    months = result.months
    outcomes = [month.decision.outcome for month in months]
    served = [month for month in months if month.retrained]
    gain = sum(m.auc_live - m.auc_first for m in served) / len(served) if served else 0.0
    figures = [
        (f"{gain:+.3f}" if served else "–", "AUC, retrained against first model"),
        (str(outcomes.count("promoted")), "challengers promoted"),
        (str(outcomes.count("refused")), "challengers refused"),
        (f"{result.answered:,}", f"requests answered, {result.requests - result.answered} lost"),
        (str(sum(m.differing for m in months)), "served values unlike history"),
        (duration(result.seconds), "for all of it"),
    ]
    cells = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for value, label in figures
    )
    return f'<dl class="figures">{cells}</dl>'


def _months(result: DemoResult) -> str:
    heads = ("month", "flights", "drifted", "first", "live", "by", "decision")
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(map(_row, result.months))}</tbody></table></div>"
    )


def _row(month: Month) -> str:
    gain = month.auc_live - month.auc_first
    kind = "better" if gain > 0 else "worse" if gain < 0 else ""
    return (
        f"<tr><th>{escape(month.name)}</th><td>{month.rows:,}</td>"
        f"<td>{len(month.drifted)}/{len(month.effects)}</td><td>{score(month.auc_first)}</td>"
        f'<td class="{kind}">{score(month.auc_live)}</td><td>v{month.live_version}</td>'
        f'<td class="{month.decision.outcome}">'
        f'<span class="long">{escape(decision_line(month))}</span>'
        f'<span class="short">{month.decision.outcome}</span></td></tr>'
    )


def _decision(month: Month) -> str:
    decision = month.decision
    reasons = "".join(f"<li>{escape(each)}</li>" for each in (*decision.triggers, *decision.gate))
    swap = ""
    if decision.swap is not None:
        swap = (
            f"<li>While the versions changed, {decision.swap.answered} of {decision.swap.sent} "
            "requests were answered.</li>"
        )
    return (
        f'<article class="decision {decision.outcome}"><h3>{escape(month.name)} '
        f"<small>{escape(decision_line(month))}</small></h3><ul>{reasons}{swap}</ul></article>"
    )


def _lineage(version: Version, months: tuple[Month, ...]) -> str:
    served = [month.name[:3] for month in months if month.live_version == version.version]
    steps = (
        ("data", days(version.trained), f"{version.rows:,} flights"),
        ("fingerprint", version.fingerprint[:SHOWN], "SHA-256 of the table"),
        ("run", version.run_id[:SHOWN], "from the cache" if version.cached else "trained"),
        ("model", version.digest.removeprefix("sha256:")[:SHOWN], f"AUC {score(version.auc)}"),
        ("served", " ".join(served) or "never", "months"),
    )
    cells = "".join(
        f"<li><small>{escape(kind)}</small><b>{escape(value)}</b><span>{escape(note)}</span></li>"
        for kind, value, note in steps
    )
    return f'<article class="lineage"><h3>v{version.version}</h3><ol>{cells}</ol></article>'


def _section(title: str, body: str, note: str = "") -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{said}{body}</section>"


def _footer(result: DemoResult) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in summary(result))
    looks = "".join(f"<li><code>{escape(each)}</code></li>" for each in result.commands)
    tools = ", ".join(f"{domain} {tool}" for domain, tool in result.tools.items())
    return (
        f"<footer><h2>In short</h2><ul>{lines}</ul><h2>Look further</h2><ul>{looks}</ul>"
        f"<p>Tools: {escape(tools)}. Run <code>{escape(result.run_id)}</code>.</p></footer>"
    )

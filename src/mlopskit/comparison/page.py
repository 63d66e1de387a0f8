"""A comparison of tools as a page of one file, and as Markdown."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from mlopskit.comparison.tables import MEANINGS, tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.comparison.result import ToolComparison
    from mlopskit.comparison.tables import Cell

STYLE: Final = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#17202c;--soft:#5c6a7c;--line:#e1e6ec;
--kept:#1a7f4b;--changed:#b86a00;--refused:#5c6a7c;--lost:#c4342d}
@media(prefers-color-scheme:dark){:root{--bg:#0e131a;--card:#171e28;--ink:#e8edf4;--soft:#94a2b5;
--line:#2a3441;--kept:#4cc38a;--changed:#f0a73a;--refused:#94a2b5;--lost:#ff7b72}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 18px 60px}h1{margin:0;font-size:1.9rem}
h2{font-size:1.15rem;margin:34px 0 8px}p{color:var(--soft);margin:.2rem 0 .6rem;max-width:52rem}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:12px}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;
padding:7px 14px;border-top:1px solid var(--line);font-variant-numeric:tabular-nums;
min-width:7.5rem}thead th{border-top:0;vertical-align:bottom}
tbody th{font-weight:500;color:var(--soft)}
tr>:first-child{position:sticky;left:0;background:var(--card);min-width:9rem;width:22%}
b{font-weight:650}.kept{color:var(--kept)}.changed{color:var(--changed)}
.refused{color:var(--refused)}.lost,.unnoticed,.ran-code{color:var(--lost)}
small{display:block;color:var(--soft);overflow-wrap:anywhere;line-height:1.35}
@media(max-width:600px){main{padding:20px 12px 40px}th,td{padding:6px 9px}
tr>:first-child{min-width:7.5rem;max-width:9.5rem;font-size:.85rem}}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;color:var(--soft);font-size:.9rem}
"""


def page(comparison: ToolComparison) -> str:
    """Return the page."""
    sections = [
        f"<h2>{escape(title)}</h2>" + (f"<p>{escape(note)}</p>" if note else "") + _html(head, rows)
        for title, note, head, rows in tables(comparison)
    ]
    legend = "".join(
        f'<span><b class="{fate.replace(" ", "-")}">{fate}</b> {escape(said)}</span>'
        for fate, said in MEANINGS.get(comparison.domain, {}).items()
    )
    title = f"{comparison.domain.capitalize()} tools compared"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1><p>{escape(_about(comparison))}</p>"
        f'<div class="legend">{legend}</div>{"".join(sections)}</main></body></html>\n'
    )


def markdown(comparison: ToolComparison) -> str:
    """Return the tables as Markdown."""
    parts = [_about(comparison)]
    for title, note, head, rows in tables(comparison):
        parts.append(f"## {title}" + (f"\n\n{note}" if note else ""))
        lines = [head, ["---"] * len(head)]
        lines += [[_flat(cell) for cell in row] for row in rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def _about(comparison: ToolComparison) -> str:
    versions = ", ".join(f"{name} {each}" for name, each in comparison.versions.items())
    on = f" The machine: {comparison.machine}." if comparison.machine else ""
    return f"Measured on {comparison.date[:10]} with {versions}.{on}"


def _html(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    titles = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = ""
    for row in rows:
        cells = "".join(f"<td>{_cell(each)}</td>" for each in row[1:])
        body += f"<tr><th>{escape(row[0][0])}</th>{cells}</tr>"
    return (
        f'<div class="scroll"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    text, kind, note = cell
    shown = f'<b class="{kind}">{escape(text)}</b>' if kind else escape(text)
    return shown + (f"<small>{escape(note)}</small>" if note else "")


def _flat(cell: Cell) -> str:
    text, _, note = cell
    whole = f"{text}: `{note.replace('`', '')}`" if note else text
    return " ".join(whole.replace("|", "\\|").split())

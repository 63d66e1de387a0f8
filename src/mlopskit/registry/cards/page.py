"""A model card as a page: one file, which needs nothing else to be shown."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from mlopskit.registry.markup import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.registry.cards.sections import Section

LONG: Final = 40
_STYLE: Final = """
:root{color-scheme:light dark;--back:#f5f6f8;--face:#fff;--ink:#1a2230;--soft:#5b687a;
--line:#dfe4ea;--warn:#8a4b00;--warn-back:#fff4e2}
@media(prefers-color-scheme:dark){:root{--back:#10151c;--face:#18202a;--ink:#e6ebf2;--soft:#93a1b4;
--line:#2b3542;--warn:#ffc46b;--warn-back:#2c2211}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:860px;margin:0 auto;padding:28px 16px 56px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 20px;overflow-wrap:anywhere}
section{background:var(--face);border:1px solid var(--line);border-radius:10px;
padding:14px 18px;margin:0 0 14px}
h2{font-size:1rem;margin:0 0 6px;color:var(--soft);font-weight:600}
p{margin:0;white-space:pre-line;overflow-wrap:anywhere}p+div{margin-top:10px}
div{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;vertical-align:top;padding:6px 14px 6px 0;border-top:1px solid var(--line);
font-variant-numeric:tabular-nums}td:nth-last-child(-n+2){overflow-wrap:break-word}
td:first-child{white-space:nowrap}td:last-child{max-width:26rem}
.long td:last-child{min-width:15rem;overflow-wrap:anywhere}
tr:first-child>*{border-top:0}thead th{color:var(--soft);font-weight:500}
.facts th{width:7.5em;color:var(--soft);font-weight:500}
.facts td:last-child{max-width:none;overflow-wrap:anywhere}
.open{border-color:var(--warn);background:var(--warn-back)}.open h2{color:var(--warn)}
"""


def page(title: str, parts: Sequence[Section]) -> str:
    """Return sections as a page. It runs no script, and fetches nothing."""
    name = _shown(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{name}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{name}</h1>{''.join(map(_section, parts))}</main></body></html>\n"
    )


def _section(part: Section) -> str:
    text = "\n".join(_shown(line) for line in part.text.strip().splitlines())
    said = f"<p>{text}</p>" if text else ""
    open_ = ' class="open"' if part.plain else ""
    return f"<section{open_}><h2>{escape(part.title)}</h2>{said}{_table(part)}</section>"


def _table(part: Section) -> str:
    if not part.rows:
        return ""
    if not any(part.head):
        rows = "".join(f"<tr><th>{_shown(a)}</th><td>{_shown(b)}</td></tr>" for a, b in part.rows)
        return f'<div><table class="facts">{rows}</table></div>'
    kind = ' class="long"' if any(len(row[-1]) > LONG for row in part.rows) else ""
    head = "".join(f"<th>{_shown(cell)}</th>" for cell in part.head)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_shown(cell)}</td>' for cell in row)}</tr>" for row in part.rows
    )
    return f"<div><table{kind}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _shown(text: str) -> str:
    return escape(shown(text))

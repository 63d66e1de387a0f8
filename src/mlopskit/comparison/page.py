"""A comparison of tools as a page of one file, and as Markdown."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from mlopskit.comparison.workload import SENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlopskit.comparison.result import ToolComparison, ToolResult, Verdict

FATES: Final = {
    "kept": "reads back equal",
    "changed": "reads back as something else",
    "refused": "an error",
    "lost": "does not read back, or not all of it",
}
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
.refused{color:var(--refused)}.lost{color:var(--lost)}
small{display:block;color:var(--soft);overflow-wrap:anywhere;line-height:1.35}
@media(max-width:600px){main{padding:20px 12px 40px}th,td{padding:6px 9px}
tr>:first-child{min-width:7.5rem;max-width:9.5rem;font-size:.85rem}}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;color:var(--soft);font-size:.9rem}
"""

Cell = tuple[str, str, str]  # text, class, note


def page(comparison: ToolComparison) -> str:
    """Return the page."""
    sections = [
        f"<h2>{escape(title)}</h2>" + (f"<p>{escape(note)}</p>" if note else "") + _html(head, rows)
        for title, note, head, rows in tables(comparison)
    ]
    legend = "".join(
        f'<span><b class="{fate}">{fate}</b> {escape(said)}</span>' for fate, said in FATES.items()
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


def tables(
    comparison: ToolComparison,
) -> Iterable[tuple[str, str, list[str], list[list[Cell]]]]:
    """Yield the title, note, head and rows of each table."""
    done = [each for each in comparison.results if not each.error]
    ways = [_way(each) for each in done]
    if done:
        yield _counts(done, ways)
        yield _costs(done, ways, comparison.times)
    if any(each.outage for each in done):
        yield _outages([each for each in done if each.outage])
    if done:
        yield _fates(done, ways)
    made = [each for each in done if each.made]
    if made:
        rows: list[list[Cell]] = [[(_way(each), "", ""), (each.made, "", "")] for each in made]
        yield "What was made", "It stays there until somebody deletes it.", ["", "what"], rows
    failed = [each for each in comparison.results if each.error]
    if failed:
        rows = [[(_way(each), "", ""), (each.error, "", "")] for each in failed]
        yield "Not compared", "", ["", "why"], rows
    if comparison.capabilities:
        yield _capabilities(comparison)


def _counts(
    done: Sequence[ToolResult], ways: list[str]
) -> tuple[str, str, list[str], list[list[Cell]]]:
    kinds = list(dict.fromkeys(each.kind for each in done[0].verdicts))
    rows: list[list[Cell]] = []
    for kind in (*kinds, ""):
        seen = [[v for v in each.verdicts if kind in ("", v.kind)] for each in done]
        row: list[Cell] = [(f"{kind}s" if kind else "all", "", "")]
        row += [_count(verdicts) for verdicts in seen]
        rows.append(row)
    note = (
        "Each is logged, and read back from where the tool keeps it, with its type. These are the "
        "values that the contract of mlopskit's trackers is about, so what goes through mlopskit "
        "should keep all of them; few programs log many of these. Each of them is below."
    )
    return "What is kept", note, ["", *ways], rows


def _count(verdicts: Sequence[Verdict]) -> Cell:
    kept = sum(each.fate == "kept" for each in verdicts)
    others = {fate: sum(each.fate == fate for each in verdicts) for fate in FATES}
    note = ", ".join(f"{n} {fate}" for fate, n in others.items() if n and fate != "kept")
    return f"{kept} of {len(verdicts)}", "kept" if kept == len(verdicts) else "", note


def _fates(
    done: Sequence[ToolResult], ways: list[str]
) -> tuple[str, str, list[str], list[list[Cell]]]:
    rows: list[list[Cell]] = []
    for at, first in enumerate(done[0].verdicts):
        row: list[Cell] = [(f"{first.kind}: {first.what}", "", "")]
        row += [_verdict(each.verdicts[at]) for each in done]
        rows.append(row)
    note = (
        "What reads back instead, or the error. W&B has no reader of its offline runs: "
        "mlopskit's reads them."
    )
    return "Each case", note, ["", *ways], rows


def _costs(
    done: Sequence[ToolResult], ways: list[str], times: int
) -> tuple[str, str, list[str], list[list[Cell]]]:
    facts = [
        ("a call with three metrics, median", [f"{each.p50_us:,.0f} µs" for each in done]),
        ("its 99th percentile", [f"{each.p99_us:,.0f} µs" for each in done]),
        ("points stored a second", [f"{each.points_per_s:,.0f}" for each in done]),
        ("CPU to import", [f"{each.import_s:.2f} s" for each in done]),
        ("from nothing imported to a first run", [f"{each.start_s:.2f} s" for each in done]),
        (
            "bytes on the disk of a run with 3,000 points",
            [_bytes(each.stored_bytes) for each in done],
        ),
    ]
    rows = [[(name, "", ""), *((text, "", "") for text in row)] for name, row in facts]
    often = "Once" if times == 1 else f"The median of {times} times"
    note = (
        f"{often}, each in a process of its own, with a thousand calls: machines are noisy, so "
        "look at the order of magnitude. mlopskit imports a tool when it is opened, which the "
        "caller waits for: that is in the time to a first run, not in the CPU to import. Its calls "
        "return once the values are in a file; points count as stored when the tool has them."
    )
    early = [each for each in done if each.imported_before]
    if early:
        names = ", ".join(f"{_way(each)}: {each.imported_before[0]}" for each in early)
        note += f" Imported before its time was measured, so that it means nothing: {names}."
    return "What it costs", note, ["", *ways], rows


def _bytes(count: int | None) -> str:
    return "not on this disk" if count is None else f"{count:,}"


def _outages(done: Sequence[ToolResult]) -> tuple[str, str, list[str], list[list[Cell]]]:
    rows: list[list[Cell]] = []
    for each in done:
        assert each.outage is not None  # noqa: S101 - for the type checker
        left: Cell = (
            f"{each.outage.left} of {SENT}",
            "kept" if each.outage.left == SENT else "lost",
            "",
        )
        if not each.outage.ended:
            ended: Cell = (f"still waits after {each.outage.took_s:.0f} s", "lost", "")
        elif each.outage.code == 0:
            ended = (f"ends well in {each.outage.took_s:.1f} s", "kept", "")
        else:
            said = f"fails in {each.outage.took_s:.1f} s"
            ended = (said, "lost", each.outage.detail)
        rows.append([(_way(each), "", ""), ended, left])
    note = (
        "A program that begins a run and logs a hundred values, while nothing listens there. One "
        "that still waits is ended then."
    )
    return "Without a server", note, ["", "the program", "values on the disk, to send later"], rows


def _capabilities(
    comparison: ToolComparison,
) -> tuple[str, str, list[str], list[list[Cell]]]:
    tools = list(dict.fromkeys(t for row in comparison.capabilities.values() for t in row))
    classes = {"native": "kept", "emulated": "changed", "absent": "lost"}
    rows: list[list[Cell]] = []
    for name, row in comparison.capabilities.items():
        cells: list[Cell] = [(name, "", "")]
        for tool in tools:
            level, _, why = row.get(tool, "").partition(": ")
            cells.append((level or "-", classes.get(level, ""), why))
        rows.append(cells)
    note = "What each backend of mlopskit declares, with the reason for each gap."
    return "Capabilities", note, ["", *tools], rows


def _verdict(verdict: Verdict) -> Cell:
    return verdict.fate, verdict.fate, verdict.detail


def _way(result: ToolResult) -> str:
    return f"{result.tool}{'' if result.way == 'native' else ' through mlopskit'}"


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

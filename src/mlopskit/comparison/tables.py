"""The tables of a comparison, for a page, a terminal or Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlopskit.comparison.workload import BEFORE, PACE_S, SENT, SETTLED_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlopskit.comparison.result import (
        Death,
        Fate,
        Outage,
        ToolComparison,
        ToolResult,
        Verdict,
    )

Cell = tuple[str, str, str]  # text, class, note
Table = tuple[str, str, list[str], list[list[Cell]]]  # title, note, head, rows

MEANINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "tracking": {
        "kept": "reads back equal",
        "changed": "reads back as something else",
        "refused": "an error",
        "lost": "does not read back, or not all of it",
    },
    "registry": {
        "kept": "reads back equal, or comes out right",
        "changed": "reads back as something else, or comes out wrong",
        "refused": "an error",
        "lost": "does not read back",
        "unnoticed": "damaged bytes are given out as sound",
        "ran code": "of the file, though nobody allowed it",
    },
}
TITLES: Final[Mapping[str, str]] = {"tracking": "What is kept", "registry": "What goes well"}
COUNTED: Final[Mapping[str, str]] = {
    "tracking": (
        "Each is logged, and read back from where the tool keeps it, with its type. These are the "
        "values that the contract of mlopskit's trackers is about, so what goes through mlopskit "
        "should keep all of them; few programs log many of these. Each of them is below."
    ),
    "registry": (
        "Each is done to a model of its own, and read back from where the tool keeps it. These are "
        "what the contract of mlopskit's registries is about, so most of it should go well through "
        "mlopskit; few registries see many of these. To refuse is right for "
        "damaged bytes, a pickle that nobody allowed, an alias that a tool keeps for itself. "
        "Each of them is below."
    ),
}
STAND_IN: Final = (
    " W&B's registry is on a server. By its name alone it works with the stand-in that mlopskit "
    "tests with, on this machine: what W&B's own server would decide is left out for its client, "
    "and the times are those of the stand-in too, without a network."
)
EACH: Final[Mapping[str, str]] = {
    "tracking": (
        "What reads back instead, or the error. W&B has no reader of its offline runs: "
        "mlopskit's reads them."
    ),
    "registry": "What reads back instead, or the error. What is green is as it should be.",
}
FATES: Final[tuple[Fate, ...]] = (
    "kept",
    "changed",
    "refused",
    "lost",
    "unnoticed",
    "ran code",
)
PLURALS: Final = {
    "": "all",
    "alias": "aliases",
    "damage": "damage",
    "history": "history",
    "loading": "loading",
}
_NONE: Final[Cell] = ("-", "", "")
LEVELS: Final = {"native": "kept", "emulated": "changed", "absent": "lost"}


def tables(comparison: ToolComparison) -> Iterable[Table]:
    """Yield each table."""
    done = [each for each in comparison.results if not each.error]
    domain, heads = comparison.domain, ["", *map(way_of, done)]
    if done:
        aside = STAND_IN if domain == "registry" and "wandb" in {e.tool for e in done} else ""
        yield TITLES[domain], COUNTED[domain] + aside, heads, _counts(done)
        yield _calls(done, comparison.times) if done[0].calls_ms else _costs(done, comparison.times)
    if any(each.outage for each in done):
        yield _outages(done)
    if any(each.death for each in done):
        yield _deaths(done)
    if done:
        yield "Each case", EACH[domain], heads, _fates(done)
    made = [each for each in done if each.made]
    if made:
        rows: list[list[Cell]] = [[(way_of(each), "", ""), (each.made, "", "")] for each in made]
        yield "What was made", "It stays there until somebody deletes it.", ["", "what"], rows
    failed = [each for each in comparison.results if each.error]
    if failed:
        rows = [[(way_of(each), "", ""), (each.error, "", "")] for each in failed]
        yield "Not compared", "", ["", "why"], rows
    if comparison.capabilities:
        yield _capabilities(comparison)


def way_of(result: ToolResult) -> str:
    """Return what one way to one tool is called."""
    return f"{result.tool}{'' if result.way == 'native' else ' through mlopskit'}"


def _counts(done: Sequence[ToolResult]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for kind in (*dict.fromkeys(each.kind for way in done for each in way.verdicts), ""):
        seen = [[v for v in each.verdicts if kind in ("", v.kind)] for each in done]
        rows.append([(PLURALS.get(kind, f"{kind}s"), "", ""), *map(_count, seen)])
    return rows


def _count(verdicts: Sequence[Verdict]) -> Cell:
    if not verdicts:
        return _NONE
    well = sum(each.well for each in verdicts)
    others = [each.fate for each in verdicts if not each.well]
    counts = {fate: others.count(fate) for fate in FATES}
    note = ", ".join(f"{count} {fate}" for fate, count in counts.items() if count)
    return f"{well} of {len(verdicts)}", "kept" if well == len(verdicts) else "", note


def _fates(done: Sequence[ToolResult]) -> list[list[Cell]]:
    found = [{(each.kind, each.what): each for each in way.verdicts} for way in done]
    cases = max(found, key=len)
    return [
        [
            (f"{kind}: {what}", "", ""),
            *(_verdict(each[kind, what]) if (kind, what) in each else _NONE for each in found),
        ]
        for kind, what in cases
    ]


def _verdict(verdict: Verdict) -> Cell:
    shown = "kept" if verdict.well else verdict.fate.replace(" ", "-")
    return verdict.fate, shown, verdict.detail


def _costs(done: Sequence[ToolResult], times: int) -> Table:
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
    note = (
        f"{_often(times)}, each in a process of its own, with a thousand calls: machines are "
        "noisy, so look at the order of magnitude. mlopskit imports a tool when it is opened, "
        "which the caller waits for: that is in the time to a first run, not in the CPU to import. "
        "Its calls return once the values are in a file; points count as stored when the tool has "
        "them."
    )
    early = [each for each in done if each.imported_before]
    if early:
        names = ", ".join(f"{way_of(each)}: {each.imported_before[0]}" for each in early)
        note += f" Imported before its time was measured, so that it means nothing: {names}."
    return "What it costs", note, ["", *map(way_of, done)], rows


def _calls(done: Sequence[ToolResult], times: int) -> Table:
    rows: list[list[Cell]] = [
        [(what, "", ""), *((_ms(each.calls_ms[what]), "", "") for each in done)]
        for what in done[0].calls_ms
    ]
    note = (
        f"The median of a call. {_often(times)}, each in a process of its own: machines are noisy, "
        "so look at the order of magnitude. mlopskit's calls check digests and write a history, "
        "which is in their times. With MLflow's own client a run is made for every file that is "
        "registered, which is in its time."
    )
    return "What it costs", note, ["", *map(way_of, done)], rows


def _often(times: int) -> str:
    return "Once" if times == 1 else f"The median of {times} times"


def _ms(value: float) -> str:
    return f"{value:,.1f} ms" if value >= 1 else f"{value:.3f} ms"


def _bytes(count: int | None) -> str:
    return "not on this disk" if count is None else f"{count:,}"


def _outages(done: Sequence[ToolResult]) -> Table:
    rows: list[list[Cell]] = [
        [(way_of(each), "", ""), _end(each.outage, "in"), _share(each.outage.left, SENT)]
        for each in done
        if each.outage is not None
    ]
    note = (
        "A program that begins a run and logs a hundred values, while nothing listens there. One "
        "that still waits is ended then, as ctrl-C does."
    )
    return "Without a server", note, ["", "the program", "values on the disk, to send later"], rows


def _deaths(done: Sequence[ToolResult]) -> Table:
    rows: list[list[Cell]] = []
    for each in done:
        death = each.death
        if death is None:
            continue
        if death.error:
            rows.append([(way_of(each), "", ""), ("not measured", "", death.error), *[_NONE] * 4])
            continue
        later = death.found_after_sync
        rows.append(
            [
                (way_of(each), "", ""),
                _end(death, "within"),
                _blocked(death),
                _share(death.acknowledged, SENT),
                _share(death.found, death.acknowledged, "lost" if later is None else ""),
                ("nothing to send", "", "") if later is None else _share(later, death.acknowledged),
            ]
        )
    head = ["", "the program", "longest wait for a call", "values whose calls returned"]
    head += ["of these, on the server again", "and after the tool's own sync"]
    note = (
        f"A program begins a run, and {SETTLED_S:.0f} s later logs a hundred values, one every "
        f"{PACE_S * 1000:.0f} ms. After {BEFORE} of "
        "them its server is killed (kill -9), and started again on the same storage when the "
        "program has ended; one that still waits is ended then, as ctrl-C does, and what it waited "
        "is a lower bound. The times begin with the death. MLflow's server is its own, on SQLite; "
        "W&B's is the stand-in that mlopskit tests with, so this is about W&B's client. Through "
        "mlopskit the end of a run waits for at most flush_timeout_s, 10 s by default. wandb sync "
        "and mlopskit sync send what is on the disk."
    )
    return "When the server dies", note, head, rows


def _share(count: int, of: int, otherwise: str = "lost") -> Cell:
    return f"{count} of {of}", "kept" if count == of else otherwise, ""


def _end(seen: Outage | Death, preposition: str) -> Cell:
    if not seen.ended:
        return f"still waits after {seen.took_s:.0f} s", "lost", ""
    if seen.code == 0:
        return f"ends well {preposition} {seen.took_s:.1f} s", "kept", ""
    detail = seen.exception if hasattr(seen, "exception") else seen.detail
    return f"fails {preposition} {seen.took_s:.1f} s", "lost", detail


def _blocked(death: Death) -> Cell:
    bound = "at least " if death.at_least else ""
    where = "the end of the run" if death.in_finish else "a call that logs"
    return f"{bound}{death.blocked_s:.1f} s", "lost" if death.at_least else "", where


def _capabilities(comparison: ToolComparison) -> Table:
    tools = list(dict.fromkeys(t for row in comparison.capabilities.values() for t in row))
    rows: list[list[Cell]] = []
    for name, row in comparison.capabilities.items():
        cells: list[Cell] = [(name, "", "")]
        for tool in tools:
            level, _, why = row.get(tool, "").partition(": ")
            cells.append((level or "-", LEVELS.get(level, ""), why))
        rows.append(cells)
    note = "What each backend of mlopskit declares, with the reason for each gap."
    return "Capabilities", note, ["", *tools], rows

"""What a promotion is told with: a note for a pull request, and release notes.

Both are Markdown. Whatever people, gates and files wrote in it is shown, and does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import MlopskitError
from mlopskit.registry.markup import number, prose, table
from mlopskit.registry.slices import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlopskit.registry.base import Registry
    from mlopskit.registry.entities import Decision, HistoryEntry, ModelVersion, VersionComparison

MOST_METRICS: Final = 60
MOST_LINES: Final = 100
# GitHub takes comments of 65,536 characters.
LONGEST: Final = 60_000
_ENTERED: Final = frozenset(["promoted", "rolled_back"])


def decision_note(
    registry: Registry, candidate: ModelVersion, stage: str, decision: Decision, *, why: str = ""
) -> str:
    """Return a decision as Markdown: the gates, their evidence, and what differs from the holder.

    Args:
        registry: Where the model is registered.
        candidate: The version that was promoted, refused, or asked about.
        stage: Where it should go.
        decision: What the gates said.
        why: The reason that was given.
    """
    verdict = "may enter" if decision else "may not enter"
    blocks = [
        f"## {_model(candidate)} {verdict} {prose(stage)}\n",
        f"{prose(why)}\n" if why else "",
        _gates(decision),
        _differences(registry, candidate, decision.holder),
        _evidence(decision),
    ]
    return _joined(blocks)


def release_notes(registry: Registry, version: ModelVersion, stage: str) -> str:
    """Return what is new in a stage since the version that held it before, as Markdown.

    Args:
        registry: Where the model is registered.
        version: The version that entered the stage, or is about to.
        stage: The stage.
    """
    entries = registry.history(version.name)
    entered, before = _last_two(entries, version, stage)
    held = None if before is None else before.version
    since = 0 if before is None else before.id
    until = entries[-1].id if entered is None else entered.id
    told = [entry for entry in entries if since < entry.id <= until]
    when = "" if entered is None else f", {entered.at:%Y-%m-%d}"
    decision = None if entered is None else entered.decision
    blocks = [
        f"# {_model(version)} in {prose(stage)}{when}\n",
        f"{prose(version.description)}\n" if version.description.strip() else "",
        f"{prose(entered.why)}\n" if entered is not None and entered.why.strip() else "",
        _differences(registry, version, held),
        "" if decision is None else _gates(decision),
        _history(told, version, held),
    ]
    return _joined(blocks)


def _model(version: ModelVersion) -> str:
    label = version.tags.get("label")
    return f"{prose(version.name)} {version.version}" + (f" ({prose(label)})" if label else "")


def _gates(decision: Decision) -> str:
    if not decision.evidence:
        return "".join(f"{prose(reason)}\n" for reason in decision.reasons)
    # A decision that was kept by an earlier version does not name the gates that refused.
    other = "passed" if decision or decision.failed else "not kept"
    rows = [
        (prose(gate), "refused" if gate in decision.failed else other, prose(reason))
        for gate, reason in zip(decision.evidence, decision.reasons, strict=False)
    ]
    return table(("gate", "verdict", "why"), rows)


def _evidence(decision: Decision) -> str:
    rows = [
        ("" if at else prose(gate), prose(key), prose(value))
        for gate, found in decision.evidence.items()
        for at, (key, value) in enumerate(_flat(found))
    ]
    if not rows:
        return ""
    inside = table(("gate", "", "evidence"), rows)
    return f"<details><summary>Evidence</summary>\n\n{inside}\n</details>\n"


def _differences(registry: Registry, version: ModelVersion, held: int | None) -> str:
    if held is None or held == version.version:
        return _metrics(version.metrics, None, f"{version.version}")
    try:
        found = registry.compare_versions(version.name, held, version.version)
    except MlopskitError as exc:
        return f"Version {held} cannot be compared: {prose(str(exc))}\n"
    changed = [*_signature(found), *_lineage(found)]
    lines = "".join(f"- {line}\n" for line in changed)
    return _joined(
        [
            f"### Against version {held}\n",
            _metrics(version.metrics, found.a.metrics, f"{version.version}", f"{held}"),
            lines,
        ]
    )


def _metrics(
    ours: Mapping[str, float], theirs: Mapping[str, float] | None, name: str, other: str = ""
) -> str:
    # Those of all the data first; how many rows a slice has is no result.
    keys = sorted(
        {*ours, *(theirs or {})} - _counts(ours, theirs), key=lambda key: ("[" in key, key)
    )
    if not keys:
        return ""
    if theirs is None:
        rows: list[Sequence[str]] = [(prose(key), number(ours[key])) for key in keys]
        head: Sequence[str] = ("metric", f"version {name}")
    else:
        rows = [
            (prose(key), number(ours.get(key)), number(theirs.get(key)), _gain(key, ours, theirs))
            for key in keys
        ]
        head = ("metric", f"version {name}", f"version {other}", "difference")
    more = len(rows) - MOST_METRICS
    return table(head, rows[:MOST_METRICS]) + (f"\nand {more} more\n" if more > 0 else "")


def _counts(*metrics: Mapping[str, float] | None) -> set[str]:
    return {key for each in metrics for key in each or {} if key.startswith(f"{ROWS}[")}


def _gain(key: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    if key not in ours or key not in theirs:
        return ""
    return f"{ours[key] - theirs[key]:+.6g}"


def _signature(found: VersionComparison) -> list[str]:
    if found.signature is None:
        return []
    breaks = [f"Breaks callers: {prose(each)}" for each in found.signature.breaks]
    return breaks + [prose(each) for each in found.signature.additions]


def _lineage(found: VersionComparison) -> list[str]:
    lines = []
    if found.flavor:
        lines.append(f"flavor: {prose(found.flavor[0])}, now {prose(found.flavor[1])}")
    for what, (before, after) in found.lineage.items():
        was, is_ = (prose(each) if each else "not known" for each in (before, after))
        lines.append(f"{prose(what)}: {was}, now {is_}")
    size = found.b.size - found.a.size
    lines.append(f"size: {found.b.size} bytes, {size:+d}; files that differ: {len(found.files)}")
    return lines


def _last_two(
    entries: Sequence[HistoryEntry], version: ModelVersion, stage: str
) -> tuple[HistoryEntry | None, HistoryEntry | None]:
    """Return how this version entered the stage last, and how the one before it did."""
    moves = [each for each in entries if each.action in _ENTERED and each.after == stage]
    mine = [at for at, each in enumerate(moves) if each.version == version.version]
    if not mine:
        return None, moves[-1] if moves else None
    at = mine[-1]
    return moves[at], moves[at - 1] if at else None


def _history(entries: Iterable[HistoryEntry], version: ModelVersion, held: int | None) -> str:
    lines = [
        f"- {entry.at:%Y-%m-%d %H:%M} {_told(entry)}" for entry in entries if entry.version != held
    ]
    if not lines:
        return ""
    begun = "the beginning" if held is None else f"version {held}"
    more = [f"- and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    shown = "\n".join([*lines[:MOST_LINES], *more])
    return f"### What happened to {prose(version.name)} since {begun}\n\n{shown}\n"


def _told(entry: HistoryEntry) -> str:
    what = entry.action.replace("_", " ")
    who = "" if entry.version is None else f"version {entry.version} "
    to = "" if entry.alias or entry.action == "registered" else entry.after
    where = f" ({prose(to)})" if to else ""
    alias = f" {prose(entry.alias)}" if entry.alias else ""
    by = str(entry.details.get("by", entry.by))
    said = f" by {prose(by)}" if by else ""
    reasons = entry.decision.reasons if entry.decision is not None and not entry.decision else ()
    why = " ".join(each for each in (entry.why, *reasons) if each)
    return f"{who}{what}{where}{alias}{said}" + (f": {prose(why)}" if why else "")


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        yield prefix, ", ".join(map(str, value)) or "none"
    else:
        yield prefix, number(value) if isinstance(value, float) else str(value)


def _joined(blocks: Iterable[str]) -> str:
    whole = "\n".join(block for block in blocks if block)
    if len(whole) <= LONGEST:
        return whole
    cut = whole[:LONGEST].rpartition("\n")[0]
    closing = "\n\n</details>" if cut.count("<details>") > cut.count("</details>") else ""
    return f"{cut}{closing}\n\nThe rest is too long to be shown here.\n"

"""What stands in a model card, section by section, before it is Markdown or a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlopskit.registry import markup
from mlopskit.registry.slices import ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlopskit.registry.cards import ModelCard
    from mlopskit.registry.entities import HistoryEntry, TensorSpec

# What people write, and the question that each answers.
WRITTEN: Final[Mapping[str, str]] = {
    "owner": "Who answers for the model?",
    "contact": "How are they reached?",
    "use_case": "What is it for, and for whom?",
    "out_of_scope": "What is it not for?",
    "data": "What was it trained on?",
    "evaluation": "On what, and how, was it measured?",
    "factors": "On which groups, instruments and surroundings may the results depend?",
    "limits": "Where does it fail, and what is not known?",
    "ethics": "Whom could it harm, and what was done about it?",
    "license": "Under which terms may it be used?",
}
# What the registry knows by itself.
KNOWN: Final = ("metrics", "slices", "signature", "lineage", "decisions")
REQUIRED: Final = ("owner", "use_case", "data", "metrics", "limits")
_TITLES: Final[Mapping[str, str]] = {
    "owner": "Owner",
    "contact": "Contact",
    "use_case": "Use case",
    "out_of_scope": "Out of scope",
    "data": "Data",
    "evaluation": "Evaluation",
    "factors": "Factors",
    "limits": "Limits",
    "ethics": "Ethics",
    "license": "License",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a card: a text, a table, or both, in words that are not markup.

    Attributes:
        title: Its heading.
        text: What was written; lines are kept.
        head: The columns of the table.
        rows: Its cells.
        plain: Whether the text is ours, and not somebody's.
    """

    title: str
    text: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    plain: bool = False


def sections(card: ModelCard) -> list[Section]:
    """Return the sections of a card in their order; what nobody knows is named at the end."""
    found = [Section("Version", card.version.description, ("", ""), _facts(card))]
    found += [Section(_TITLES[field], card.written[field]) for field in card.written]
    if card.metrics:
        rows = [(key, markup.number(value)) for key, value in sorted(card.metrics.items())]
        found.append(Section("Metrics", head=("metric", "value"), rows=rows))
    if card.slices:
        found.append(_sliced(card.slices))
    if signature := card.version.signature:
        rows_ = [_spec("input", each) for each in signature.inputs]
        rows_ += [_spec("output", each) for each in signature.outputs]
        found.append(Section("Signature", head=("", "name", "type", "shape"), rows=rows_))
    if card.decisions:
        head = ("when", "what", "stage", "by", "why", "what the gates said")
        rows__ = [_decision(entry) for entry in card.decisions]
        found.append(Section("Decisions", head=head, rows=rows__))
    missing = card.missing(*WRITTEN, "metrics", "slices", "signature")
    if missing:
        words = ", ".join(_TITLES.get(field, field.capitalize()) for field in missing)
        found.append(Section("Not filled in", f"{words}.", plain=True))
    return found


def markdown(title: str, parts: Sequence[Section]) -> str:
    """Return sections as Markdown."""
    blocks = [f"# {markup.prose(title)}\n"]
    for part in parts:
        blocks.append(f"## {part.title}\n")
        if part.text and part.plain:
            blocks.append(f"{part.text}\n")
        elif part.text.strip():
            lines = [line for line in part.text.splitlines() if line.strip()]
            blocks.append(">\n".join(f"> {markup.prose(line)}\n" for line in lines))
        if part.rows:
            rows = [[markup.prose(cell) for cell in row] for row in part.rows]
            blocks.append(markup.table(part.head, rows))
    return "\n".join(blocks)


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    version = card.version
    lineage = version.lineage
    facts = {
        "model": version.name,
        "version": str(version.version),
        "label": version.tags.get("label", ""),
        "stage": version.stage,
        "aliases": ", ".join(version.aliases),
        "registered": f"{version.created_at:%Y-%m-%d %H:%M} UTC",
        "flavor": version.flavor,
        "size": f"{version.size} bytes",
        "digest": version.digest,
        "run": version.run_id or "",
        "data": lineage.data or "",
        "code": lineage.code or "",
        "python": lineage.python,
        "libraries": ", ".join(f"{name} {number}" for name, number in lineage.libraries.items()),
    }
    return [(key, value) for key, value in facts.items() if value]


def _sliced(slices: Mapping[str, Mapping[str, float]]) -> Section:
    """Return a row for every slice, with its rows first and then its metrics."""
    metrics = [ROWS] * (ROWS in slices) + sorted(slices.keys() - {ROWS})
    names = sorted({name for values in slices.values() for name in values})
    rows = [
        (name, *(markup.number(slices[metric].get(name)) for metric in metrics)) for name in names
    ]
    return Section("Metrics by slice", head=("slice", *metrics), rows=rows)


def _spec(what: str, spec: TensorSpec) -> tuple[str, ...]:
    shape = " x ".join("any" if side == -1 else str(side) for side in spec.shape)
    return what, spec.name, spec.dtype, shape


def _decision(entry: HistoryEntry) -> tuple[str, ...]:
    decision = entry.decision
    reasons = decision.reasons if decision is not None else ()
    return (
        f"{entry.at:%Y-%m-%d %H:%M}",
        entry.action.replace("_", " "),
        entry.after or "",
        str(entry.details.get("by", entry.by)),
        entry.why,
        " ".join(reasons),
    )

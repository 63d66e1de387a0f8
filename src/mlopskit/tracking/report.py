"""Runs as HTML, for notebooks: what is shown where a cell ends in a run or in a list of runs."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from mlopskit.tracking.entities import RunRecord

FEW: Final = 6
LONGEST: Final = 40
# Notebooks have light and dark pages: no colour but that of the text, and of what went wrong.
_CELL: Final = "padding:2px 14px 2px 0;text-align:left;vertical-align:top;overflow-wrap:anywhere"
_BAD: Final = frozenset(["failed", "killed", "lost"])


def runs_html(runs: Sequence[RunRecord], *, truncated: bool = False) -> str:
    """Return a table of runs, with the metrics and params that most of them have."""
    if not runs:
        return "<p>No runs.</p>"
    metrics = _most_common(run.metrics for run in runs)
    params = _most_common(run.params for run in runs)
    head = ["name", "id", "experiment", "status", "started", "took"]
    head += [f"metrics.{key}" for key in metrics] + [f"params.{key}" for key in params]
    rows = [
        [
            escape(run.name),
            f"<code>{escape(run.id[:8])}</code>",
            escape(run.experiment),
            _status(run.status),
            _moment(run.started_at),
            _took(run),
            *(_value(run.metrics[key]) if key in run.metrics else "" for key in metrics),
            *(_value(run.params[key]) if key in run.params else "" for key in params),
        ]
        for run in runs
    ]
    count = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    more = ", and more: the limit kept them back" if truncated else ""
    return f"{_table(map(escape, head), rows)}<p>{count}{more}.</p>"


def run_html(run: RunRecord) -> str:
    """Return what one run holds."""
    facts: list[tuple[str, str]] = [
        ("id", f"<code>{escape(run.id)}</code>"),
        ("experiment", escape(run.experiment)),
        ("status", _status(run.status)),
        ("started", _moment(run.started_at)),
        ("took", _took(run)),
        ("part of", escape(run.parent_id or "")),
        ("group", escape(run.group or "")),
        ("job type", escape(run.job_type or "")),
        ("notes", escape(run.notes)),
    ]
    return (
        f"<h4>{escape(run.name)}</h4>"
        + _table((), [[name, fact] for name, fact in facts if fact])
        + _named("metrics", run.metrics, run.last_steps)
        + _named("params", run.params)
        + _named("tags", run.tags)
    )


def _named(what: str, values: Mapping[str, Any], steps: Mapping[str, int] | None = None) -> str:
    if not values:
        return ""
    head = [what, "value", *(["at step"] if steps else [])]
    rows = [
        [escape(key), _value(values[key]), *([str(steps.get(key, ""))] if steps else [])]
        for key in sorted(values)
    ]
    is_open = " open" if len(rows) <= FEW else ""
    summary = f"<summary>{len(rows)} {what}</summary>"
    return f"<details{is_open}>{summary}{_table(head, rows)}</details>"


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f'<th style="{_CELL}">{each}</th>' for each in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    header = f"<thead><tr>{titles}</tr></thead>" if titles else ""
    return f"<table>{header}<tbody>{body}</tbody></table>"


def _most_common(held: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys that most runs have, by name; those of the machine come last."""
    counts: dict[str, int] = {}
    for values in held:
        for key in values:
            counts[key] = counts.get(key, 0) + 1
    ranked = sorted(counts, key=lambda key: (key.startswith("system/"), -counts[key], key))
    return sorted(ranked[:FEW])


def _status(status: str) -> str:
    text = escape(status)
    return f'<b style="color:#c4342d">{text}</b>' if status in _BAD else text


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else repr(value)
    return escape(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


def _moment(when: datetime | None) -> str:
    return "" if when is None else f"{when:%Y-%m-%d %H:%M:%S}"


def _took(run: RunRecord) -> str:
    if run.started_at is None or run.ended_at is None:
        return ""
    seconds = (run.ended_at - run.started_at).total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"

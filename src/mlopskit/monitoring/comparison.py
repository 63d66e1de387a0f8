"""From two profiles to a report: schema, missing values, measures, and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from mlopskit.errors import InvalidInput
from mlopskit.monitoring import methods
from mlopskit.monitoring.correction import CORRECTIONS
from mlopskit.monitoring.entities import ColumnDrift, DriftReport, Finding, Histogram
from mlopskit.monitoring.profile import CategoricalColumn, NumericColumn, OtherColumn

if TYPE_CHECKING:
    from mlopskit.monitoring.profile import AnyColumn, Profile

# A jump of the missing share counts from five points on, if it is also significant.
MISSING_JUMP: Final = 0.05
BARS: Final = 12
LONGEST_LABEL: Final = 40


@dataclass(frozen=True, slots=True)
class Rules:
    """When a difference counts."""

    method: str
    alpha: float
    correction: str
    min_effect: float | None
    min_rows: int


def compare(current: Profile, reference: Profile, rules: Rules) -> DriftReport:
    """Return the report of one profile against another in the same groups.

    Raises:
        InvalidInput: If a column was counted in other groups.
    """
    shared = [name for name in reference.columns if name in current.columns]
    findings = [*_schema(current, reference)]
    columns = {
        name: _measured(name, current.columns[name], reference.columns[name], rules)
        for name in shared
    }
    for name in shared:
        findings += _noted(name, current.columns[name], reference.columns[name], rules)
    findings += _missing(columns, current.n, reference.n, rules)
    judged = _judged(columns, rules)
    tested = [column for column in judged.values() if column.tested]
    drifted = [column for column in tested if column.drifted]
    return DriftReport(
        drifted=bool(drifted),
        columns=judged,
        findings=tuple(findings),
        share_drifted=len(drifted) / len(tested) if tested else 0.0,
        n_reference=reference.n,
        n_current=current.n,
        alpha=rules.alpha,
        correction=rules.correction,
    )


def _schema(current: Profile, reference: Profile) -> list[Finding]:
    gone = [
        Finding(
            kind="missing_column",
            column=name,
            message=f"The column {name!r} of the reference is not in the current data.",
            severity="error",
        )
        for name in reference.columns
        if name not in current.columns
    ]
    new = [
        Finding(
            kind="extra_column",
            column=name,
            message=f"The column {name!r} is not in the reference.",
            severity="info",
        )
        for name in current.columns
        if name not in reference.columns
    ]
    return gone + new


def _measured(name: str, current: AnyColumn, reference: AnyColumn, rules: Rules) -> ColumnDrift:
    method = methods.choose(rules.method, reference.kind)
    limit = methods.THRESHOLDS[method] if rules.min_effect is None else rules.min_effect
    column = ColumnDrift(
        column=name,
        kind=reference.kind,
        method=method,
        threshold=limit,
        missing_share=current.missing_share,
        reference_missing_share=reference.missing_share,
        n_reference=reference.present,
        n_current=current.present,
    )
    why_not = _untestable(current, reference, rules)
    if why_not:
        return column.model_copy(update={"tested": False, "reason": why_not})
    if isinstance(reference, OtherColumn) or isinstance(current, OtherColumn):
        return column  # `_untestable` has said so; only type checkers come here.
    if not reference.same_groups(current):
        raise InvalidInput(
            f"The column {name!r} was counted in other groups on each side. Make the current "
            "profile like the reference: detector.fit(frame, like=reference)."
        )
    found = methods.measure(method, reference, current)
    return column.model_copy(
        update={
            "statistic": found.statistic,
            "test": found.test,
            "p_value": found.p_value,
            "effect": found.effect,
            "histogram": _histogram(current, reference),
        }
    )


def _untestable(current: AnyColumn, reference: AnyColumn, rules: Rules) -> str:
    if _retyped(current, reference):
        return f"Its type was {reference.dtype} and is {current.dtype}."
    if current.kind == "other":
        return f"Values of the type {reference.dtype} are not compared."
    few = min(current.present, reference.present)
    if few < rules.min_rows:
        side = "current data" if current.present == few else "reference"
        return f"The {side} has {few} values of it, and a verdict takes {rules.min_rows}."
    return ""


def _retyped(current: AnyColumn, reference: AnyColumn) -> bool:
    """Tell whether a column changed its type. An int that became a float is still a number."""
    if current.kind != reference.kind:
        return True
    both = current.present and reference.present
    return bool(both) and current.kind == "other" and current.dtype != reference.dtype


def _noted(name: str, current: AnyColumn, reference: AnyColumn, rules: Rules) -> list[Finding]:
    """Return what should be known of a column beside its drift."""
    why = _untestable(current, reference, rules)
    if _retyped(current, reference):
        kind, severity = ("retyped_column", "error")
    elif current.kind == "other":
        kind, severity = ("not_compared", "info")
    elif why:
        kind, severity = ("too_few_rows", "warning")
    elif (
        isinstance(current, CategoricalColumn)
        and isinstance(reference, CategoricalColumn)
        and reference.complete
        and current.other
    ):
        kind, severity = ("new_values", "warning")
        share = current.other / current.present
        why = f"{current.other} rows ({share:.2%}) have values that the reference never had."
    else:
        return []
    message = f"The column {name!r}: {why[0].lower()}{why[1:]}"
    return [
        Finding.model_validate(
            {"kind": kind, "column": name, "message": message, "severity": severity}
        )
    ]


def _missing(
    columns: dict[str, ColumnDrift], n_current: int, n_reference: int, rules: Rules
) -> list[Finding]:
    """Find significant jumps of the missing share: a chi-squared test of two shares by column."""
    if min(n_current, n_reference) < rules.min_rows:
        return []
    names, p_values = list(columns), []
    for column in columns.values():
        present = np.array([column.n_reference, column.n_current], dtype=float)
        missing = np.array([n_reference, n_current]) - present
        table = np.stack([present, missing], axis=1)
        constant = not missing.any() or not present.any()
        p_values.append(1.0 if constant else methods.chi2(table[0], table[1]).p_value)
    found = []
    for name, p_value in zip(names, CORRECTIONS[rules.correction](p_values), strict=True):
        column = columns[name]
        jump = abs(column.missing_share - column.reference_missing_share)
        if p_value <= rules.alpha and jump >= MISSING_JUMP:
            found.append(
                Finding(
                    kind="missing_share",
                    column=name,
                    message=f"The column {name!r} has no value in {column.missing_share:.1%} of "
                    f"the rows; in the reference it was {column.reference_missing_share:.1%}.",
                )
            )
    return found


def _judged(columns: dict[str, ColumnDrift], rules: Rules) -> dict[str, ColumnDrift]:
    tested = {n: c.p_value for n, c in columns.items() if c.tested and c.p_value is not None}
    corrected = CORRECTIONS[rules.correction](list(tested.values()))
    adjusted = dict(zip(tested, corrected, strict=True))
    return {
        name: _verdict(column, adjusted[name], rules.alpha) if name in adjusted else column
        for name, column in columns.items()
    }


def _verdict(column: ColumnDrift, adjusted: float, alpha: float) -> ColumnDrift:
    significant, large = adjusted <= alpha, column.effect >= column.threshold
    if significant and large:
        reason = "Significant, and large enough to matter."
    elif significant:
        reason = "Significant, but too small to matter."
    elif large:
        reason = "As large as chance alone may make it on so few rows."
    else:
        reason = "Nothing that chance would not explain."
    return column.model_copy(
        update={"adjusted_p": adjusted, "drifted": significant and large, "reason": reason}
    )


def _histogram(
    current: NumericColumn | CategoricalColumn, reference: NumericColumn | CategoricalColumn
) -> Histogram:
    one, two = methods.fine(reference), methods.fine(current)
    if isinstance(reference, NumericColumn):
        labels, where = _intervals(reference)
    else:
        order = list(reference.counts)
        where = np.minimum(np.arange(len(one)), BARS - 1)
        where[-1] = min(len(order), BARS - 1)
        labels = [_cut(value) for value in order[: BARS - 1]]
        labels += ["other"] if len(order) < BARS else [f"{len(order) - BARS + 1} more"]
    a = np.bincount(where, weights=one, minlength=len(labels)) / one.sum()
    b = np.bincount(where, weights=two, minlength=len(labels)) / two.sum()
    if isinstance(reference, CategoricalColumn) and not a[-1] and not b[-1]:
        a, b, labels = a[:-1], b[:-1], labels[:-1]
    return Histogram(labels=tuple(labels), reference=tuple(a.tolist()), current=tuple(b.tolist()))


def _intervals(column: NumericColumn) -> tuple[list[str], np.typing.NDArray[np.intp]]:
    """Return groups of about equal width between the tails of a reference, and their labels."""
    counts = methods.fine(column)
    edges = np.array(column.edges)
    below = np.cumsum(counts)[:-1] / counts.sum()
    low = edges[np.searchsorted(below, 0.01).clip(max=len(edges) - 1)]
    high = edges[np.searchsorted(below, 0.99).clip(max=len(edges) - 1)]
    marks = np.unique(low + (high / BARS - low / BARS) * np.arange(1, BARS))
    nearest = np.unique(np.abs(edges[:, None] - marks[None, :]).argmin(axis=0))
    cuts = edges[nearest]
    where = np.searchsorted(cuts, np.append(edges, np.inf), side="left")
    texts = [f"{cut:.4g}" for cut in cuts]
    inner = [f"{a} to {b}" for a, b in pairwise(texts)]
    return [f"up to {texts[0]}", *inner, f"above {texts[-1]}"], where


def _cut(value: str) -> str:
    return value if len(value) <= LONGEST_LABEL else value[: LONGEST_LABEL - 3] + "..."

"""The values that cross the interface of drift detection: reports, and what they say of columns."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mlopskit.errors import InvalidInput
from mlopskit.storage import write_whole

Kind = Literal["numeric", "categorical", "other"]
Severity = Literal["error", "warning", "info"]
FindingKind = Literal[
    "missing_column",
    "extra_column",
    "retyped_column",
    "missing_share",
    "new_values",
    "too_few_rows",
    "not_compared",
]
REPORT_VERSION: Final = 1


class Record(BaseModel):
    """A frozen value whose fields are all known, and whose numbers are all finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Finding(Record):
    """Something about the data that is no drift of values, and that somebody should know.

    Attributes:
        kind: What was found, as a word for programs.
        column: The column that it is about; None where it is about the whole frame.
        message: The same as a sentence, with the values.
        severity: `error` breaks a model, `warning` may, `info` explains the report.
    """

    kind: FindingKind
    column: str | None = None
    message: str
    severity: Severity = "warning"


class Histogram(Record):
    """A column drawn coarsely: the share of the present values in each group, on both sides."""

    labels: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]


class ColumnDrift(Record):
    """How far one column moved, and whether that counts.

    Attributes:
        column: Its name.
        kind: What its values are.
        method: The method that measured it: `auto` is resolved.
        statistic: The method's statistic, before any correction for the size of the samples.
        test: The significance test that gave `p_value`.
        p_value: How often as much would be seen without drift; None where nothing was tested.
        adjusted_p: The p-value corrected for the number of columns tested.
        effect: The size of the drift, 0 or more, comparable between samples of any size. 0 where
            nothing was tested.
        threshold: The effect from which on a significant drift counts.
        drifted: Whether it is significant and large enough and seen on enough rows.
        tested: Whether the column could be tested at all; `reason` says why not.
        reason: One sentence on the verdict.
        missing_share: The share of rows of the current data without a value (null or NaN).
        reference_missing_share: The same in the reference.
        n_reference: Rows of the reference that have a value.
        n_current: Rows of the current data that have one.
        histogram: Both sides drawn coarsely, where there is something to draw.
    """

    column: str
    kind: Kind
    method: str
    statistic: float = 0.0
    test: str = ""
    p_value: float | None = None
    adjusted_p: float | None = None
    effect: float = 0.0
    threshold: float
    drifted: bool = False
    tested: bool = True
    reason: str = ""
    missing_share: float
    reference_missing_share: float
    n_reference: int
    n_current: int
    histogram: Histogram | None = None


class DriftReport(Record):
    """What a detector says of some data against its reference; the same from every backend.

    Attributes:
        drifted: Whether any column drifted.
        columns: Every column that both sides have, in the order of the reference.
        findings: Columns that are missing, new or of another type, jumps of missing values.
        share_drifted: Drifted columns, as a share of all that were tested (0 where none was).
        n_reference: Rows of the reference.
        n_current: Rows of the current data.
        alpha: How often a report without any drift may say that there is some.
        correction: How p-values were corrected for the number of columns.
        backend: Who wrote it.
        version: The version of this format.
    """

    drifted: bool
    columns: dict[str, ColumnDrift]
    findings: tuple[Finding, ...] = ()
    share_drifted: float
    n_reference: int
    n_current: int
    alpha: float
    correction: str
    backend: str = "local"
    version: Literal[1] = REPORT_VERSION

    def to_json(self) -> str:
        """Return the report as JSON that `from_json` reads back equal."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> DriftReport:
        """Read a report back.

        Raises:
            InvalidInput: If the text is no report of this version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as exc:
            raise InvalidInput(f"This is no drift report: {summary(exc)}.") from exc

    def to_html(self, path: str | Path) -> Path:
        """Write the report as one page that needs nothing else, and return where it is.

        The page is one file under 200 KB that opens offline; where there are too many columns
        for that, it leaves out those that drifted least, and says so.

        Raises:
            StorageError: If the file cannot be written; what was there before is untouched.
        """
        from mlopskit.monitoring.report import page  # noqa: PLC0415 - drawn only when it is asked for

        target = Path(path).expanduser()
        write_whole(target, page(self))
        return target


def summary(error: ValidationError) -> str:
    """Return the first complaint of a validation, and how many more there are."""
    first, *more = error.errors(include_url=False, include_input=False)
    place = ".".join(map(str, first["loc"]))[:100]
    others = f" (and {len(more)} more)" if more else ""
    return f"{place + ': ' if place else ''}{first['msg']}{others}"

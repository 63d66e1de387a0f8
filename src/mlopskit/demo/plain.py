"""The demo as plain lines, for pipes and logs."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from mlopskit.demo.result import month_name
from mlopskit.demo.show import Show
from mlopskit.demo.words import decision_line, headline, score, summary, visible

if TYPE_CHECKING:
    from mlopskit.demo.result import DemoResult, Month
    from mlopskit.demo.show import Step


class PlainShow(Show):
    """Plain lines without any control character, for pipes and logs."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def begin(self, first: int, last: int, tools: dict[str, str]) -> None:
        """Write what is replayed, and the tools."""
        self._line(headline(first, last))
        self._line("tools: " + ", ".join(f"{key}={tool}" for key, tool in tools.items()))

    def working(self, step: Step) -> None:
        """Say nothing: a line is written when the step has ended."""

    def done(self, step: Step, seconds: float) -> None:
        """Write a step, its note and its time."""
        cached = " [cached]" if step.cached else ""
        note = f": {step.note}" if step.note else ""
        self._line(f"{step.title}{note}{cached} ({seconds:.1f} s)")

    def month_begins(self, month: int, version: int, hours: int) -> None:
        """Write which version serves the month."""
        self._line(f"{month_name(month)}: {hours} hours, served by version {version}")

    def hours_passed(self, count: int, flights: int) -> None:
        """Say nothing: lines cannot be taken back."""

    def month_ends(self, month: Month) -> None:
        """Write a month's numbers, reasons and decision."""
        self._line(
            f"{month.name}: {month.rows} flights, {len(month.drifted)} of {len(month.effects)} "
            f"columns drifted, AUC first {score(month.auc_first)} live {score(month.auc_live)}"
        )
        for reason in (*month.decision.triggers, *month.decision.gate):
            self._line(f"  - {reason}")
        self._line(f"  => {decision_line(month)}")

    def end(self, result: DemoResult) -> None:
        """Write the table, the summary, the report and the commands."""
        self._line("")
        heads = ("month", "rows", "drifted", "auc_first", "auc_live", "served", "decision")
        rows = [heads, *map(_cells, result.months)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        for row in rows:
            self._line("  ".join(map(str.ljust, row, widths)).rstrip())
        self._line("")
        for line in summary(result):
            self._line(line)
        self._line(f"report: {result.report}")
        for command in result.commands:
            self._line(f"look: {command}")

    def close(self) -> None:
        """Do nothing: every line was written when it was known."""

    def _line(self, text: str) -> None:
        self._stream.write(visible(text) + "\n")
        self._stream.flush()


def _cells(month: Month) -> tuple[str, ...]:
    return (
        month.name,
        str(month.rows),
        f"{len(month.drifted)}/{len(month.effects)}",
        score(month.auc_first),
        score(month.auc_live),
        f"v{month.live_version}",
        decision_line(month),
    )

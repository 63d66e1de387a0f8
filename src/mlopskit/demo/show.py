"""The demo on the terminal: live where there is one, plain lines where there is none."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mlopskit.demo.result import month_name
from mlopskit.demo.words import decision_line, duration, headline, score, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.demo.result import DemoResult, Month

# From no drift to far beyond the threshold.
HEAT = ("grey37", "grey58", "yellow3", "dark_orange", "red3")
LOUDER = (0.5, 1.0, 2.0, 4.0)
BLOCK = "■"


@dataclass
class Step:
    """A step that is being shown; its note appears when it has ended."""

    title: str
    note: str = ""
    cached: bool = False


class Show(ABC):
    """Where a demo run is seen while it happens."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show that a step runs, and when it has ended how long it took."""
        step = Step(title)
        begun = time.monotonic()
        self.working(step)
        yield step
        self.done(step, time.monotonic() - begun)

    @abstractmethod
    def begin(self, first: int, last: int, tools: dict[str, str]) -> None:
        """Show what is about to happen, and with which tools."""

    @abstractmethod
    def working(self, step: Step) -> None:
        """Show that a step has begun."""

    @abstractmethod
    def done(self, step: Step, seconds: float) -> None:
        """Show that a step has ended."""

    @abstractmethod
    def month_begins(self, month: int, version: int, hours: int) -> None:
        """Show that the replay of a month has begun."""

    @abstractmethod
    def hours_passed(self, count: int, flights: int) -> None:
        """Show how far the month has come."""

    @abstractmethod
    def month_ends(self, month: Month) -> None:
        """Show a month with its drift, its performance and its decision with the reasons."""

    @abstractmethod
    def end(self, result: DemoResult) -> None:
        """Show the table of all months, where the report is, and how to look further."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class PlainShow(Show):
    """Plain lines without any control character, for pipes and logs."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def begin(self, first: int, last: int, tools: dict[str, str]) -> None:
        self._line(headline(first, last))
        self._line("tools: " + ", ".join(f"{key}={tool}" for key, tool in tools.items()))

    def working(self, step: Step) -> None:
        """Say nothing: a line is written when the step has ended."""

    def done(self, step: Step, seconds: float) -> None:
        cached = " [cached]" if step.cached else ""
        note = f": {step.note}" if step.note else ""
        self._line(f"{step.title}{note}{cached} ({seconds:.1f} s)")

    def month_begins(self, month: int, version: int, hours: int) -> None:
        self._line(f"{month_name(month)}: {hours} hours, served by version {version}")

    def hours_passed(self, count: int, flights: int) -> None:
        """Say nothing: lines cannot be taken back."""

    def month_ends(self, month: Month) -> None:
        self._line(
            f"{month.name}: {month.rows} flights, {len(month.drifted)} of {len(month.effects)} "
            f"columns drifted, AUC first {score(month.auc_first)} live {score(month.auc_live)}"
        )
        for reason in (*month.decision.triggers, *month.decision.gate):
            self._line(f"  - {reason}")
        self._line(f"  => {decision_line(month)}")

    def end(self, result: DemoResult) -> None:
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

    def _line(self, text: str) -> None:
        self._stream.write(visible(text) + "\n")
        self._stream.flush()


class LiveShow(Show):
    """A table that grows while the year goes by, with the reasons written above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._months: list[Month] = []
        self._now = Text()
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="cyan"),
            MofNCompleteColumn(),
            TextColumn("hours  [dim]{task.fields[flights]:,} flights scored[/]"),
            console=console,
            expand=True,
        )
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._task = None if console is None else self._progress.add_task("", visible=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def begin(self, first: int, last: int, tools: dict[str, str]) -> None:
        self._console.print(Rule(Text(headline(first, last), style="bold"), style="cyan"))
        line = Text("  ")
        for domain, tool in tools.items():
            line.append(f"{domain} ", style="dim").append(visible(tool), style="cyan").append("   ")
        self._console.print(line)
        self._console.print()

    def working(self, step: Step) -> None:
        self._now = Text(f"  … {visible(step.title)}", style="dim")
        self._draw()

    def done(self, step: Step, seconds: float) -> None:
        line = Text("  ✓ ", style="green").append(visible(step.title), style="default")
        if step.note:
            line.append(f"  {visible(step.note)}", style="dim")
        if step.cached:
            line.append("  cached", style="bold cyan")
        line.append(f"  {seconds:.1f} s", style="dim")
        self._now = Text()
        self._console.print(line)
        self._draw()

    def month_begins(self, month: int, version: int, hours: int) -> None:
        self._progress.reset(
            self._task,
            total=hours,
            visible=True,
            description=f"{month_name(month)[:3]}  version {version}",
            flights=0,
        )
        self._draw()

    def hours_passed(self, count: int, flights: int) -> None:
        self._progress.update(self._task, completed=count, flights=flights)

    def month_ends(self, month: Month) -> None:
        self._progress.update(self._task, visible=False)
        self._months.append(month)
        title = Text(f"  {month.name}  ", style="bold").append(_decision(month))
        self._console.print(title)
        for reason in (*month.decision.triggers, *month.decision.gate):
            self._console.print(Text(f"      {visible(reason)}", style="dim"))
        self._draw()

    def end(self, result: DemoResult) -> None:
        self._live.stop()
        self._console.print()
        self._console.print(_table(result.months))
        self._console.print()
        for line in summary(result):
            self._console.print(Text(f"  {visible(line)}"))
        self._console.print()
        self._console.print(Text("  report  ", style="dim").append(str(result.report), "bold cyan"))
        for command in result.commands:
            self._console.print(Text("  look    ", style="dim").append(command, "cyan"))

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> None:
        parts: list[Table | Progress | Text] = [Text()]
        if self._months:
            parts += [_table(self._months), Text()]
        self._live.update(Group(*parts, self._progress, self._now))


def summary(result: DemoResult) -> list[str]:
    """Return what the whole run comes to, in sentences."""
    gains = [month.auc_live - month.auc_first for month in result.months]
    retrained = [gain for month, gain in zip(result.months, gains, strict=True) if month.retrained]
    outcomes = [month.decision.outcome for month in result.months]
    differing = sum(month.differing for month in result.months)
    compared = sum(month.compared for month in result.months)
    lines = [
        f"{outcomes.count('promoted')} challengers promoted, {outcomes.count('refused')} refused "
        f"by the gate, {outcomes.count('kept')} months without retraining.",
        f"{result.answered:,} of {result.requests:,} requests answered over HTTP, "
        f"{result.requests - result.answered:,} lost.",
        f"{compared:,} values served online, {differing:,} of them unlike history.",
        f"{result.cached_steps} steps from the cache, {result.ran_steps} ran; "
        f"{duration(result.seconds)} in all.",
    ]
    if retrained:
        mean = sum(retrained) / len(retrained)
        lines.insert(
            1, f"Where a retrained model served, its AUC was {mean:+.3f} against the first's."
        )
    return lines


def for_stream(stream: IO[str]) -> Show:
    """Return a live show on a terminal, plain lines anywhere else."""
    console = Console(file=stream, highlight=False)
    return LiveShow(console) if console.is_terminal else PlainShow(stream)


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


def _table(months: list[Month] | tuple[Month, ...]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("  month")
    table.add_column("rows", justify="right")
    table.add_column("drifted columns")
    table.add_column("AUC first", justify="right")
    table.add_column("AUC live", justify="right")
    table.add_column("by", justify="right")
    table.add_column("decision", overflow="fold")
    for month in months:
        gain = month.auc_live - month.auc_first
        style = "green" if gain > 0 else "red" if gain < 0 else "default"
        table.add_row(
            f"  {month.name}",
            f"{month.rows:,}",
            _heat(month).append(f" {len(month.drifted)}/{len(month.effects)}"),
            score(month.auc_first),
            Text(score(month.auc_live), style=style),
            f"v{month.live_version}",
            _decision(month),
        )
    return table


def _heat(month: Month) -> Text:
    """Draw one block for each column, the brighter the further it drifted."""
    strip = Text()
    for column, effect in month.effects.items():
        ratio = effect / (month.thresholds.get(column) or 1.0)
        strip.append(BLOCK, style=HEAT[sum(ratio >= step for step in LOUDER)])
    return strip


def _decision(month: Month) -> Text:
    style = {"promoted": "bold green", "refused": "bold yellow", "kept": "dim"}
    return Text(visible(decision_line(month)), style=style[month.decision.outcome])

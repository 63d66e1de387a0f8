"""The demo on a terminal: a table that grows while the year goes by."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mlopskit.demo.plain import PlainShow
from mlopskit.demo.result import month_name
from mlopskit.demo.show import Show
from mlopskit.demo.words import decision_line, headline, score, summary, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.demo.result import DemoResult, Month
    from mlopskit.demo.show import Step

# From no drift to far beyond the threshold.
HEAT = ("grey37", "grey58", "yellow3", "dark_orange", "red3")
LOUDER = (0.5, 1.0, 2.0, 4.0)
BLOCK = "■"


def for_stream(stream: IO[str]) -> Show:
    """Return a live show on a terminal, plain lines anywhere else."""
    console = Console(file=stream, highlight=False)
    return LiveShow(console) if console.is_terminal else PlainShow(stream)


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
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._task = self._progress.add_task("", visible=False, flights=0)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def begin(self, first: int, last: int, tools: dict[str, str]) -> None:
        """Print the title and the tools."""
        self._console.print(Rule(Text(headline(first, last), style="bold"), style="cyan"))
        line = Text("  ")
        for domain, tool in tools.items():
            line.append(f"{domain} ", style="dim").append(visible(tool), style="cyan").append("   ")
        self._console.print(line)
        self._console.print()

    def working(self, step: Step) -> None:
        """Show what runs now, below the table."""
        self._now = Text(f"  … {visible(step.title)}", style="dim")
        self._draw()

    def done(self, step: Step, seconds: float) -> None:
        """Print a step above the table, with a tick."""
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
        """Start the month's bar."""
        self._progress.reset(
            self._task,
            total=hours,
            visible=True,
            description=f"{month_name(month)[:3]}  version {version}",
            flights=0,
        )
        self._draw()

    def hours_passed(self, count: int, flights: int) -> None:
        """Move the month's bar."""
        self._progress.update(self._task, completed=count, flights=flights)

    def month_ends(self, month: Month) -> None:
        """Add the month to the table, and print its reasons above."""
        self._progress.update(self._task, visible=False)
        self._months.append(month)
        title = Text(f"  {month.name}  ", style="bold").append(_decision(month))
        self._console.print(title)
        for reason in (*month.decision.triggers, *month.decision.gate):
            self._console.print(Padding(Text(visible(reason), style="dim"), (0, 0, 0, 6)))
        self._draw()

    def end(self, result: DemoResult) -> None:
        """Print the final table, the summary, the report and the commands."""
        self._live.stop()
        self._console.print()
        self._console.print(_table(result.months))
        self._console.print()
        for line in summary(result):
            self._console.print(Text(f"  {visible(line)}"))
        self._console.print()
        self._console.print(
            Text("  report  ", style="dim").append(visible(str(result.report)), "bold cyan")
        )
        for command in result.commands:
            self._console.print(Text("  look    ", style="dim").append(visible(command), "cyan"))

    def close(self) -> None:
        """Stop drawing; what was printed stays."""
        self._live.stop()

    def _draw(self) -> None:
        parts: list[Table | Progress | Text] = [Text()]
        if self._months:
            parts += [_table(self._months), Text()]
        self._live.update(Group(*parts, self._progress, self._now))


def _table(months: Sequence[Month]) -> Table:
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

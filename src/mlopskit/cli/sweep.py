"""``mlopskit sweep``: search the space of a W&B sweep file."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.failure import FAILED
from mlopskit.cli.interrupt import interruptible
from mlopskit.cli.numbers import Whole
from mlopskit.cli.output import (
    check_place,
    counted,
    json_option,
    line,
    number,
    pairs,
    print_json,
    table,
    write_report,
)
from mlopskit.errors import InvalidInput, MlopskitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlopskit.tracking import Tracker
    from mlopskit.tracking.sweep_file import SweepFile
    from mlopskit.tracking.sweep_result import SweepResult
    from mlopskit.tracking.sweep_trials import Trial

SHOWN: Final = 10
# What W&B runs where a file has no command.
COMMAND: Final = ("${env}", "${interpreter}", "${program}", "${args}")
OUTPUT: Final = "output.txt"
LONGEST_OUTPUT: Final = 1_000_000


@click.command(cls=Command)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--objective",
    metavar="MODULE:FUNCTION",
    help="The function that is given each trial and returns its value.",
)
@click.option(
    "told",
    "--command",
    metavar="WORDS",
    help="The command that runs a trial, such as 'python train.py ${args}'; that of the file, or "
    "its program, if left out.",
)
@click.option("--name", metavar="NAME", help="A sweep of this name is taken up again.")
@click.option("--experiment", metavar="NAME", help="The experiment of all the runs.")
@click.option(
    "--trials",
    type=Whole(),
    metavar="N",
    help="How many trials there are in the end, those of before counted. The run_cap of the file, "
    "or every point of a grid, if left out.",
)
@click.option("--seed", type=Whole(0), metavar="N", help="Of all random choices.")
@click.option(
    "--workers",
    type=Whole(),
    default=1,
    show_default=True,
    metavar="N",
    help="How many run side by side.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write a page with the history and the parallel coordinates.",
)
@json_option()
def command(
    file: Path,
    *,
    objective: str | None,
    told: str | None,
    name: str | None,
    experiment: str | None,
    trials: int | None,
    seed: int | None,
    workers: int,
    report: Path | None,
    as_json: bool,
) -> None:
    """Search the params that a W&B sweep file describes. Every trial is a tracked run.

    A program is given its params as the file says, --lr=0.1 by default. It prints the metric of the
    file as a line, such as loss=0.31; the last one counts. A line such as loss=0.4 step=3 is a
    value on the way, by which the trial may be stopped. Exits with 1 if no trial is complete.
    """
    from mlopskit.tracking.sweep_file import read_sweep_file
    from mlopskit.tracking.sweep_report import page
    from mlopskit.tracking.sweeps import run_sweep

    if objective is not None and told is not None:
        raise click.UsageError("Give --objective or --command, not both.")
    check_place(report)
    said = read_sweep_file(file)
    call = _imported(objective) if objective is not None else _Program.of(said, told)
    arguments = said.arguments() | {"seed": seed, "workers": workers, "experiment": experiment}
    called = name if name is not None else said.name
    arguments["name"] = called if called is not None else f"sweep-{secrets.token_hex(4)}"
    if trials is not None:
        arguments["n_trials"] = trials
    if arguments["n_trials"] is None and said.sampler != "grid":
        raise click.UsageError(
            f"{file} has no run_cap, and its method goes on for ever: say how many trials there "
            "are in the end, such as --trials 20."
        )
    named = "" if called is not None else f" with --name {arguments['name']}"
    again = f"The same command{named} goes on from here."
    far = [f"no trial is done. {again}"]
    with interruptible(lambda: far[-1]), kit() as opened:
        try:
            result = run_sweep(opened.tracker, call, progress=True, **arguments)
        except KeyboardInterrupt:
            done = _done(opened.tracker, arguments["name"], experiment)
            far.append(f"{counted(done, 'trial')} done, and kept. {again}")
            raise
    if report is not None:
        write_report(report, page(result))
    if as_json:
        print_json(_plain(result))
    else:
        _show(result)
    if result.best is None:
        click.get_current_context().exit(FAILED)


class _Program:
    """An objective that is a program of its own.

    Args:
        words: How it is run, with W&B's macros.
        metric: What it prints.
    """

    def __init__(self, words: tuple[str, ...], program: str | None, metric: str) -> None:
        self._words = words
        self._program = program
        self._line = re.compile(
            rf"\s*{re.escape(metric)}\s*[=:]\s*(\S+?)[,;]?(?:\s+step\s*[=:]\s*(\d+))?\s*"
        )
        self._metric = metric

    @classmethod
    def of(cls, said: SweepFile, told: str | None) -> _Program:
        """Make it of what the command line or else the file says.

        Raises:
            UsageError: If neither says anything.
            InvalidInput: If a macro is unknown, or the program does not exist.
        """
        words = _words(told) if told is not None else said.command or COMMAND
        if told is None and not said.command and said.program is None:
            raise click.UsageError("The file has no program: give --objective or --command.")
        program = cls(words, said.program, said.metric)
        found = program.arguments({})
        if shutil.which(found[0]) is None:
            raise InvalidInput(f"There is no program {found[0]!r} to run the trials with.")
        for before, word in pairwise(("", *words)):
            if word == "${program}" and before != "-m" and not Path(said.program or "").exists():
                raise InvalidInput(
                    f"There is no {said.program!r}, the program of the file, in {Path.cwd()}."
                )
        return program

    def arguments(self, params: Mapping[str, Any]) -> list[str]:
        """Return the words of one trial.

        Raises:
            InvalidInput: If a macro is unknown, or stands for nothing.
        """
        found: list[str] = []
        for word in self._words:
            match word:
                case "${args}":
                    found += [f"--{key}={_word(value)}" for key, value in params.items()]
                case "${args_no_hyphens}":
                    found += [f"{key}={_word(value)}" for key, value in params.items()]
                case "${args_json}":
                    found.append(json.dumps(dict(params)))
                case _:
                    found.append(re.sub(r"\$\{([^}]*)\}", self._macro, word))
        return found

    def _macro(self, match: re.Match[str]) -> str:
        name = match[1]
        if name == "env":
            return "/usr/bin/env"
        if name == "interpreter":
            return sys.executable
        if name == "program" and self._program is not None:
            return self._program
        kind, _, variable = name.partition(":")
        if kind == "envvar" and variable in os.environ:
            return os.environ[variable]
        raise InvalidInput(
            f"The command of the sweep says {match[0]}, which stands for nothing here. There is "
            "${program}, ${interpreter}, ${env}, ${envvar:NAME}, ${args}, ${args_no_hyphens} and "
            "${args_json}."
        )

    def __call__(self, trial: Trial) -> float | None:
        """Run one trial, and read its value from what it prints.

        Raises:
            TrialFailed: If it ends with another code than 0, or prints no value.
        """
        from mlopskit.tracking.sweep_trials import TrialFailed

        words = self.arguments(trial.params)
        value: float | None = None
        output: list[str] = []
        size = 0
        with _started(words) as process:
            try:
                for printed in process.stdout or ():
                    if (size := size + len(printed)) <= LONGEST_OUTPUT:
                        output.append(printed)
                    found, step = self._read(printed)
                    if found is None:
                        continue
                    if step is None:
                        value = found
                        continue
                    trial.report(found, step)
                    if trial.should_prune():
                        process.terminate()
                        return None
            except BaseException:
                process.kill()
                raise
            finally:
                trial.run.log_text("".join(output), OUTPUT)
        named = self._program if self._program in words else words[0]
        where = f"its output is in run {trial.run.id}"
        if process.returncode:
            raise TrialFailed(f"{named} ended with {process.returncode}; {where}")
        if value is None:
            raise TrialFailed(f"{named} printed no line {self._metric}=NUMBER; {where}")
        return value

    def _read(self, printed: str) -> tuple[float | None, int | None]:
        if match := self._line.fullmatch(printed):
            with suppress(ValueError):
                return float(match[1]), int(match[2]) if match[2] else None
        return None, None


def _done(tracker: Tracker, name: str, experiment: str | None) -> int:
    """Count the trials of a sweep that need not be run again."""
    from mlopskit.tracking.sweep_trials import STATE, STATES

    with suppress(MlopskitError):
        trials = tracker.search_runs("job_type = 'trial'", experiment or "default", limit=None)
        return sum(each.group == name and each.tags.get(STATE) in STATES for each in trials)
    return 0


def _started(words: list[str]) -> subprocess.Popen[str]:
    from mlopskit.tracking.sweep_trials import TrialFailed

    try:
        return subprocess.Popen(  # noqa: S603 - the command that the user gave
            words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace"
        )
    except (OSError, ValueError) as exc:
        raise TrialFailed(f"{words[0]} cannot be run: {exc}") from exc


def _words(told: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(told))
    except ValueError as exc:
        raise click.UsageError(f"--command {told!r} cannot be read: {exc}.") from exc
    if not words:
        raise click.UsageError("--command is empty: say such as 'python train.py ${args}'.")
    return words


def _word(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _imported(address: str) -> Callable[[Trial], Any]:
    module, _, name = address.partition(":")
    if not module or not name:
        raise click.UsageError(f"{address!r} is no MODULE:FUNCTION such as train:objective.")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = getattr(import_module(module), name)
    except AttributeError as exc:
        raise click.UsageError(f"{address!r} is not there: {exc}.") from exc
    except Exception as exc:  # It is the user's code, and may fail in any way.
        why = f"{type(exc).__name__}: {exc}"
        raise click.UsageError(f"{module!r} cannot be imported: {why}.") from exc
    finally:
        sys.path.pop(0)
    call: Callable[[Trial], Any] = found
    return call


def _show(result: SweepResult) -> None:
    counts = ", ".join(f"{count} {state}" for state, count in result.counts.items())
    line(f"Sweep {result.name} of {result.experiment}: {counts}. Seed {result.seed}.")
    sign = 1 if result.direction == "minimize" else -1
    complete = [each for each in result.trials if each.value is not None]
    complete.sort(key=lambda each: sign * (each.value or 0.0))
    rows = [
        (str(each.number), number(each.value), pairs(each.params), each.run_id)
        for each in complete[:SHOWN]
    ]
    if rows:
        table(["trial", result.metric, "params", "run"], rows, whole=["run"])


def _plain(result: SweepResult) -> dict[str, Any]:
    best = result.best
    return {
        "name": result.name,
        "experiment": result.experiment,
        "run_id": result.run_id,
        "metric": result.metric,
        "direction": result.direction,
        "seed": result.seed,
        "counts": dict(result.counts),
        "best": None if best is None else best.number,
        "trials": [
            {
                "trial": each.number,
                "state": each.state,
                "value": each.value,
                "params": each.params,
                "run_id": each.run_id,
                "error": each.error,
            }
            for each in result.trials
        ],
    }

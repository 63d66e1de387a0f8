"""``mlopskit promote``: move a version to a stage if every gate agrees, and tell it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.failure import FAILED
from mlopskit.cli.output import (
    Styled,
    check_place,
    json_option,
    line,
    print_json,
    table,
    write_report,
)
from mlopskit.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.registry import Decision, ModelVersion

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(cls=Command)
@click.argument("name")
@click.argument("ref", metavar="VERSION")
@click.argument("stage")
@click.option(
    "said",
    "--gate",
    multiple=True,
    metavar="FILE[:NAME]",
    help="Ask the gates of this file of Python's, or the one called NAME. May be repeated.",
)
@click.option("--why", default="", metavar="TEXT", help="A reason for the history.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write the decision as Markdown.")
@click.option("--notes", type=_FILE, metavar="FILE", help="Write release notes, if approved.")
@click.option("--dry-run", is_flag=True, help="Ask the gates; move and write down nothing.")
@json_option()
def command(
    name: str,
    ref: str,
    stage: str,
    *,
    said: tuple[str, ...],
    why: str,
    markdown: Path | None,
    notes: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Move VERSION of the model called NAME to STAGE if every gate agrees.

    VERSION is a number, @alias, stage or latest. A file of gates has a list GATES, or functions
    called gate_..., which take a GateContext and return a bool or a GateResult.

    Exits with 1 if a gate refuses, and then writes the Markdown all the same; with 2 if there is
    no such file, gate, model, version or stage; and with 0 only if the version may enter the stage.
    """
    from mlopskit.cli.gate_file import gates_of
    from mlopskit.registry.gates import rehearse
    from mlopskit.registry.notes import decision_note, release_notes

    with _what_was_asked():
        gates = tuple(gate for each in said for gate in gates_of(each))
    for path in (markdown, notes):
        check_place(path)
    with _no_success(), kit() as opened:
        registry = opened.registry
        with _what_was_asked():
            candidate = registry.get_version(name, ref)
            if stage not in registry.stages.order:
                raise NotFound("stage", stage, registry.stages.order)
        # By its number: what "latest" means may change while the gates are asked.
        number = candidate.version
        if dry_run:
            decision = rehearse(registry, name, number, stage, gates)
        else:
            decision = registry.promote(name, number, stage, gates, why=why)
        note = decision_note(registry, candidate, stage, decision, why=why)
        news = release_notes(registry, candidate, stage) if notes is not None and decision else ""
    if markdown is not None:
        write_report(markdown, note)
    if notes is not None and decision:
        write_report(notes, news)
    if as_json:
        print_json(
            {"name": name, "version": number, "stage": stage, "dry_run": dry_run}
            | decision.model_dump()
        )
    else:
        _show(candidate, stage, decision, dry_run=dry_run)
    if not decision:
        click.get_current_context().exit(FAILED)


def _show(candidate: ModelVersion, stage: str, decision: Decision, *, dry_run: bool) -> None:
    gates = list(decision.evidence)
    rows = [
        (
            gate,
            Styled("refused", "red") if gate in decision.failed else Styled("passed", "green"),
            reason,
        )
        for gate, reason in zip(gates, decision.reasons, strict=False)
    ]
    if rows:
        table(["gate", "verdict", "why"], rows)
    else:
        line(" ".join(decision.reasons))
    verb = {
        (True, True): "would enter",
        (True, False): "entered",
        (False, True): "would not enter",
        (False, False): "did not enter",
    }[bool(decision), dry_run]
    line(f"{candidate.name} {candidate.version} {verb} {stage}.")


@contextmanager
def _what_was_asked() -> Iterator[None]:
    """Tell what is not there as a mistake in the command: CI must not take it for a refusal."""
    try:
        yield
    except NotFound as exc:
        raise InvalidInput(str(exc)) from exc


@contextmanager
def _no_success() -> Iterator[None]:
    """Keep a handler of signals, which the file of gates may have set, from exiting with 0."""
    try:
        yield
    except SystemExit as exc:
        code = 0 if exc.code is None else exc.code
        # Of a number the system keeps eight bits.
        if isinstance(code, int) and code & 0xFF == 0:
            raise SystemExit(FAILED) from exc
        raise

"""``mlopskit run project``: an MLproject, whichever tracker is configured."""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.failure import FAILED
from mlopskit.cli.interrupt import interruptible
from mlopskit.cli.output import json_option, line, print_json, remark
from mlopskit.errors import MlopskitError

if TYPE_CHECKING:
    from mlopskit.lifecycle.projects import Manager
    from mlopskit.tracking import Tracker


@click.command(cls=Command)
@click.argument("uri")
@click.option("entry", "-e", "--entry-point", default="main", show_default=True, metavar="NAME")
@click.option("given", "-P", "--param", multiple=True, metavar="NAME=VALUE", help="A parameter.")
@click.option("--revision", metavar="REV", help="A branch, tag or commit of a repository.")
@click.option(
    "--env-manager",
    type=click.Choice(["local", "virtualenv", "uv", "conda", "docker"]),
    default="local",
    show_default=True,
    help="Which environment the command has.",
)
@click.option("--experiment", metavar="NAME", help="Of the run; the project's name if left out.")
@json_option()
def command(
    uri: str,
    entry: str,
    given: tuple[str, ...],
    *,
    revision: str | None,
    env_manager: Manager,
    experiment: str | None,
    as_json: bool,
) -> None:
    """Run the MLproject at URI, a folder or a Git repository (URI#FOLDER for a folder in it).

    The run holds the parameters, the revision and what was printed. What the project's code logs
    with MLflow becomes runs that are parts of it, in the configured tracker. Exits with 1 if the
    command fails.
    """
    from mlopskit.lifecycle.projects import run_project

    wrong = [each for each in given if "=" not in each]
    if wrong:
        raise click.UsageError(f"{wrong[0]!r} is not of the form NAME=VALUE.")
    parameters = dict(each.split("=", 1) for each in given)
    far = ["no run has begun."]
    with interruptible(lambda: far[-1]), kit() as opened:
        begun = datetime.now(UTC).replace(microsecond=0)
        try:
            ended = run_project(
                uri,
                opened.tracker,
                entry,
                parameters,
                version=revision,
                env_manager=env_manager,
                experiment=experiment,
                output=_show,
            )
        except KeyboardInterrupt:
            if (run := _killed(opened.tracker, uri, begun)) is not None:
                far.append(f"the project's command was ended. Run {run} has what it printed.")
            raise
    if as_json:
        print_json({"run": ended.run_id, "code": ended.code, "parts": ended.parts})
    else:
        line(f"Run {ended.run_id}")
        for each in ended.parts:
            line(f"  of which {each} is a part")
    if ended.code != 0:
        remark(f"The command ended with {ended.code}.")
        click.get_current_context().exit(FAILED)


def _killed(tracker: Tracker, uri: str, since: datetime) -> str | None:
    """Return the id of the run that was ended with the program; None if none had begun."""
    with suppress(MlopskitError):
        for run in tracker.search_runs("status = 'killed'", limit=20):
            begun = run.started_at
            if run.tags.get("project.uri") == uri and begun is not None and begun >= since:
                return run.id
    return None


def _show(some: bytes) -> None:
    """Pass on what the command prints; the output of this program stays what others can read."""
    stream = getattr(sys.stderr, "buffer", None)
    if stream is not None:
        stream.write(some)
        stream.flush()

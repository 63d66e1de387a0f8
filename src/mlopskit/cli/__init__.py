"""The command line, ``mlopskit``.

A command is named in the table below and imported when it runs: asking for help imports none.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, NoReturn

from mlopskit.cli.command import Group
from mlopskit.cli.failure import guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

# The name, the module below this package, and what `mlopskit --help` says of it.
COMMANDS: Final = {
    "demo": ("demo", "Run the flights project: a year of a model's life, in a minute."),
    "backends": ("backends", "Show which tools stand behind each interface, and what they can do."),
    "config": ("config", "Show every configured value and where it came from."),
    "doctor": ("doctor", "Try everything that is configured, and say what does not work."),
    "runs": ("tracking", "List tracked runs, or show one."),
    "run": ("run", "Show, compare, export or import tracked runs, or run a project."),
    "compare": ("compare", "Compare tools by one workload: what they keep, and what they cost."),
    "transfer": ("transfer", "Copy tracked runs from one tracker to another."),
    "sweep": ("sweep", "Search the params that a W&B sweep file describes."),
    "sync": ("sync", "Deliver what tracked runs left undelivered."),
    "models": ("models", "List registered models, show one, and change what stands where."),
    "promote": ("promote", "Move a version to a stage if every gate agrees, and tell it."),
    "card": ("card", "Show the model card of a version, or fill it in."),
    "label": ("label", "Propose a semantic version for a version of a model."),
    "ci": ("ci", "Write workflows that train, gate, promote and comment."),
    "sign": ("sign", "Sign a version of a model."),
    "verify": ("sign:verify", "Check who has signed a version, and every byte of it."),
    "webhooks": ("webhooks", "List the registry's webhooks, and deliver what waits."),
    "features": ("features", "List feature views, or show one."),
}

EPILOG = "Documentation of each command: mlopskit COMMAND --help"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 when all went well, 2 for a mistake in what was asked.

    A configuration that cannot work exits with 2 as well, every other failure with 1, Ctrl-C with
    130.

    Args:
        arguments: What follows the program's name; the process's own arguments by default.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding cannot show is shown escaped, not as a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    group = Group("mlopskit", COMMANDS, help="Thin interfaces for the tools around a model.")
    sys.exit(guarded(lambda: group.main(arguments, "mlopskit", standalone_mode=False)))

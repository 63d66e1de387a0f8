"""What a command says when Ctrl-C ends it: how far it got, and how to go on."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from mlopskit.cli.failure import INTERRUPTED
from mlopskit.cli.output import remark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def interruptible(said: Callable[[], str]) -> Iterator[None]:
    """Say on stderr where Ctrl-C has left things, and exit with 130.

    It goes around everything that closes at the end, such as a kit, so that what is said is true.

    Args:
        said: Returns what follows "Interrupted: ".
    """
    try:
        yield
    except KeyboardInterrupt:
        if sys.stderr is not None and sys.stderr.isatty():
            remark("")  # The terminal has written ^C there.
        remark(f"Interrupted: {said()}")
        raise click.exceptions.Exit(INTERRUPTED) from None

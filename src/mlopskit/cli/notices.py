"""What the library warns of while a command runs: on stderr, safe to print, no reason twice."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from mlopskit.cli.safe import safe

if TYPE_CHECKING:
    from collections.abc import Iterator

ABOVE: Final = "as told above"


@contextmanager
def notices() -> Iterator[Notices]:
    """Print what the library warns of until the end of the block."""
    logger, handler = logging.getLogger("mlopskit"), Notices()
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


class Notices(logging.Handler):
    """Prints warnings. What a tool said when it failed is printed in full only once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._reasons: list[str] = []
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one, unless the same was printed before."""
        text = record.getMessage()
        if text in self._told:
            return
        self._told.add(text)
        click.echo("\n  ".join(map(safe, self.short(text).splitlines())), err=True)
        given = record.args if isinstance(record.args, tuple) else ()
        self._reasons += [str(each) for each in given if isinstance(each, Exception)]

    def short(self, text: str) -> str:
        """Return a text without what was told before."""
        for reason in self._reasons:
            text = text.replace(reason, ABOVE)
        return text

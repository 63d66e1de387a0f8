"""A bar for what takes long, on a terminal and in a notebook, and only where it is asked for."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

EVERY_S: Final = 0.1
EVERY_S_IN_A_NOTEBOOK: Final = 0.5  # Each time is a message to the browser.
LONGEST: Final = 40


class Bar:
    """Shows how far something is. This one shows nothing: nobody has asked, or nobody looks.

    Attributes:
        seen: Whether somebody sees it.
    """

    seen = False

    def at(self, done: int, total: int, now: str = "") -> None:
        """Show how many are done of how many, and what is going on."""


@contextmanager
def bar(what: str, *, asked: bool, sizes: bool = False) -> Iterator[Bar]:
    """Show a bar until the end of the block: on stderr if it is a terminal, or in a notebook.

    While one is shown, another one shows nothing. No thread draws it, so that programs which fork
    meet no lock of it; a forked child has the streams that it would have had without it.

    Args:
        what: What is counted, such as ``runs``.
        asked: Whether somebody wants to see it.
        sizes: Whether it is bytes that are counted.
    """
    drawn = _drawn(what, sizes=sizes) if asked and not _shown else None
    if drawn is None:
        yield Bar()
        return
    _shown.append(drawn)
    drawn.begin()
    try:
        yield drawn
    finally:
        if drawn in _shown:  # In a forked child it is not.
            _shown.remove(drawn)
            drawn.end()


def _drawn(what: str, *, sizes: bool) -> _Drawn | None:
    if (display := _display()) is not None:
        return _InNotebook(what, display, sizes=sizes)
    if sys.stderr is not None and sys.stderr.isatty():
        return _OnTerminal(what, sizes=sizes)
    return None


def _display() -> Any:
    """Return what shows an object below the cell of a notebook that runs; None elsewhere."""
    # Where IPython has not been imported, no notebook runs.
    if (ipython := sys.modules.get("IPython")) is None:
        return None
    if getattr(ipython.get_ipython(), "kernel", None) is None:
        return None  # IPython on a terminal
    return import_module("IPython.display").display


class _Drawn(Bar):
    """A bar that somebody sees."""

    seen = True
    every_s = EVERY_S

    def __init__(self, what: str, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=None, now="")
        self._at = 0.0

    def at(self, done: int, total: int, now: str = "") -> None:
        if self not in _shown:  # In a forked child.
            return
        self._progress.update(self._task, completed=done, total=total, now=_plain(now))
        if (moment := time.monotonic()) - self._at >= self.every_s:
            self._at = moment
            self.draw()

    def begin(self) -> None:
        """Show it for the first time."""

    def draw(self) -> None:
        """Show it as it is now."""

    def end(self) -> None:
        """Show it for the last time."""

    def leave(self) -> None:
        """Be without it, in a forked child."""


class _OnTerminal(_Drawn):
    def __init__(self, what: str, *, sizes: bool) -> None:
        from rich.console import Console  # noqa: PLC0415 - only who looks needs it

        # What is printed meanwhile goes above the bar; but what goes to a file goes on to do so.
        together = sys.stdout is not None and sys.stdout.isatty()
        console = Console(stderr=True)
        super().__init__(what, _progress(sizes=sizes, console=console, redirect_stdout=together))
        self._streams = sys.stdout, sys.stderr

    def begin(self) -> None:
        self._progress.start()

    def draw(self) -> None:
        self._progress.refresh()

    def end(self) -> None:
        self._progress.stop()

    def leave(self) -> None:
        from rich.file_proxy import FileProxy  # noqa: PLC0415 - who comes here has it

        if isinstance(sys.stdout, FileProxy):
            sys.stdout = self._streams[0]
        if isinstance(sys.stderr, FileProxy):
            sys.stderr = self._streams[1]


class _InNotebook(_Drawn):
    """A bar below a cell. Rich's own way of updating one needs ipywidgets; this one does not."""

    every_s = EVERY_S_IN_A_NOTEBOOK

    def __init__(self, what: str, display: Any, *, sizes: bool) -> None:
        super().__init__(what, _progress(sizes=sizes))
        self._display = display
        self._handle: Any = None

    def begin(self) -> None:
        self._handle = self._display(self._progress, display_id=True)

    def draw(self) -> None:
        self._handle.update(self._progress)

    def end(self) -> None:
        self.draw()


def _progress(*, sizes: bool, **options: Any) -> Progress:
    from rich.progress import (  # noqa: PLC0415 - only who looks needs it
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True) if sizes else MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}", markup=False),
        auto_refresh=False,
        **options,
    )


def _plain(text: str) -> str:
    """Return what is safe to print: names come from stores, and may hold anything."""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return "".join(each if each.isprintable() else "?" for each in shown)


_shown: Final[list[_Drawn]] = []


def _leave_all() -> None:
    while _shown:
        _shown.pop().leave()


os.register_at_fork(after_in_child=_leave_all)

"""How a failure reaches the person at the terminal: one line, an exit code, and no traceback."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final

import click

from mlopskit.cli.notices import notices
from mlopskit.cli.safe import safe
from mlopskit.errors import (
    BrokenPlugin,
    ConfigError,
    InvalidInput,
    InvalidModel,
    InvalidName,
    MlopskitError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


def guarded(run: Callable[[], Any]) -> int:
    """Run a command and return the exit code, having told any failure on stderr."""
    try:
        with notices():
            code = run()
        flush()
    except MlopskitError as exc:
        tell(exc)
        return exit_code(exc)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt) as exc:
        # click makes an Abort of Ctrl-C, and of a question that met the end of its input.
        origin = exc.__cause__ or exc.__context__
        return FAILED if isinstance(origin, EOFError) else INTERRUPTED
    except OSError as exc:
        # What tools write fails as a StorageError, so this is our own output.
        if exc.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        _drop_output()
        if exc.errno == errno.ENOSPC:
            click.echo(f"Error: the output cannot be written: {exc.strerror}.", err=True)
        return FAILED
    # click returns what the command returned, or the code it exited with.
    return code if isinstance(code, int) else 0


def tell(error: MlopskitError) -> None:
    """Print an error of ours on stderr; a plugin's own failure with the plugin's own traceback."""
    # Tools answer in several lines; indented, none of them passes for one of ours.
    lines = [safe(line) for line in str(error).splitlines()]
    click.echo("Error: " + "\n  ".join(lines), err=True)
    if isinstance(error, BrokenPlugin) and error.__cause__ is not None:
        click.echo(plugin_traceback(error.__cause__), err=True, nl=False)


def exit_code(error: MlopskitError) -> int:
    """Return 2 where what was asked or configured is wrong, 1 where it failed."""
    if isinstance(error, InvalidModel):
        return FAILED
    return MISUSED if isinstance(error, ConfigError | InvalidInput | InvalidName) else FAILED


def flush() -> None:
    """Write out what is still held back; a process may have been started without any output."""
    for stream in (sys.stdout, sys.stderr):
        if stream:
            stream.flush()


def _drop_output() -> None:
    # Python flushes once more on its way out, and would fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plugin_traceback(error: BaseException) -> str:
    """Format a failure from the plugin's first line on: how we came to import it is no news."""
    trace = error.__traceback__
    while trace is not None and _is_loader(trace.tb_frame.f_globals.get("__name__", "")):
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    return "".join(f"{safe(line)}\n" for text in lines for line in text.splitlines())


def _is_loader(module: str) -> bool:
    return module == "mlopskit.plugins" or module.partition(".")[0] in ("importlib", "pluggy")

"""How failures reach the person at the terminal."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from tests.programs import launched

from mlopskit.cli import failure
from mlopskit.errors import BackendError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

pytestmark = pytest.mark.core


def test_a_broken_plugin_is_named_before_its_own_traceback(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    done = process("runs", "-c", "tracking=bad", environ=acme(broken=True))

    assert done.code == 2
    first, *rest = done.err.splitlines()
    assert first.startswith("Error: The tracking backend 'bad' of the distribution 'acme-tracking'")
    assert rest[0] == "Traceback (most recent call last):"
    assert "acme_bad.py" in rest[1], "the traceback begins in the plugin's own file"
    assert rest[-1].startswith("ValueError: no \\x1b[31mflux")
    assert "\x1b" not in done.err


def test_an_unknown_backend_names_the_right_one_and_no_traceback(cli: Callable[..., Done]) -> None:
    done = cli("features", "-c", "features=locl")

    assert done.code == 2
    assert done.err == (
        "Error: No features backend is called 'locl'. Did you mean 'local'? Installed: local.\n"
    )


def test_an_unknown_option_of_a_backend_is_named(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    line = 'tracking={backend = "acme", mod = "slow"}'

    done = process("runs", "-c", line, environ=acme())

    assert done.code == 2
    assert "There is no option 'mod' in the tracking backend 'acme'. Did you mean 'mode'?" in (
        done.err
    )
    assert "Traceback" not in done.err


def test_a_missing_package_comes_with_the_pip_line(
    install: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    source = "TOOL = {'requires': {'flux-sdk': '>=1'}}\nimport flux_sdk\n"
    environ = install("acme", {"acme": source}, {"mlopskit.tracking": {"acme": "acme"}})

    done = process("runs", "-c", "tracking=acme", environ=environ)

    assert done.code == 2
    assert "needs 'flux_sdk', which is not installed. Install it with: pip install flux-sdk" in (
        done.err
    )


def test_a_reader_that_leaves_early_is_no_failure_to_report() -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "mlopskit", "config", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout
    assert started.stderr
    started.stdout.close()

    assert started.stderr.read() == ""
    assert started.wait() == 1
    started.stderr.close()


def test_a_message_of_several_lines_stays_readable_and_safe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failure.tell(BackendError("the tool said:\nno \x1b[31mdisk\nError: fine"))

    assert capsys.readouterr().err == ("Error: the tool said:\n  no \\x1b[31mdisk\n  Error: fine\n")


def test_ctrl_c_ends_with_130_and_no_traceback(
    acme: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ping = f"open({str(fifo)!r}, 'w').close(); __import__('threading').Event().wait()"
    command = [sys.executable, "-m", "mlopskit", "doctor", "--timeout", "600", "-c"]
    with launched(
        [*command, "tracking=acme"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=acme(ping),
    ) as started:
        fifo.read_text()  # Returns when the tool is being asked.
        started.send_signal(signal.SIGINT)
        _, errors = started.communicate()

    assert started.returncode == 130
    assert errors.strip() == ""


def test_a_name_that_the_terminal_cannot_spell_is_shown_escaped(
    process: Callable[..., Done],
) -> None:
    environ = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "latin-1"}

    done = process("config", "-c", "tracking=local:日本", environ=environ)

    assert done.code == 0
    assert "\\u65e5\\u672c" in done.out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
@pytest.mark.parametrize("arguments", [["config", "--json"], ["--help"]])
def test_a_full_disk_is_told(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mlopskit", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert done.returncode == 1
    assert done.stderr == "Error: the output cannot be written: No space left on device.\n"


def test_it_runs_without_any_output() -> None:
    command = f"{sys.executable} -m mlopskit config >&- 2>&-"

    assert subprocess.run(command, shell=True).returncode == 0


def test_the_same_reason_is_printed_in_full_once(capsys: pytest.CaptureFixture[str]) -> None:
    """What waits and what ends a command may both tell why a server is away."""
    away = Unavailable("mlflow:http://x", "connection \x1brefused")
    logger = logging.getLogger("mlopskit.tracking.delivery")

    def run() -> None:
        logger.warning("Delivery to %s failed (%s).", "x", away)
        logger.warning("Delivery to %s failed (%s).", "x", away)
        logger.warning("Run r is not all at x (%s).", str(away))
        logger.info("not told")

    assert failure.guarded(run) == 0
    assert capsys.readouterr().err == (
        "Delivery to x failed (mlflow:http://x cannot be reached: connection \\x1brefused).\n"
        "Run r is not all at x (as told above).\n"
    )


def test_a_question_without_an_answer_is_no_interruption() -> None:
    def ask() -> None:
        try:
            raise EOFError
        except EOFError:
            raise click.Abort from None

    assert failure.guarded(ask) == 1

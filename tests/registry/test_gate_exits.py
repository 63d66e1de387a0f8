"""Gates that exit are refusals; a signal handler of the program's own still ends it."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import pytest

import mlopskit as mk
from mlopskit.registry import GateContext, all_of, any_of
from mlopskit.registry.gates import Gate, rehearse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry import Decision, Registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    with mk.open_registry(f"local:{tmp_path / 'registry'}") as opened:
        opened.register("net", path)
        yield opened


def exiting(code: Any) -> Gate:
    def gate(context: GateContext) -> bool:
        sys.exit(code)

    return gate


def with_click(context: GateContext) -> None:
    click.Command("evaluate", callback=lambda: None).main([])


def with_argparse(context: GateContext) -> None:
    argparse.ArgumentParser().parse_args(["--nope"])


class Silent:
    def __str__(self) -> str:
        raise SystemExit(0)


@pytest.mark.parametrize(
    ("gate", "code", "says"),
    [
        (exiting(0), 0, "the exit code 0, and"),
        (exiting(None), 0, "the exit code 0, and"),
        (exiting(False), 0, "the exit code 0, and"),
        (exiting(3), 3, "the exit code 3, and"),
        (exiting(256), 0, "the exit code 0, and"),
        (exiting(10**5000), 0, "the exit code 0, and"),
        (exiting("no data \udce9"), 1, "the exit code 1 (no data \\udce9), and"),
        (with_click, 0, "with_click tried to end the program with the exit code 0"),
        (with_argparse, 2, "the exit code 2, and"),
        (exiting(Silent()), 1, "the exit code 1 (what it says cannot be shown), and"),
    ],
    ids=["0", "None", "False", "3", "256", "huge", "text", "click", "argparse", "silent"],
)
def test_a_gate_that_exits_refuses_and_the_history_has_the_code(
    registry: Registry, gate: Any, code: int, says: str
) -> None:
    decision = registry.promote("net", 1, "production", gate)

    assert not decision
    assert says in decision.reasons[0]
    (evidence,) = decision.evidence.values()
    assert evidence.get("exit_code") == code
    last = registry.history("net")[-1]
    assert (last.action, last.decision) == ("refused", decision)
    assert registry.get_version("net", 1).stage == "none"


def test_the_other_gates_are_asked_all_the_same(registry: Registry) -> None:
    def fine(context: GateContext) -> bool:
        return True

    decision = rehearse(registry, "net", 1, "production", [any_of(exiting(0), fine), fine])
    assert decision
    assert decision.evidence["any_of"]["gate"] == {"exit_code": 0, "passed": False}


# The program's own handlers.


class Stops:
    def __call__(self, number: int, frame: object) -> None:
        self.now(number, frame)

    def now(self, number: int, frame: object) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # As many do, so that a second one kills.
        sys.exit(0)


def stop(code: int, number: int, frame: object) -> None:
    sys.exit(code)


@pytest.fixture
def on_signal() -> Iterator[Callable[[Any], object]]:
    before = signal.getsignal(signal.SIGUSR1)
    yield partial(signal.signal, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def told_to_stop(context: GateContext) -> bool:
    os.kill(os.getpid(), signal.SIGUSR1)
    return True


@pytest.mark.parametrize(
    "handler",
    [lambda *_: sys.exit(0), partial(stop, 0), Stops(), Stops().now],
    ids=["function", "partial", "object", "method"],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_handler_of_the_program_ends_it_and_nothing_is_promoted_or_written(
    registry: Registry, on_signal: Callable[[Any], object], handler: Any, nested: bool
) -> None:
    on_signal(handler)
    before = registry.history("net")
    gate = all_of(told_to_stop) if nested else told_to_stop
    with pytest.raises(SystemExit):
        registry.promote("net", 1, "production", gate)

    assert registry.history("net") == before
    assert registry.get_version("net", 1).stage == "none"


def test_a_handler_that_a_gate_sets_is_the_gates_own(
    registry: Registry, on_signal: Callable[[Any], object]
) -> None:
    def gate(context: GateContext) -> bool:
        on_signal(partial(stop, 4))
        return told_to_stop(context)

    decision: Decision = registry.promote("net", 1, "production", gate)
    assert "the exit code 4" in decision.reasons[0]


PROGRAM = """
import signal, sys, time
import mlopskit as mk

signal.signal(signal.SIGTERM, lambda *_: sys.exit(77))

def gate(context):
    print("asked", flush=True)
    time.sleep(60)
    return True

with mk.open_registry(sys.argv[1]) as registry:
    registry.promote("net", 1, "production", gate)
print("promoted")
"""


def test_sigterm_ends_a_program_that_asks_gates(registry: Registry, tmp_path: Path) -> None:
    where = f"local:{tmp_path / 'registry'}"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, where], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "asked\n"
        program.terminate()
        rest = program.stdout.read()

    assert (program.returncode, rest) == (77, "")
    assert [each.action for each in registry.history("net")] == ["registered"]

"""``mlopskit promote`` exits with 0 where a version may enter its stage, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done


@pytest.fixture(autouse=True)
def _model(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    with mk.load() as kit:
        kit.registry.register("churn", path)


def stage() -> str:
    with mk.load() as kit:
        return kit.registry.get_version("churn", 1).stage


def actions() -> list[str]:
    with mk.load() as kit:
        return [each.action for each in kit.registry.history("churn")]


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["promote", "dry run"])
def test_a_gate_that_exits_is_a_refusal(cli: Callable[..., Done], more: tuple[str, ...]) -> None:
    Path("exits.py").write_text("def gate_exits(context): raise SystemExit(0)\n")
    done = cli("promote", "churn", "1", "production", "--gate", "exits.py", *more)

    assert done.code == 1
    assert done.records[0][:2] == ["gate_exits", "refused"]
    assert stage() == "none"
    assert actions()[1:] == ([] if more else ["refused"])


HANDLED = """
import os, signal, sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))


def gate_stopped(context):
    os.kill(os.getpid(), signal.SIGTERM)
    return True
"""


@pytest.mark.parametrize(("given", "code"), [("", 1), ("0", 1), ("512", 1), ("143", 143)])
def test_a_handler_ends_the_command_and_never_as_a_success(
    process: Callable[..., Done], given: str, code: int
) -> None:
    Path("handled.py").write_text(HANDLED.format(code=given))
    done = process("promote", "churn", "1", "production", "--gate", "handled.py")

    assert (done.code, done.out) == (code, "")
    assert actions() == ["registered"]

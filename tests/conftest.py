"""What every test shares: a folder of its own, and an environment silent about mlopskit."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

# A shell that starts the tests in the background has Ctrl-C ignored, and they would inherit that.
_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
if _ignored and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Files whose tests take minutes go first, so that no worker is left with one at the end.
_LONG = ("test_wheel.py", "test_measure.py", "test_registry.py", "test_transfer.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, each in its own order."""
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Escape what no UTF-8 can hold in what a test logged: reports cross processes in it."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MLOPSKIT_", "MLFLOW_", "WANDB_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user-config"))
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Install a tiny distribution, as pip would, where only a child process sees it.

    Returns a function of (distribution, its modules by name, its entry points by group), which
    returns the environment to start that process with.
    """

    def installed(
        distribution: str, modules: dict[str, str], entry_points: dict[str, dict[str, str]]
    ) -> dict[str, str]:
        site = tmp_path / "site"
        info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        lines: list[str] = []
        for group, entries in entry_points.items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for name, source in modules.items():
            (site / f"{name}.py").write_text(source)
        return {**os.environ, "PYTHONPATH": str(site)}

    return installed

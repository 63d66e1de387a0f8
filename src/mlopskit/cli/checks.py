"""What ``mlopskit doctor`` tries: the home, every configured tool, every plugin, every version.

Nothing here prints, and nothing a tool does can stop the examination: each is tried in a thread of
its own and left behind when its time is up.
"""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from mlopskit import plugins
from mlopskit.cli.versions import within
from mlopskit.errors import BrokenPlugin, MlopskitError, StorageError
from mlopskit.kit import Kit
from mlopskit.storage import make_private_folder, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlopskit.config import Line, Settings
    from mlopskit.plugins import BackendInfo
    from mlopskit.tool import Tool

T = TypeVar("T")

LOOK_S: Final = 0.2
OPEN_LIMIT_S: Final = 60.0
GRACE_S: Final = 1.0
LITTLE_SPACE: Final = 100 << 20


class _TooSlow(Exception):
    """Something did not come back within its time."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        domain: The interface, or ``home`` or ``events``.
        name: The backend, or what else was looked at.
        state: ``failed`` for what is configured and does not work.
        detail: What was found; the error's message where there was one.
        seconds: How long the tool took to answer, or None where it was not asked.
        error: What was raised, or None.
        hangs: Whether the check was given up and its thread left behind.
    """

    domain: str
    name: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    seconds: float | None = None
    error: BaseException | None = None
    hangs: bool = False


def check_home(home: Path) -> Finding:
    """Write a file in the home and remove it; a home that was not there is not left behind."""
    was_there = home.exists()
    probe = home / ".doctor"
    try:
        make_private_folder(home)
        write_whole(probe, b"doctor\n")
        probe.unlink(missing_ok=True)
        free = shutil.disk_usage(home).free
    except (StorageError, OSError) as exc:
        return Finding("home", str(home), "failed", str(exc), error=exc)
    finally:
        if not was_there:
            with suppress(OSError):
                home.rmdir()
    detail = f"writable, {free / (1 << 30):.1f} GiB free"
    return Finding("home", str(home), "warning" if free < LITTLE_SPACE else "ok", detail)


def check_tools(settings: Settings, timeout_s: float) -> list[Finding]:
    """Open, reach and close every configured tool."""
    found: list[Finding] = []
    for domain, lines in settings.lines.items():
        # Only tracking may have several, and each of those is a tool of its own.
        parts = [(line,) for line in lines] if domain == "tracking" else [lines]
        for part in parts:
            alone = settings.model_copy(update={"lines": {**settings.lines, domain: part}})
            found.append(_check_tool(alone, domain, _named(part), timeout_s))
    return found


def check_plugins(settings: Settings) -> list[Finding]:
    """Import every installed backend and listener, and say which of them would not work.

    A tool that nobody configured and that phones home is left alone: some do so when imported.
    """
    found: list[Finding | None] = []
    for info in plugins.backends():
        lines = settings.lines[info.domain]
        configured = any(line.backend == info.name for line in lines)
        wanted = info.installed and (configured or not info.telemetry)
        broken = _check_import(info.domain, info.name) if wanted else None
        if broken is None:
            found.append(_check_table(info))
        elif not configured:  # Else its tool has told the same.
            found.append(broken)
    return [each for each in (*found, _check_listeners()) if each is not None]


def check_version(info: BackendInfo, package: str) -> Finding:
    """Compare the installed version of a package with the range its backend is tested with."""
    tested = info.requires[package]
    version = plugins.version_of(package)
    if version is None:
        return Finding(info.domain, info.name, "warning", f"not installed: {info.install}")
    inside = within(version, tested)
    if inside is None:
        return Finding(info.domain, info.name, "warning", "cannot be compared")
    if not inside:
        return Finding(info.domain, info.name, "warning", "outside the tested range")
    return Finding(info.domain, info.name, "ok", "tested")


def _check_tool(settings: Settings, domain: str, name: str, timeout_s: float) -> Finding:
    kit = Kit.of(settings)
    stage, limit_s = "be opened", OPEN_LIMIT_S
    try:
        tool: Tool = _in_time(lambda: kit.tool(domain), limit_s)
        stage, limit_s = "answer", timeout_s
        start = time.perf_counter()
        _in_time(lambda: tool.ping(timeout_s=timeout_s), timeout_s + GRACE_S)
        seconds = time.perf_counter() - start
        stage, limit_s = "close", timeout_s
        _in_time(kit.close, timeout_s + GRACE_S)
    except _TooSlow:
        detail = f"it did not {stage} within {limit_s:g} s"
        return Finding(domain, name, "failed", detail, hangs=True)
    except Exception as exc:  # noqa: BLE001 - whatever a tool does is a finding
        with suppress(Exception):
            _in_time(kit.close, timeout_s)
        return Finding(domain, name, "failed", _told(exc), error=exc)
    return Finding(domain, name, "ok", "reachable", seconds)


def _check_import(domain: str, name: str) -> Finding | None:
    try:
        _in_time(lambda: plugins.load(domain, name), OPEN_LIMIT_S)
    except _TooSlow:
        detail = f"it did not finish importing within {OPEN_LIMIT_S:g} s"
        return Finding(domain, name, "warning", detail, hangs=True)
    except MlopskitError as exc:
        return Finding(domain, name, "warning", str(exc), error=exc)
    return None


def _check_table(info: BackendInfo) -> Finding | None:
    if info.capabilities is not None:
        return None
    detail = (
        f"the distribution {info.distribution!r} declares no table of capabilities that can be "
        "read, so what this backend can do is not known before it is opened"
    )
    return Finding(info.domain, info.name, "warning", detail)


def _check_listeners() -> Finding | None:
    # Whoever installed it wants to hear, so that it counts as configured.
    try:
        _in_time(plugins.listeners, OPEN_LIMIT_S)
    except _TooSlow:
        return Finding("events", "listeners", "failed", "importing them never ended", hangs=True)
    except BrokenPlugin as exc:
        return Finding("events", exc.name, "failed", str(exc), error=exc)
    return None


def _in_time(act: Callable[[], T], limit_s: float) -> T:
    """Return what a call returns, or give it up: its daemon thread may never end."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(act())
        except BaseException as exc:  # noqa: BLE001 - raised again by whoever waits
            failures.append(exc)

    worker = threading.Thread(target=run, name="mlopskit-doctor", daemon=True)
    worker.start()
    deadline = time.monotonic() + limit_s
    while worker.is_alive() and (left := deadline - time.monotonic()) > 0:
        worker.join(min(left, LOOK_S))  # Ctrl-C just before a wait does not end that wait.
    if failures:
        raise failures[0]
    if not results:
        raise _TooSlow
    return results[0]


def _named(lines: tuple[Line, ...]) -> str:
    return "+".join(line.backend for line in lines)


def _told(error: Exception) -> str:
    if isinstance(error, MlopskitError):
        return str(error)
    return f"{type(error).__name__}: {error}"

"""Runs the workload through every way to every tool, each in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from mlopskit._version import __version__
from mlopskit.comparison.page import page
from mlopskit.comparison.result import Outage, ToolComparison, ToolResult
from mlopskit.errors import UnknownBackend
from mlopskit.plugins import backends
from mlopskit.storage import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.capabilities import Capabilities

Way = Literal["native", "mlopskit"]
NATIVE: Final = ("mlflow", "wandb")
SERVERS: Final = ("mlflow", "wandb")
LONGEST_S: Final = 300.0
OUTAGE_S: Final = 20.0


def compare(
    *tools: str,
    domain: str = "tracking",
    html: Path | str | None = None,
    outage_s: float = OUTAGE_S,
    told: Callable[[str], object] | None = None,
) -> ToolComparison:
    """Compare tools by one workload: what each keeps, what it costs, and what an outage does.

    Takes half a minute and more. Each tool works in a temporary folder, with its own client and
    through mlopskit; one that is not installed is named, and the rest goes on.

    Args:
        tools: Backends of the domain, such as ``"mlflow"``; all that are installed if none.
        domain: Other domains than ``"tracking"`` have no workload yet: only what their backends
            declare is compared.
        html: Where to write a page, which opens offline.
        outage_s: How long a program may take without its server; 0 leaves that out.
        told: Is given what is measured next, in a few words.

    Raises:
        UnknownBackend: If there is no such backend.
    """
    known = {each.name: each for each in backends(domain)}
    wanted = list(dict.fromkeys(tools)) or [n for n, each in known.items() if each.installed]
    for each in wanted:
        if each not in known:
            raise UnknownBackend(domain, each, known)
    results: list[ToolResult] = []
    for tool in wanted if domain == "tracking" else ():
        ways: tuple[Way, ...] = ("native", "mlopskit") if tool in NATIVE else ("mlopskit",)
        for way in ways:
            if not known[tool].installed:
                results.append(ToolResult(tool=tool, way=way, error=known[tool].install))
                continue
            if told is not None:
                told(f"{tool}, {'its own client' if way == 'native' else 'through mlopskit'}")
            results.append(_result(tool, way, known[tool].version or "", outage_s))
    declared = {tool: _declared(known[tool].capabilities) for tool in wanted}
    names = sorted({name for each in declared.values() for name in each})
    comparison = ToolComparison(
        domain=domain,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(wanted),
        results=tuple(results),
        capabilities={
            name: {tool: declared[tool].get(name, "") for tool in wanted} for name in names
        },
    )
    if html is not None:
        write_whole(Path(html), page(comparison).encode("utf-8", errors="backslashreplace"))
    return comparison


def _declared(table: Capabilities | None) -> dict[str, str]:
    return {
        each.name: f"{each.level}: {each.note}" if each.note else each.level for each in table or ()
    }


def _result(tool: str, way: Way, version: str, outage_s: float) -> ToolResult:
    with tempfile.TemporaryDirectory(prefix="mlopskit-compare-") as folder:
        done, said = _child(tool, way, Path(folder), "measure", LONGEST_S)
    if done is None or done.code != 0:
        why = said if done is not None else f"it took more than {LONGEST_S:.0f} s"
        return ToolResult(tool=tool, way=way, version=version, error=why)
    found: dict[str, Any] = json.loads(said)
    outage = None
    if tool in SERVERS and outage_s > 0:
        with tempfile.TemporaryDirectory(prefix="mlopskit-compare-") as folder:
            outage, said = _child(tool, way, Path(folder), "outage", outage_s)
            outage = outage or Outage(ended=False, code=None, took_s=outage_s)
            if outage.code != 0:
                outage = outage.model_copy(update={"detail": said})
            counted, said = _child(tool, way, Path(folder), "left", LONGEST_S)
            if counted is not None and counted.code == 0:
                outage = outage.model_copy(update=json.loads(said))
    return ToolResult(tool=tool, way=way, version=version, outage=outage, **found)


def _child(
    tool: str, way: Way, folder: Path, what: str, longest_s: float
) -> tuple[Outage | None, str]:
    """Run one child; return how it ended, None if not in time, and the last line of its output."""
    surroundings = {
        **os.environ,
        "WANDB_SERVICE": "",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CONSOLE": "off",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    begun = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "mlopskit.comparison.child", tool, way, str(folder), what],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=surroundings,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            out, err = child.communicate(timeout=longest_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.communicate()
            return None, ""
    took = time.perf_counter() - begun
    ended = Outage(ended=True, code=child.returncode, took_s=took)
    lines = [line for line in (out if child.returncode == 0 else err).splitlines() if line.strip()]
    return ended, lines[-1] if lines else ""


def _versions(tools: list[str]) -> dict[str, str]:
    found = {"Python": platform.python_version(), "mlopskit": __version__}
    for tool in tools:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found

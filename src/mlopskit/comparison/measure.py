"""Runs the workload through every way to every tool, each in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any, Final, Literal

from mlopskit._version import __version__
from mlopskit.comparison.page import page
from mlopskit.comparison.place import Place, label_of
from mlopskit.comparison.result import Outage, ToolComparison, ToolResult
from mlopskit.config import parse_line
from mlopskit.errors import InvalidInput, UnknownBackend
from mlopskit.kit import Kit
from mlopskit.plugins import backends
from mlopskit.storage import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mlopskit.capabilities import Capabilities
    from mlopskit.config import Line
    from mlopskit.plugins import BackendInfo

Way = Literal["native", "mlopskit"]
NATIVE: Final = ("mlflow", "wandb")
SERVERS: Final = ("mlflow", "wandb")
LONGEST_S: Final = 300.0
LONGEST_THERE_S: Final = 1800.0  # A server far away answers every one of the cases.
OUTAGE_S: Final = 20.0
TIMES: Final = 3
COSTS: Final = ("p50_us", "p99_us", "points_per_s", "import_s", "start_s", "stored_bytes")


def compare(
    *tools: str | Mapping[str, Any],
    domain: str = "tracking",
    html: Path | str | None = None,
    outage_s: float = OUTAGE_S,
    times: int = TIMES,
    told: Callable[[str], object] | None = None,
) -> ToolComparison:
    """Compare tools by one workload: what each keeps, what it costs, and what an outage does.

    Takes some minutes. Each tool works with its own client and through mlopskit; one that is not
    installed is named, and the rest goes on. By a name alone, a tool works in temporary folders. A
    config line says where it works instead: there, the comparison makes experiments of its own (in
    W&B, projects), which `told` and `ToolResult.made` name, and touches nothing else. What it made
    stays.

    Args:
        tools: Backends of the domain, such as ``"mlflow"``, or config lines, such as
            ``"mlflow:http://127.0.0.1:5000"``; all backends that are installed if none.
        domain: Other domains than ``"tracking"`` have no workload yet: only what their backends
            declare is compared.
        html: Where to write a page, which opens offline.
        outage_s: How long a program may take without its server; 0 leaves that out.
        times: How often each cost is measured, for the median.
        told: Is given what is measured next, in a few words.

    Raises:
        UnknownBackend: If there is no such backend.
        ConfigError: If a line or its location cannot be read.
        Unavailable: If nobody answers where a line says; nothing has been measured then.
        InvalidInput: If `times` is below 1.
    """
    if times < 1:
        raise InvalidInput(f"Costs cannot be measured {times} times; take 1 or more.")
    known = {each.name: each for each in backends(domain)}
    places = _places(domain, tools, known)
    if domain == "tracking":
        _reach(each for each in places if known[each.tool].installed)
    before = _load()
    results: list[ToolResult] = []
    for place in places if domain == "tracking" else ():
        results += _both(place, known[place.tool], outage_s, times, told or _silent)
    wanted = list(dict.fromkeys(each.tool for each in places))
    declared = {tool: _declared(known[tool].capabilities) for tool in wanted}
    names = sorted({name for each in declared.values() for name in each})
    comparison = ToolComparison(
        domain=domain,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{os.cpu_count()} CPUs, {before} before and {_load()} after" if results else "",
        times=times,
        versions=_versions(wanted),
        results=tuple(results),
        capabilities={
            name: {tool: declared[tool].get(name, "") for tool in wanted} for name in names
        },
    )
    if html is not None:
        write_whole(Path(html), page(comparison).encode("utf-8", errors="backslashreplace"))
    return comparison


def _places(
    domain: str, tools: Sequence[str | Mapping[str, Any]], known: Mapping[str, BackendInfo]
) -> list[Place]:
    """Read the lines; each gets a label of its own, and a name for what is made there."""
    given = tools or [name for name, each in known.items() if each.installed]
    lines: list[Line] = []
    for line in (each for tool in given for each in parse_line(tool, "compare")):
        if line.backend not in known:
            raise UnknownBackend(domain, line.backend, known)
        if line not in lines:
            lines.append(line)
    name = f"mlopskit-compare-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    labels = [label_of(line) for line in lines]
    return [
        Place(
            line=line,
            label=label if label not in labels[:at] else f"{label} ({at + 1})",
            name=f"{name}-{at + 1}" if label in labels[:at] else name,
        )
        for at, (line, label) in enumerate(zip(lines, labels, strict=True))
    ]


def _reach(places: Iterable[Place]) -> None:
    """See that somebody answers at every place that was named, before anything is measured."""
    with tempfile.TemporaryDirectory(prefix="mlopskit-compare-") as folder:
        for place in places:
            if not place.private:
                with Kit(tracking=place.line, home=folder) as kit:
                    kit.tracker.ping()


def _both(
    place: Place,
    backend: BackendInfo,
    outage_s: float,
    times: int,
    told: Callable[[str], object],
) -> Iterator[ToolResult]:
    ways: tuple[Way, ...] = ("native", "mlopskit") if place.tool in NATIVE else ("mlopskit",)
    for way in ways:
        if not backend.installed:
            yield ToolResult(tool=place.label, way=way, error=backend.install)
            continue
        made = place.made(way)
        by = "its own client" if way == "native" else "through mlopskit"
        told(f"{place.label}, {by}{', in the ' * bool(made)}{made}")
        yield _result(place, way, backend.version or "", outage_s, times)


def _silent(what: str) -> None:
    """Tell nobody."""


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown load"


def _declared(table: Capabilities | None) -> dict[str, str]:
    return {
        each.name: f"{each.level}: {each.note}" if each.note else each.level for each in table or ()
    }


def _result(place: Place, way: Way, version: str, outage_s: float, times: int) -> ToolResult:
    about: dict[str, Any] = {
        "tool": place.label,
        "way": way,
        "version": version,
        "made": place.made(way),
    }
    longest = LONGEST_S if place.private else LONGEST_THERE_S
    try:
        verdicts = _answer(place, way, "fates", longest)
        costs = [_answer(place, way, "costs", longest) for _ in range(times)]
    except _Failed as exc:
        return ToolResult(**about, error=str(exc))
    outage = _outage(place, way, outage_s) if place.tool in SERVERS and outage_s > 0 else None
    middle = {name: _median([each[name] for each in costs]) for name in COSTS}
    before = {name for each in costs for name in each["imported_before"]}
    return ToolResult(
        **about, verdicts=verdicts, **middle, imported_before=tuple(sorted(before)), outage=outage
    )


def _median(values: list[Any]) -> Any:
    return None if None in values else median_low(values)


def _outage(place: Place, way: Way, outage_s: float) -> Outage:
    with tempfile.TemporaryDirectory(prefix="mlopskit-compare-") as folder:
        outage, said = _child(place, way, Path(folder), "outage", outage_s)
        outage = outage or Outage(ended=False, code=None, took_s=outage_s)
        if outage.code != 0:
            outage = outage.model_copy(update={"detail": said})
        counted, said = _child(place, way, Path(folder), "left", LONGEST_S)
        if counted is not None and counted.code == 0:
            outage = outage.model_copy(update=json.loads(said))
    return outage


class _Failed(Exception):
    """A child did not answer; the text says why."""


def _answer(place: Place, way: Way, what: str, longest_s: float) -> Any:
    """Run one child in a folder of its own, and return what it found."""
    with tempfile.TemporaryDirectory(prefix="mlopskit-compare-") as folder:
        done, said = _child(place, way, Path(folder), what, longest_s)
    if done is None:
        raise _Failed(f"it took more than {longest_s:.0f} s")
    if done.code != 0:
        raise _Failed(said or f"its process ended with {done.code}")
    return json.loads(said)


def _child(
    place: Place, way: Way, folder: Path, what: str, longest_s: float
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
        [sys.executable, "-P", "-m", "mlopskit.comparison.child", way, str(folder), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A path in a line is one from here; what a tool drops where it stands is not to lie here.
        cwd=folder if place.private else None,
        env=surroundings,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            out, err = child.communicate(place.model_dump_json(), timeout=longest_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.communicate()
            return None, ""
    took = time.perf_counter() - begun
    ended = Outage(ended=True, code=child.returncode, took_s=took)
    if child.returncode == 0:
        return ended, _last(out)
    return ended, place.fetched()[1].text(_last(err))


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _versions(tools: list[str]) -> dict[str, str]:
    found = {"Python": platform.python_version(), "mlopskit": __version__}
    for tool in tools:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found

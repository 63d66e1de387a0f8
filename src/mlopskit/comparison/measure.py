"""Runs the workload through every way to every tool, each in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import secrets
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from mlopskit._version import __version__
from mlopskit.comparison import outages
from mlopskit.comparison.page import page
from mlopskit.comparison.place import Place, label_of
from mlopskit.comparison.processes import PREFIX, run
from mlopskit.comparison.result import ToolComparison, ToolResult
from mlopskit.config import parse_line
from mlopskit.errors import InvalidInput, UnknownBackend
from mlopskit.kit import Kit
from mlopskit.plugins import backends
from mlopskit.storage import write_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mlopskit.capabilities import Capabilities
    from mlopskit.config import Line
    from mlopskit.plugins import BackendInfo

Way = Literal["native", "mlopskit"]
WORKLOADS: Final = ("tracking", "registry")
NATIVE: Final = ("mlflow", "wandb")
SERVERS: Final = ("mlflow", "wandb")
LONGEST_S: Final = 300.0
LONGEST_THERE_S: Final = 1800.0  # A server far away answers every one of the cases.
OUTAGE_S: Final = 20.0
TIMES: Final = 3
COSTS: Final = ("p50_us", "p99_us", "points_per_s", "import_s", "start_s", "stored_bytes")


class _Asked(NamedTuple):
    """What is asked for, beside the tools."""

    domain: str
    outage_s: float
    times: int
    told: Callable[[str], object]


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
    W&B projects, in a registry models), which `told` and `ToolResult.made` name, and touches
    nothing else. What it made stays. Servers that die are started here, wherever a tool works.

    Args:
        tools: Backends of the domain, such as ``"mlflow"``, or config lines, such as
            ``"mlflow:http://127.0.0.1:5000"``; all backends that are installed if none.
        domain: ``"tracking"`` or ``"registry"``. Other domains have no workload yet: only what
            their backends declare is compared.
        html: Where to write a page, which opens offline.
        outage_s: How long a program may take without its server, or after the server's death; 0
            leaves both out.
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
    if domain in WORKLOADS:
        _reach(domain, (each for each in places if known[each.tool].installed))
    before = _load()
    results: list[ToolResult] = []
    asked = _Asked(domain, outage_s, times, told or _silent)
    for place in places if domain in WORKLOADS else ():
        results += _both(place, known[place.tool], asked)
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
        write_page(Path(html), page(comparison))
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
    name = f"{PREFIX}{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    labels = [label_of(line) for line in lines]
    return [
        Place(
            line=line,
            label=label if label not in labels[:at] else f"{label} ({at + 1})",
            name=f"{name}-{at + 1}" if label in labels[:at] else name,
        )
        for at, (line, label) in enumerate(zip(lines, labels, strict=True))
    ]


def _reach(domain: str, places: Iterable[Place]) -> None:
    """See that somebody answers at every place that was named, before anything is measured."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        for place in places:
            if not place.private:
                with Kit(**{domain: place.line}, home=folder) as kit:
                    kit.tool(domain).ping()


def _both(place: Place, backend: BackendInfo, asked: _Asked) -> Iterator[ToolResult]:
    ways: tuple[Way, ...] = ("native", "mlopskit") if place.tool in NATIVE else ("mlopskit",)
    for way in ways:
        about: dict[str, Any] = {"tool": place.label, "way": way}
        if not backend.installed:
            yield ToolResult(**about, error=backend.install)
            continue
        made = place.made(way, asked.domain)
        by = "its own client" if way == "native" else "through mlopskit"
        asked.told(f"{place.label}, {by}{', in the ' * bool(made)}{made}")
        about |= {"version": backend.version or "", "made": made}
        try:
            if asked.domain == "registry":
                yield ToolResult(**about, **_registry(place, way, asked))
            else:
                yield ToolResult(**about, **_tracking(place, way, asked))
        except _Failed as exc:
            yield ToolResult(**about, error=str(exc))


def _silent(what: str) -> None:
    """Tell nobody."""


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown load"


def _declared(table: Capabilities | None) -> dict[str, str]:
    return {
        each.name: f"{each.level}: {each.note}" if each.note else each.level for each in table or ()
    }


def _tracking(place: Place, way: Way, asked: _Asked) -> dict[str, Any]:
    verdicts = _answer(place, way, "fates")
    costs = [_answer(place, way, "costs") for _ in range(asked.times)]
    before = {name for each in costs for name in each["imported_before"]}
    found = {
        "verdicts": verdicts,
        "imported_before": tuple(sorted(before)),
        **{name: _median([each[name] for each in costs]) for name in COSTS},
    }
    if place.tool in SERVERS and asked.outage_s > 0:
        found["outage"] = outages.without(place, way, asked.outage_s)
        found["death"] = outages.death(place.tool, way, asked.outage_s)
    return found


def _registry(place: Place, way: Way, asked: _Asked) -> dict[str, Any]:
    verdicts = _answer(place, way, "registry_fates")
    costs = [_answer(place, way, "registry_costs") for _ in range(asked.times)]
    calls = {name: _median([each[name] for each in costs]) for name in costs[0]}
    return {"verdicts": verdicts, "calls_ms": calls}


def _median(values: list[Any]) -> Any:
    return None if None in values else median_low(values)


class _Failed(Exception):
    """A child did not answer; the text says why."""


def _answer(place: Place, way: Way, what: str) -> Any:
    """Run one child in a folder of its own, and return what it found."""
    longest_s = LONGEST_S if place.private else LONGEST_THERE_S
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        ended = run(place, way, Path(folder), what, longest_s)
    if ended.code is None:
        raise _Failed(f"it took more than {longest_s:.0f} s")
    if ended.code != 0:
        raise _Failed(ended.said or f"its process ended with {ended.code}")
    return json.loads(ended.said)


def _versions(tools: list[str]) -> dict[str, str]:
    found = {"Python": platform.python_version(), "mlopskit": __version__}
    for tool in tools:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found

"""``mlopskit doctor``: try everything that is configured, and say what does not work."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING, Any

import click

from mlopskit._version import __version__
from mlopskit.cli.command import Command, settings
from mlopskit.cli.failure import flush, plugin_traceback
from mlopskit.cli.output import Styled, heading, json_option, line, print_json, remark, table
from mlopskit.errors import BrokenPlugin

if TYPE_CHECKING:
    from mlopskit.cli.checks import Finding
    from mlopskit.cli.output import Cell
    from mlopskit.config import Settings
    from mlopskit.plugins import BackendInfo

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


@click.command(cls=Command)
@click.option(
    "timeout_s",
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a tool may take to answer.",
)
@json_option()
def command(timeout_s: float, *, as_json: bool) -> None:
    """Try everything that is configured, and say what does not work.

    Opens and reaches every configured tool, writes to the home, imports every installed plugin,
    and compares what is installed with the versions that were tested. Exits with 1 if something
    that is configured does not work.
    """
    from mlopskit.cli import checks
    from mlopskit.plugins import backends

    configured = settings()
    tools = [checks.check_home(configured.home), *checks.check_tools(configured, timeout_s)]
    others = checks.check_plugins(configured)
    infos = backends()
    versions = [
        (info, package, checks.check_version(info, package))
        for info in infos
        for package in info.requires
    ]
    found = [*tools, *others]
    broken = any(each.state == "failed" for each in found)
    if as_json:
        print_json(_plain(configured, tools, others, versions, infos) | {"ok": not broken})
    else:
        _show(configured, tools, others, versions, infos)
    _leave(1 if broken else 0, abandoned=any(each.hangs for each in found))


Versions = list[tuple["BackendInfo", str, "Finding"]]


def _show(
    configured: Settings,
    tools: list[Finding],
    others: list[Finding],
    versions: Versions,
    infos: list[BackendInfo],
) -> None:
    heading("Environment")
    table(["what", "value"], [[key, value] for key, value in _environment(configured).items()])
    line()
    heading("Configured")
    table(["interface", "backend", "state", "in", "detail"], [_row(each) for each in tools])
    line()
    heading("Packages")
    table(
        ["interface", "backend", "package", "installed", "tested with", "state"],
        [_version_row(*each) for each in versions],
    )
    line()
    if others:
        heading("Plugins that do not work")
        table(["interface", "backend", "state", "in", "detail"], [_row(each) for each in others])
        line()
    phoning = _grouped(_telemetry(infos))
    if phoning:
        heading("Tools that phone home")
        table(["interface", "backend", "what, and how to switch it off"], phoning)
        line()
    for each in (*tools, *others):
        if isinstance(each.error, BrokenPlugin) and each.error.__cause__ is not None:
            remark(f"{each.domain}/{each.name}, of {each.error.distribution}:")
            click.echo(plugin_traceback(each.error.__cause__), err=True, nl=False)
    _conclude(tools, others)


def _conclude(tools: list[Finding], others: list[Finding]) -> None:
    failed = [each for each in (*tools, *others) if each.state == "failed"]
    if not failed:
        line("Everything that is configured works.")
    for each in failed:
        line(f"Does not work: {each.domain} ({each.name})")


def _environment(configured: Settings) -> dict[str, str]:
    return {
        "mlopskit": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "files": ", ".join(str(file) for file in configured.files),
        "profile": configured.profile or "",
    }


def _row(found: Finding) -> list[Cell]:
    took = "" if found.seconds is None else f"{found.seconds * 1000:.0f} ms"
    return [found.domain, found.name, Styled(found.state, STYLES[found.state]), took, found.detail]


def _version_row(info: BackendInfo, package: str, found: Finding) -> list[Cell]:
    from mlopskit.plugins import version_of

    return [
        info.domain,
        info.name,
        package,
        version_of(package),
        info.requires[package],
        Styled(found.detail, STYLES[found.state]),
    ]


def _telemetry(infos: list[BackendInfo]) -> list[list[Cell]]:
    return [
        [info.domain, info.name, info.telemetry]
        for info in infos
        if info.installed and info.telemetry
    ]


def _grouped(phoning: list[list[Cell]]) -> list[list[Cell]]:
    """Say once what a tool does behind several interfaces."""
    found: dict[tuple[Cell, Cell], list[str]] = {}
    for domain, name, note in phoning:
        found.setdefault((name, note), []).append(str(domain))
    return [[", ".join(domains), name, note] for (name, note), domains in found.items()]


def _plain(
    configured: Settings,
    tools: list[Finding],
    others: list[Finding],
    versions: Versions,
    infos: list[BackendInfo],
) -> dict[str, Any]:
    from mlopskit.plugins import version_of

    return {
        "environment": _environment(configured) | {"files": configured.files},
        "configured": [_plain_finding(each) for each in tools],
        "plugins": [_plain_finding(each) for each in others],
        "packages": [
            {
                "domain": info.domain,
                "backend": info.name,
                "package": package,
                "version": version_of(package),
                "tested": info.requires[package],
                "state": found.state,
                "detail": found.detail,
            }
            for info, package, found in versions
        ],
        "telemetry": [
            {"domain": domain, "backend": name, "note": note}
            for domain, name, note in _telemetry(infos)
        ],
    }


def _plain_finding(found: Finding) -> dict[str, Any]:
    return {
        "domain": found.domain,
        "name": found.name,
        "state": found.state,
        "detail": found.detail,
        "seconds": found.seconds,
    }


def _leave(code: int, *, abandoned: bool) -> None:
    if abandoned:
        # Python would wait at its end for threads that the tool started and that never end.
        flush()
        os._exit(code)
    click.get_current_context().exit(code)

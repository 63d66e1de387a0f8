"""``mlopskit backends``: which tools stand behind each interface, and what each can do."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from mlopskit.cli.command import Command
from mlopskit.cli.output import Styled, heading, json_option, line, on_terminal, print_json, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.cli.output import Cell
    from mlopskit.plugins import BackendInfo

STYLES = {"native": "green", "emulated": "yellow", "absent": "red"}
MARKS = {"native": "✓", "emulated": "~", "absent": "✗"}


@click.command(cls=Command)
@click.argument("domain", required=False)
@click.option("--notes", is_flag=True, help="Show how each gap is bridged, or why it is there.")
@json_option()
def command(domain: str | None, *, notes: bool, as_json: bool) -> None:
    """Show which tools stand behind each interface, and what each can do.

    DOMAIN is one of tracking, registry, serving, features, monitoring and pipelines; without it all
    are shown. A capability is native to the tool, emulated by mlopskit on top of it, or absent. The
    notes say how and why; with a DOMAIN they are always shown.
    """
    from mlopskit import plugins

    found = plugins.backends(domain)
    if as_json:
        print_json([_plain(info, _meanings(info.domain)) for info in found])
    elif on_terminal():
        for each in dict.fromkeys(info.domain for info in found):
            _show(each, [info for info in found if info.domain == each], notes or bool(domain))
    else:
        _print_lines(found)


def _show(domain: str, found: list[BackendInfo], notes: bool) -> None:
    heading(domain)
    table(["backend", "version", "installed", "distribution"], [_summary(info) for info in found])
    line()
    meanings = _meanings(domain)
    names = dict.fromkeys([*meanings, *(c.name for info in found for c in info.capabilities or ())])
    table(
        ["capability", *(info.name for info in found), "what it means"],
        [[name, *(_mark(info, name) for info in found), meanings.get(name)] for name in names],
    )
    line()
    if notes:
        _show_notes(found)


def _show_notes(found: list[BackendInfo]) -> None:
    rows: list[list[Cell]] = [
        [info.name, each.name, Styled(each.level, STYLES[each.level]), each.note]
        for info in found
        for each in info.capabilities or ()
        if each.note
    ]
    if rows:
        table(["backend", "capability", "", "note"], rows)
        line()


def _summary(info: BackendInfo) -> list[Cell]:
    return [info.name, info.version, _installed(info), info.distribution]


def _installed(info: BackendInfo) -> Cell:
    return Styled("yes", "green") if info.installed else Styled(f"no: {info.install}", "yellow")


def _mark(info: BackendInfo, name: str) -> Cell:
    table = {each.name: each for each in info.capabilities or ()}
    if name not in table:
        return Styled("?", "dim")
    level = table[name].level
    return Styled(f"{MARKS[level]} {level}", STYLES[level])


def _print_lines(found: list[BackendInfo]) -> None:
    """Print for a pipe: the backends, one a line, and then their capabilities, one a line."""
    table(
        ["domain", "backend", "version", "installed", "distribution"],
        [[info.domain, *_summary(info)] for info in found],
    )
    line()
    table(
        ["domain", "backend", "capability", "level", "note"],
        [
            [info.domain, info.name, each.name, each.level, each.note]
            for info in found
            for each in info.capabilities or ()
        ],
    )


def _plain(info: BackendInfo, meanings: Mapping[str, str]) -> dict[str, Any]:
    return {
        "domain": info.domain,
        "name": info.name,
        "installed": info.installed,
        "version": info.version,
        "distribution": info.distribution,
        "install": info.install,
        "requires": info.requires,
        "missing": info.missing,
        "telemetry": info.telemetry,
        "capabilities": None
        if info.capabilities is None
        else {
            each.name: {
                "level": each.level,
                "note": each.note,
                "meaning": meanings.get(each.name, ""),
            }
            for each in info.capabilities
        },
    }


def _meanings(domain: str) -> Mapping[str, str]:
    """Return what the interface says of each capability, in its order."""
    meanings: Mapping[str, str] = import_module(f"mlopskit.{domain}.base").CAPABILITIES
    return meanings

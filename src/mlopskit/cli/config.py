"""``mlopskit config``: every configured value, and where it came from."""

from __future__ import annotations

from typing import Any

import click

from mlopskit.cli.command import Command, settings
from mlopskit.cli.output import json_option, line, print_json, table


@click.command(cls=Command)
@json_option()
def command(*, as_json: bool) -> None:
    """Show every configured value and where it came from, secrets masked.

    Nothing is opened; to try what is configured, run mlopskit doctor.
    """
    found = settings()
    values = found.values()
    if as_json:
        print_json({"files": found.files, "values": [each.model_dump() for each in values]})
        return
    table(
        ["key", "value", "from"],
        [[each.key, _shown(each.value), each.origin] for each in values],
    )
    line()
    if not found.files:
        line("No configuration file was found.")
    for file in found.files:
        line(f"Read: {file}")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else _as_toml(value)


def _as_toml(value: Any) -> str:
    """Write a value as a configuration file would."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)

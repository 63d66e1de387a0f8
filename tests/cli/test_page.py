"""The page on the command line has every command and every option, and no other."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import click
import pytest

from mlopskit.cli import COMMANDS
from mlopskit.cli.command import Command, Group

pytestmark = pytest.mark.core

PAGE = Path(__file__).parents[2].joinpath("docs", "cli.md").read_text(encoding="utf-8")
SHARED = {word for each in Command("any").params for word in each.opts} | {"-h", "--help"}
NO_COMMAND = {"models show", "webhooks show"}  # What `models` and `webhooks` alone do.


def loaded(module: str, name: str) -> click.Command:
    found: click.Command = getattr(import_module(f"mlopskit.cli.{module}"), name or "command")
    return found


def leaves() -> dict[str, click.Command]:
    """Return every command that does something, by what is written after ``mlopskit``."""
    found: dict[str, click.Command] = {}
    for name, (place, _) in COMMANDS.items():
        module, _, attribute = place.partition(":")
        command = loaded(module, attribute)
        if not isinstance(command, Group):
            found[name] = command
            continue
        for part in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), part)
            assert below is not None
            found[f"{name} {part}"] = below
    return found


LEAVES = leaves()


def section(name: str) -> str:
    """Return what the page says of a command below the headline that names it, or its group."""
    parts = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    for wanted in (name, name.partition(" ")[0]):
        for part in parts:
            title = part.partition("\n")[0]
            if re.search(rf"`mlopskit {re.escape(wanted)}[ `]", title):
                return part
    raise AssertionError(f"No headline of docs/cli.md is about {name!r}.")


def options(command: click.Command) -> set[str]:
    return {word for each in command.params if isinstance(each, click.Option) for word in each.opts}


@pytest.mark.parametrize("name", [each for each in LEAVES if each not in NO_COMMAND])
def test_a_command_is_on_the_page_with_all_its_options(name: str) -> None:
    said = section(name)
    group = name.partition(" ")[0]
    table = PAGE.partition("## Options of every command")[0]

    assert f"[`{name}`](#" in table or f"[`{group}`](#" in table
    row = re.search(rf"^\| `{name}[ `].*", said, re.MULTILINE) if " " in name else None
    assert row is not None or f"`mlopskit {name}" in said
    where = said if row is None else row[0]
    missing = options(LEAVES[name]) - SHARED - ({"--json"} if row is not None else set())
    assert [each for each in sorted(missing) if not re.search(rf"{each}(?![\w-])", where)] == []


@pytest.mark.parametrize("name", LEAVES)
def test_what_the_page_says_of_a_command_is_there(name: str) -> None:
    """In the sections that are about one command."""
    headline = section(name).partition("\n")[0]
    if f"`mlopskit {name}" not in headline or headline.count("mlopskit") > 1:
        return
    group = name.partition(" ")[0]
    text = re.sub(rf"^\| `{group} .*", "", section(name), flags=re.MULTILINE)
    said = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))

    assert said - options(LEAVES[name]) - SHARED == set()


def test_every_headline_is_a_command() -> None:
    titles = " ".join(re.findall(r"^## .*", PAGE, re.MULTILINE))
    names = {each.strip() for each in re.findall(r"`mlopskit ((?:[a-z]+ ?)+)", titles)}
    known = {*LEAVES, *(each.partition(" ")[0] for each in LEAVES)}

    assert [each for each in sorted(names) if each.removesuffix(" github") not in known] == []


def test_options_of_every_command_are_on_the_page() -> None:
    said = PAGE.partition("## Options of every command")[2].partition("\n## ")[0]

    assert [each for each in sorted(SHARED) if f"`{each}" not in said] == []

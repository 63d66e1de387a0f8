"""``mlopskit card``: a model card, shown or written to a file, and its fields filled in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.output import (
    check_place,
    heading,
    json_option,
    line,
    on_terminal,
    print_json,
    remark,
    table,
    write_report,
)
from mlopskit.errors import InvalidInput, UnknownOption

if TYPE_CHECKING:
    from mlopskit.registry import ModelCard

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(cls=Command)
@click.argument("name")
@click.argument("ref")
@click.option("--html", type=_FILE, metavar="FILE", help="Write a page, which opens offline.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write it as Markdown.")
@click.option(
    "given",
    "--set",
    multiple=True,
    metavar="FIELD=TEXT",
    help="Fill in a field first, such as owner=Ada; an empty text takes it away. May be repeated.",
)
@click.option("--model", "of_model", is_flag=True, help="--set is meant for all its versions.")
@json_option()
def command(
    name: str,
    ref: str,
    html: Path | None,
    markdown: Path | None,
    given: tuple[str, ...],
    *,
    of_model: bool,
    as_json: bool,
) -> None:
    """Show the model card of the version REF of the model called NAME, in a pipe as Markdown."""
    from mlopskit.registry.cards import WRITTEN, read_card, write_card

    fields = dict(map(_field, given))
    for field in fields:
        if field not in WRITTEN:
            raise UnknownOption("field of a model card", field, WRITTEN)
    for place in (html, markdown):
        check_place(place)
    with kit() as opened:
        registry = opened.registry
        number = registry.get_version(name, ref).version
        if fields:
            write_card(registry, name, None if of_model else number, why="", **fields)
        card = read_card(registry, name, number)
    for path, text in ((html, card.to_html), (markdown, card.to_markdown)):
        if path is not None:
            write_report(path, text())
            remark(f"The card is {path}")
    if as_json:
        print_json(card.model_dump())
    elif html is None and markdown is None:
        _show(card)


def _show(card: ModelCard) -> None:
    """Print the card: as Markdown into a pipe, and on a terminal as it reads best there."""
    from mlopskit.registry.cards.sections import sections

    if not on_terminal():
        click.echo(card.to_markdown(), nl=False)
        return
    heading(card.title)
    for part in sections(card):
        line()
        heading(part.title)
        for each in part.text.splitlines():
            line(each)
        if part.rows:
            table(part.head, part.rows)


def _field(said: str) -> tuple[str, str | None]:
    field, equals, text = said.partition("=")
    if not equals:
        raise InvalidInput(f"--set {said!r} is not FIELD=TEXT, such as owner=Ada.")
    return field, text or None

"""``mlopskit models search``, ``compare``, ``at`` and ``download``: questions about versions."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.models_show import show_versions
from mlopskit.cli.numbers import Whole
from mlopskit.cli.output import heading, json_option, line, number, print_json, remark, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.registry import VersionComparison

_WHOLE_SECONDS: Final = re.compile(r".{10}.\d\d:\d\d:\d\d(?![.,])")


def _moment(context: click.Context, argument: click.Parameter, said: str) -> datetime:
    """Read a time as `mlopskit models NAME` prints it, or as ISO 8601 has it."""
    try:
        when = datetime.fromisoformat(said)
    except ValueError:
        raise click.BadParameter(
            f"{said!r} is no time in ISO 8601, such as 2026-05-04 or '2026-05-04 12:00:30Z'.",
            context,
            argument,
        ) from None
    # What is printed is cut to the second, and what happened in it lies behind.
    return when.replace(microsecond=999_999) if _WHOLE_SECONDS.match(said) else when


@click.command(cls=Command)
@click.argument("where", default="")
@click.option("--name", metavar="NAME", help="Only versions of this model.")
@click.option("--order-by", multiple=True, metavar="KEY", help='Such as "metrics.auc desc".')
@click.option("--limit", type=Whole(0), default=100, show_default=True, metavar="N")
@json_option()
def search(
    where: str, name: str | None, order_by: tuple[str, ...], limit: int, *, as_json: bool
) -> None:
    """List the versions that match the filter WHERE, such as "metrics.auc > 0.8"."""
    with kit() as opened:
        found = opened.registry.search_versions(where, name, order_by=order_by, limit=limit)
    if as_json:
        print_json([each.model_dump() for each in found])
        return
    if not found:
        remark("No version matches.")
    show_versions(found, named=True)


@click.command(cls=Command)
@click.argument("name")
@click.argument("a")
@click.argument("b")
@json_option()
def compare(name: str, a: str, b: str, *, as_json: bool) -> None:
    """Show what differs between the versions A and B of the model called NAME.

    A and B are numbers, @aliases, stages or latest.
    """
    with kit() as opened:
        found = opened.registry.compare_versions(name, a, b)
    if as_json:
        print_json(found.model_dump())
        return
    _show_comparison(found)


@click.command(cls=Command)
@click.argument("name")
@click.argument("stage")
@click.argument("when", callback=_moment)
@json_option()
def at(name: str, stage: str, when: datetime, *, as_json: bool) -> None:
    """Show the version of the model called NAME that held STAGE at WHEN.

    WHEN is a time in ISO 8601, such as 2026-05-04, "2026-05-04 12:00:30Z", or one with an offset;
    without either it is UTC. One in whole seconds means the end of that second.
    """
    with kit() as opened:
        found = opened.registry.at(name, stage, when)
    if as_json:
        print_json(found.model_dump())
    else:
        show_versions([found])


@click.command(cls=Command)
@click.argument("name")
@click.argument("ref")
@click.argument("folder", type=click.Path(file_okay=False))
def download(name: str, ref: str, folder: str) -> None:
    """Write the files of the version REF of the model called NAME to FOLDER, all verified."""
    with kit() as opened:
        where = opened.registry.download(name, ref, folder)
    line(str(where))


def _show_comparison(found: VersionComparison) -> None:
    names = [str(found.a.version), str(found.b.version)]
    parts: list[tuple[str, Mapping[str, tuple[Any, Any]]]] = [
        ("Metrics", found.metrics),
        ("Lineage", found.lineage),
        ("Tags", found.tags),
        ("Files", found.files),
    ]
    if found.flavor is not None:
        parts.append(("Flavor", {"flavor": found.flavor}))
    for title, differing in parts:
        if differing:
            heading(title)
            table(["", *names], [[key, *map(_text, pair)] for key, pair in differing.items()])
            line()
    if found.signature is not None and (found.signature.breaks or found.signature.additions):
        heading("Signature")
        for text in (*found.signature.breaks, *found.signature.additions):
            line(text)
        line()
    if not any(differing for _, differing in parts):
        remark(f"Nothing that is kept of the versions {' and '.join(names)} differs.")


def _text(value: Any) -> str | None:
    return None if value is None else number(value)

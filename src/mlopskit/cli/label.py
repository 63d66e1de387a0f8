"""``mlopskit label``: the semantic version that a version of a model should be called."""

from __future__ import annotations

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.output import json_option, line, print_json, remark


@click.command(cls=Command)
@click.argument("name")
@click.argument("ref")
@click.option("--previous", metavar="REF", help="Compare with this version.")
@click.option("--write", is_flag=True, help="Keep the label, as the version's tag of that name.")
@json_option()
def command(name: str, ref: str, previous: str | None, *, write: bool, as_json: bool) -> None:
    """Propose a label such as 2.1.0 for the version REF of the model called NAME.

    It follows from what differs from the labelled version before: the signature, the architecture,
    the data.
    """
    from mlopskit.registry import propose_label, write_label

    with kit() as opened:
        registry = opened.registry
        found = propose_label(registry, name, ref, previous)
        if write:
            why = " ".join(found.reasons)
            write_label(registry, name, found.version, found.label, why=why)
    if as_json:
        print_json(found.model_dump() | {"written": write})
        return
    after = "" if found.previous is None else f" after {found.previous_label}"
    line(f"{found.label} ({found.change}{after})")
    for reason in found.reasons:
        line(f"  {reason}")
    if not write:
        remark("It is not kept: --write keeps it.")

"""``mlopskit models alias``, ``rollback``, ``edit``, ``delete`` and ``gc``: changes."""

from __future__ import annotations

from datetime import timedelta

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.failure import FAILED
from mlopskit.cli.models_show import show_versions
from mlopskit.cli.numbers import Whole
from mlopskit.cli.output import counted, json_option, line, print_json, remark, size, table
from mlopskit.errors import InvalidInput


@click.command(cls=Command)
@click.argument("name")
@click.argument("alias")
@click.argument("ref", required=False)
@click.option("delete_it", "--delete", is_flag=True, help="Forget the alias; the version stays.")
def alias(name: str, alias: str, ref: str | None, *, delete_it: bool) -> None:
    """Point ALIAS of the model called NAME to the version REF."""
    if delete_it == (ref is not None):
        raise click.UsageError("Name a version to point the alias to, or pass --delete.")
    with kit() as opened:
        if ref is None:
            opened.registry.delete_alias(name, alias)
            remark(f"@{alias} of {name!r} is forgotten.")
        else:
            show_versions([opened.registry.set_alias(name, alias, ref)])


@click.command(cls=Command)
@click.argument("name")
@click.argument("stage")
@click.option("--why", default="", metavar="TEXT", help="A reason for the history.")
def rollback(name: str, stage: str, why: str) -> None:
    """Put the version of the model called NAME back that held STAGE before."""
    with kit() as opened:
        show_versions([opened.registry.rollback(name, stage, why=why)])


@click.command(cls=Command)
@click.argument("name")
@click.argument("ref", required=False)
@click.option("--description", metavar="TEXT", help="A new text for people.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=TEXT", help="Set a tag.")
@click.option("--untag", multiple=True, metavar="KEY", help="Take a tag away.")
@click.option("--why", default="", metavar="TEXT", help="A reason for the history.")
def edit(
    name: str,
    ref: str | None,
    *,
    description: str | None,
    tags: tuple[str, ...],
    untag: tuple[str, ...],
    why: str,
) -> None:
    """Change the model called NAME, or its version REF."""
    changed: dict[str, str | None] = dict.fromkeys(untag)
    for each in tags:
        key, equals, text = each.partition("=")
        if not equals:
            raise InvalidInput(f"--tag {each!r} is not KEY=TEXT. --untag takes a tag away.")
        changed[key] = text
    if description is None and not changed:
        raise click.UsageError("Nothing changes: pass --description, --tag or --untag.")
    with kit() as opened:
        if ref is None:
            opened.registry.update_model(name, description=description, tags=changed, why=why)
            remark(f"{name!r} is changed.")
        else:
            found = opened.registry.update_version(
                name, ref, description=description, tags=changed, why=why
            )
            remark(f"Version {found.version} of {name!r} is changed.")


@click.command(cls=Command)
@click.argument("name")
@click.argument("ref", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--why", default="", metavar="TEXT", help="A reason for the history.")
def delete(name: str, ref: str | None, *, yes: bool, why: str) -> int:
    """Delete the version REF of the model called NAME, or all of its versions."""
    with kit() as opened:
        registry = opened.registry
        if ref is None:
            versions = counted(len(registry.list_versions(name)), "version")
            what = f"{name!r} with {versions}"
        else:
            what = f"version {registry.get_version(name, ref).version} of {name!r}"
        if not yes and not _confirmed(f"Delete {what}? This cannot be undone"):
            remark("Nothing was deleted.")
            return FAILED
        if ref is None:
            registry.delete_model(name, consent=True, why=why)
        else:
            registry.delete_version(name, ref, consent=True, why=why)
    remark(f"Deleted {what}. Its bytes stay until `mlopskit models gc --apply` collects them.")
    return 0


def _confirmed(question: str) -> bool:
    """Ask a person.

    Raises:
        UsageError: If nobody is there to answer.
    """
    try:
        return click.confirm(question, err=True)
    except click.Abort as exc:
        if not isinstance(exc.__context__, EOFError):
            raise
        remark("")
        raise click.UsageError("Nobody has answered, and nothing was deleted. Pass --yes.") from exc


@click.command(cls=Command)
@click.option("--apply", is_flag=True, help="Remove it in fact.")
@click.option(
    "--window",
    "days",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Leave what was held or deleted in the last so many days.",
)
@click.option(
    "--keep-last",
    type=Whole(0),
    metavar="N",
    help="Delete versions that nothing holds, all but the last N of each model.",
)
@json_option()
def gc(days: float, keep_last: int | None, *, apply: bool, as_json: bool) -> None:
    """Say what nothing needs; with --apply remove it."""
    with kit() as opened:
        found = opened.registry.gc(
            window=timedelta(days=days), keep_last=keep_last, dry_run=not apply
        )
    if as_json:
        print_json({**found.model_dump(), "size": found.size})
        return
    for version in found.versions:
        line(f"{'Deleted' if apply else 'Would delete'} version {version}.")
    table(["file", "bytes"], [[each.digest, size(each.size)] for each in found.removed])
    verb = "Removed" if apply else "Would remove"
    remark(f"{verb} {counted(len(found.removed), 'file')}, {size(found.size)} bytes.")

"""``mlopskit ci mark`` and ``candidate``: which version a job of continuous integration trained.

Other jobs register versions meanwhile, so that it is not the latest one for sure.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.numbers import Whole
from mlopskit.cli.output import line

if TYPE_CHECKING:
    from mlopskit.registry import ModelVersion, Registry

FILE: Final = "candidate.txt"
_DIRTY: Final = "-dirty"


@click.command(cls=Command)
@click.argument("name")
def mark(name: str) -> None:
    """Print the highest version number of the model called NAME, or 0 where there is none."""
    with kit() as opened:
        line(str(max((each.version for each in _versions(opened.registry, name)), default=0)))


@click.command(cls=Command)
@click.argument("name")
@click.option(
    "--since",
    type=Whole(0),
    default=0,
    show_default=True,
    metavar="NUMBER",
    help="What `ci mark` printed before training.",
)
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=FILE,
    show_default=True,
    metavar="FILE",
    help="Where training may have written which version it registered.",
)
def command(name: str, *, since: int, file: Path) -> None:
    """Print the number of the version of the model called NAME that was trained here.

    It is the one that training has named in the file: a number, @alias, stage or latest. Without
    that file it is the only version since the mark that was registered from the commit of this
    folder. Exits with 1 where there is none, or several.
    """
    with kit() as opened:
        registry = opened.registry
        said = _said(file)
        if said:
            line(str(registry.get_version(name, said).version))
            return
        new = [each for each in _versions(registry, name) if each.version > since]
    line(str(_only(name, new, file).version))


def _versions(registry: Registry, name: str) -> list[ModelVersion]:
    from mlopskit.errors import NotFound

    try:
        return registry.list_versions(name)
    except NotFound:
        return []


def _said(file: Path) -> str:
    if not file.is_file():
        return ""
    lines = file.read_text("utf-8", errors="replace").split()
    return lines[0] if lines else ""


def _only(name: str, new: list[ModelVersion], file: Path) -> ModelVersion:
    """Return the only version of this folder's commit.

    Raises:
        ClickException: If there is none, or several.
    """
    from mlopskit.registry.revision import current_revision

    commit = _commit(current_revision())
    own = [each for each in new if commit and _commit(each.lineage.code) == commit]
    if len(own) == 1:
        return own[0]
    here = f"from commit {commit}" if commit else "from here, where there is no commit or no Git"
    told = ", ".join(
        f"{each.version} from {_commit(each.lineage.code) or 'no commit'}" for each in new
    )
    raise click.ClickException(
        f"Training registered {len(own) or 'no'} versions of {name!r} {here}, and one is needed. "
        f"Registered since it began: {told or 'none'}. Let it write the number of its version to "
        f"{file}."
    )


def _commit(code: str | None) -> str:
    return (code or "").removesuffix(_DIRTY)

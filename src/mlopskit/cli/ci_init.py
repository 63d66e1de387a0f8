"""``mlopskit ci init``: workflows for GitHub and GitLab, filled in and written once."""

from __future__ import annotations

import json
from importlib import resources
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.gate_file import LIST, file_and_name
from mlopskit.cli.output import line, remark
from mlopskit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.registry import Registry

GITLAB: Final = ".gitlab-ci.yml"
INCLUDED: Final = ".gitlab/mlopskit.yml"
# For each system, the files and the templates they come from.
FILES: Final[Mapping[str, Mapping[str, str]]] = {
    "github": {
        ".github/workflows/models.yml": "github.yml",
        ".github/workflows/promote-model.yml": "github_promote.yml",
    },
    "gitlab": {INCLUDED: "gitlab.yml"},
}


@click.command(cls=Command)
@click.argument("system", type=click.Choice(list(FILES)))
@click.option(
    "models", "--model", multiple=True, metavar="NAME", help="Train this one. May be repeated."
)
@click.option(
    "--stage", default="production", show_default=True, metavar="STAGE", help="Where models go."
)
@click.option(
    "--train",
    default='python train.py "$MODEL"',
    show_default=True,
    metavar="COMMAND",
    help="What the shell runs to train the model called $MODEL.",
)
@click.option(
    "--gate", default="gates.py", show_default=True, metavar="FILE[:NAME]", help="The gates."
)
@click.option("--force", is_flag=True, help="Replace the workflows that are there.")
def command(
    system: str, *, models: tuple[str, ...], stage: str, train: str, gate: str, force: bool
) -> None:
    """Write workflows that train, gate, promote and comment, for GitHub or for GitLab.

    Without --model they are about the models that are registered. A file of gates is written to
    begin with where there is none, with the list NAME of --gate. Nothing that is there is replaced
    without --force, and the file of gates never is.
    """
    with kit() as opened:
        registry = opened.registry
        names = _models(registry, models)
        _check_stage(registry, stage)
    words = _words(names, stage, train, gate)
    texts = {Path(path): _filled(source, words) for path, source in FILES[system].items()}
    _check_free(list(texts), force=force)
    for path, text in texts.items():
        _write(path, text)
    gates, name = file_and_name(gate)
    if gates.suffix == ".py" and not gates.exists():
        _write(gates, _filled("gates.py.txt", {"__NAME__": name or LIST}))
    if system == "gitlab":
        _include()


def _models(registry: Registry, given: tuple[str, ...]) -> list[str]:
    from mlopskit.names import check_identifier

    names = [check_identifier("model", name) for name in given]
    names = names or [model.name for model in registry.list_models()]
    if not names:
        raise click.UsageError("There are no models yet: name those to be with --model NAME.")
    return list(dict.fromkeys(names))


def _check_stage(registry: Registry, stage: str) -> None:
    from mlopskit.errors import NotFound

    if stage not in registry.stages.order:
        raise NotFound("stage", stage, registry.stages.order)


def _words(names: list[str], stage: str, train: str, gate: str) -> dict[str, str]:
    for name, text in (("--train", train), ("--gate", gate)):
        if not text.strip() or not text.isprintable():
            raise InvalidInput(f"{name} is {text!r}; it has to be one line, and not empty.")
        if "${{" in text:
            raise InvalidInput(f"{name} is {text!r}; pass what it needs by the environment.")
    if iskeyword(file_and_name(gate)[1]):
        raise InvalidInput(f"--gate is {gate!r}; a word of Python's own is no name.")
    return {
        # JSON is YAML, whatever a name holds.
        "__MODELS__": json.dumps(names),
        "__STAGE__": json.dumps(stage),
        "__PLAIN_STAGE__": stage,
        "__GATES__": json.dumps(gate),
        "__TRAIN__": train.strip(),
    }


def _filled(source: str, words: Mapping[str, str]) -> str:
    text = _template(source)
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _template(name: str) -> str:
    return (resources.files("mlopskit.cli") / "ci_templates" / name).read_text("utf-8")


def _check_free(paths: list[Path], *, force: bool) -> None:
    from mlopskit.errors import Conflict

    there = [str(path) for path in paths if path.exists() or path.is_symlink()]
    if there and not force:
        raise Conflict(
            f"{' and '.join(there)} would be replaced. Nothing was written: look at what is there, "
            "and pass --force if it may go."
        )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    line(f"Written: {path}")


def _include() -> None:
    if Path(GITLAB).exists():
        remark(f"Add to {GITLAB}, if it is not there:\n")
        remark(f"include:\n  - local: {INCLUDED}")
    else:
        _write(Path(GITLAB), f"include:\n  - local: {INCLUDED}\n")

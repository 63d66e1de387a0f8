"""``mlopskit models show`` and ``log``: what is registered, and how it came where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.numbers import Whole
from mlopskit.cli.output import (
    SHORTEST,
    WIDE,
    Styled,
    heading,
    json_option,
    line,
    moment,
    on_terminal,
    pairs,
    print_json,
    remark,
    table,
    times,
    width,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.cli.output import Cell
    from mlopskit.registry import HistoryEntry, ModelVersion, RegisteredModel, Registry

STYLES = {
    "promoted": "green",
    "refused": "red",
    "rolled_back": "yellow",
    "displaced": "dim",
    "deleted": "red",
    "approved": "green",
    "rejected": "red",
}


@click.command(cls=Command)
@click.argument("name", required=False)
@json_option()
def command(name: str | None, *, as_json: bool) -> None:
    """List registered models, or the versions and the history of the one called NAME."""
    with kit() as opened:
        registry = opened.registry
        if name is None:
            _show_all(registry, as_json=as_json)
        else:
            versions, history = registry.list_versions(name), registry.history(name)
            _show_one(name, versions, history, as_json=as_json)


@click.command(cls=Command)
@click.argument("name")
@click.argument("number", type=Whole(), required=False)
@json_option()
def log(name: str, number: int | None, *, as_json: bool) -> None:
    """Show everything that happened to the model called NAME, or to its version NUMBER."""
    with kit() as opened:
        history = opened.registry.history(name)
    kept = [each for each in history if number is None or each.version == number]
    if as_json:
        print_json([each.model_dump() for each in kept])
        return
    if not kept:
        remark(f"Nothing happened to a version {number} of {name!r}.")
    show_history(kept)


def show_history(history: Sequence[HistoryEntry]) -> None:
    """Print entries of the history as a table."""
    table(
        ["when", "version", "what", "from", "to", "by", "why"],
        [_history_row(each) for each in history],
        drawn=times("when"),
    )


def show_versions(versions: Sequence[ModelVersion], *, named: bool = False) -> None:
    """Print versions as a table, with their models' names where there are several."""
    columns = ["version", "stage", "aliases", "registered", "metrics", "flavor", "run"]
    table(
        [*(["model"] if named else []), *columns, "description"],
        [[*([each.name] if named else []), *_version_row(each)] for each in versions],
        drawn=times("registered"),
    )


def _show_all(registry: Registry, *, as_json: bool) -> None:
    models = [(each, registry.get_version(each.name, "latest")) for each in registry.list_models()]
    if as_json:
        print_json([each.model_dump() | {"metrics": latest.metrics} for each, latest in models])
        return
    if not models:
        remark("There are no models. Register one with registry.register(name, source).")
    table(
        ["model", "versions", "latest", "stages", "aliases", "metrics of the latest", "updated"],
        [_model_row(each, latest) for each, latest in models],
        drawn=times("updated"),
    )


def _show_one(
    name: str,
    versions: Sequence[ModelVersion],
    history: Sequence[HistoryEntry],
    *,
    as_json: bool,
) -> None:
    if as_json:
        print_json(
            {
                "name": name,
                "versions": [each.model_dump() for each in versions],
                "history": [each.model_dump() for each in history],
            }
        )
        return
    heading(name)
    show_versions(versions)
    line()
    heading("History")
    show_history(history)


def _model_row(model: RegisteredModel, latest: ModelVersion) -> list[Cell]:
    return [
        model.name,
        str(model.versions),
        str(model.latest),
        pairs(model.stages),
        pairs({f"@{alias}": version for alias, version in model.aliases.items()}),
        pairs(latest.metrics),
        moment(model.updated_at),
    ]


def _version_row(version: ModelVersion) -> list[Cell]:
    return [
        str(version.version),
        version.stage,
        " ".join(f"@{alias}" for alias in version.aliases),
        moment(version.created_at),
        pairs(version.metrics),
        version.flavor,
        _short(version.run_id),
        version.description,
    ]


def _short(run_id: str | None) -> str | None:
    """Cut an id short where a terminal is narrow, as `mlopskit run show` takes it."""
    cut = run_id is not None and run_id.isalnum() and on_terminal() and width() < WIDE
    return run_id[:SHORTEST] if run_id is not None and cut else run_id


def _history_row(entry: HistoryEntry) -> list[Cell]:
    what = entry.action.replace("_", " ")
    # A decision that refused is false: it is asked for by its presence.
    reasons = entry.decision.reasons if entry.decision is not None else ()
    return [
        moment(entry.at),
        None if entry.version is None else str(entry.version),
        Styled(f"{what} @{entry.alias}" if entry.alias else what, STYLES.get(entry.action, "")),
        entry.before,
        entry.after,
        str(entry.details.get("by", entry.by)),
        "; ".join(each for each in (entry.why, *reasons) if each),
    ]

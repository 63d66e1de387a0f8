"""What W&B has to be asked so that its own pages and clients show how a model stands."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mlopskit.registry import wandb_layout as layout
from mlopskit.registry import wandb_questions as questions
from mlopskit.registry.standing import edit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from collections.abc import Collection as Some
    from datetime import datetime

    from mlopskit.registry.standing import Standing
    from mlopskit.registry.wandb_api import Api
    from mlopskit.registry.wandb_artifacts import Collection
    from mlopskit.registry.wandb_layout import Shown

    Json = dict[str, Any]
    Step = Callable[[], object]

# A registration is over, or was killed, when its artifact is as old as that.
YOUNG: Final = timedelta(days=1)


def steps(api: Api, where: Collection, standing: Standing, shown: Shown) -> Iterator[Step]:
    """Yield the requests that are needed; none if everything is shown as it stands."""
    gone = {each.version.version for each in standing.deleted}
    for number in sorted(gone):
        if shown.artifacts[number] == shown.last:
            continue
        said = {"artifactID": shown.artifacts[number], "artifactPortfolioID": shown.id}
        yield partial(api.ask, questions.UNLINK, {"input": said})
    yield from _aliases(api, where, standing, shown)
    yield from _texts(api, standing, shown)


def _aliases(api: Api, where: Collection, standing: Standing, shown: Shown) -> Iterator[Step]:
    wanted, ruled = standing.aliases_to_show()
    gone = {each.version.version for each in standing.deleted}
    kept = {number for number in gone if shown.artifacts[number] == shown.last}
    for alias, version in wanted.items():
        there = version in shown.artifacts
        if there and layout.is_alias(alias) and shown.aliases.get(alias) != version:
            yield _alias(api, questions.ADD_ALIASES, where, alias, shown.artifacts[version])
    for alias, version in shown.aliases.items():
        if alias in wanted or version in gone - kept:  # Another's now, or gone with the link.
            continue
        if alias in ruled or version in kept:
            yield _alias(api, questions.DELETE_ALIASES, where, alias, shown.artifacts[version])


def _alias(api: Api, query: str, where: Collection, alias: str, artifact: str) -> Step:
    said = {
        "entityName": where.entity,
        "projectName": where.project,
        "artifactCollectionName": where.name,
        "alias": alias,
    }
    return partial(api.ask, query, {"input": {"artifactID": artifact, "aliases": [said]}})


def _texts(api: Api, standing: Standing, shown: Shown) -> Iterator[Step]:
    described = {
        entry.version
        for entry in standing.current
        if entry.action == "edited" and edit_of(entry).description is not None
    }
    if None in described:
        text = layout.shortened(standing.texts[0])
        if shown.description != text:
            said = {"artifactPortfolioID": shown.id, "description": text}
            yield partial(api.ask, questions.UPDATE_COLLECTION, {"input": said})
    for number in sorted(each for each in described if each is not None):
        text = layout.shortened(standing.versions[number].description)
        if shown.descriptions.get(number) != text:
            said = {"artifactID": shown.artifacts[number], "description": text}
            yield partial(api.ask, questions.UPDATE, {"input": said})


def spare(
    standing: Standing,
    stored: Iterable[Json],
    keep: Some[str],
    now: datetime,
    *,
    going: Some[int] = (),
) -> list[Json]:
    """Return the artifacts that no version needs.

    What mlopskit did not store is never among them, nor what was linked last, whose link would go
    with it.
    """
    shown = standing.native.details
    last = shown.last if isinstance(shown, layout.Shown) else ""
    return [
        each
        for each in stored
        if each["id"] != last
        and layout.OWN in layout.metadata_of(each)
        and standing.is_spare(each["id"], keep, young=_is_young(each, now), going=going)
    ]


def _is_young(stored: Json, now: datetime) -> bool:
    return now - layout.time_of(stored["createdAt"]) <= YOUNG

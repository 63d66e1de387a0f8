"""What MLflow has to be asked so that its own pages and clients show how a model stands."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mlopskit.registry import mlflow_layout as layout
from mlopskit.registry.standing import MOVED, edit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mlflow import MlflowClient

    from mlopskit.registry.entities import HistoryEntry
    from mlopskit.registry.mlflow_layout import Shown
    from mlopskit.registry.stages import StageGraph
    from mlopskit.registry.standing import Standing

    Step = Callable[[], object]


def steps(
    client: MlflowClient, standing: Standing, shown: Shown, stages: StageGraph
) -> Iterator[Step]:
    """Yield the requests that are needed; none if everything is shown as it stands."""
    name = standing.name
    gone = [each.version.version for each in standing.deleted]
    for number in (*gone, *shown.echoes):
        yield partial(client.delete_model_version, name, str(number))
    yield from _aliases(client, standing, shown)
    if any(entry.action in MOVED for entry in standing.written):
        yield from _stages(client, standing, shown, stages)
    yield from _texts(client, standing, shown)


def _aliases(client: MlflowClient, standing: Standing, shown: Shown) -> Iterator[Step]:
    name = standing.name
    wanted, ruled = standing.aliases_to_show()
    for alias, version in wanted.items():
        if layout.is_alias(alias) and shown.aliases.get(alias) != version:
            yield partial(client.set_registered_model_alias, name, alias, str(version))
    for alias in shown.aliases:
        if alias in ruled and alias not in wanted:
            yield partial(client.delete_registered_model_alias, name, alias)


def _stages(
    client: MlflowClient, standing: Standing, shown: Shown, stages: StageGraph
) -> Iterator[Step]:
    for number, stage in standing.stages.items():
        if shown.version_tags.get(number, {}).get(layout.STAGE, stages.initial) != stage:
            yield partial(
                client.set_model_version_tag, standing.name, str(number), layout.STAGE, stage
            )


def _texts(client: MlflowClient, standing: Standing, shown: Shown) -> Iterator[Step]:
    name = standing.name
    edited: dict[int | None, list[HistoryEntry]] = {}
    for entry in standing.current:
        if entry.action == "edited":
            edited.setdefault(entry.version, []).append(entry)
    for number, entries in edited.items():
        if number is None:
            description, tags = standing.texts
            if _is_described(entries) and shown.description != layout.shortened(description):
                yield partial(client.update_registered_model, name, layout.shortened(description))
            put = partial(client.set_registered_model_tag, name)
            drop = partial(client.delete_registered_model_tag, name)
            yield from _tags(entries, tags, shown.tags, put, drop)
        else:
            version = standing.versions[number]
            description = layout.shortened(version.description)
            if _is_described(entries) and shown.version_descriptions[number] != description:
                yield partial(client.update_model_version, name, str(number), description)
            put = partial(client.set_model_version_tag, name, str(number))
            drop = partial(client.delete_model_version_tag, name, str(number))
            yield from _tags(entries, version.tags, shown.version_tags[number], put, drop)


def _is_described(entries: Iterable[HistoryEntry]) -> bool:
    return any(edit_of(entry).description is not None for entry in entries)


def _tags(
    entries: Iterable[HistoryEntry],
    tags: Mapping[str, str],
    shown: Mapping[str, str],
    put: Callable[[str, str], object],
    drop: Callable[[str], object],
) -> Iterator[Step]:
    for key in sorted({key for entry in entries for key in edit_of(entry).tags}):
        if not layout.is_shown(key):
            continue
        if key in tags and shown.get(key) != layout.shortened(tags[key]):
            yield partial(put, key, layout.shortened(tags[key]))
        elif key not in tags and key in shown:
            yield partial(drop, key)

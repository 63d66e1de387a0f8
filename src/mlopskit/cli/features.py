"""``mlopskit features``: the definitions of the feature store, and what it holds of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.output import heading, json_option, line, moment, print_json, remark, table

if TYPE_CHECKING:
    from mlopskit.features import FeatureService, FeatureStore, FeatureView, ViewStats


@click.command(cls=Command)
@click.argument("view", required=False)
@json_option()
def command(view: str | None, *, as_json: bool) -> None:
    """List feature views and services, or show one VIEW with its features and how new it is."""
    with kit() as opened:
        store = opened.feature_store
        if view is not None:
            _show_one(store, store.get_view(view), as_json=as_json)
        else:
            _show_all(store, as_json=as_json)


def _show_all(store: FeatureStore, *, as_json: bool) -> None:
    views = [(each, store.stats(each.name)) for each in store.list_views()]
    services = store.list_services()
    if as_json:
        print_json(
            {
                "views": [_plain(each, stats) for each, stats in views],
                "services": [each.model_dump() for each in services],
            }
        )
        return
    if not views:
        remark("There are no feature views. Make one with mlopskit.FeatureView and apply it.")
    table(
        ["view", "join keys", "features", "online rows", "newest event", "ttl"],
        [
            [
                each.name,
                ", ".join(each.entities),
                ", ".join(each.features),
                str(stats.online_rows),
                moment(stats.newest_event),
                _ttl(each),
            ]
            for each, stats in views
        ],
    )
    if services:
        line()
        table(["service", "features"], [[each.name, ", ".join(each.features)] for each in services])


def _show_one(store: FeatureStore, view: FeatureView, *, as_json: bool) -> None:
    stats = store.stats(view.name)
    users = [each for each in store.list_services() if _uses(each, view)]
    if as_json:
        print_json(_plain(view, stats) | {"services": [each.name for each in users]})
        return
    heading(view.name)
    table(
        ["what", "value"],
        [
            ["join keys", ", ".join(view.entities)],
            ["source", view.source],
            ["timestamp", view.timestamp],
            ["created", view.created],
            ["ttl", _ttl(view)],
            ["online rows", str(stats.online_rows)],
            ["pushed rows", str(stats.pushed_rows)],
            ["newest event", moment(stats.newest_event)],
            ["materialized until", moment(stats.materialized_until)],
            ["services", ", ".join(each.name for each in users)],
        ],
    )
    line()
    table(["feature", "dtype"], [[name, view.dtypes.get(name)] for name in view.features])


def _uses(service: FeatureService, view: FeatureView) -> bool:
    return any(reference.partition(":")[0] == view.name for reference in service.features)


def _ttl(view: FeatureView) -> str:
    return "" if view.ttl is None else str(view.ttl)


def _plain(view: FeatureView, stats: ViewStats) -> dict[str, Any]:
    return view.model_dump(mode="json") | {"stats": stats.model_dump()}

"""``mlopskit webhooks show``, ``deliver``, ``dead`` and ``enable``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.failure import FAILED
from mlopskit.cli.output import Styled, json_option, moment, print_json, remark, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.registry.webhooks import WebhookStatus


@click.command(cls=Command)
@json_option()
def show(*, as_json: bool) -> None:
    """List the registry's webhooks, and how far each is."""
    with kit() as opened:
        found = opened.registry.webhooks()
    _show(found, as_json=as_json)


@click.command(cls=Command)
@click.option("--now", is_flag=True, help="Try again what waits for its next try.")
@click.option("--dead", is_flag=True, help="Try once more what was set aside.")
@json_option()
def deliver(*, now: bool, dead: bool, as_json: bool) -> int:
    """Deliver what earlier processes left. Exits with 1 if something still waits."""
    with kit() as opened:
        found = opened.registry.deliver_webhooks(now=now, dead=dead)
    _show(found, as_json=as_json)
    waits = any(each.pending or each.disabled or (dead and each.dead) for each in found)
    return FAILED if waits else 0


@click.command(cls=Command)
@json_option()
def dead(*, as_json: bool) -> None:
    """List what was set aside after too many tries."""
    with kit() as opened:
        found = opened.registry.dead_letters()
    if as_json:
        print_json([each.model_dump() for each in found])
        return
    if not found:
        remark("Nothing was set aside.")
    table(
        ["webhook", "model", "entry", "tries", "last try", "error"],
        [
            [
                each.webhook,
                each.name,
                str(each.entry),
                str(each.tries),
                moment(each.at),
                each.error,
            ]
            for each in found
        ],
    )


@click.command(cls=Command)
@click.argument("webhook")
@json_option()
def enable(webhook: str, *, as_json: bool) -> None:
    """Send again to WEBHOOK, an id that `mlopskit webhooks` shows, from where it was left."""
    with kit() as opened:
        opened.registry.enable_webhook(webhook)
        found = opened.registry.deliver_webhooks(now=True)
    _show([each for each in found if each.id == webhook], as_json=as_json)


def _show(webhooks: Sequence[WebhookStatus], *, as_json: bool) -> None:
    if as_json:
        print_json([each.model_dump() for each in webhooks])
        return
    if not webhooks:
        remark("There are no webhooks. Add one: [[registry.webhooks]] with url and secret.")
    table(
        ["webhook", "url", "events", "delivered", "pending", "dead", "state", "next try", "error"],
        [
            [
                each.id,
                each.url,
                " ".join(each.events),
                str(each.delivered),
                str(each.pending),
                str(each.dead),
                _state(each),
                moment(each.next_try_at),
                each.disabled or each.error,
            ]
            for each in webhooks
        ],
    )


def _state(webhook: WebhookStatus) -> Styled:
    if webhook.disabled:
        return Styled("disabled", "red")
    return Styled("waits", "yellow") if webhook.pending else Styled("up to date", "green")

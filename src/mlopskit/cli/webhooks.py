"""``mlopskit webhooks``: the group of what is done with the registry's webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopskit.cli.command import Group

if TYPE_CHECKING:
    import click


class _Webhooks(Group):
    """A group of which ``mlopskit webhooks`` means ``mlopskit webhooks show``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``show`` first where no command is named, and no help is asked for."""
        named = any(each in self.list_commands(ctx) for each in args)
        only_options = not args or args[0].startswith("-")
        if not named and only_options and not {"-h", "--help"} & set(args):
            args = ["show", *args]
        return super().parse_args(ctx, args)


command = _Webhooks(
    "webhooks",
    {
        "show": ("webhooks_deliver:show", "List the webhooks, and how far each is."),
        "deliver": ("webhooks_deliver:deliver", "Deliver what earlier processes left."),
        "dead": ("webhooks_deliver:dead", "List what was set aside after too many tries."),
        "enable": ("webhooks_deliver:enable", "Send again to a webhook that was disabled."),
    },
    help="List the registry's webhooks, and deliver what waits.",
)

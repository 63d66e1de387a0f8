"""``mlopskit models``: the group of what is done with registered models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlopskit.cli.command import Group

if TYPE_CHECKING:
    import click

# The shared options that take a value.
_VALUED: Final = ("-c", "--profile", "--home")


class _Models(Group):
    """A group of which ``mlopskit models`` and ``mlopskit models NAME`` mean ``show``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``show`` before what is no command."""
        first = _first(args)
        asks_for_help = any(each in ("-h", "--help") for each in args)
        if first not in self.list_commands(ctx) and not (asks_for_help and first is None):
            args = ["show", *args]
        return super().parse_args(ctx, args)


def _first(args: list[str]) -> str | None:
    """Return the first argument that is neither an option nor an option's value."""
    rest = iter(args)
    for each in rest:
        if each in _VALUED:
            next(rest, None)
        elif not each.startswith("-"):
            return each
    return None


command = _Models(
    "models",
    {
        "show": ("models_show", "List the models, or show the versions and history of one."),
        "log": ("models_show:log", "Show what happened to a model, when, by whom and why."),
        "search": ("models_find:search", "Find versions by a filter."),
        "compare": ("models_find:compare", "Show what differs between two versions."),
        "at": ("models_find:at", "Show the version that held a stage at a time."),
        "download": ("models_find:download", "Write a version's files, verified, to a folder."),
        "alias": ("models_change:alias", "Point an alias to a version, or delete it."),
        "rollback": ("models_change:rollback", "Put back the version that held a stage before."),
        "edit": ("models_change:edit", "Change the description or tags of a model or a version."),
        "delete": ("models_change:delete", "Delete a version, or a model with all of them."),
        "request": ("models_ask:request", "Ask that a version may enter a stage."),
        "pending": ("models_ask:pending", "List the requests that nobody has decided yet."),
        "approve": ("models_ask:approve", "Approve a request."),
        "reject": ("models_ask:reject", "Reject a request."),
        "gc": ("models_change:gc", "Remove bytes that nothing needs, or say what would go."),
    },
    help="List registered models; with a NAME, show its versions and its history. "
    "A model that is called like a command is shown by `mlopskit models show NAME`.",
)

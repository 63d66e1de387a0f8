"""What every command shares: a lazy group, four options, and the settings they lead to."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.config import Settings
    from mlopskit.kit import Kit

_GIVEN = "mlopskit.cli.given"
_HELP = {"help_option_names": ["-h", "--help"]}


@dataclass
class _Given:
    """What the shared options said, before the command's name and after it."""

    lines: list[str] = field(default_factory=list)
    profile: str | None = None
    home: str | None = None


class Command(click.Command):
    """A command that takes the shared options as well as its own."""

    def __init__(
        self, name: str | None, *, params: list[click.Parameter] | None = None, **more: Any
    ) -> None:
        more.setdefault("context_settings", _HELP)
        super().__init__(name, params=[*(params or []), *_shared_options()], **more)


class Group(click.Group):
    """A group that imports a command only to run it, and knows its help without.

    Args:
        name: The program's name.
        table: For each command its module below ``mlopskit.cli``, which has the command under the
            name ``command`` or the one after a colon, and one line of help.
        more: What `click.Group` takes.
    """

    def __init__(self, name: str, table: Mapping[str, tuple[str, str]], **more: Any) -> None:
        super().__init__(
            name,
            params=list(_shared_options()),
            context_settings=_HELP,
            invoke_without_command=True,
            callback=_show_help_alone,
            **more,
        )
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - signature of click
        """Name the commands in the order of the table."""
        return list(self._table)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - signature of click
        cmd_name: str,
    ) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self._table:
            return None
        place, line = self._table[cmd_name]
        module, _, name = place.partition(":")
        found: click.Command = getattr(import_module(f"mlopskit.cli.{module}"), name or "command")
        found.name, found.short_help = cmd_name, line
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest right one."""
        name = args[0]
        if name not in self._table and not ctx.resilient_parsing:
            near = get_close_matches(name, self._table, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no command {name!r}.{hint} Commands: {', '.join(self._table)}.")
        command = self.get_command(ctx, name)
        return name if command else None, command, args[1:]

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - signature of click
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._table.items()])


def settings() -> Settings:
    """Read the configuration in force, with what the command line says on top.

    Raises:
        ConfigError: If it cannot be read, with its place.
    """
    from mlopskit import config

    given = _given(click.get_current_context())
    lines = list(given.lines)
    if given.home is not None:
        lines.append(f"home={given.home}")
    if given.profile is not None:
        lines.append(f"profile={given.profile}")
    return config.read(command_line=lines)


def kit() -> Kit:
    """Make a kit of `settings`. Whoever asks for it closes it.

    Raises:
        ConfigError: If the configuration cannot be read, with its place.
    """
    from mlopskit.kit import Kit

    return Kit.of(settings())


def _show_help_alone() -> None:
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _given(context: click.Context) -> _Given:
    # `meta` is shared by the contexts of the group and of the command.
    given: _Given = context.meta.setdefault(_GIVEN, _Given())
    return given


def _shared_options() -> tuple[click.Option, ...]:
    return (
        click.Option(
            ["lines", "-c"],
            multiple=True,
            metavar="DOMAIN=LINE",
            expose_value=False,
            callback=_keep,
            help="Use this line of configuration, such as tracking=mlflow:sqlite:///m.db. "
            "May be repeated.",
        ),
        click.Option(
            ["--profile"],
            metavar="NAME",
            expose_value=False,
            callback=_keep,
            help="Use this profile of the configuration files.",
        ),
        click.Option(
            ["--home"],
            metavar="PATH",
            expose_value=False,
            callback=_keep,
            help="Keep the state of embedded backends in this folder.",
        ),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    )


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    given = _given(context)
    if option.name == "lines":
        given.lines += value
    elif value is not None:
        if not value.strip():
            raise click.BadParameter("it is empty.", context, option)
        setattr(given, str(option.name), value)


def _show_version(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        from mlopskit._version import __version__

        click.echo(f"mlopskit {__version__}")
        context.exit()

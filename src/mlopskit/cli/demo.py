"""``mlopskit demo``: the flights project, from features to retraining decisions."""

from __future__ import annotations

import re
from typing import Final

import click

from mlopskit.cli.command import Command, settings
from mlopskit.errors import MissingDependency

FIRST, LAST = 3, 12
EXTRAS: Final = ("demo", "local", "sklearn")
INSTALL: Final = "pip install 'mlopskit[demo]'"


def _months(context: click.Context, option: click.Parameter, text: str) -> tuple[int, int]:
    """Read ``3-12``, ``3-6`` or a month alone."""
    match = re.fullmatch(r"\s*(\d{1,2})(?:-(\d{1,2}))?\s*", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not FIRST <= first <= last <= LAST:
        raise click.BadParameter(
            f"{text!r} is no range of months. Write {FIRST}-{LAST}, or a part of it such as 3-6: "
            "January and February train the first model, the months after them are scored.",
            context,
            option,
        )
    return first, last


@click.command(cls=Command)
@click.option(
    "--months",
    callback=_months,
    default=f"{FIRST}-{LAST}",
    show_default=True,
    metavar="FIRST-LAST",
    help="The months of 2013 to score.",
)
def command(months: tuple[int, int]) -> None:
    """Run the flights project: a year of a model's life, in about a minute.

    Features, training, the gate, serving, drift, retraining: on 336,776 real flights of 2013, with
    the tools that are configured. What it makes is kept under the home; look at it afterwards with
    mlopskit runs, mlopskit models and mlopskit features.
    """
    configured = settings()
    _check_installed()
    from mlopskit.demo.replay import run_demo

    first, last = months
    run_demo(configured, first=first, last=last)


def _check_installed() -> None:
    """Check that the demo's packages are there.

    Raises:
        MissingDependency: For the first that is not.
    """
    from mlopskit.plugins import version_of

    for package in _packages():
        if version_of(package) is None:
            raise MissingDependency("The demo", package, INSTALL)


def _packages() -> list[str]:
    """Name the packages of the extras that the demo needs, as our own metadata has them."""
    from importlib.metadata import requires

    found: list[str] = []
    for requirement in requires("mlopskit") or ():
        package, _, condition = requirement.partition(";")
        name = re.match(r"[A-Za-z0-9._-]+", package)
        if name and name[0] != "mlopskit" and any(f"'{x}'" in condition for x in EXTRAS):
            found.append(name[0])
    return found

"""``mlopskit sign`` and ``mlopskit verify``: who vouches for a version."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlopskit.cli.command import Command, kit
from mlopskit.cli.output import json_option, print_json, remark, table
from mlopskit.errors import ConfigError

if TYPE_CHECKING:
    from mlopskit.registry.signing import Verified


@click.command(cls=Command)
@click.argument("name")
@click.argument("ref", metavar="VERSION")
@click.option("--key", required=True, metavar="FILE", help="The private key, as PEM.")
@click.option("--certificate", metavar="FILE", help="Its certificate, those above it after it.")
@click.option("--password-file", metavar="FILE", help="Read the key's password from this file.")
@click.option("--password-env", metavar="NAME", help="Read it from this environment variable.")
@click.option("--why", default="", metavar="TEXT", help="A reason for the history.")
@json_option()
def command(
    name: str,
    ref: str,
    *,
    key: str,
    certificate: str | None,
    password_file: str | None,
    password_env: str | None,
    why: str,
    as_json: bool,
) -> None:
    """Sign VERSION of the model called NAME: a number, @alias, stage or latest.

    On a terminal the password of an encrypted key is asked for.
    """
    password = _password(key, password_file, password_env)
    with kit() as opened:
        signed = opened.registry.sign(
            name, ref, key=key, certificate=certificate, password=password, why=why
        )
    _show(signed, as_json=as_json)


@click.command(cls=Command)
@click.argument("name")
@click.argument("ref", metavar="VERSION")
@click.option(
    "keys",
    "--key",
    multiple=True,
    metavar="FILE",
    help="A public key, or a certificate that has signed the signer's. May be repeated; those of "
    "require_signature if left out.",
)
@json_option()
def verify(name: str, ref: str, *, keys: tuple[str, ...], as_json: bool) -> None:
    """Check the signature and every byte of VERSION of the model called NAME.

    Exits with 1 if it is not signed by one of the keys.
    """
    with kit() as opened:
        if not keys and not opened.registry.required_keys:
            raise click.UsageError(
                "There is no key to verify with: pass --key FILE, or set require_signature of the "
                "registry."
            )
        verified = opened.registry.verify(name, ref, keys=keys or None)
    _show(verified, as_json=as_json)


def _password(key: str, file: str | None, variable: str | None) -> str | None:
    if file is not None and variable is not None:
        raise click.UsageError("Pass --password-file or --password-env, and not both.")
    if file is not None:
        try:
            return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"The password in {file} cannot be read: {exc}.") from exc
    if variable is not None:
        if variable not in os.environ:
            raise ConfigError(f"The environment variable {variable!r} is not set.")
        return os.environ[variable]
    if _is_encrypted(key) and sys.stdin.isatty():
        asked: str = click.prompt(f"Password of {key}", hide_input=True, err=True)
        return asked
    return None


def _is_encrypted(key: str) -> bool:
    try:
        with Path(key).open("rb") as file:
            return b"ENCRYPTED" in file.read(4096)
    except (OSError, ValueError):
        return False  # The registry tells it better.


def _show(found: Verified, *, as_json: bool) -> None:
    if as_json:
        print_json(found.model_dump())
        return
    table(
        ["model", "version", "digest", "signed by", "certificate"],
        [[found.name, str(found.version), found.digest, found.key, found.certificate]],
    )
    remark(f"Version {found.version} of {found.name!r} is signed.")

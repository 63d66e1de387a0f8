"""The options that every command takes, and what help costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit import __version__
from mlopskit.cli import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done

pytestmark = pytest.mark.core


def configured(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.err
    values = json.loads(done.out)["values"]
    return {each["key"]: (each["value"], each["origin"]) for each in values}


def test_help_names_every_command(cli: Callable[..., Done]) -> None:
    done = cli("--help")

    assert done.code == 0
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in done.out
        assert line.split()[0] in done.out
    assert cli().out == done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_takes_the_shared_options(
    name: str, cli: Callable[..., Done]
) -> None:
    done = cli(name, "--help")

    assert done.code == 0
    for option in ("-c DOMAIN=LINE", "--profile NAME", "--home PATH", "--version", "--help"):
        assert option in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_version_is_told_before_and_after_a_command(
    name: str, cli: Callable[..., Done]
) -> None:
    assert cli(name, "--version").out == cli("--version", name).out == f"mlopskit {__version__}\n"


def test_the_module_is_the_command(process: Callable[..., Done]) -> None:
    assert process("--version").out == f"mlopskit {__version__}\n"


def test_a_line_counts_before_and_after_the_command(cli: Callable[..., Done]) -> None:
    done = cli(
        "-c", "tracking=mlflow:first", "-c", "serving=a", "config", "--json", "-c", "tracking=b:c:d"
    )

    found = configured(done)
    assert found["tracking.backend"] == ("b", "command line")
    assert found["tracking.location"] == ("c:d", "command line")
    assert found["serving.backend"] == ("a", "command line")
    assert found["registry.backend"] == ("local", "default")


def test_the_command_line_outranks_the_environment(
    cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLOPSKIT_HOME", str(tmp_path / "one"))
    monkeypatch.setenv("MLOPSKIT_TRACKING", "mlflow")
    assert configured(cli("config", "--json"))["home"] == (str(tmp_path / "one"), "MLOPSKIT_HOME")

    done = cli("config", "--json", "--home", "two", "-c", "tracking=local")

    assert configured(done)["home"] == (str(Path.cwd() / "two"), "command line")
    assert configured(done)["tracking.backend"] == ("local", "command line")


def test_the_later_home_and_profile_win(cli: Callable[..., Done]) -> None:
    Path("mlopskit.toml").write_text("[profile.a]\nserving='x'\n[profile.b]\nserving='y'\n")

    done = cli("--home", "1", "--profile", "a", "config", "--home", "2", "--profile", "b", "--json")

    found = configured(done)
    assert found["home"] == (str(Path.cwd() / "2"), "command line")
    assert found["profile"] == ("b", "command line")
    assert found["serving.backend"][0] == "y"
    assert found["serving.backend"][1].startswith("profile b of ")


def test_a_profile_of_the_environment_says_so(
    cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mlopskit.toml").write_text("[profile.a]\nserving='x'\n")
    monkeypatch.setenv("MLOPSKIT_PROFILE", "a")

    assert configured(cli("config", "--json"))["profile"] == ("a", "MLOPSKIT_PROFILE")


def test_a_list_of_lines_is_read_as_in_a_file(cli: Callable[..., Done]) -> None:
    done = cli("config", "--json", "-c", 'tracking=["local", {backend = "mlflow", mode = "x"}]')

    found = configured(done)
    assert found["tracking[0].backend"][0] == "local"
    assert found["tracking[1].mode"] == ("x", "command line")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["doktor"], "There is no command 'doktor'. Did you mean 'doctor'?"),
        (["zzz"], "There is no command 'zzz'. Commands: demo, backends,"),
        (["config", "--jsn"], "--json"),
        (["--hom", "x", "config"], "--home"),
        (["config", "--home", " "], "it is empty"),
        (["config", "-c", "tracking"], "-c 'tracking': write domain=line"),
        (["config", "-c", "trackin=local"], "Did you mean 'tracking'?"),
        (["config", "-c", "tracking=["], "is no TOML list or table"),
        (["config", "--profile", "x"], "No profile is called 'x'."),
        (["backends", "featurs"], "Did you mean 'features'?"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_what_is_right(
    arguments: list[str], told: str, cli: Callable[..., Done]
) -> None:
    done = cli(*arguments)

    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err
    assert done.out == ""

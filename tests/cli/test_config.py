"""``mlopskit config``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done

pytestmark = pytest.mark.core

FILE = """
home = "state"
tracking = "mlflow:postgresql://me:${env:DB_PASSWORD}@db/m"

[serving]
port = 8080
api_key = "swordfish"
note = "use ghp_0123456789abcdefghij0123456789"
"""


def test_every_value_comes_with_its_origin_and_without_secrets(cli: Callable[..., Done]) -> None:
    Path("mlopskit.toml").write_text(FILE)
    file = str(Path("mlopskit.toml").resolve())

    done = cli("config")

    assert done.code == 0
    rows = {record[0]: record[1:] for record in done.records if len(record) == 3}
    assert rows["home"] == [str(Path.cwd() / "state"), file]
    assert rows["tracking.location"] == ["postgresql://me:${env:DB_PASSWORD}@db/m", file]
    assert rows["serving.port"] == ["8080", file]
    assert rows["serving.api_key"] == ["[redacted]", file]
    assert rows["serving.note"] == ["use [redacted]", file]
    assert rows["features.backend"] == ["local", "default"]
    assert f"Read: {file}" in done.out
    assert "swordfish" not in done.out


def test_json_keeps_types_and_hides_the_same_secrets(cli: Callable[..., Done]) -> None:
    Path("mlopskit.toml").write_text(FILE)

    found = json.loads(cli("config", "--json").out)

    values = {each["key"]: each["value"] for each in found["values"]}
    assert values["serving.port"] == 8080
    assert values["serving.api_key"] == "[redacted]"
    assert found["files"] == [str(Path("mlopskit.toml").resolve())]


def test_without_a_file_it_says_so(cli: Callable[..., Done]) -> None:
    assert "No configuration file was found." in cli("config").out


def test_a_mistake_in_a_file_is_told_with_its_place(cli: Callable[..., Done]) -> None:
    Path("mlopskit.toml").write_text("home = 'x'\ntracking = = 'local'\n")

    done = cli("config")

    assert done.code == 2
    assert str(Path("mlopskit.toml").resolve()) in done.err
    assert "line 2" in done.err


def test_an_unknown_key_of_a_file_names_the_right_one(cli: Callable[..., Done]) -> None:
    Path("mlopskit.toml").write_text("trackin = 'local'\n")

    assert "Did you mean 'tracking'?" in cli("config").err

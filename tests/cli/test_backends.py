"""``mlopskit backends``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mlopskit import plugins

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done

pytestmark = pytest.mark.core


def test_json_is_the_declared_table_of_every_backend(cli: Callable[..., Done]) -> None:
    found = json.loads(cli("backends", "--json").out)

    told = {(each["domain"], each["name"]): each for each in found}
    for info in plugins.backends():
        assert info.capabilities is not None
        capabilities = told.pop((info.domain, info.name))["capabilities"]
        assert {name: (line["level"], line["note"]) for name, line in capabilities.items()} == {
            each.name: (each.level, each.note) for each in info.capabilities
        }
        assert all(line["meaning"] for line in capabilities.values())
    assert told == {}


def test_in_a_pipe_every_capability_is_one_line_with_its_reason(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    done = process("backends", "tracking", environ=acme())

    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["tracking", "acme", plugins.version_of("pluggy"), "yes", "acme-tracking"] in lines
    assert ["tracking", "acme", "artifacts", "native", "-"] in lines
    assert ["tracking", "acme", "resume", "absent", "it", "has", "no", "memory"] in lines
    assert "\x1b" not in done.out


def test_a_plugin_whose_table_cannot_be_read_is_listed_all_the_same(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    done = process("backends", "tracking", "--json", environ=acme(broken=True))

    bad = {each["name"]: each for each in json.loads(done.out)}["bad"]
    assert bad["capabilities"] is None
    assert bad["distribution"] == "acme-tracking"


def test_one_domain_alone_can_be_asked_for(cli: Callable[..., Done]) -> None:
    assert {each["domain"] for each in json.loads(cli("backends", "features", "--json").out)} == {
        "features"
    }


@pytest.mark.parametrize("table", ["{'fan': 'perhaps'}", "['fan']", "{'fan': 3}", "3"])
def test_one_malformed_table_hides_no_other_backend(
    table: str, install: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    source = f"CAPABILITIES = {table}\nTOOL = {table}\n"
    environ = install("acme", {"acme": source}, {"mlopskit.tracking": {"acme": "acme"}})

    done = process("backends", "tracking", "--json", environ=environ)

    found = {each["name"]: each for each in json.loads(done.out)}
    assert found["acme"]["capabilities"] is None
    assert "local" in found

"""``mlopskit models``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


def good_enough(asked: object) -> bool:
    return True


def never(asked: object) -> bool:
    return False


@pytest.fixture
def models(tmp_path: Path) -> None:
    """Register two versions, promote one, and have a gate refuse the other."""
    with mk.load() as kit:
        registry = kit.registry
        for number, auc in ((1, 0.1 + 0.2), (2, 0.75)):
            file = tmp_path / f"{number}.bin"
            file.write_bytes(b"model" * number)
            registry.register("churn", file, metrics={"auc": auc}, description="a \x1b[31m tree")
        registry.set_alias("churn", "champion", 1)
        registry.promote("churn", 1, "production", [good_enough], why="the first")
        registry.promote("churn", 2, "production", [never])


@pytest.mark.usefixtures("models")
def test_every_model_is_one_line_with_where_its_versions_are(cli: Callable[..., Done]) -> None:
    done = cli("models")

    assert done.code == 0, done.err
    (record,) = done.records
    assert record[:-1] == ["churn", "2", "2", "production=1", "@champion=1", "auc=0.75"]


@pytest.mark.usefixtures("models")
def test_one_model_is_shown_with_its_versions_and_its_history(cli: Callable[..., Done]) -> None:
    done = cli("models", "churn")

    assert done.code == 0, done.err
    first, second = (each for each in done.records if each[-1:] == ["a \\x1b[31m tree"])
    assert first[:3] == ["1", "production", "@champion"]
    assert "auc=0.30000000000000004" in first
    assert second[:3] == ["2", "none", "-"]
    whats = [each[2] for each in done.records[done.out.splitlines().index("History") + 1 :]]
    assert whats == ["registered", "registered", "alias set @champion", "promoted", "refused"]
    assert "the first" in done.out
    assert "never" in done.out.splitlines()[-1], "a refusal shows its reasons"


@pytest.mark.usefixtures("models")
def test_json_has_the_decisions_with_their_reasons(cli: Callable[..., Done]) -> None:
    found = json.loads(cli("models", "churn", "--json").out)

    assert [each["metrics"]["auc"] for each in found["versions"]] == [0.1 + 0.2, 0.75]
    last = found["history"][-1]
    assert last["action"] == "refused"
    assert last["decision"]["approved"] is False
    assert any("never" in reason for reason in last["decision"]["reasons"])
    (model,) = json.loads(cli("models", "--json").out)
    assert model["stages"] == {"production": 1}
    assert model["metrics"] == {"auc": 0.75}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", ["chrun", "../x"])
def test_a_model_that_is_not_there_is_told(name: str, cli: Callable[..., Done]) -> None:
    done = cli("models", name)

    assert done.code in (1, 2)
    assert repr(name) in done.err
    assert "Traceback" not in done.err


def test_an_empty_registry_says_so_beside_the_output(cli: Callable[..., Done]) -> None:
    done = cli("models")

    assert done.code == 0, done.err
    assert done.records == []
    assert done.err.startswith("There are no models.")

"""A little of what `make kills` does: programs that die, and files that are damaged."""

from __future__ import annotations

import random
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest
from tests.registry import damage, kills

from mlopskit.errors import IntegrityError
from mlopskit.registry.lines import Line
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "registry"
    damage.build(folder)
    return folder


def test_a_registry_is_whole_after_every_kill(tmp_path: Path) -> None:
    found = {"killed": 0, "acknowledged": 0, "versions": 0, "wrong": 0}
    kills.block(tmp_path, 5, found, random.Random(1))

    assert found["killed"] == 5
    assert found["acknowledged"] > 0
    assert found["wrong"] == 0


def test_the_harness_sees_a_loss(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("common", "weights"):
        (source / name).write_text(name)
    with LocalRegistry(tmp_path / "registry") as registry:
        registry.register("churn", source, tags={"word": "a"})
        registry.promote("churn", 1, "production")
        said = [["registered", "churn", 1, "a"], ["promoted", "churn", 1]]
        assert kills.problems(registry, tmp_path, said) == []
        said = [["registered", "churn", 2, "b"], ["deleted", "churn", 1], ["promoted", "churn", 2]]
        assert len(kills.problems(registry, tmp_path, said)) == 3
        blob = next(path for path in (tmp_path / "registry" / "blobs").glob("*/*"))
        blob.unlink()
        assert len(kills.problems(registry, tmp_path, [])) == 1


def test_damage_is_noticed_or_harmless(tmp_path: Path) -> None:
    counts, wrong = damage.damage(tmp_path, 60, seed=1)

    assert wrong == []
    assert counts["blob", "noticed"] > 0
    assert counts["manifest", "noticed"] > 0
    assert counts["database", "noticed"] > 0


@pytest.mark.parametrize(
    "statement",
    [
        "update versions set metrics = '{\"auc\": 0.9}' where version = 1",
        "update versions set stage = 'staging' where version = 1",
        "update aliases set version = 2",
        "update models set description = 'another'",
        "delete from history where action = 'promoted'",
        "update history set why = 'another' where action = 'promoted'",
        "update attachments set content = x'00'",
    ],
)
def test_a_row_that_was_changed_behind_our_back_is_noticed(
    tmp_path: Path, built: Path, statement: str
) -> None:
    shutil.copytree(built, tmp_path / "registry")
    with LocalRegistry(tmp_path / "registry") as registry:
        found = registry.get_version("churn", 1)
        registry.set_alias("churn", "champion", 1)
        registry._ledger.attach(found, "signature", b"x", Line("churn", 1, "signed"))
    with sqlite3.connect(tmp_path / "registry" / "registry.db") as connection:
        connection.execute("drop trigger history_is_kept")
        connection.execute("drop trigger history_is_final")
        assert connection.execute(statement).rowcount > 0
    connection.close()

    with (
        LocalRegistry(tmp_path / "registry") as registry,
        pytest.raises(IntegrityError, match="changed since it was stored"),
    ):
        damage.everything(registry)
        registry._ledger.attachment(found, "signature")

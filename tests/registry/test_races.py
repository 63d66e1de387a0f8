"""Many processes at one registry: no number is given twice, one promotion wins, no half is seen."""

from __future__ import annotations

import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry.kills import forked

from mlopskit.errors import Conflict
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.core

PROCESSES = 16
EACH = 63


def register(folder: Path, number: int, tell: Callable[[Any], None]) -> None:
    registry = LocalRegistry(folder / "registry")
    source = folder / f"{number}.bin"
    for turn in range(EACH):
        source.write_text(f"{number} {turn}")
        made = registry.register("churn", source, tags={"turn": f"{number} {turn}"}, code="x")
        tell(made.version)


def look(folder: Path, tell: Callable[[Any], None]) -> None:
    """Read the latest version again and again until the last one is there."""
    registry = LocalRegistry(folder / "registry")
    seen = 0
    while seen < PROCESSES * EACH:
        models = registry.list_models()
        if not models:
            continue
        version = registry.get_version("churn", "latest")
        assert version.version >= max(seen, models[0].latest)
        seen = version.version
        assert registry.history("churn")[seen - 1].version == seen
        with tempfile.TemporaryDirectory(dir=folder) as out:
            got = registry.download("churn", seen, Path(out) / "out")
            (file,) = got.iterdir()
            assert file.read_text() == version.tags["turn"]
        tell(seen)


def ended(programs: list[tuple[int, Any]]) -> list[list[Any]]:
    """Wait for programs, and return what each said."""
    said = []
    for pid, pipe in programs:
        said.append([json.loads(line) for line in pipe.read().split(b"\n")[:-1]])
        pipe.close()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return said


def test_a_thousand_versions_of_sixteen_processes_have_a_thousand_numbers(tmp_path: Path) -> None:
    readers = [forked(partial(look, tmp_path)) for _ in range(2)]
    writers = [forked(partial(register, tmp_path, number)) for number in range(PROCESSES)]

    given = [number for said in ended(writers) for number in said]
    assert sorted(given) == list(range(1, PROCESSES * EACH + 1))
    assert all(said for said in ended(readers))
    with LocalRegistry(tmp_path / "registry") as registry:
        assert [each.version for each in registry.list_versions("churn")] == sorted(given)


def test_a_race_of_promotions_has_one_winner(tmp_path: Path) -> None:
    source = tmp_path / "weights.bin"
    source.write_bytes(b"w")
    with LocalRegistry(tmp_path / "registry") as registry:
        for _ in range(8):
            registry.register("churn", source)

    def promote(number: int, tell: Callable[[Any], None]) -> None:
        with LocalRegistry(tmp_path / "registry") as registry:
            try:
                decision = registry.promote("churn", number, "production")
                tell([number, decision.holder])
            except Conflict:
                tell([number, "conflict"])

    said = [lines[0] for lines in ended([forked(partial(promote, n)) for n in range(1, 9)])]
    with LocalRegistry(tmp_path / "registry") as registry:
        history = registry.history("churn")
        stages = [each.stage for each in registry.list_versions("churn")]
    promoted = [entry.version for entry in history if entry.action == "promoted"]
    # Each winner knew the holder that it displaced: they form one chain.
    chain = dict(pair for pair in said if pair[1] != "conflict")
    assert [chain[number] for number in promoted] == [None, *promoted[:-1]]
    assert stages.count("production") == 1
    assert stages.index("production") + 1 == promoted[-1]

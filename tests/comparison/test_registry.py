"""Registries are compared by what they really do."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from tests.tracking.servers import free_port

import mlopskit as mk
from mlopskit.comparison.page import markdown, page
from mlopskit.comparison.place import Place
from mlopskit.comparison.processes import run
from mlopskit.comparison.registry_workload import CASES, ROUNDS, Canary
from mlopskit.config import Line
from mlopskit.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.comparison import ToolComparison

pytest.importorskip("mlflow")
pytest.importorskip("msgspec")
pytestmark = [
    pytest.mark.timeout(900),
    # SQLAlchemy's pool is collected with its engine, which MLflow never disposes of.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

REFUSED = {
    "file: a backslash in its name",
    "file: a name with a lone surrogate",
    "tag: line ends and NUL",
    "tag: a lone surrogate",
    "metric: 2**53 + 1, which no float is",
    "description: line ends and NUL",
    "description: a lone surrogate",
    "alias: a Unicode name",
}


@pytest.fixture(scope="module")
def found() -> ToolComparison:
    """Compare three registries."""
    return mk.compare("local", "mlflow", "wandb", domain="registry", times=1)


def fates(comparison: ToolComparison, tool: str, way: str) -> dict[str, str]:
    """Return what became of each case, one way."""
    (result,) = (each for each in comparison.results if (each.tool, each.way) == (tool, way))
    assert result.error == ""
    return {f"{each.kind}: {each.what}": each.fate for each in result.verdicts}


@pytest.mark.parametrize("tool", ["local", "mlflow", "wandb"])
def test_through_mlopskit_nothing_comes_out_as_something_else(
    found: ToolComparison, tool: str
) -> None:
    """What cannot be kept is refused, and is the same for every backend."""
    (result,) = (each for each in found.results if (each.tool, each.way) == (tool, "mlopskit"))
    wrong = {f"{each.kind}: {each.what}" for each in result.verdicts if not each.well}

    assert len(result.verdicts) == len(CASES)
    assert {each.fate for each in result.verdicts} == {"kept", "refused"}
    assert wrong == REFUSED


def test_what_mlflow_is_known_to_do_is_found(found: ToolComparison) -> None:
    """By its own client."""
    native = fates(found, "mlflow", "native")

    assert native["damage: a byte changed on the disk"] == "unnoticed"
    assert native["loading: a pickle, with nothing said about trust"] == "ran code"
    assert native["deletion: the numbers of a deleted model"] == "changed"
    assert native["deletion: the number of a deleted version"] == "kept"
    assert native["history: where an alias pointed before"] == "lost"
    assert native["metric: an infinity"] == "changed"
    assert native["file: a link to a file outside"] == "changed"
    assert native["tag: line ends and NUL"] == "kept"
    assert native["alias: a Unicode name"] == "kept"


def test_what_wandb_is_known_to_do_is_found(found: ToolComparison) -> None:
    """By its own client; what its server would decide is left out, and counted nowhere."""
    native = fates(found, "wandb", "native")

    assert native["damage: a byte changed on the disk"] == "unnoticed"
    assert native["metric: NaN"] == "changed"
    assert native["metric: an infinity"] == "refused"
    assert native["metric: 2**53 + 1, which no float is"] == "kept"
    assert native["file: a link to a file outside"] == "changed"
    assert {each.partition(":")[0] for each in native} == {
        *("file", "tag", "metric", "description", "damage")
    }
    assert f"of {len(native)}" in markdown(found)
    assert "| alias: latest | refused" in markdown(found)


def test_what_calls_cost_is_measured(found: ToolComparison) -> None:
    """By the same names for every way."""
    assert len({tuple(each.calls_ms) for each in found.results}) == 1
    assert all(value > 0 for each in found.results for value in each.calls_ms.values())
    assert [each.outage for each in found.results] == [None] * 5


def test_the_page_and_the_markdown_hold_the_registries(found: ToolComparison) -> None:
    """With the words that only they need, and no folder's name by chance."""
    text, plain = page(found), markdown(found)

    assert '<b class="ran-code">ran code</b>' in text
    assert ".ran-code" in text
    assert "| aliases |" in plain
    assert "download a file of 1 MiB" in plain
    assert "damage: a byte changed on the disk | refused: `IntegrityError: home" in plain
    assert not re.search(r"/tmp\w{8}/|mlopskit-compare-", plain)
    assert not re.search(r"(src|href)=", text)


def test_a_place_is_used_both_ways_with_models_of_its_own(tmp_path: Path) -> None:
    """What needs the files on this disk is left out; what was there stays."""
    uri = f"sqlite:///{tmp_path}/m.db"
    source = tmp_path / "mine.bin"
    source.write_bytes(b"mine")
    with mk.open_registry(f"mlflow:{uri}") as registry:
        before = registry.register("mine", source)
    place = Place(line=Line(backend="mlflow", location=uri), label="x", name="compare-1")

    verdicts: list[dict[str, str]] = []
    for way in ("native", "mlopskit"):
        folder = tmp_path / way
        folder.mkdir()
        verdicts += json.loads(run(place, way, folder, "registry_fates", 300).said)

    assert "damage" not in {each["kind"] for each in verdicts}
    assert len(verdicts) == 2 * len([each for each in CASES if each.kind != "damage"])
    with mk.open_registry(f"mlflow:{uri}") as registry:
        names = {model.name for model in registry.list_models()}
        assert registry.get_version("mine", 1) == before
    assert "mine" in names
    assert {name.rpartition("-")[0] for name in names} >= {"compare-1-native", "compare-1-mlopskit"}
    assert all(name.startswith("compare-1-") for name in names - {"mine"})


def test_a_registry_that_is_away_is_an_error_before_anything_is_measured() -> None:
    """Also where another one comes first."""
    told: list[str] = []

    with pytest.raises(Unavailable, match="cannot be reached"):
        mk.compare(
            *("local", f"mlflow:http://127.0.0.1:{free_port()}"),
            domain="registry",
            told=told.append,
        )

    assert told == []


class Racing:
    """A registry where every promotion wins."""

    folder = None

    def __init__(self) -> None:
        self.production: dict[str, list[int]] = {}
        self.count = 0

    def register(self, name: str, source: Path) -> int:
        self.count += 1
        return self.count

    def promote(self, name: str, version: int) -> None:
        self.production.setdefault(name, []).append(version)

    def in_production(self, name: str) -> list[int]:
        return self.production[name]

    def another(self) -> Racing:
        return self

    def close(self) -> None:
        pass


def test_two_winners_of_a_race_are_found() -> None:
    """And counted."""
    (case,) = (each for each in CASES if each.kind == "promotion")

    fate, detail = case.done(Racing(), "x")  # type: ignore[arg-type]

    assert fate == "changed"
    assert detail == f"2 in production after {ROUNDS} of {ROUNDS} races"


def test_a_canary_is_heard(tmp_path: Path) -> None:
    """Or no verdict about code would mean anything."""
    import pickle

    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))

    assert (tmp_path / "canary").is_dir()

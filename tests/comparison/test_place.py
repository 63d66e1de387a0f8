"""A config line says where a tool is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.tracking.servers import free_port, mlflow_server

import mlopskit as mk
from mlopskit.comparison.drivers import opened
from mlopskit.comparison.page import markdown, page
from mlopskit.comparison.place import Place, label_of
from mlopskit.comparison.workload import CASES, is_kept, log, read
from mlopskit.config import Line, parse_line
from mlopskit.errors import ConfigError, Unavailable, UnknownBackend
from mlopskit.testing.wandb_server import KEY, WandbServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.comparison.workload import Case

pytest.importorskip("mlflow")
pytest.importorskip("wandb")
pytest.importorskip("msgspec")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    """Run a server of W&B."""
    with WandbServer() as server:
        yield server


def case(kind: str, what: str) -> Case:
    """Return one of the cases."""
    return next(each for each in CASES if (each.kind, each.what) == (kind, what))


def test_a_place_is_used_both_ways_and_what_was_there_stays(here: Path) -> None:
    """A relative path is one from here; each way has an experiment of its own, which is told."""
    with mk.open_tracker("mlflow:sqlite:///runs.db") as tracker:
        with tracker.start_run("mine", params={"lr": 0.1}) as run:
            run.log_metric("loss", 0.5, step=1)
        before = tracker.get_run(run.id)
    told: list[str] = []

    comparison = mk.compare(
        "mlflow:sqlite:///runs.db", "local:store", outage_s=0, times=1, told=told.append
    )

    with mk.open_tracker("mlflow:sqlite:///runs.db") as tracker:
        names = {each.name for each in tracker.list_experiments()}
        assert tracker.get_run(run.id) == before
        assert len(tracker.search_runs("", "mine")) == 1
    with mk.open_tracker("local:store") as tracker:
        ours = {each.name for each in tracker.list_experiments()}
    by = {(each.tool, each.way): each for each in comparison.results}
    native, through = (by["mlflow:sqlite:///runs.db", way] for way in ("native", "mlopskit"))
    assert (native.error, through.error) == ("", "")
    made = {each.made.removeprefix("experiment ") for each in (native, through)}
    assert len(made) == 2
    assert made == names - {"mine", "Default"}
    assert ours == {by["local:store", "mlopskit"].made.removeprefix("experiment ")}
    assert 0 < native.count("kept") < through.count("kept") == len(CASES)
    assert all(any(name in each for each in told) for name in made)
    assert all(name in page(comparison) and name in markdown(comparison) for name in made)
    assert through.stored_bytes is not None
    assert through.stored_bytes > 1000


@pytest.mark.parametrize("way", ["native", "mlopskit"])
def test_a_server_of_mlflow_is_used(tmp_path: Path, way: str) -> None:
    """With an experiment of its own."""
    with mlflow_server(f"sqlite:///{tmp_path}/server.db", tmp_path) as (port, _):
        place = placed(f"mlflow:http://127.0.0.1:{port}")
        check(place, way, tmp_path)
        with mk.open_tracker(place.line) as tracker:
            assert place.own(way) in {each.name for each in tracker.list_experiments()}
        assert place.stored(tmp_path) is None


@pytest.mark.parametrize("way", ["native", "mlopskit"])
def test_a_server_of_wandb_is_used(
    tmp_path: Path, wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """With a project of its own, of the same entity."""
    # A service of its own: that of the tests before may be busy with a server that is gone.
    pytest.importorskip("wandb").teardown()
    for name, value in wandb_server.environment(tmp_path / "wandb").items():
        monkeypatch.setenv(name, value)
    place = placed("wandb:team/churn")

    check(place, way, tmp_path)

    assert place.own(way) == f"team/churn-compare-{way}"
    assert {run["project"] for run in wandb_server.runs.values()} == {f"churn-compare-{way}"}


def placed(line: Any) -> Place:
    """Return the place of a line."""
    (found,) = parse_line(line, "test")
    return Place(line=found, label=label_of(found), name="compare")


def check(place: Place, way: str, folder: Path) -> None:
    """Log what every client keeps there, and read it back."""
    for each in (
        case("param", "a text that looks like a number"),
        case("metric", "NaN"),
        case("tag", "a text of JSON"),
        case("file", "a name with a blank, in a folder"),
    ):
        made = folder / each.kind
        made.mkdir()
        driver = opened(place, way, made)
        log(driver, each)
        driver.finish()
        assert is_kept(each, read(driver, each)), each


def test_a_server_that_is_away_is_an_error_before_anything_is_measured() -> None:
    """Also where another tool comes first."""
    told: list[str] = []

    for line in (f"mlflow:http://127.0.0.1:{free_port()}", away(free_port())):
        with pytest.raises(Unavailable, match="cannot be reached"):
            mk.compare("local", line, told=told.append)

    assert told == []


def away(port: int) -> dict[str, str]:
    """Return the line of a W&B that is not there."""
    return {
        "backend": "wandb",
        "location": "team/churn",
        "base_url": f"http://127.0.0.1:{port}",
        "api_key": KEY,
        "mode": "online",
    }


def test_an_unknown_tool_in_a_line_is_an_error() -> None:
    """As is a line that cannot be read, or that holds a password."""
    with pytest.raises(UnknownBackend, match="mlflow"):
        mk.compare("mlfow:http://127.0.0.1:5000")
    with pytest.raises(ConfigError, match="no config line"):
        mk.compare("a b")
    with pytest.raises(ConfigError, match="password"):
        mk.compare("mlflow:http://me:hidden@127.0.0.1")


def test_a_secret_of_a_line_is_on_no_page(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither what the environment held, nor what an error or a label would say."""
    monkeypatch.setenv("HIDDEN_FOLDER", "hunter2hunter2")
    comparison = mk.compare("local:${env:HIDDEN_FOLDER}", outage_s=0, times=1)

    assert (here / "hunter2hunter2").exists()
    assert comparison.results[0].error == ""
    assert comparison.results[0].tool == "local:${env:HIDDEN_FOLDER}"
    for text in (page(comparison), markdown(comparison), comparison.model_dump_json()):
        assert "hunter2" not in text


@pytest.mark.parametrize(
    ("line", "label"),
    [
        (
            {"backend": "mlflow", "location": "http://sEcReT1@host:5000/a"},
            "mlflow:http://host:5000/a",
        ),
        (
            {"backend": "mlflow", "location": "postgresql://u:${env:HIDDEN}@h/db?sslkey=sEcReT1"},
            "mlflow:postgresql://h/db",
        ),
        (
            {"backend": "wandb", "location": "team/churn", "api_key": "sEcReT1"},
            "wandb:team/churn",
        ),
        ({"backend": "mlflow", "location": "sqlite:///x.db"}, "mlflow:sqlite:///x.db"),
    ],
)
def test_a_label_shows_where_and_no_secret(
    line: dict[str, str], label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a tool says of the secret is hidden."""
    monkeypatch.setenv("HIDDEN", "sEcReT1")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tOkEn22")
    place = Place(line=Line(**_split(line)), label=label)

    _, redactor = place.fetched()

    assert label_of(place.line) == label
    assert "tOkEn22" not in redactor.text("refused: tOkEn22")
    if label != "mlflow:sqlite:///x.db" and "?" not in line["location"]:
        assert "sEcReT1" not in redactor.text("refused: sEcReT1")


def _split(line: dict[str, str]) -> dict[str, Any]:
    options = {k: v for k, v in line.items() if k not in ("backend", "location")}
    return {"backend": line["backend"], "location": line["location"], "options": options}

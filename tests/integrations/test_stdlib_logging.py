"""Records of the standard library's `logging` become the log of a run."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.integrations.trainings import LINES, the_run, trackers

from mlopskit.integrations.stdlib_logging import MlopskitHandler
from mlopskit.kit import open_tracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker

log = logging.getLogger("app.train")


@pytest.fixture(autouse=True)
def _every_record() -> Iterator[None]:
    log.setLevel(logging.DEBUG)
    yield
    log.setLevel(logging.NOTSET)


def text(tracker: Tracker, folder: Path, name: str = "log.txt") -> str:
    record = the_run(tracker)
    return tracker.download_artifact(record.id, name, folder / "read").read_text()


@pytest.mark.parametrize("kind", LINES)
def test_records_become_a_text_and_metrics(kind: str, tmp_path: Path) -> None:
    with trackers(kind, tmp_path) as (tracker, sinks):
        with MlopskitHandler(tracker, experiment="e"):
            log.debug("begins: %s", "ü")
            log.info("epoch", extra={"metrics": {"acc@1": np.float32(0.5)}, "step": 3})
            try:
                raise ValueError("no")
            except ValueError:
                log.exception("went on")
        log.info("too late")

        for sink in sinks:
            record = the_run(sink)
            assert (record.experiment, record.status) == ("e", "finished")
            assert record.metrics == {"acc@1": 0.5}
            assert list(sink.get_metric_history(record.id, "acc@1").steps) == [3]
            kept = text(sink, tmp_path)
            assert "DEBUG app.train: begins: ü\n" in kept
            assert "Traceback" in kept
            assert "too late" not in kept


def test_an_alert_tells_who_listens(tmp_path: Path) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    with trackers("local", tmp_path) as (tracker, _):
        heard = replace(tracker.context, notify=lambda event, **kw: told.append((event, kw)))
        tracker.context = heard
        with MlopskitHandler(tracker, alert_level=logging.CRITICAL):
            log.info("quiet", extra={"alert": "look here"})
            log.error("not told")
            log.critical("told")

    alerts = [(kw["alert"].level, kw["alert"].text) for event, kw in told if event == "run_alerted"]
    assert alerts[:2] == [("info", "look here"), ("error", "told")]


def test_an_error_and_much_text_are_kept_at_once(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _), MlopskitHandler(tracker) as handler:
        log.error("first")
        assert "first" in text(tracker, tmp_path)
        for _ in range(10):
            log.info("x" * 4000)
        assert text(tracker, tmp_path).count("xxxx\n") >= 4
        handler.flush()
        assert text(tracker, tmp_path).count("xxxx\n") == 10


def test_an_open_run_is_left_open_and_a_logger_may_be_named(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _), tracker.start_run("mine") as run:
        with MlopskitHandler(run, of="app", file="logs/app.txt", level="INFO"):
            log.debug("below")
            log.info("within")
            logging.getLogger("other").warning("beside")
        run.log_metric("after", 1)

        kept = text(tracker, tmp_path, "logs/app.txt")
        assert the_run(tracker).status == "running"
        assert kept.endswith("INFO app.train: within\n")
        assert kept.count("\n") == 1


def test_a_block_that_raises_ends_the_run(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        with pytest.raises(ValueError, match="no"), MlopskitHandler(tracker):
            raise ValueError("no")

        assert the_run(tracker).status == "failed"


def test_threads_may_share_it(tmp_path: Path) -> None:
    with trackers("local", tmp_path) as (tracker, _):
        with MlopskitHandler(tracker):

            def many(name: str) -> None:
                for i in range(200):
                    log.info("%s %d", name, i, extra={"metrics": {"i": i}})

            threads = [threading.Thread(target=many, args=(f"t{i}",)) for i in range(3)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()

        assert text(tracker, tmp_path).count("\n") == 600
        assert len(tracker.get_metric_history(the_run(tracker).id, "i").values) == 600


def test_another_rank_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with MlopskitHandler(f"local:{tmp_path}/there") as handler:
        log.error("alone")

    assert handler.run is None
    assert not (tmp_path / "there").exists()


PROGRAM = """
import logging, os, sys
from mlopskit.integrations.stdlib_logging import MlopskitHandler
logging.basicConfig(level="INFO", handlers=[MlopskitHandler(sys.argv[1])])
logging.info("in the parent")
if (pid := os.fork()) == 0:
    logging.info("in the child", extra={"metrics": {"lost": 1}})
    os._exit(0)
os.waitpid(pid, 0)
if sys.argv[2] == "fails":
    raise ValueError("no")
"""


@pytest.mark.parametrize(("ending", "status"), [("ends", "finished"), ("fails", "failed")])
def test_a_program_that_ends_keeps_its_log(ending: str, status: str, tmp_path: Path) -> None:
    where = f"local:{tmp_path}/there"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, where, ending],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ("ValueError" in done.stderr) == (status == "failed"), done.stderr
    with open_tracker(where) as tracker:
        assert the_run(tracker).status == status
        kept = text(tracker, tmp_path)
    assert "in the parent" in kept
    assert "in the child" in kept

"""What a run of every tracker goes through, as tests: how it lives, ends, and dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from mlopskit.errors import Conflict, InvalidInput, NotFound, ParamConflict
from mlopskit.kit import Kit
from mlopskit.testing.tracking_contents import needs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlopskit.tracking import Tracker


Line = str | dict[str, Any] | list[Any]

UNKNOWN = "f00d" * 8
UNKNOWN_RUN: dict[str, Callable[[Tracker], object]] = {
    "get_run": lambda tracker: tracker.get_run(UNKNOWN),
    "get_metric_history": lambda tracker: tracker.get_metric_history(UNKNOWN, "loss"),
    "list_artifacts": lambda tracker: tracker.list_artifacts(UNKNOWN),
    "download_artifact": lambda tracker: tracker.download_artifact(UNKNOWN, "x", "."),
    "delete_run": lambda tracker: tracker.delete_run(UNKNOWN),
    "resume": lambda tracker: tracker.start_run(run_id=UNKNOWN, resume=True),
}
OPENING = """
import json, os, sys
import mlopskit
kit = mlopskit.Kit(tracking=json.loads(sys.argv[1]), home=sys.argv[2])
tracker = kit.tracker
"""
STARTING = """
with tracker.start_run("crowd", params={"worker": sys.argv[3]}) as run:
    for step in range(20):
        run.log_metrics({"loss": step / 7}, step=step)
tracker.close()
"""
DYING = """
run = tracker.start_run("doomed", params={"lr": 0.1})
print(run.id, flush=True)
for step in range(10**9):
    run.log_metrics({"loss": step * 0.5}, step=step)
    os.write(1, b"%d\\n" % step)
"""


class LivesContract:
    """A part of `TrackerContract`, which gives `line`, `home` and `tracker`."""

    processes: ClassVar[int] = 8

    # The life of a run.

    def test_a_block_that_raises_leaves_a_failed_run(self, tracker: Tracker) -> None:
        """The caller's exception passes through untouched; what was logged is there."""
        run = tracker.start_run()
        run.log_metric("loss", 0.5)
        with pytest.raises(ZeroDivisionError), run:
            _ = 1 / 0

        record = tracker.get_run(run.id)
        assert (record.status, record.metrics) == ("failed", {"loss": 0.5})

    def test_an_interrupted_block_leaves_a_killed_run(self, tracker: Tracker) -> None:
        """Ctrl-C is nobody's failure."""
        run = tracker.start_run()
        with pytest.raises(KeyboardInterrupt), run:
            raise KeyboardInterrupt

        assert tracker.get_run(run.id).status == "killed"

    @pytest.mark.parametrize(
        ("code", "status"), [(None, "finished"), (0, "finished"), (1, "failed"), ("no", "failed")]
    )
    def test_a_program_that_exits_says_how_its_run_went(
        self, tracker: Tracker, code: int | str | None, status: str
    ) -> None:
        """`sys.exit(1)` inside the block is a failure, and `sys.exit()` is none."""
        run = tracker.start_run()
        with pytest.raises(SystemExit), run:
            sys.exit(code)

        assert tracker.get_run(run.id).status == status

    def test_a_run_that_goes_on_reads_its_own_writes(self, tracker: Tracker) -> None:
        """Without a flush, in the process that writes it."""
        with tracker.start_run(params={"lr": 0.1}) as run:
            run.log_metric("loss", 0.5, step=3)
            record = tracker.get_run(run.id)
            found = [each.id for each in tracker.search_runs("metrics.loss = 0.5")]

        assert (record.status, record.ended_at) == ("running", None)
        assert (record.params, record.metrics) == ({"lr": 0.1}, {"loss": 0.5})
        assert found == [run.id]

    def test_what_is_to_be_done_at_the_end_is_done_before_it(self, tracker: Tracker) -> None:
        """In order, once, and whatever one of them raises."""
        done: list[str] = []

        def broken() -> None:
            done.append("broken")
            raise ZeroDivisionError("no rows")

        with tracker.start_run() as run:
            run.at_finish(broken)
            run.at_finish(lambda: run.log_metric("last", 1.0, step=7))
            run.at_finish(lambda: done.append("last"))
        run.finish()

        assert done == ["broken", "last"]
        record = tracker.get_run(run.id)
        assert (record.status, record.metrics) == ("finished", {"last": 1.0})

    def test_finishing_twice_is_fine_and_logging_afterwards_is_not(self, tracker: Tracker) -> None:
        """The first status stays."""
        run = tracker.start_run()
        run.finish("failed")
        run.finish()

        for call in (
            lambda: run.log_metric("loss", 1.0),
            lambda: run.log_params({"lr": 1}),
            lambda: run.set_tags({"a": "b"}),
            lambda: run.log_text("x", "x.txt"),
        ):
            with pytest.raises(Conflict, match="finished"):
                call()
        assert tracker.get_run(run.id).status == "failed"

    def test_what_is_delivered_leaves_no_journal_behind(self, tracker: Tracker, home: Path) -> None:
        """And the run's handle says that all of it arrived."""
        with tracker.start_run() as run:
            run.log_text("x", "x.txt")
            run.log_metric("loss", 0.5)
            run.flush()
            for status in run.delivery.values():
                assert (status.delivered, status.pending, status.rejected) == (3, 0, 0)

        for status in run.delivery.values():
            assert (status.delivered, status.pending, status.rejected) == (4, 0, 0)
            assert status.error == ""
        assert [path for path in home.rglob("*journal/*") if path.is_file()] == []

    def test_a_run_can_be_taken_up_again(self, tracker: Tracker) -> None:
        """It appends, keeps its name and params, and counts on from its last step."""
        needs(tracker, "resume")
        with tracker.start_run("e", name="n", params={"lr": 0.1}) as first:
            first.log_metric("loss", 1.0, step=5)

        with tracker.start_run(run_id=first.id, resume=True) as run:
            assert tracker.get_run(run.id).status == "running"
            with pytest.raises(ParamConflict):
                run.log_params({"lr": 0.2})
            run.log_metric("loss", 0.5)

        record = tracker.get_run(first.id)
        assert (record.name, record.experiment, record.status) == ("n", "e", "finished")
        history = tracker.get_metric_history(first.id, "loss")
        assert (list(history.steps), list(history.values)) == ([5, 6], [1.0, 0.5])

    def test_an_id_is_taken_once(self, tracker: Tracker) -> None:
        """Unless the run is to be taken up again."""
        own = "ab" * 16
        with tracker.start_run(run_id=own):
            pass

        with pytest.raises(Conflict, match="resume=True"):
            tracker.start_run(run_id=own)
        with pytest.raises(InvalidInput, match="run_id"):
            tracker.start_run(resume=True)

    def test_runs_can_be_nested(self, tracker: Tracker) -> None:
        """A parent is given as a handle or as an id."""
        needs(tracker, "nested_runs")
        with tracker.start_run("e") as parent:
            with tracker.start_run("e", parent=parent) as child:
                pass
            with tracker.start_run("e", parent=child.id) as grandchild:
                pass

        assert tracker.get_run(child.id).parent_id == parent.id
        assert tracker.get_run(grandchild.id).parent_id == child.id
        found = tracker.search_runs(f"parent_id = '{parent.id}'")
        assert [each.id for each in found] == [child.id]

    def test_several_runs_at_once_do_not_mix(self, tracker: Tracker) -> None:
        """There is no current run."""
        runs = [tracker.start_run("e", name=f"n{i}") for i in range(3)]
        for step in range(4):
            for number, run in enumerate(runs):
                run.log_metric("loss", number * 10 + step, step=step)
        for run in reversed(runs):
            run.finish()

        for number, run in enumerate(runs):
            values = list(tracker.get_metric_history(run.id, "loss").values)
            assert values == [number * 10 + step for step in range(4)]

    def test_a_deleted_run_is_gone(self, tracker: Tracker) -> None:
        """An open one is not deleted under its writer's hands."""
        needs(tracker, "delete")
        with tracker.start_run("e") as run:
            run.log_text("x", "x.txt")
            with pytest.raises(Conflict, match="still open"):
                tracker.delete_run(run.id)

        tracker.delete_run(run.id)

        with pytest.raises(NotFound):
            tracker.get_run(run.id)
        assert tracker.search_runs() == []

    @pytest.mark.parametrize("call", UNKNOWN_RUN.values(), ids=UNKNOWN_RUN)
    def test_an_unknown_run_is_not_found(
        self, tracker: Tracker, call: Callable[[Tracker], object]
    ) -> None:
        """No exception of the tool's own reaches the caller."""
        if call is UNKNOWN_RUN["resume"]:
            needs(tracker, "resume")
        with pytest.raises(NotFound, match=f"no run '{UNKNOWN}'"):
            call(tracker)

    def test_an_unknown_metric_or_file_is_not_found(self, tracker: Tracker, tmp_path: Path) -> None:
        """The message names what there is."""
        with tracker.start_run() as run:
            run.log_metric("loss", 1.0)
            run.log_text("x", "notes.txt")

        with pytest.raises(NotFound, match="loss"):
            tracker.get_metric_history(run.id, "los")
        with pytest.raises(NotFound, match=r"notes\.txt"):
            tracker.download_artifact(run.id, "note.txt", tmp_path)

    # Threads, processes, deaths.

    def test_threads_share_a_handle(self, tracker: Tracker) -> None:
        """Nothing is lost, and what one thread logs stays in its order."""
        with tracker.start_run() as run:

            def work(number: int) -> None:
                for step in range(50):
                    run.log_metrics({f"t{number}": step * 0.5, "all": 1.0}, step=step)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        for number in range(8):
            history = tracker.get_metric_history(run.id, f"t{number}")
            assert list(history.steps) == list(range(50))
        assert len(tracker.get_metric_history(run.id, "all")) == 400

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_may_log_to_its_parents_run(self, tracker: Tracker) -> None:
        """What it logs is there once; the run stays its parent's to finish."""
        with tracker.start_run() as run:
            run.log_metric("parent", 1.0)
            child = os.fork()
            if child == 0:
                try:
                    for step in range(20):
                        run.log_metric("child", step + 0.5, step=step)
                    run.finish("failed")
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            run.log_metric("parent", 2.0)

        assert list(tracker.get_metric_history(run.id, "child").steps) == list(range(20))
        assert len(tracker.get_metric_history(run.id, "parent")) == 2
        assert tracker.get_run(run.id).status == "finished"

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_child_that_lives_on_is_read_with_its_parent(self, tracker: Tracker) -> None:
        """Parent and child log the same points at the same time, and all of them are kept."""
        go, told = os.pipe()
        stay, end = os.pipe()
        run = tracker.start_run()
        child = os.fork()
        if child == 0:
            try:
                for step in range(50):
                    run.log_metric("both", 0.5, step=step)
                os.write(told, b".")
                os.read(stay, 1)
            finally:
                os._exit(0)
        for step in range(50):
            run.log_metric("both", 0.5, step=step)
        os.read(go, 1)
        run.flush()
        alive = tracker.get_metric_history(run.id, "both")
        os.write(end, b".")
        os.waitpid(child, 0)
        run.finish()
        for fd in (go, told, stay, end):
            os.close(fd)

        assert len(alive) == 100
        history = tracker.get_metric_history(run.id, "both")
        assert sorted(history.steps) == sorted([*range(50), *range(50)])
        assert tracker.get_run(run.id).status == "finished"

    def test_many_processes_may_open_a_new_store_at_once(self, line: Line, home: Path) -> None:
        """None fails, and everything that each of them logged is there."""
        workers = [_child(STARTING, line, home, str(i)) for i in range(self.processes)]
        for worker in workers:
            _, errors = worker.communicate(timeout=240)
            assert worker.returncode == 0, errors

        with Kit(tracking=line, home=home) as kit:
            runs = kit.tracker.search_runs(experiment="crowd", limit=None)
            steps = [list(kit.tracker.get_metric_history(run.id, "loss").steps) for run in runs]

        assert sorted(int(run.params["worker"]) for run in runs) == list(range(self.processes))
        assert all(each == list(range(20)) for each in steps)

    def test_a_killed_process_loses_nothing_that_was_acknowledged(
        self, line: Line, home: Path
    ) -> None:
        """Its run reads lost, a sync delivers the rest, and nothing is there twice."""
        with _child(DYING, line, home) as worker:
            assert worker.stdout is not None
            run_id = worker.stdout.readline().strip()
            acknowledged = [int(worker.stdout.readline()) for _ in range(300)]
            worker.send_signal(signal.SIGKILL)
            # Not `communicate`, which would drop what `readline` has read ahead.
            acknowledged += [int(each) for each in worker.stdout.read().split("\n")[:-1]]

        with Kit(tracking=line, home=home) as kit:
            report = kit.tracker.sync()
            record = kit.tracker.get_run(run_id)
            steps = list(kit.tracker.get_metric_history(run_id, "loss").steps)
            again = kit.tracker.sync()

        assert record.status == "lost"
        assert record.params == {"lr": 0.1}
        # One more may have been written and not yet acknowledged.
        assert steps in (acknowledged, [*acknowledged, len(acknowledged)])
        assert (report.pending, again.delivered, again.pending) == ({}, 0, {})
        assert [path for path in home.rglob("*.journal") if path.is_file()] == []


def _child(code: str, line: Line, home: Path, *more: str) -> subprocess.Popen[str]:
    """Start a process of its own that has opened the same tracker."""
    return subprocess.Popen(  # noqa: S603 - ours
        [sys.executable, "-c", OPENING + code, json.dumps(line), str(home), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

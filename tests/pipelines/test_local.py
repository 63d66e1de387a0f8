from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.programs import launched

from mlopskit import Kit
from mlopskit.errors import (
    IntegrityError,
    InvalidInput,
    RunCancelled,
    StepFailed,
    StorageError,
    Unavailable,
)
from mlopskit.pipelines import NoValue, StepRun, pipeline, step, step_folder
from mlopskit.pipelines.local import LocalRunner
from mlopskit.pipelines.locks import Lock
from mlopskit.testing import RunnerContract
from mlopskit.testing.pipelines import add, divide, read, sums, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.pipelines import Runner

pytestmark = pytest.mark.core

NOTED: dict[str, list[int]] = {}


@step
def make_object() -> object:
    return object()


@step
def name_type(value: object) -> str:
    return str(type(value))


@step
def note(number: int) -> int:
    import sys as system

    module = system.modules[note.function.__module__]
    vars(module)["NO" + "TED"]["calls"].append(number)
    return number


@pipeline
def unstorable() -> str:
    return name_type(make_object())


@pipeline
def twice() -> list[int]:
    return [note(7) for _ in range(8)]


@pipeline
def files_everywhere() -> tuple[Path, str]:
    path = write("text")
    return path, read(path)


class TestOneWorker(RunnerContract):
    @pytest.fixture
    def open_tool(self, tmp_path: Path) -> Callable[[], Runner]:
        return lambda: LocalRunner(tmp_path / "pipelines")


class TestFourWorkers(RunnerContract):
    @pytest.fixture
    def open_tool(self, tmp_path: Path) -> Callable[[], Runner]:
        return lambda: LocalRunner(tmp_path / "pipelines", workers=4)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[LocalRunner]:
    with LocalRunner(tmp_path / "pipelines") as opened:
        yield opened


@pytest.fixture
def four(tmp_path: Path) -> Iterator[LocalRunner]:
    with LocalRunner(tmp_path / "pipelines", workers=4) as opened:
        yield opened


@pytest.mark.parametrize("workers", [0, -1, True, "4", 1.5])
def test_workers_are_a_whole_number_of_at_least_one(workers: Any) -> None:
    with pytest.raises(InvalidInput, match="at least 1"):
        LocalRunner(workers=workers)


def test_state_lives_under_the_home_of_the_kit(tmp_path: Path) -> None:
    with Kit(home=str(tmp_path / "home")) as kit:
        kit.runner.run(sums, start=1)

    assert (tmp_path / "home/pipelines/runs.db").exists()


def test_everything_it_writes_is_private(runner: LocalRunner) -> None:
    runner.run(files_everywhere)
    for path in [runner.location, *runner.location.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_nothing_is_left_in_the_way_after_a_run(runner: LocalRunner) -> None:
    runner.run(files_everywhere)

    assert list((runner.location / "scratch").iterdir()) == []
    assert list((runner.location / "locks").iterdir()) == []
    assert not list(runner.location.rglob(".*"))


def test_a_closed_runner_says_so(runner: LocalRunner) -> None:
    runner.run(sums, start=1)
    runner.close()
    for use in (lambda: runner.run(sums, start=1), runner.list_runs, runner.ping):
        with pytest.raises(StorageError, match="has been closed"):
            use()


def test_independent_steps_run_at_the_same_time(four: LocalRunner) -> None:
    meeting = threading.Barrier(4, timeout=30)

    @step(cache=False)
    def meet(number: int) -> int:
        meeting.wait()
        return number

    @pipeline
    def together() -> Any:
        return [meet(number) for number in range(4)]

    assert four.run(together).output == [0, 1, 2, 3]


def test_no_more_steps_run_at_once_than_there_are_workers(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []
    enough = threading.Event()

    @step(cache=False)
    def enter(number: int) -> int:
        inside.append(number)
        most.append(len(inside))
        if len(inside) == 2:
            enough.set()
        enough.wait(timeout=30)
        inside.remove(number)
        return number

    @pipeline
    def crowd() -> Any:
        return [enter(number) for number in range(20)]

    with LocalRunner(tmp_path / "pipelines", workers=2) as two:
        assert two.run(crowd).output == list(range(20))
    assert max(most) == 2


def test_the_same_call_twice_in_one_run_is_made_once(four: LocalRunner) -> None:
    calls: list[int] = []
    NOTED["calls"] = calls
    run = four.run(twice)

    assert run.output == [7] * 8
    assert calls == [7]
    assert sum(step.cached for step in run.steps.values()) == 7


def test_steps_that_need_no_failed_step_finish_in_parallel_too(four: LocalRunner) -> None:
    @step
    def fail(number: int) -> int:
        raise ValueError(f"bad {number}")

    @pipeline
    def mixed() -> Any:
        return [fail(1), add(fail(2)), add(add(1))]

    with pytest.raises(StepFailed, match=r"'fail' .*\(ValueError: bad 1\)\. So did fail-2\."):
        four.run(mixed)
    steps = four.list_runs()[0].steps
    assert {name: each.status for name, each in steps.items()} == {
        "fail": "failed",
        "fail-2": "failed",
        "add": "skipped",
        "add-2": "finished",
        "add-3": "finished",
    }
    assert steps["add"].error == "step 'fail-2' did not finish"


def test_the_traceback_of_a_step_begins_in_the_step(runner: LocalRunner) -> None:
    @pipeline
    def failing() -> float:
        return divide(1.0, 0.0)

    with pytest.raises(StepFailed) as failed:
        runner.run(failing)
    cause = failed.value.__cause__
    assert cause is not None
    assert cause.__traceback__ is not None
    assert cause.__traceback__.tb_frame.f_code.co_name == "divide"
    kept = runner.get_run(failed.value.run_id).steps["divide"].traceback or ""
    assert "execution.py" not in kept


def test_secrets_do_not_reach_the_history(tmp_path: Path) -> None:
    @step
    def connect(url: str) -> None:
        raise RuntimeError(f"no answer from {url}")

    @pipeline
    def fetching(url: str, api_key: str) -> None:
        connect(url)

    with Kit(home=str(tmp_path / "home")) as kit:
        with pytest.raises(StepFailed) as failed:
            kit.runner.run(fetching, "https://me:hunter22@host/db", api_key="abcdefgh")
        run = kit.runner.get_run(failed.value.run_id)
    assert run.params == {"url": "https://me:[redacted]@host/db", "api_key": "[redacted]"}
    for path in (tmp_path / "home").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"hunter22" not in content
            assert b"abcdefgh" not in content


def test_what_cannot_be_stored_is_passed_on_and_said_once(
    runner: LocalRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [runner.run(unstorable) for _ in range(3)]

    for run in runs:
        assert run.output == "<class 'object'>"
        assert {name: each.cached for name, each in run.steps.items()} == {
            "make_object": False,
            "name_type": False,
        }
    assert "no exact way to store a object" in runs[0].steps["make_object"].uncached_reason
    assert "'make_object' cannot be stored" in runs[0].steps["name_type"].uncached_reason
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'make_object' runs every time" in caplog.text


def test_an_output_that_cannot_be_stored_is_returned_and_missing_later(
    runner: LocalRunner,
) -> None:
    @pipeline
    def returning() -> Any:
        return make_object()

    run = runner.run(returning)
    later = runner.get_run(run.id).output

    assert type(run.output) is object
    assert isinstance(later, NoValue)
    assert "could not be stored" in later.reason


def test_a_kept_value_that_was_damaged_is_made_anew(
    runner: LocalRunner, caplog: pytest.LogCaptureFixture
) -> None:
    first = runner.run(files_everywhere)
    for path in (runner.location / "blobs").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(b"short")
    again = runner.run(files_everywhere)

    assert "is made anew" in caplog.text
    assert again.output[0].read_text() == first.output[0].read_text() == "text"


def test_a_bit_that_flipped_in_a_kept_file_is_an_error_once_and_mended_by_the_next_run(
    runner: LocalRunner,
) -> None:
    first = runner.run(files_everywhere)
    for path in (runner.location / "blobs").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(path.read_bytes().swapcase())
    with pytest.raises(IntegrityError):
        runner.run(files_everywhere)
    for _ in range(5):  # one run for every damaged file that is found at most
        try:
            again = runner.run(files_everywhere)
        except (IntegrityError, StepFailed):
            continue
        break

    assert again.output[0].read_text() == first.output[0].read_text() == "text"


def test_a_cancelled_run_begins_no_further_step(runner: LocalRunner) -> None:
    @step(cache=False)
    def cancel_own_run(number: int) -> int:
        runner.cancel(runner.list_runs()[0].id)
        return number

    @pipeline
    def stopped() -> int:
        return add(cancel_own_run(1))

    with pytest.raises(RunCancelled) as cancelled:
        runner.run(stopped)
    run = runner.get_run(cancelled.value.run_id)
    assert run.status == "killed"
    assert run.steps["cancel_own_run"].status == "finished"
    assert run.steps["add"].status == "skipped"


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_a_killed_run(tmp_path: Path, workers: int) -> None:
    @step(cache=False)
    def interrupt(number: int) -> int:
        raise KeyboardInterrupt

    @pipeline
    def interrupted() -> int:
        return add(interrupt(add(1)))

    with LocalRunner(tmp_path / "pipelines", workers=workers) as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(interrupted)
        run = runner.list_runs()[0]
        assert run.status == "killed"
        assert [each.status for each in run.steps.values()] == ["finished", "killed", "skipped"]
        assert runner.list_runs(status="killed") == [run]


def test_a_signal_while_a_thread_works_leaves_a_killed_run(tmp_path: Path) -> None:
    script = tmp_path / "flow.py"
    script.write_text(
        "import os, signal, sys, threading\n"
        "import mlopskit as mk\n"
        "@mk.step\n"
        "def hang(n: int) -> int:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    threading.Event().wait(60)\n"
        "    return n\n"
        "@mk.pipeline\n"
        "def flow():\n"
        "    return hang(1)\n"
        "runner = mk.open_runner('local', workers=2)\n"
        "try:\n"
        "    runner.run(flow)\n"
        "except KeyboardInterrupt:\n"
        "    print(runner.list_runs()[0].status)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert done.stdout == "killed\n", done.stderr


RESUMED = """
import os, sys
from pathlib import Path
import mlopskit as mk
from mlopskit.pipelines import step_folder

@mk.step
def prepare(n: int) -> list:
    with open("prepared", "a") as file:
        file.write("x")
    return list(range(n))

@mk.step
def train(rows: list) -> int:
    (step_folder() / "half").write_text("written")
    if not Path("healthy").exists():
        print("in the middle", flush=True)
        sys.stdin.read()
    return sum(rows)

@mk.pipeline
def flow(n: int = 4):
    return train(prepare(n))

if __name__ == "__main__":
    runner = mk.open_runner("local", workers=int(sys.argv[1]))
    run = runner.run(flow)
    print(run.output, [step.cached for step in run.steps.values()])
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_resumes_where_it_stopped(tmp_path: Path, workers: int) -> None:
    (tmp_path / "flow.py").write_text(RESUMED)
    command = [sys.executable, "flow.py", str(workers)]
    with launched(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        with LocalRunner(tmp_path / ".mlopskit/pipelines") as watcher:
            assert watcher.list_runs()[0].status == "running"
            process.kill()
            process.wait()
            lost = watcher.list_runs()[0]
            assert lost.status == "lost"
            assert watcher.list_runs(status="lost") == [lost]
            assert watcher.list_runs(status="running") == []
            assert [each.status for each in lost.steps.values()] == ["finished", "lost"]

    (tmp_path / "healthy").touch()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "6 [True, False]\n", done.stderr
    assert (tmp_path / "prepared").read_text() == "x"
    assert list((tmp_path / ".mlopskit/pipelines/scratch").iterdir()) == []


def test_a_step_that_two_processes_want_is_made_by_one(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(
        "import sys\n"
        "import mlopskit as mk\n"
        "@mk.step\n"
        "def make(n: int) -> int:\n"
        "    with open('made', 'a') as file:\n"
        "        file.write('x')\n"
        "    return n\n"
        "@mk.pipeline\n"
        "def flow():\n"
        "    return [make(n) for n in range(20)]\n"
        "sys.stdin.read()\n"
        "assert mk.open_runner('local').run(flow).output == list(range(20))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "flow.py"], cwd=tmp_path, stdin=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert (tmp_path / "made").read_text() == "x" * 20


def test_a_change_in_a_helper_makes_only_what_needs_it_anew(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(
        "import mlopskit as mk\n"
        "import helpers\n"
        "@mk.step\n"
        "def load() -> int:\n"
        "    return 20\n"
        "@mk.step\n"
        "def scale(n: int) -> int:\n"
        "    return helpers.times(n)\n"
        "@mk.pipeline\n"
        "def flow():\n"
        "    return scale(load())\n"
        "run = mk.open_runner('local').run(flow)\n"
        "print(run.output, [step.cached for step in run.steps.values()])\n"
    )
    seen = []
    for factor in (2, 2, 3):
        (tmp_path / "helpers.py").write_text(
            f"FACTOR = {factor}\ndef times(n):\n    return n * FACTOR\n"
        )
        done = subprocess.run(
            [sys.executable, "-B", "flow.py"], cwd=tmp_path, capture_output=True, text=True
        )
        seen.append(done.stdout or done.stderr)

    assert seen == ["40 [False, False]\n", "40 [True, True]\n", "60 [True, False]\n"]


def test_a_run_inside_a_step_works(runner: LocalRunner) -> None:
    @step(cache=False)
    def inner(start: int) -> int:
        found: dict[str, Any] = runner.run(sums, start=start).output
        return int(found["all"][0])

    @pipeline
    def outer() -> int:
        return add(inner(1))

    assert runner.run(outer).output == 3


def test_a_run_inside_a_pipeline_that_is_traced_is_a_run_of_its_own(
    runner: LocalRunner,
) -> None:
    @step(cache=False)
    def calling(number: int) -> int:
        return add(number)

    @pipeline
    def inner() -> int:
        return calling(1)

    @pipeline
    def outer() -> int:
        return add(runner.run(inner).output)

    run = runner.run(outer)
    assert run.output == 3
    assert list(run.steps) == ["add"]


def test_a_run_of_another_thread_can_be_waited_for(runner: LocalRunner) -> None:
    begun, go = threading.Event(), threading.Event()

    @step(cache=False)
    def hold(number: int) -> int:
        begun.set()
        go.wait(timeout=30)
        return number

    @pipeline
    def held() -> int:
        return hold(7)

    thread = threading.Thread(target=lambda: runner.run(held))
    thread.start()
    assert begun.wait(timeout=30)
    running = runner.list_runs(status="running")[0]
    with pytest.raises(Unavailable, match="still runs after 0 s"):
        runner.wait(running.id, timeout_s=0)
    go.set()
    assert runner.wait(running.id, timeout_s=30).output == 7
    thread.join()


def test_a_step_folder_outside_a_run_is_a_folder_of_its_own() -> None:
    one, two = step_folder(), step_folder()

    assert one != two
    assert one.is_dir()
    one.rmdir()
    two.rmdir()


def test_a_lock_has_one_holder_and_leaves_no_file(tmp_path: Path) -> None:
    first = Lock.take(tmp_path / "locks/a")
    assert first is not None
    assert Lock.take(tmp_path / "locks/a") is None
    other = Lock.take(tmp_path / "locks/b")
    assert other is not None
    other.release()
    first.release()
    first.release()
    again = Lock.take(tmp_path / "locks/a")
    assert again is not None
    again.release()
    assert not (tmp_path / "locks/a").exists()


def test_many_threads_may_run_pipelines_on_one_runner(runner: LocalRunner) -> None:
    outputs: list[Any] = []

    def work(start: int) -> None:
        outputs.append(runner.run(sums, start=start % 3).output)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outputs) == 12
    assert len(runner.list_runs("sums", status="finished")) == 12


def test_a_child_that_was_forked_runs_pipelines_of_its_own(runner: LocalRunner) -> None:
    runner.run(sums, start=1)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if runner.run(sums, start=2).output["all"][0] == 3 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(runner.list_runs()) == 2


def test_a_declared_environment_and_a_version_are_part_of_the_key(runner: LocalRunner) -> None:
    def run(**options: Any) -> StepRun:
        @pipeline
        def flow() -> int:
            return step(name="same", **options)(add.function)(1)

        return runner.run(flow).steps["same"]

    keys = [
        run().key,
        run(version="2").key,
        run(environment=["pluggy"]).key,
        run(environment=["pluggy", "pydantic"]).key,
        run(environment=["not-installed-anywhere"]).key,
    ]
    assert len(set(keys)) == 5
    assert run(environment=["pydantic", "pluggy"]).cached


def test_a_file_given_as_a_param_counts_by_its_contents(
    runner: LocalRunner, tmp_path: Path
) -> None:
    data = tmp_path / "data.csv"

    @pipeline
    def reading(path: Path) -> str:
        return read(path)

    outputs = []
    for text in ("one", "one", "two"):
        data.write_text(text)
        run = runner.run(reading, data)
        outputs.append((run.output, run.steps["read"].cached))

    assert outputs == [("one", False), ("one", True), ("two", False)]


def test_a_full_disk_costs_the_cache_and_not_the_result(
    runner: LocalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Any) -> Any:
        raise StorageError("No space left on device.")

    runner.run(sums, start=0)
    monkeypatch.setattr(runner._store.blobs, "put", full)
    run = runner.run(files_everywhere)

    assert run.status == "finished"
    assert run.output[0].read_text() == "text"
    assert "No space left" in run.steps["write"].uncached_reason
    monkeypatch.undo()
    assert runner.run(files_everywhere).output[0].read_text() == "text"


def test_a_long_history_is_listed_by_its_end(runner: LocalRunner) -> None:
    for _ in range(30):
        runner.run(sums, start=1)

    assert len(runner.list_runs(limit=7)) == 7
    assert len(runner.list_runs(status="finished", limit=1000)) == 30

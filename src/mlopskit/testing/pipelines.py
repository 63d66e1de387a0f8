"""What every runner of pipelines keeps."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import InvalidInput, NotFound, StepFailed, Unavailable, Unsupported
from mlopskit.pipelines import (
    CAPABILITIES,
    NoValue,
    PipelineRun,
    Runner,
    pipeline,
    step,
    step_folder,
)
from mlopskit.testing.tool import ToolContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@step
def add(left: int, right: int = 1) -> int:
    """Return a sum."""
    return left + right


@step
def split(text: str) -> tuple[str, list[str]]:
    """Return the first word and the others."""
    first, *rest = text.split()
    return first, rest


@step
def join(*words: str, sep: str = "-") -> str:
    """Return the words as one text."""
    return sep.join(words)


@step
def describe(value: dict[str, Any]) -> list[str]:
    """Return the types of the items of a dict."""
    return [f"{key}:{type(item).__name__}" for key, item in value.items()]


@step
def echo(value: Any) -> Any:
    """Return what comes in."""
    return value


@step
def extended(items: list[int], salt: int = 0) -> list[int]:
    """Change what comes in, and return it."""
    items.append(len(items))
    return items


@step
def divide(left: float, right: float) -> float:
    """Return a quotient."""
    return left / right


@step
def write(text: str) -> Path:
    """Write a file, and return its path."""
    path = step_folder() / "text.txt"
    path.write_text(text, encoding="utf-8")
    return path


@step
def write_tree(names: list[str]) -> Path:
    """Write a folder with files, and return its path."""
    folder = step_folder() / "tree"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    (folder / "empty").mkdir(parents=True)
    return folder


@step
def read(path: Path) -> str:
    """Return a file's text."""
    return path.read_text(encoding="utf-8")


@step(retries=2, cache=False)
def succeed_later(counter: str) -> int:
    """Fail twice, then return how often it was called. Counts in a file of that name."""
    path = Path(counter)
    tries = int(path.read_text(encoding="utf-8") or 0) + 1 if path.exists() else 1
    path.write_text(str(tries), encoding="utf-8")
    if tries <= 2:
        raise RuntimeError(f"try {tries}")
    return tries


@step(cache=False)
def now() -> str:
    """Return something else every time."""
    return datetime.now(UTC).isoformat()


@pipeline
def sums(start: int, by: int = 10) -> dict[str, Any]:
    """Add three times."""
    first = add(start)
    second = add(first, right=by)
    return {"all": [first, second, add(second, second)], "by": by}


class RunnerContract(ToolContract):
    """What a runner promises. Give it `open_tool`: a function that opens it, on the same storage.

    Steps of a pipeline are functions of modules that are imported by name, this one's included.
    """

    interface = Runner
    vocabulary = CAPABILITIES

    @pytest.fixture
    def open_tool(self) -> Callable[[], Runner]:
        """Return a function that opens the runner; each call sees what the others stored."""
        raise NotImplementedError

    @pytest.fixture
    def tool(self, open_tool: Callable[[], Runner]) -> Iterator[Runner]:
        with open_tool() as runner:
            yield runner

    def needs(self, tool: Runner, capability: str) -> None:
        """Skip a test of what the runner declares it cannot do."""
        line = tool.capabilities[capability]
        if not line:
            pytest.skip(f"{capability} is absent: {line.note}")

    def test_a_run_returns_what_the_pipeline_returned_with_every_value_in_place(
        self, tool: Runner
    ) -> None:
        run = tool.run(sums, 1, by=5)

        assert run.output == {"all": [2, 7, 14], "by": 5}
        assert run.status == "finished"

    def test_the_same_pipeline_called_as_a_function_returns_the_same(self, tool: Runner) -> None:
        assert tool.run(sums, start=3).output == sums(3)

    def test_a_run_has_its_steps_by_name_in_the_order_of_their_calls(self, tool: Runner) -> None:
        run = tool.run(sums, start=1)

        assert list(run.steps) == ["add", "add-2", "add-3"]
        assert [step.step for step in run.steps.values()] == ["add", "add", "add"]
        assert [step.parents for step in run.steps.values()] == [(), ("add",), ("add-2",)]
        assert all(step.status == "finished" for step in run.steps.values())
        assert all((step.seconds or 0) >= 0 for step in run.steps.values())

    def test_a_run_knows_its_pipeline_its_params_and_its_times(self, tool: Runner) -> None:
        before = datetime.now(UTC)
        run = tool.run(sums, 1)

        assert run.pipeline == "sums"
        assert run.params == {"start": 1, "by": 10}
        assert run.ended_at is not None
        assert before <= run.started_at <= run.ended_at <= datetime.now(UTC)

    def test_values_keep_their_types_between_steps(self, tool: Runner) -> None:
        @pipeline
        def types() -> Any:
            value = {"int": 1, "float": 1.0, "bool": True, "none": None, "text": "1"}
            return describe(value), describe(echo(value))

        expected = ["int:int", "float:float", "bool:bool", "none:NoneType", "text:str"]
        assert list(tool.run(types).output) == [expected, expected]

    @pytest.mark.parametrize(
        "value",
        [
            0, -1, 2**53 + 1, 10**400, 0.1, -0.0, 1e-320, math.inf, True, None, "", "a\u202eb\n",
            "\ud800", b"\x00\xff", [], (), {}, [1, (2, [3])], {"$tuple": [1]}, {1: "a", (2,): None},
            {"b": 1, "a": 2}, [True, 1, 1.0, "1"],
        ],
        ids=repr,
    )  # fmt: skip
    def test_a_plain_value_comes_back_as_it_was(self, tool: Runner, value: Any) -> None:
        self.needs(tool, "values")

        @pipeline
        def there_and_back() -> Any:
            return echo(echo(value))

        for _ in range(2):  # the second time from the cache, where there is one
            assert repr(tool.run(there_and_back).output) == repr(value)

    def test_nan_stays_nan(self, tool: Runner) -> None:
        @pipeline
        def not_a_number() -> Any:
            return echo(math.nan)

        for _ in range(2):
            assert math.isnan(tool.run(not_a_number).output)

    def test_the_items_of_an_annotated_tuple_can_be_unpacked(self, tool: Runner) -> None:
        @pipeline
        def unpacking(text: str) -> str:
            first, rest = split(text)
            return join(first, rest[0], rest[-1])

        assert tool.run(unpacking, "a b c d").output == "a-b-d"

    def test_a_step_that_changes_what_it_was_given_changes_nothing_for_others(
        self, tool: Runner
    ) -> None:
        @pipeline
        def shared() -> Any:
            items = echo([7])
            return [extended(items), extended(items), items]

        for _ in range(2):
            assert tool.run(shared).output == [[7, 1], [7, 1], [7]]

    def test_a_param_that_two_steps_change_reaches_each_of_them_unchanged(
        self, tool: Runner
    ) -> None:
        @pipeline
        def given(items: list[int]) -> Any:
            return [extended(items), join("a"), extended(items, salt=1)]

        items = [7]
        for _ in range(2):
            assert tool.run(given, items).output == [[7, 1], "a", [7, 1]]
        assert items == [7]

    def test_a_file_comes_back_with_its_name_and_contents(self, tool: Runner) -> None:
        self.needs(tool, "values")

        @pipeline
        def writing() -> Any:
            path = write("Grüße")
            return {"path": path, "text": read(path)}

        for _ in range(2):
            output = tool.run(writing).output
            assert output["text"] == "Grüße"
            assert output["path"].name == "text.txt"
            assert output["path"].read_text(encoding="utf-8") == "Grüße"

    def test_a_folder_comes_back_whole(self, tool: Runner) -> None:
        self.needs(tool, "values")

        @pipeline
        def planting() -> Any:
            return write_tree(["a.txt", "deep/er/b.txt"])

        for _ in range(2):
            folder = tool.run(planting).output
            found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
            assert found == {"a.txt", "deep", "deep/er", "deep/er/b.txt", "empty"}
            assert (folder / "deep/er/b.txt").read_text(encoding="utf-8") == "deep/er/b.txt"

    def test_nothing_is_done_twice(self, tool: Runner) -> None:
        self.needs(tool, "cache")
        first = tool.run(sums, start=41)
        second = tool.run(sums, start=41)

        assert [step.cached for step in first.steps.values()] == [False] * 3
        assert [step.cached for step in second.steps.values()] == [True] * 3
        assert {step.cached_from for step in second.steps.values()} == {first.id}
        assert second.output == first.output

    def test_another_input_is_another_key(self, tool: Runner) -> None:
        self.needs(tool, "cache")
        tool.run(sums, start=41)
        run = tool.run(sums, start=41, by=11)

        assert [step.cached for step in run.steps.values()] == [True, False, False]
        assert run.output["all"] == [42, 53, 106]

    def test_one_and_true_and_one_point_nought_are_three_inputs(self, tool: Runner) -> None:
        self.needs(tool, "cache")

        @pipeline
        def same(value: Any) -> Any:
            return echo(value)

        values = [1, True, 1.0, "1"]
        assert [repr(tool.run(same, value).output) for value in values] == [repr(v) for v in values]

    def test_an_equal_value_from_a_step_that_ran_again_changes_nothing_after_it(
        self, tool: Runner
    ) -> None:
        self.needs(tool, "cache")

        @step(cache=False)
        def always() -> int:
            return 7

        @pipeline
        def cut_off() -> int:
            return add(always())

        tool.run(cut_off)
        run = tool.run(cut_off)
        assert {name: step.cached for name, step in run.steps.items()} == {
            "always": False,
            "add": True,
        }

    def test_a_step_or_a_pipeline_may_refuse_the_cache(self, tool: Runner) -> None:
        @pipeline
        def clock() -> str:
            return now()

        @pipeline(cache=False)
        def careful() -> int:
            return add(1)

        assert tool.run(clock).output != tool.run(clock).output
        tool.run(careful)
        assert not tool.run(careful).steps["add"].cached

    def test_a_failed_step_is_named_and_its_own_exception_is_the_cause(self, tool: Runner) -> None:
        @pipeline
        def failing() -> Any:
            bad = divide(1.0, 0.0)
            return echo(bad), add(40, 2)

        with pytest.raises(StepFailed, match=r"'divide' of pipeline 'failing'") as failed:
            tool.run(failing)
        run = tool.get_run(failed.value.run_id)
        assert failed.value.step == "divide"
        assert isinstance(failed.value.__cause__, ZeroDivisionError)
        assert run.status == "failed"
        assert {name: step.status for name, step in run.steps.items()} == {
            "divide": "failed",
            "echo": "skipped",
            "add": "finished",
        }
        assert "ZeroDivisionError" in (run.steps["divide"].error or "")
        assert "return left / right" in (run.steps["divide"].traceback or "")
        assert isinstance(run.output, NoValue)
        assert "divide" in run.output.reason

    def test_a_step_is_tried_again_as_often_as_it_asks_for(
        self, tool: Runner, tmp_path: Path
    ) -> None:
        self.needs(tool, "retries")

        @pipeline
        def stubborn() -> int:
            return succeed_later(str(tmp_path / "tries"))

        run = tool.run(stubborn)
        assert run.output == 3
        assert run.steps["succeed_later"].attempts == 3

    def test_params_that_the_pipeline_does_not_take_are_refused(self, tool: Runner) -> None:
        run: Any = tool.run
        for params in ({"start": 1, "bye": 2}, {}, {"by": 3}):
            with pytest.raises(InvalidInput, match=r"It takes \(start: .*by: .* = 10\)"):
                run(sums, **params)

    def test_a_run_is_read_back_as_it_was_returned(
        self, tool: Runner, open_tool: Callable[[], Runner]
    ) -> None:
        self.needs(tool, "history")
        run = tool.run(sums, start=1)
        with open_tool() as other:
            assert other.get_run(run.id) == run

    def test_runs_are_listed_the_latest_first_without_their_outputs(
        self, tool: Runner, open_tool: Callable[[], Runner]
    ) -> None:
        self.needs(tool, "history")

        @pipeline
        def other() -> int:
            return add(1)

        ids = [tool.run(sums, start=start).id for start in range(3)]
        tool.run(other)
        with open_tool() as later:
            found = later.list_runs("sums", status="finished")
            assert [run.id for run in found] == ids[::-1]
            assert [run.id for run in later.list_runs("sums", limit=2)] == ids[:0:-1]
            assert len(later.list_runs()) == 4
            assert later.list_runs("nothing") == later.list_runs(status="failed") == []
            assert all(isinstance(run.output, NoValue) for run in found)
            assert list(found[0].steps) == ["add", "add-2", "add-3"]

    def test_a_run_that_is_not_there_is_not_found(self, tool: Runner) -> None:
        asking: list[Callable[[str], Any]] = [tool.get_run, tool.wait]
        if "cancel" in tool.capabilities:
            asking.append(tool.cancel)
        for ask in asking:
            for name in ("nothing", "../../etc/passwd", "' or 1=1 --"):
                with pytest.raises(NotFound):
                    ask(name)

    def test_waiting_for_a_run_that_has_ended_returns_it(self, tool: Runner) -> None:
        run = tool.run(sums, start=1)

        assert tool.wait(run.id, timeout_s=0) == run

    def test_cancelling_a_run_that_has_ended_changes_nothing(self, tool: Runner) -> None:
        self.needs(tool, "cancel")
        run = tool.run(sums, start=1)
        tool.cancel(run.id)

        assert tool.get_run(run.id) == run

    def test_what_is_absent_is_refused_with_the_declared_reason(
        self, tool: Runner, tmp_path: Path
    ) -> None:
        calls: dict[str, Callable[[], Any]] = {
            "compile": lambda: tool.compile(sums, tmp_path / "sums.yaml"),
            "schedule": lambda: tool.schedule(sums, "0 3 * * *", start=1),
            "cancel": lambda: tool.cancel("any"),
        }
        for name, call in calls.items():
            line = tool.capabilities[name]
            if not line:
                with pytest.raises(Unsupported) as refused:
                    call()
                assert refused.value.reason == line.note

    def test_a_run_that_still_runs_is_not_waited_for_longer_than_asked(self, tool: Runner) -> None:
        """`wait` is written once, on `get_run`: a runner that overrides it keeps its promise."""
        if type(tool).wait is not Runner.wait:
            pytest.skip("it has a wait of its own")
        run = tool.run(sums, start=1).model_copy(update={"status": "running"})
        waited = _StillRunning(run)
        with pytest.raises(Unavailable, match="still runs after"):
            Runner.wait(waited, run.id, timeout_s=0.01)  # type: ignore[arg-type]  # only get_run is asked


class _StillRunning:
    def __init__(self, run: PipelineRun) -> None:
        self._run = run

    def get_run(self, id: str) -> PipelineRun:
        return self._run

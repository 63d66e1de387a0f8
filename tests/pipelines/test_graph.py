from __future__ import annotations

import operator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mlopskit.errors import InvalidInput, InvalidName
from mlopskit.pipelines import Promise, Step, pipeline, step
from mlopskit.pipelines.promises import resolve

pytestmark = pytest.mark.core


@step
def one(x: int = 1) -> int:
    """Return it."""
    return x


@step
def pair(x: int = 1) -> tuple[int, dict[str, int]]:
    return x, {"a": x}


def unmarked() -> tuple[Path, int]:
    return Path("a"), 1


class Two(NamedTuple):
    first: Any
    second: Any


def test_outside_a_runner_a_step_and_a_pipeline_are_plain_functions() -> None:
    @pipeline
    def flow(x: int) -> int:
        return one(x) + 1

    assert one(3) == 3
    assert vars(one)["__name__"] == "one"
    assert one.__doc__ == "Return it."
    assert flow(3) == 4


def test_tracing_runs_no_step_and_leaves_nothing_behind() -> None:
    ran = []

    @step
    def tell(x: int) -> int:
        ran.append(x)
        return x

    @pipeline
    def flow() -> int:
        return tell(tell(1))

    graph = flow.trace()

    assert ran == []
    assert [node.name for node in graph.nodes] == ["tell", "tell-2"]
    assert graph.nodes[1].parents == ("tell",)
    assert tell(5) == 5
    assert ran == [5]


def test_a_pipeline_that_fails_while_it_is_traced_leaves_nothing_behind() -> None:
    @pipeline
    def broken() -> int:
        one()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken.trace()
    assert one(2) == 2


def test_a_pipeline_inside_a_pipeline_joins_its_graph() -> None:
    @pipeline
    def inner(x: int) -> int:
        return one(x)

    @pipeline
    def outer() -> int:
        return inner(inner(1))

    assert [node.parents for node in outer.trace().nodes] == [(), ("one",)]


def test_promises_are_found_inside_lists_tuples_and_dicts() -> None:
    @pipeline
    def flow() -> Any:
        promises = [one(number) for number in range(4)]
        return one({"a": [promises[0], (promises[1],)], "b": Two(promises[3], 0)})  # type: ignore[arg-type]  # anything can be passed

    assert flow.trace().nodes[-1].parents == ("one", "one-2", "one-4")


def test_resolving_keeps_the_kinds_of_containers() -> None:
    promise = Promise("a")
    value = {"l": [promise], "t": (promise, 1), "n": Two(promise, 2), "same": [1]}
    resolved = resolve(value, lambda _: 7)

    assert resolved == {"l": [7], "t": (7, 1), "n": Two(7, 2), "same": [1]}
    assert type(resolved["n"]) is Two
    assert resolved["same"] is value["same"]
    assert value["l"] == [promise]


def test_defaults_and_keywords_make_the_same_arguments() -> None:
    @pipeline
    def flow() -> Any:
        return [one(), one(1), one(x=1)]

    arguments = [dict(node.arguments.arguments) for node in flow.trace().nodes]
    assert arguments == [{"x": 1}] * 3


def test_a_call_with_wrong_arguments_fails_where_it_stands() -> None:
    @pipeline
    def flow() -> Any:
        return one(y=1)  # type: ignore[call-arg]  # wrong on purpose

    with pytest.raises(TypeError, match="'y'"):
        flow.trace()


def test_an_annotated_tuple_is_unpacked_to_its_length() -> None:
    def untold() -> Any:
        return 1, 2

    @step
    def many() -> tuple[int, ...]:
        return 1, 2

    @pipeline
    def flow() -> Any:
        number, table = pair()
        path, _ = step(unmarked)()
        return [number, table["a"], path]

    assert [promise.path for promise in flow.trace().output] == [(0,), (1, "a"), (0,)]
    for unknown in (step(untold), many):
        with pytest.raises(InvalidInput, match="annotate the step"):
            pipeline(_unpacking(unknown)).trace()


def _unpacking(unknown: Any) -> Any:
    def flow() -> Any:
        a, b = unknown()
        return a, b

    return flow


@pytest.mark.parametrize(
    "use",
    [
        bool,
        lambda p: p + 1,
        lambda p: 1 - p,
        lambda p: p == 1,
        lambda p: p != 1,
        lambda p: p < 1,
        lambda p: 1 in p,
        lambda p: f"{p}",
        lambda p: p.shape,
        lambda p: p(),
        lambda p: [p][0 if p else 1],
        lambda p: operator.setitem(p, 0, 1),
        lambda p: [1, 2][p],
        float,
        open,
        Path,
        lambda p: [1][p[0]],
    ],
)
def test_what_needs_the_value_itself_is_refused_while_a_pipeline_is_built(use: Any) -> None:
    @pipeline
    def flow() -> Any:
        return use(one())

    with pytest.raises(InvalidInput, match=r"value of step 'one'.* Do this inside a step"):
        flow.trace()


def test_a_promise_of_another_pipeline_is_refused() -> None:
    kept: list[Any] = []

    @pipeline
    def first() -> None:
        kept.append(one())

    @pipeline
    def second() -> Any:
        return pair(kept[0])

    first.trace()
    with pytest.raises(InvalidInput, match="belongs to another pipeline"):
        second.trace()


def test_steps_of_one_name_get_names_of_their_own() -> None:
    def named(name: str) -> Step[..., int]:
        return step(name=name)(lambda: 1)

    names = ["a", "a-2", "a", "a", "a-2"]

    @pipeline
    def flow() -> Any:
        return [named(name)() for name in names]

    found = [node.name for node in flow.trace().nodes]
    assert found == ["a", "a-2", "a-3", "a-4", "a-2-2"]


async def later() -> int:
    return 1


def yielding() -> Any:
    yield 1


@pytest.mark.parametrize("function", [later, yielding, print, int, 3, None.__class__])
def test_only_plain_functions_become_steps_and_pipelines(function: Any) -> None:
    for decorate in (step, pipeline):
        with pytest.raises(InvalidInput, match=r"@\w+ decorates|is asynchronous|is a generator"):
            decorate(function)


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InvalidInput, match="retries=-1"):
        step(retries=-1)(unmarked)
    with pytest.raises(InvalidInput, match=r"write environment=\['numpy'\]"):
        step(environment="numpy")(unmarked)
    with pytest.raises(InvalidName):
        step(name="a\nb")(unmarked)

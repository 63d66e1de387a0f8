"""Steps, pipelines, and the graph that tracing a pipeline yields.

A step is a plain function, and so is a pipeline: both work when they are called. Only while a
runner traces a pipeline does calling a step add a node to a graph and return a promise.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections import Counter
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    TypeVar,
    cast,
    get_args,
    get_origin,
    overload,
)

from mlopskit.errors import InvalidInput
from mlopskit.names import check_label
from mlopskit.pipelines.promises import Promise, find_promises, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

P = ParamSpec("P")
R = TypeVar("R")

_tracing: ContextVar[Trace | None] = ContextVar("mlopskit_tracing", default=None)


class Step(Generic[P, R]):
    """A function that can be a node of a pipeline. Calling it elsewhere just calls the function.

    Attributes:
        function: The function itself.
        name: What the step is called in runs.
        cache: Whether a call that was made before, by this or an earlier run, is not repeated.
        version: A text of your choice; another one makes every earlier result obsolete.
        retries: How often it is tried again when it raises an `Exception`.
        retry_wait_s: Seconds before the first further try; twice as long before each next.
        environment: Distributions whose installed versions are part of the cache key.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        cache: bool = True,
        version: str = "",
        retries: int = 0,
        retry_wait_s: float = 0.0,
        environment: Sequence[str] = (),
    ) -> None:
        _check_function("step", function)
        if retries < 0 or retry_wait_s < 0:
            raise InvalidInput(
                f"Step {function.__name__!r} has retries={retries} and "
                f"retry_wait_s={retry_wait_s}; neither can be negative."
            )
        self.function = function
        self.name = check_label("step", function.__name__ if name is None else name)
        self.cache = cache
        self.version = version
        self.retries = retries
        self.retry_wait_s = retry_wait_s
        self.environment = _texts("environment", environment)
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function; while a pipeline is traced, add a node and return its promise."""
        trace = _tracing.get()
        if trace is None:
            return self.function(*args, **kwargs)
        return cast("R", trace.add(self, args, kwargs))

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The signature of the function."""
        return inspect.signature(self.function)

    def __repr__(self) -> str:
        return f"<Step {self.name!r}>"


class Pipeline(Generic[P, R]):
    """A function that calls steps. Calling it runs them as plain functions, without a runner.

    Attributes:
        function: The function itself.
        name: What the pipeline is called in runs.
        cache: Whether its steps may be cached; False outranks what they say themselves.
    """

    def __init__(
        self, function: Callable[P, R], *, name: str | None = None, cache: bool = True
    ) -> None:
        _check_function("pipeline", function)
        self.function = function
        self.name = check_label("pipeline", function.__name__ if name is None else name)
        self.cache = cache
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function. Inside another pipeline that is traced, its steps join that one."""
        return self.function(*args, **kwargs)

    def bind(self, *args: Any, **params: Any) -> dict[str, Any]:
        """Return the params by name, defaults filled in.

        Raises:
            InvalidInput: If they are not those that the pipeline takes.
        """
        return dict(self._bound(args, params).arguments)

    def trace(self, *args: Any, **params: Any) -> Graph:
        """Call the function once with promises for the values of its steps, and return the graph.

        Raises:
            InvalidInput: If the params are not those that the pipeline takes, or the function
                uses the value of a step where only a step may.
        """
        bound = self._bound(args, params)
        trace = Trace()
        token = _tracing.set(trace)
        try:
            output = self.function(*bound.args, **bound.kwargs)
        finally:
            _tracing.reset(token)
        return Graph(self.name, tuple(trace.nodes.values()), output, dict(bound.arguments))

    def _bound(self, args: tuple[Any, ...], params: dict[str, Any]) -> inspect.BoundArguments:
        signature = inspect.signature(self.function)
        try:
            bound = signature.bind(*args, **params)
        except TypeError as exc:
            raise InvalidInput(
                f"Pipeline {self.name!r} cannot be run with these params: {exc}. "
                f"It takes {signature.replace(return_annotation=inspect.Signature.empty)}."
            ) from exc
        bound.apply_defaults()
        return bound

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r}>"


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(
    *,
    name: str | None = None,
    cache: bool = True,
    version: str = "",
    retries: int = 0,
    retry_wait_s: float = 0.0,
    environment: Sequence[str] = (),
) -> Callable[[Callable[P, R]], Step[P, R]]: ...


def step(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a step of pipelines: ``@step``, or ``@step(retries=2, cache=False)``.

    Args:
        function: The function; it stays callable as it is.
        options: ``name``, ``cache``, ``version``, ``retries``, ``retry_wait_s`` and
            ``environment``, as the attributes of `Step`.

    Raises:
        InvalidInput: If it is no plain function.
        InvalidName: If it cannot be called that.
    """
    if function is not None:
        return Step(function)
    return lambda decorated: Step(decorated, **options)


@overload
def pipeline(function: Callable[P, R], /) -> Pipeline[P, R]: ...


@overload
def pipeline(
    *, name: str | None = None, cache: bool = True
) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...


def pipeline(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function that calls steps a pipeline: ``@pipeline``, or ``@pipeline(name="daily")``.

    Args:
        function: The function; it stays callable as it is.
        options: ``name`` and ``cache``, as the attributes of `Pipeline`.

    Raises:
        InvalidInput: If it is no plain function.
        InvalidName: If it cannot be called that.
    """
    if function is not None:
        return Pipeline(function)
    return lambda decorated: Pipeline(decorated, **options)


@dataclass(frozen=True, eq=False)
class Node:
    """One call of a step in a graph.

    Attributes:
        name: The step's name, with ``-2``, ``-3`` for later calls of steps of that name.
        step: The step.
        arguments: What it was called with by parameter, defaults filled in, promises unresolved.
        parents: The names of the nodes whose values it needs, in the order of the arguments.
    """

    name: str
    step: Step[..., Any]
    arguments: inspect.BoundArguments
    parents: tuple[str, ...]

    def bound(self, arguments: dict[str, Any]) -> inspect.BoundArguments:
        """Return arguments by parameter in the form in which the function takes them."""
        return inspect.BoundArguments(self.step.signature, arguments)


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced pipeline: its nodes in the order of the calls, so that parents come first.

    Attributes:
        pipeline: The name of the pipeline.
        nodes: The calls of steps.
        output: What the function returned, promises unresolved.
        params: What the function was given, by name.
    """

    pipeline: str
    nodes: tuple[Node, ...]
    output: Any
    params: Mapping[str, Any]


@dataclass
class Trace:
    """Collects the nodes of the pipeline that is being traced."""

    nodes: dict[str, Node] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    def add(self, called: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Promise:
        """Add a call as a node, and return the promise of its value."""
        bound = called.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        promises = find_promises(bound.arguments)
        strangers = [promise for promise in promises if promise.node not in self.nodes]
        if strangers:
            refuse(strangers[0], "belongs to another pipeline")
        name = self._free_name(called.name)
        parents = tuple(dict.fromkeys(promise.node for promise in promises))
        self.nodes[name] = Node(name, called, bound, parents)
        return Promise(name, size=_tuple_size(called.function))

    def _free_name(self, name: str) -> str:
        while True:
            self.calls[name] += 1
            count = self.calls[name]
            free = name if count == 1 else f"{name}-{count}"
            if free not in self.nodes:
                return free


@contextmanager
def not_tracing() -> Iterator[None]:
    """Let steps be plain functions again, for a run that a traced pipeline starts."""
    token = _tracing.set(None)
    try:
        yield
    finally:
        _tracing.reset(token)


def _check_function(kind: str, function: Any) -> None:
    if not inspect.isfunction(function):
        raise InvalidInput(f"@{kind} decorates a plain function, and {function!r} is none.")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidInput(
            f"{function.__qualname__!r} is asynchronous; a {kind} is a plain function, "
            "and may call asyncio.run inside."
        )
    if inspect.isgeneratorfunction(function):
        raise InvalidInput(
            f"{function.__qualname__!r} is a generator; a {kind} returns its value, so return a "
            "list of what it yields."
        )


def _texts(option: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise InvalidInput(f"{option}={values!r} is one text; write {option}=[{values!r}].")
    return tuple(values)


def _tuple_size(function: Callable[..., Any]) -> int | None:
    """Read from a function's annotation how many items the tuple has that it returns."""
    annotation = getattr(function, "__annotations__", {}).get("return")
    if isinstance(annotation, str):
        return _written_tuple_size(annotation)
    items = get_args(annotation)
    if get_origin(annotation) is not tuple or Ellipsis in items:
        return None
    return len(items)


def _written_tuple_size(annotation: str) -> int | None:
    """Do the same for an annotation that is text, which may name what exists only for checkers."""
    try:
        node = ast.parse(annotation, mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(node, ast.Subscript) or "tuple" not in ast.unparse(node.value).lower():
        return None
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if any(isinstance(item, ast.Constant) and item.value is Ellipsis for item in items):
        return None
    return len(items)

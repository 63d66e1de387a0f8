"""Promises: what a step returns while a pipeline is being traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from mlopskit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Promise:
    """Stands for the value of a step, or a part of it, while a pipeline is being traced.

    It can be passed to other steps (also inside lists, tuples and dicts), returned, indexed, and
    unpacked where the step's annotation says how many there are: ``-> tuple[Path, dict]``.
    Everything else needs the value itself, and so belongs into a step.
    """

    __slots__ = ("node", "path", "size")

    def __init__(self, node: str, path: tuple[Any, ...] = (), size: int | None = None) -> None:
        self.node: Final = node
        self.path: Final = path
        self.size: Final = size

    def __getitem__(self, index: Any) -> Promise:
        """Return the promise of one item of the value."""
        if find_promises(index):
            refuse(self, "is indexed by the value of another step")
        return Promise(self.node, (*self.path, index))

    def __iter__(self) -> Iterator[Promise]:
        if self.size is None:
            refuse(
                self,
                "is unpacked, and nothing says how many items it has; annotate the step with "
                "'-> tuple[..., ...]' or use indexes",
            )
        return iter([self[index] for index in range(self.size)])

    def __getattr__(self, name: str) -> NoReturn:
        # Python and its tools probe for special names; only a plain one is a user's mistake.
        if name.startswith("__"):
            raise AttributeError(name)
        refuse(self, f"is asked for its attribute {name!r}")

    def __eq__(self, other: object) -> bool:
        if self is not other:
            refuse(self, "is compared")
        return True

    __hash__ = object.__hash__

    def __format__(self, spec: str) -> NoReturn:
        refuse(self, "is formatted as text")

    def __repr__(self) -> str:
        return f"<value of step {self.node!r}{''.join(f'[{i!r}]' for i in self.path)}>"


def _operator(symbol: str) -> Callable[..., NoReturn]:
    def operate(self: Promise, *_: Any, **__: Any) -> NoReturn:
        refuse(self, f"is used with {symbol!r}")

    return operate


for _name, _symbol in {
    "bool": "if", "call": "()", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "add": "+",
    "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
    "matmul": "@", "and": "&", "or": "|", "radd": "+", "rsub": "-", "rmul": "*",
    "rtruediv": "/", "rmod": "%", "neg": "-", "contains": "in", "int": "int()",
    "float": "float()", "index": "int()", "fspath": "open()", "setitem": "[] =",
    "enter": "with",
}.items():  # fmt: skip
    setattr(Promise, f"__{_name}__", _operator(_symbol))


def find_promises(value: Any) -> list[Promise]:
    """Find the promises inside lists, tuples and dicts, in order."""
    if isinstance(value, Promise):
        return [value]
    if isinstance(value, dict):
        return [each for item in value.values() for each in find_promises(item)]
    if isinstance(value, list | tuple):
        return [each for item in value for each in find_promises(item)]
    return []


def resolve(value: Any, values: Callable[[Promise], Any]) -> Any:
    """Return a copy of nested lists, tuples and dicts with every promise replaced by its value.

    What holds no promise is returned as it is.
    """
    if isinstance(value, Promise):
        return values(value)
    if not find_promises(value):
        return value
    if isinstance(value, dict):
        return {key: resolve(item, values) for key, item in value.items()}
    items = [resolve(item, values) for item in value]
    if hasattr(value, "_fields"):
        return type(value)(*items)  # a named tuple
    return items if isinstance(value, list) else tuple(items)


def refuse(promise: Promise, use: str) -> NoReturn:
    """Say that the value of a step is not there while a pipeline is being built."""
    raise InvalidInput(
        f"{promise!r} {use}. While a pipeline is being built its steps have not run, so their "
        "values can only be passed to steps, indexed or returned. Do this inside a step."
    )

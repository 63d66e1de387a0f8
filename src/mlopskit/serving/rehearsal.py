"""A version is asked its example before it answers anybody, and held to what it should say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import BackendError, InvalidInput, MlopskitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    Array = np.ndarray[Any, Any]

# Other machines and library versions sum in another order.
RELATIVE: Final = 1e-4
ABSOLUTE: Final = 1e-6


class Rehearsal:
    """What a version is asked before it is put in service.

    Args:
        example: The inputs, or the inputs and the outputs that they should have, by name. Without
            outputs the version only has to answer. None asks nothing.

    Raises:
        InvalidInput: If it is none of these.
    """

    def __init__(self, example: Any) -> None:
        given = example if isinstance(example, tuple | list) else (example, {})
        if example is not None and (len(given) != 2 or not all(map(_is_mapping, given))):
            raise InvalidInput(
                "An example is a mapping of inputs, or a pair: inputs and the outputs that they "
                "should have. registry.example(name, ref) returns one."
            )
        self._inputs: Mapping[str, Any] | None = None if example is None else given[0]
        self._outputs: Mapping[str, Any] = given[1] or {}

    def ask(
        self, name: str, version: str, answer: Callable[[Mapping[str, Any]], dict[str, Array]]
    ) -> None:
        """Ask once, and compare.

        Raises:
            BackendError: If the version fails, or answers otherwise than it should.
        """
        if self._inputs is None:
            return
        what = f"Version {version!r} of {name!r}"
        try:
            given = answer(self._inputs)
        except MlopskitError as exc:
            raise BackendError(
                f"{what} does not answer its own example: {exc} Nothing was deployed."
            ) from exc
        for output, expected in self._outputs.items():
            if (reason := _differs(given.get(output), expected)) is not None:
                raise BackendError(
                    f"{what} answers its own example otherwise than it should: the output "
                    f"{output!r} {reason}. Nothing was deployed."
                )


def _is_mapping(value: Any) -> bool:
    return hasattr(value, "items")


def _differs(given: Array | None, expected: Any) -> str | None:
    import numpy as np  # noqa: PLC0415 - the interface is imported without numpy

    wanted = np.asarray(expected)
    if given is None:
        return "is missing"
    if given.shape != wanted.shape:
        return f"has the shape {given.shape} and not {wanted.shape}"
    if wanted.dtype.kind == "f" or given.dtype.kind == "f":
        near = np.isclose(given, wanted, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    elif wanted.dtype.kind in "OSU":
        near = np.vectorize(_text, otypes=[object])(given) == np.vectorize(_text, otypes=[object])(
            wanted
        )
    else:
        near = given == wanted
    if bool(np.all(near)):
        return None
    at = tuple(int(index) for index in np.argwhere(~near)[0])
    return f"is {given[at]!r} and not {wanted[at]!r} at {list(at)}"


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

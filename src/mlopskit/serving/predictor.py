"""What a model looks like to a server: a class that loads itself and answers dicts of arrays."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from mlopskit.errors import BackendError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import numpy as np

    from mlopskit.serving.entities import TensorSpec

    Array = np.ndarray[Any, Any]


class Predictor(ABC):
    """One model behind every door: in process, over HTTP, and wherever a backend takes it.

    ``predict`` may be called by several threads at once; set ``concurrent = False`` on the class
    to have the calls come one by one. It raises `mlopskit.errors.InvalidInput` to blame the
    request: its text goes to the caller. Any other exception is the model's own failure: the caller
    learns only that it happened, and the log says why.

    Attributes:
        inputs: The inputs that it takes. Where they are declared, a request with other names,
            types or shapes never reaches ``predict``. None takes what comes.
        outputs: The outputs that it gives. Where they are declared, another answer is a failure.
        concurrent: Whether several threads may be in ``predict`` at once.
    """

    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    concurrent: ClassVar[bool] = True

    def load(self, path: str | PathLike[str] | None) -> None:  # noqa: B027 - not all have files
        """Make ready to predict. Called once, before the first request, with the option ``path``.

        A predictor that is handed over as an object and without a path is taken to be loaded.
        """

    @abstractmethod
    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Return arrays by output name for arrays by input name.

        The arrays are the caller's own and may be changed. An input of datatype BYTES is an array
        of objects, all ``bytes``; `text` decodes it.
        """

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Release what the model holds, after its last request.

        Called only on what the server made itself, from a class; an object stays its owner's.
        """


class ArrayPredictor(Predictor):
    """Serves an object that predicts from a two-dimensional array, as scikit-learn's models do.

    It takes one input of two dimensions, whatever its name (write ``input``). It answers with
    ``probabilities`` (FP64) where the model has ``predict_proba``, and else with ``prediction``.
    """

    def __init__(self, model: Any) -> None:
        proba = getattr(model, "predict_proba", None)
        self._call: Any = proba if callable(proba) else model.predict
        self._output = "probabilities" if callable(proba) else "prediction"
        self._columns: int | None = getattr(model, "n_features_in_", None)

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Return ``probabilities`` or ``prediction`` for the rows of the one input."""
        if len(inputs) != 1:
            raise InvalidInput(
                f"This model takes one input, named as you like, and the request has {len(inputs)}."
            )
        ((name, rows),) = inputs.items()
        if rows.ndim != 2:
            raise InvalidInput(f"Input {name!r} has {rows.ndim} dimensions; this model takes 2.")
        if self._columns is not None and rows.shape[1] != self._columns:
            raise InvalidInput(
                f"Input {name!r} has {rows.shape[1]} columns; this model takes {self._columns}."
            )
        return {self._output: self._call(rows)}


def as_predictor(source: Any, options: Mapping[str, Any]) -> Predictor:
    """Return a loaded predictor for whatever `Server.deploy` takes.

    Raises:
        InvalidInput: If the source cannot be served, or an option other than ``path`` is given.
        BackendError: If loading fails; the model's own exception is the cause.
    """
    unknown = sorted(set(options) - {"path"})
    if unknown:
        raise InvalidInput(f"There is no option {unknown[0]!r} of deploy here. Known: path.")
    predictor = _predictor(source)
    if inspect.isclass(source) or "path" in options:
        try:
            predictor.load(options.get("path"))
        except Exception as exc:
            kind = type(predictor).__name__
            raise BackendError(
                f"{kind}.load failed ({type(exc).__name__}: {exc}). Nothing was deployed."
            ) from exc
    return predictor


def text(array: Array) -> Array:
    """Return an array of texts for an array of UTF-8 bytes, of the same shape.

    Raises:
        InvalidInput: If an element is not valid UTF-8.
    """
    import numpy as np  # noqa: PLC0415 - the interface is imported without numpy

    found = np.empty(array.size, dtype=object)
    try:
        found[:] = [e.decode() if isinstance(e, bytes) else str(e) for e in array.ravel().tolist()]
    except UnicodeDecodeError as exc:
        raise InvalidInput("A text is not valid UTF-8.") from exc
    return found.reshape(array.shape)


def _predictor(source: Any) -> Predictor:
    if isinstance(source, Predictor):
        return source
    if inspect.isclass(source):
        if not issubclass(source, Predictor):
            raise InvalidInput(
                f"The class {source.__name__!r} cannot be served. Subclass mlopskit.Predictor, or "
                "give an object with predict_proba or predict."
            )
        try:
            return source()
        except Exception as exc:
            raise BackendError(
                f"{source.__name__}() failed ({type(exc).__name__}: {exc}). Nothing was deployed."
            ) from exc
    if callable(getattr(source, "predict_proba", None)) or callable(
        getattr(source, "predict", None)
    ):
        return ArrayPredictor(source)
    raise InvalidInput(
        f"An object of type {type(source).__name__!r} cannot be served. Give a mlopskit.Predictor, "
        "a subclass of it, or an object with predict_proba or predict."
    )

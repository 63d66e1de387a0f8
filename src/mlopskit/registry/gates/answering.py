"""How a model that the registry has loaded is asked: each library has a way of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.registry import examples
from mlopskit.registry.flavors.lazily import is_a, library

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

# What an array is called in an example that was registered as one array.
_ALONE: Final = "input"
# https://onnxruntime.ai/docs/api/python: what a session says of an input's type.
_ONNX_TYPES: Final = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class Example(dict[str, "NDArray[Any]"]):
    """The arrays of a registered example, which knows no frames: a column is an array."""


def natural(inputs: Any, model: Any = None) -> Any:
    """Return inputs as they were before they became an example; what is none stays as it is.

    An array that stands alone is that array; columns are a frame of pandas, or where that is not
    installed an array of two dimensions if all are numbers; anything else is a mapping.

    Args:
        inputs: What a model is asked with.
        model: The model, which may know the name of its only column.
    """
    if not isinstance(inputs, Example):
        return inputs
    if set(inputs) == {_ALONE} and list(getattr(model, "feature_names_in_", ())) != [_ALONE]:
        return inputs[_ALONE]
    if not _are_columns(inputs):
        return next(iter(inputs.values())) if len(inputs) == 1 else dict(inputs)
    try:
        import pandas as pd  # noqa: PLC0415 - the core works without pandas
    except ModuleNotFoundError:
        numbers = all(array.dtype.kind in "biuf" for array in inputs.values())
        return _side_by_side(inputs) if numbers else dict(inputs)
    return pd.DataFrame(dict(inputs))


def way_of(model: Any, inputs: Any) -> Callable[[], Any]:
    """Return what asks a model once, in the way of its library.

    What is made once for all requests, such as a session of ONNX Runtime, is made here; what each
    request takes, such as a ``DMatrix``, is made when it is asked.

    Raises:
        InvalidInput: If the model has no way to be asked, or other inputs than these.
        MissingDependency: If what runs the model is not installed.
    """
    for fits, way in _WAYS:
        if fits(model):
            return way(model, inputs)
    if callable(getattr(model, "predict", None)):
        return partial(model.predict, natural(inputs, model))
    if callable(model):
        return partial(model, natural(inputs, model))
    kind = type(model)
    raise InvalidInput(
        f"A {kind.__module__}.{kind.__qualname__} has no predict(), and is no function: it cannot "
        "be asked. Pass predict=, a function of the model and its inputs."
    )


def _predictor(model: Any, inputs: Any) -> Callable[[], Any]:
    """Ask with arrays by name, which are the predictor's to change, texts being bytes."""
    arrays = {name: _bytes(array) for name, array in _arrays(inputs).items()}
    return lambda: model.predict({name: array.copy() for name, array in arrays.items()})


def _transformer(model: Any, inputs: Any) -> Callable[[], Any]:
    """Ask with tensors by name, such as ``input_ids``; an array that stands alone comes first."""
    torch = library("torch", "A model of transformers", "torch")
    arrays = _arrays(inputs)
    alone = set(arrays) == {_ALONE}

    def ask() -> Any:
        given = {name: torch.as_tensor(array) for name, array in arrays.items()}
        with torch.no_grad():
            return model(given[_ALONE]) if alone else model(**given)

    return ask


def _module(model: Any, inputs: Any) -> Callable[[], Any]:
    """Ask with tensors, in the order of the example, as the module was exported."""
    torch = library("torch", "A module of PyTorch", "torch")
    arrays = list(_arrays(inputs).values())

    def ask() -> Any:
        with torch.no_grad():
            return model(*map(torch.as_tensor, arrays))

    return ask


def _keras(model: Any, inputs: Any) -> Callable[[], Any]:
    """Ask for one batch, which draws no bar of progress: one array, or arrays by name or place."""
    arrays = _arrays(inputs)
    names = [each.name for each in getattr(model, "inputs", None) or ()]
    if len(arrays) == 1:
        given: Any = next(iter(arrays.values()))
    elif len(names) == 1 and _are_columns(arrays):
        given = _side_by_side(arrays)
    else:
        given = dict(arrays) if set(arrays) == set(names) else list(arrays.values())
    return partial(model.predict_on_batch, given)


def _graph(model: Any, inputs: Any) -> Callable[[], Any]:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as exc:  # The extra has what reads graphs, and not what runs them.
        raise MissingDependency(
            "Asking an ONNX graph", "onnxruntime", "pip install onnxruntime"
        ) from exc
    providers = ["CPUExecutionProvider"]
    session = runtime.InferenceSession(model.SerializeToString(), providers=providers)
    return _session(session, inputs)


def _session(session: Any, inputs: Any) -> Callable[[], Any]:
    """Ask with arrays by the graph's names, or else in their order, in the graph's types."""
    arrays, specs = _arrays(inputs), session.get_inputs()
    names = [spec.name for spec in specs]
    if len(names) == 1 and len(arrays) > 1 and _are_columns(arrays):
        arrays = {names[0]: _side_by_side(arrays)}
    if len(arrays) != len(names):
        raise InvalidInput(
            f"The graph takes {', '.join(names)}, and is to be asked with {', '.join(arrays)}."
        )
    if set(arrays) != set(names):
        arrays = dict(zip(names, arrays.values(), strict=True))
    given = {spec.name: _as_declared(arrays[spec.name], spec) for spec in specs}
    return partial(session.run, None, given)


def _booster(model: Any, inputs: Any) -> Callable[[], Any]:
    """Ask with a ``DMatrix`` of a frame, or of an array whose columns are the model's."""
    xgboost = library("xgboost", "A Booster", "xgboost")
    if is_a(inputs, "xgboost", "DMatrix"):
        return partial(model.predict, inputs)
    given = _table(inputs, model)
    names = None if hasattr(given, "columns") else model.feature_names
    return lambda: model.predict(xgboost.DMatrix(given, feature_names=names))


def _lightgbm(model: Any, inputs: Any) -> Callable[[], Any]:
    return partial(model.predict, _table(inputs, model))


_WAYS: Final[tuple[tuple[Callable[[Any], bool], Callable[[Any, Any], Callable[[], Any]]], ...]] = (
    (lambda model: is_a(model, "mlopskit.serving.predictor", "Predictor"), _predictor),
    (lambda model: is_a(model, "transformers", "PreTrainedModel"), _transformer),
    (lambda model: is_a(model, "keras", "Model"), _keras),
    (lambda model: is_a(model, "torch", "Module"), _module),
    (lambda model: is_a(model, "onnx", "ModelProto"), _graph),
    (lambda model: is_a(model, "onnxruntime", "InferenceSession"), _session),
    (lambda model: is_a(model, "xgboost", "Booster"), _booster),
    (lambda model: is_a(model, "lightgbm", "Booster"), _lightgbm),
)


def _arrays(inputs: Any) -> Arrays:
    return inputs if isinstance(inputs, Example) else examples.as_arrays(inputs, _ALONE)


def _table(inputs: Any, model: Any) -> Any:
    """Return rows of two dimensions: a frame, or an array."""
    given = natural(inputs, model)
    if isinstance(given, Mapping):
        return _side_by_side(_arrays(given))
    if getattr(given, "ndim", 2) == 1:
        return given.reshape(-1, 1)
    return given


def _are_columns(arrays: Arrays) -> bool:
    return all(array.ndim == 1 for array in arrays.values())


def _side_by_side(arrays: Arrays) -> NDArray[Any]:
    """Return one array of two dimensions that has columns side by side."""
    import numpy as np  # noqa: PLC0415 - the core works without NumPy

    found: NDArray[Any] = np.column_stack(list(arrays.values()))
    return found


def _as_declared(array: NDArray[Any], spec: Any) -> NDArray[Any]:
    """Return an array as a graph declares it: columns have one column, floats their width."""
    import numpy as np  # noqa: PLC0415 - the core works without NumPy

    if array.ndim == 1 and len(spec.shape) == 2:
        array = array.reshape(-1, 1)
    wanted = np.dtype(_ONNX_TYPES.get(spec.type, array.dtype))
    return array.astype(wanted) if np.can_cast(array.dtype, wanted, "same_kind") else array


def _bytes(array: NDArray[Any]) -> NDArray[Any]:
    """Return texts as a server passes them on: objects that are bytes."""
    if array.dtype.kind not in "OU":
        return array
    found = array.astype(object)
    for at, each in enumerate(array.flat):
        found.flat[at] = each.encode() if isinstance(each, str) else each
    return found

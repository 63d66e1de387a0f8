"""ONNX graphs: data for a runtime, checked and returned as an ``onnx.ModelProto``."""

from __future__ import annotations

from math import prod
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, MissingDependency

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.registry.flavors import Files

TAKES = "an onnx.ModelProto"
LIBRARIES: tuple[str, ...] = ("onnx",)
SUFFIXES: tuple[str, ...] = (".onnx",)
FOLDERS = True
FILE: Final = "model.onnx"
# Operators of the ONNX standard. Those of other domains need a library that the graph's user loads.
DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml")
_BITS: Final = {4: 16, 5: 16, 10: 16, 12: 32, 16: 16, 1: 32, 6: 32, 11: 64, 7: 64, 13: 64}
_BITS_SMALL: Final = {14: 64, 15: 128, 21: 4, 22: 4, 23: 4}


def takes(model: Any, example: Any = None) -> bool:  # noqa: ARG001
    """Tell whether an object is a model of the onnx package."""
    kind = type(model)
    return kind.__name__ == "ModelProto" and kind.__module__.startswith("onnx")


def recognises(files: Files) -> bool:
    """Go by the name, as the format has no mark, and by the first byte that every writer writes."""
    graphs = [path for name, path in files if name.lower().endswith(".onnx") and "/" not in name]
    if len(graphs) != 1:
        return False
    with graphs[0].open("rb") as file:
        return file.read(1) == b"\x08"


def save(model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG001 - no tracing
    """Write the graph with its weights inside.

    Raises:
        InvalidModel: If it would not be loaded again.
    """
    _check(_onnx(), model, folder, "the ModelProto")
    try:
        (folder / FILE).write_bytes(model.SerializeToString())
    except ValueError as exc:
        raise InvalidModel(f"onnx cannot save the ModelProto: {exc}") from exc


def load(folder: Path, label: str, *, trusted: bool) -> Any:  # noqa: ARG001 - trust changes nothing
    """Read and check a graph, with the weights that lie beside it.

    Raises:
        InvalidModel: If it is broken, names a file outside its folder or an operator of its own.
    """
    onnx = _onnx()
    (path,) = (each for each in folder.iterdir() if each.name.lower().endswith(".onnx"))
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        _check(onnx, model, folder, label)
        onnx.load_external_data_for_model(model, str(folder))
        onnx.checker.check_model(str(path))
    except InvalidModel:
        raise
    except Exception as exc:  # The checker, protobuf and NumPy each have their own.
        raise InvalidModel(f"{label} is no sound ONNX graph: {exc}") from exc
    return model


def _check(onnx: Any, model: Any, folder: Path, label: str) -> None:
    for tensor in _tensors(model):
        _check_tensor(onnx, tensor, folder, label)
    local = {(each.domain, each.name) for each in model.functions}
    for node in _nodes(model):
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in local:
            raise InvalidModel(
                f"{label} uses the operator {node.op_type!r} of {node.domain!r}, which is not of "
                "the ONNX standard. Get its files with download()."
            )


def _check_tensor(onnx: Any, tensor: Any, folder: Path, label: str) -> None:
    if any(size < 0 for size in tensor.dims):
        raise InvalidModel(f"{label} holds a tensor of shape {list(tensor.dims)}.")
    bits = {**_BITS, **_BITS_SMALL}.get(tensor.data_type, 8)
    needed = (prod(tensor.dims) * bits + 7) // 8
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        entries = {each.key: each.value for each in tensor.external_data}
        name = entries.get("location", "")
        parts = PurePosixPath(name).parts
        path = folder / name
        if (
            not name
            or "\\" in name
            or PurePosixPath(name).is_absolute()
            or ".." in parts
            or path.is_symlink()
            or not path.is_file()
        ):
            raise InvalidModel(f"{label} names {name!r} for its weights, which is not beside it.")
        start = int(entries.get("offset", 0))
        size = int(entries.get("length", needed))
        if start < 0 or size < 0 or start + size > path.stat().st_size or size != needed:
            raise InvalidModel(f"{label} names weights that lead outside {name!r}.")
    elif tensor.HasField("raw_data"):
        if len(tensor.raw_data) != needed:
            raise InvalidModel(f"{label} holds {len(tensor.raw_data)} bytes where {needed} belong.")
    elif prod(tensor.dims) > tensor.ByteSize() * 8:
        raise InvalidModel(f"{label} holds a tensor of {prod(tensor.dims)} values without them.")


def _graphs(model: Any) -> Iterator[Any]:
    """Yield every graph and function, and the graphs within their nodes."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from [attribute.t] if attribute.HasField("t") else []
                yield from attribute.tensors
                if attribute.HasField("sparse_tensor"):
                    yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def _onnx() -> Any:
    try:
        import onnx  # noqa: PLC0415 - takes a while, and few processes need it
    except ModuleNotFoundError as exc:
        raise MissingDependency("An ONNX model", "onnx", "pip install 'mlopskit[onnx]'") from exc
    return onnx

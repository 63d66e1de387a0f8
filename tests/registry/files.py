"""Make hostile and broken model files, and tell what loading each of them does.

Run as a script it registers and loads every case in this process, and writes a line of JSON for
each: ``{"case": ..., "error": ..., "sang": ...}``. A case sings when something in its file was run.
"""

# ruff: noqa: E501

from __future__ import annotations

import bz2
import functools
import gzip
import io
import itertools
import json
import lzma
import os
import pickle
import resource
import shutil
import stat
import struct
import sys
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MEMORY = 12 << 30
RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(120, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)


class Sings:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


CASES: dict[str, tuple[str, Any]] = {}


def case(name: str, error: str) -> Any:
    """Declare that a function makes a file or folder whose load raises an error."""

    def keep(make: Any) -> Any:
        CASES[name] = (error, make)
        return make

    return keep


def written(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zipped(path: Path, entries: Mapping[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", how) as archive:
        warnings.simplefilter("ignore")
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def entries_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# Pickles, under every name and protocol, and in every coat.

for protocol in range(6):

    @case(f"pickle protocol {protocol}", "UntrustedModel")
    def _(folder: Path, canary: Path, protocol: int = protocol) -> Path:
        return written(folder / "m.pkl", pickle.dumps(Sings(canary), protocol))


for suffix in ("bin", "pt", "pth", "ckpt", "onnx", "skops", "safetensors", "json", "keras", "pt2",
               "txt", "ubj", "dill", "cloudpickle", "joblib"):  # fmt: skip

    @case(f"pickle called .{suffix}", "UntrustedModel")
    def _(folder: Path, canary: Path, suffix: str = suffix) -> Path:
        return written(folder / f"m.{suffix}", pickle.dumps(Sings(canary)))


for suffix, error in (("onnx", "InvalidModel"), ("skops", "InvalidModel"), ("json", "InvalidModel"),
                      ("safetensors", "InvalidModel"), ("bin", "InvalidModel")):  # fmt: skip

    @case(f"oldest pickle called .{suffix}", error)
    def _(folder: Path, canary: Path, suffix: str = suffix) -> Path:
        return written(folder / f"m.{suffix}", pickle.dumps(Sings(canary), 0))


for coat, pack in (("gzip", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress),
                   ("zlib", zlib.compress)):  # fmt: skip

    @case(f"pickle in {coat}", "UntrustedModel")
    def _(folder: Path, canary: Path, pack: Any = pack) -> Path:
        return written(folder / "m.pkl", pack(pickle.dumps(Sings(canary))))


@case("joblib", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    import joblib

    joblib.dump({"a": np.ones(3), "b": Sings(canary)}, folder / "m.joblib")
    return folder / "m.joblib"


@case("cloudpickle of a lambda", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    import cloudpickle

    return written(folder / "m.pkl", cloudpickle.dumps([lambda: 1, Sings(canary)]))


@case("pickle that stops early", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    return written(folder / "m.pkl", pickle.dumps(Sings(canary))[:-1])


@case("object array .npy", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    np.save(folder / "m.npy", np.array([Sings(canary)], dtype=object), allow_pickle=True)
    return folder / "m.npy"


@case("object array .npz", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    np.savez(folder / "m.npz", a=np.array([Sings(canary)], dtype=object))
    return folder / "m.npz"


# PyTorch.


@case("torch.save of an object", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    import torch

    torch.save(Sings(canary), folder / "m.pt")
    return folder / "m.pt"


@case("torch.save of a state dict with an object", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    import torch

    torch.save({"w": torch.ones(2), "x": Sings(canary)}, folder / "m.bin")
    return folder / "m.bin"


@case("torch.save of a whole module", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    import torch

    torch.save(torch.nn.Linear(2, 1), folder / "m.pth")
    return folder / "m.pth"


@case("torch.save of old", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    import torch

    torch.save(Sings(canary), folder / "m.pt", _use_new_zipfile_serialization=False)
    return folder / "m.pt"


@case("TorchScript", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    entries = {
        "m/data.pkl": pickle.dumps(Sings(canary)),
        "m/code/__torch__.py": b"x",
        "m/version": b"3",
    }
    return zipped(folder / "m.pt", {**entries, "m/constants.pkl": pickle.dumps(())})


@functools.cache
def program() -> bytes:
    import torch

    out = io.BytesIO()
    shapes = ({0: torch.export.Dim.AUTO},)
    torch.export.save(
        torch.export.export(torch.nn.Linear(4, 1), (torch.ones(2, 4),), dynamic_shapes=shapes), out
    )
    return out.getvalue()


def changed(
    folder: Path, change: Callable[[dict[str, Any]], object], part: str = "models/model.json"
) -> Path:
    """Write a program of torch.export in which one part is another."""
    entries = entries_of(program())
    name = next(name for name in entries if name.endswith(part))
    found = json.loads(entries[name])
    change(found)
    return zipped(folder / "m.pt2", {**entries, name: json.dumps(found).encode()})


def node(found: Any) -> Any:
    return found["graph_module"]["graph"]["nodes"][0]


for target in ("torch.os.system", "torch.hub.os.system", "torch.ops.load_library", "torch.load",
               "_operator.attrgetter", "_operator.methodcaller", "math.__loader__.load_module",
               "#extension", "torch.ops.aten.from_file.default", "torch.ops.mine.run.default"):  # fmt: skip

    @case(f"torch.export calling {target}", "UntrustedModel")
    def _(folder: Path, canary: Path, target: str = target) -> Path:
        return changed(folder, lambda found: node(found).update(target=target))


@case("torch.export with an operator that is not there", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    return changed(folder, lambda found: node(found).update(target="torch.ops.aten.nope.default"))


@case("torch.export computing a size with Python", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    def change(found: Any) -> None:
        for value in found["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = f"__import__('os').system('touch {canary}')"

    return changed(folder, change)


@case("torch.export computing a power for ever", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    def change(found: Any) -> None:
        for value in found["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = "9**9**9**9"

    return changed(folder, change)


@case("torch.export with guards", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    text = f"__import__('os').system('touch {canary}')"
    return changed(folder, lambda found: found.update(guards_code=[text]))


@case("torch.export with an enum of any module", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    written(folder / "side" / "canary_module.py", f"open({str(canary)!r}, 'w')")
    sys.path.insert(0, str(folder / "side"))
    context = json.dumps({"__enum__": True, "fqn": "canary_module:X", "name": "a"})
    spec = json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])

    def change(found: Any) -> None:
        found["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

    return changed(folder, change)


@case("torch.export with a pickled weight", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    entries = entries_of(program())
    config = next(name for name in entries if name.endswith("model_weights_config.json"))
    found = json.loads(entries[config])
    first = next(iter(found["config"].values()))
    first["use_pickle"] = True
    weight = config.replace("model_weights_config.json", first["path_name"])
    entries |= {config: json.dumps(found).encode(), weight: pickle.dumps(Sings(canary))}
    return zipped(folder / "m.pt2", entries)


@case("torch.export with a pickled object", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    entries = entries_of(program())
    root = next(iter(entries)).partition("/")[0]
    entries[f"{root}/data/constants/opaque_obj_0"] = pickle.dumps(Sings(canary))
    return zipped(folder / "m.pt2", entries)


@case("torch.export with a compiled library", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    entries = entries_of(program())
    root = next(iter(entries)).partition("/")[0]
    return zipped(folder / "m.pt2", {**entries, f"{root}/data/aotinductor/model/m.so": b"\x7fELF"})


@case("torch.export with pickled sample inputs runs without them", "none")
def _(folder: Path, canary: Path) -> Path:
    import torch

    out = io.BytesIO()
    torch.save(Sings(canary), out)
    entries = entries_of(program())
    name = next(name for name in entries if "sample_inputs" in name)
    return zipped(folder / "m.pt2", {**entries, name: out.getvalue()})


# Keras.


def keras_file(folder: Path, config: Any, weights: bytes | None = None, **more: bytes) -> Path:
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file["layers/vars"] = np.ones(2)
    entries = {
        "metadata.json": b'{"keras_version": "3.15.1"}',
        "config.json": json.dumps(config).encode(),
    }
    return zipped(
        folder / "m.keras", {**entries, "model.weights.h5": weights or out.getvalue(), **more}
    )


def layers(*found: Any) -> Any:
    return {"module": "keras", "class_name": "Sequential", "registered_name": None,
            "config": {"name": "s", "layers": list(found)}}  # fmt: skip


def layer(name: str, module: Any = "keras.layers", own: Any = None, **config: Any) -> Any:
    return {"module": module, "class_name": name, "config": config, "registered_name": own}


for title, found in {
    "lambda": layer("Lambda", function={"class_name": "__lambda__", "config": {"value": "4wAA"}}),
    "marshalled bytecode": layer("Dense", units=1, activation={"class_name": "__lambda__", "config": ["4wAAAA==", None, None]}),
    "module path": layer("system", "os", command="true"),
    "function of a module": layer("function", "builtins", config="exec"),
    "private module of Keras": layer("get_file", "keras.src.utils.file_utils", origin="file:///etc/passwd"),
    "custom class": layer("Mine", "mine", "mine>Mine"),
    "registered name": layer("Dense", "keras.layers", "mine>Dense", units=1),
    "wrapper of torch": layer("TorchModuleWrapper", module="x"),
    "saved model of TensorFlow": layer("TFSMLayer", filepath="/tmp/x"),
    "class name with a path": layer("os.system", "keras.layers"),
    "numpy array that is pickled": layer("__numpy__", None, value="x"),
}.items():  # fmt: skip

    @case(f"keras {title}", "UntrustedModel")
    def _(folder: Path, canary: Path, found: Any = found) -> Path:
        return keras_file(folder, layers(found))


@case("keras sizes without weights", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    given = layer("InputLayer", batch_shape=[None, 4])
    return keras_file(folder, layers(given, layer("Dense", units=10**9)))


@case("keras weights in another file", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/passwd", "/")
    return keras_file(folder, layers(layer("Dense", units=1)), out.getvalue())


@case("keras with a pickle beside", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    return keras_file(folder, layers(), **{"assets/x.pkl": pickle.dumps(Sings(canary))})


@case("keras with weights that are a pickle", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    return keras_file(folder, layers(layer("Dense", units=1)), pickle.dumps(Sings(canary)))


# skops.


@functools.cache
def skops_model() -> bytes:
    from sklearn.linear_model import LogisticRegression
    from skops import io as skops_io

    return bytes(skops_io.dumps(LogisticRegression().fit(X, Y)))


def skops_schema(folder: Path, schema: Any, **more: bytes) -> Path:
    entries = {"schema.json": json.dumps({"protocol": 2, "_skops_version": "0.16.0", **schema})}
    return zipped(folder / "m.skops", {**{k: v.encode() for k, v in entries.items()}, **more})


@case("skops partial of a command", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    from skops import io as skops_io

    skops_io.dump(functools.partial(os.system, f"touch {canary}"), folder / "m.skops")
    return folder / "m.skops"


@case("skops partial within a list within a dict", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    from skops import io as skops_io

    inner = {"a": [{"b": (functools.partial(os.system, f"touch {canary}"),)}]}
    skops_io.dump(inner, folder / "m.skops")
    return folder / "m.skops"


@case("skops method of another class", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    from skops import io as skops_io

    skops_io.dump(Path(canary).touch, folder / "m.skops")
    return folder / "m.skops"


for name in ("methodcaller", "attrgetter", "itemgetter"):

    @case(f"skops operator {name}", "UntrustedModel")
    def _(folder: Path, canary: Path, name: str = name) -> Path:
        inner = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "__id__": 2,
                 "content": [{"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode",
                              "content": '"touch"', "is_json": True, "__id__": 3}]}  # fmt: skip
        node = {"__class__": name, "__module__": "operator", "__loader__": "OperatorFuncNode",
                "__id__": 1, "attrs": inner}  # fmt: skip
        return skops_schema(folder, node)


for loader in ("ObjectNode", "FunctionNode", "TypeNode", "ReduceNode", "NoSuchNode"):

    @case(f"skops {loader} of os.system", "UntrustedModel InvalidModel")
    def _(folder: Path, canary: Path, loader: str = loader) -> Path:
        return skops_schema(folder, {"__class__": "system", "__module__": "os", "__loader__": loader,
                                     "__id__": 1, "content": {"module_path": "os", "function": "system"}})  # fmt: skip


@case("skops of a pickle called data", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    return zipped(
        folder / "m.skops", {"schema.json": b"{}", "data.pkl": pickle.dumps(Sings(canary))}
    )


# Archives.


def skops_with(folder: Path, entry: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(folder / "m.skops", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, each in entries_of(skops_model()).items():
            archive.writestr(name, each)
        archive.writestr(entry, content)
    return folder / "m.skops"


for title, name in {
    "leaving its folder": "../../evil", "with an absolute path": "/etc/evil",
    "with a drive": "C:/evil", "with backslashes": "..\\..\\evil", "with a name twice": "schema.json",
    "with a name twice in capitals": "SCHEMA.JSON",
}.items():  # fmt: skip

    @case(f"zip {title}", "InvalidModel")
    def _(folder: Path, canary: Path, name: str = name) -> Path:
        return skops_with(folder, name)


for title, kind in {"link": stat.S_IFLNK, "device": stat.S_IFCHR, "pipe": stat.S_IFIFO}.items():

    @case(f"zip with a {title}", "InvalidModel")
    def _(folder: Path, canary: Path, kind: int = kind) -> Path:
        entry = zipfile.ZipInfo("inside")
        entry.external_attr = (kind | 0o644) << 16
        return skops_with(folder, entry, b"/etc/passwd")


@case("zip bomb by ratio", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    with zipfile.ZipFile(folder / "m.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b"{}")
        with archive.open("zeros.npy", "w") as file:
            for _ in range(80):
                file.write(bytes(1 << 20))
    return folder / "m.skops"


@case("zip bomb within a zip", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    inner = bytes(10 << 20)
    for _ in range(3):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(8):
                archive.writestr(f"{number}.zip", inner)
        inner = out.getvalue()
    return zipped(folder / "m.skops", {"schema.json": b"{}", "x.zip": inner})


@case("zip with bytes before it", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    return written(folder / "m.skops", b"PK\x03\x04junk" + skops_model())


@case("zip after a pickle", "UntrustedModel InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    return written(folder / "m.skops", pickle.dumps(Sings(canary)) + skops_model())


@case("zip with a pickle as its comment", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    path = written(folder / "m.skops", skops_model())
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = pickle.dumps(Sings(canary))
    return path


@case("folder called like a zip with a link", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    (folder / "m").mkdir()
    (folder / "m" / "x").symlink_to("/etc/passwd")
    return folder / "m"


@case("tar", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    import tarfile

    with tarfile.open(folder / "m.tar", "w") as archive:
        entry = tarfile.TarInfo("../../evil")
        archive.addfile(entry, io.BytesIO())
    return folder / "m.tar"


# safetensors.


def tensors(folder: Path, header: Any, body: bytes = bytes(8), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return written(folder / "m.safetensors", struct.pack("<Q", size) + text + body)


def one(a: int, b: int, shape: Any = (2,), dtype: str = "F32") -> Any:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [a, b]}


for title, make in {
    "huge header": lambda f: tensors(f, {"a": one(0, 8)}, length=1 << 39),
    "header longer than the file": lambda f: tensors(f, {"a": one(0, 8)}, length=5000),
    "empty header": lambda f: tensors(f, {"a": one(0, 8)}, length=0),
    "overlap": lambda f: tensors(f, {"a": one(0, 8), "b": one(4, 8, (1,))}),
    "gap": lambda f: tensors(f, {"a": one(4, 8, (1,))}),
    "out of range": lambda f: tensors(f, {"a": one(0, 800, (200,))}),
    "negative": lambda f: tensors(f, {"a": one(-8, 0)}),
    "key twice": lambda f: tensors(f, b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "shape that overflows": lambda f: tensors(f, {"a": one(0, 8, (1 << 62, 4))}),
    "unknown type": lambda f: tensors(f, {"a": one(0, 8, (2,), "OBJ")}),
    "deep header": lambda f: tensors(f, b'{"a":' + b"[" * 200_000),
    "trailing bytes": lambda f: tensors(f, {"a": one(0, 8)}, bytes(9)),
    "zip behind it": lambda f: tensors(f, {"a": one(0, 8)}, bytes(8) + skops_model()),
    "no offsets": lambda f: tensors(f, {"a": {"dtype": "F32"}}),
}.items():  # fmt: skip

    @case(f"safetensors {title}", "InvalidModel")
    def _(folder: Path, canary: Path, make: Any = make) -> Path:
        path: Path = make(folder)
        return path


# ONNX.


def graph(change: Callable[[Any, Any], object] = lambda model, onnx: None) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, s])
        for n, s in (("x", 4), ("y", 2))
    ]
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weights]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    change(model, onnx)
    return bytes(model.SerializeToString())


def external(location: str, **more: str) -> Callable[[Any, Any], object]:
    def change(model: Any, onnx: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


for location in ("../../../etc/passwd", "/etc/passwd", "", "sub/../../x", "..\\x", "nothing.bin"):

    @case(f"onnx weights at {location!r}", "InvalidModel")
    def _(folder: Path, canary: Path, location: str = location) -> Path:
        return written(folder / "m" / "model.onnx", graph(external(location))).parent


@case("onnx weights beyond their file", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    written(folder / "m" / "w.bin", bytes(8))
    return written(
        folder / "m" / "model.onnx", graph(external("w.bin", offset="4", length="999"))
    ).parent


@case("onnx weights by a link", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    path = written(folder / "m" / "model.onnx", graph(external("w.bin"))).parent
    (path / "w.bin").symlink_to("/etc/passwd")
    return path


def huge(model: Any, onnx: Any) -> None:
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([1 << 40, 1 << 20])


def foreign(model: Any, onnx: Any) -> None:
    model.graph.node[0].domain = "com.evil"


for title, change in {"huge tensor": huge, "operator of somebody's own": foreign}.items():

    @case(f"onnx {title}", "InvalidModel")
    def _(folder: Path, canary: Path, change: Any = change) -> Path:
        return written(folder / "m.onnx", graph(change))


# Boosting. Without the checks, compiled code ends or overruns the process on many of these.


@functools.cache
def xgboost_model() -> str:
    import xgboost as xgb

    booster = xgb.train({"max_depth": 2, "objective": "binary:logistic"}, xgb.DMatrix(X, Y), 2)
    return bytes(booster.save_raw("json")).decode()


def xgboost_with(folder: Path, change: Callable[[Any, Any], object]) -> Path:
    found = json.loads(xgboost_model())
    model = found["learner"]["gradient_booster"]["model"]
    change(model, model["trees"][0])
    return written(folder / "m.json", json.dumps(found))


def categories(model: Any, tree: Any) -> None:
    tree["split_type"][0] = 1
    tree.update(
        categories_nodes=[0], categories_segments=[0], categories_sizes=[99999999], categories=[1]
    )


for title, spoil in {
    "child": lambda m, t: t["left_children"].__setitem__(0, 99999999),
    "cycle": lambda m, t: t["left_children"].__setitem__(0, 0),
    "feature": lambda m, t: t["split_indices"].__setitem__(0, 99999999),
    "group": lambda m, t: m.update(tree_info=[999999, -5]),
    "categories": categories,
    "leaf vector": lambda m, t: t["tree_param"].update(size_leaf_vector="99999"),
    "parent": lambda m, t: t.update(parents=[9999999] * len(t["parents"])),
    "number of nodes": lambda m, t: t["tree_param"].update(num_nodes="999999999"),
    "steps": lambda m, t: m.update(iteration_indptr=[0, 9999999]),
    "conditions": lambda m, t: t.update(split_conditions=[0.5]),
    "no trees at once": lambda m, t: m["gbtree_model_param"].update(num_parallel_tree="0"),
}.items():  # fmt: skip

    @case(f"xgboost {title}", "InvalidModel")
    def _(folder: Path, canary: Path, spoil: Any = spoil) -> Path:
        return xgboost_with(folder, spoil)


for key, value in {
    "num_feature": "2147483647", "num_class": "7", "base_score": "[5E-1,5E-1,5E-1]",
}.items():  # fmt: skip

    @case(f"xgboost {key} {value}", "InvalidModel")
    def _(folder: Path, canary: Path, key: str = key, value: str = value) -> Path:
        found = json.loads(xgboost_model())
        found["learner"]["learner_model_param"][key] = value
        return written(folder / "m.json", json.dumps(found))


@case("xgboost class of somebody's own", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    found = json.loads(xgboost_model())
    found["learner"]["attributes"]["mlopskit_class"] = "os.system"
    return written(folder / "m.json", json.dumps(found))


for title, raw in {
    "lengths": b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner[$d#L\x00\x00\x7f\xff\xff\xff\xff\xff" + b"x" * 99,
    "depth": b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner" + b"[" * 100_000,
}.items():  # fmt: skip

    @case(f"xgboost UBJSON {title}", "InvalidModel")
    def _(folder: Path, canary: Path, raw: bytes = raw) -> Path:
        return written(folder / "m.ubj", raw)


@functools.cache
def lightgbm_model() -> str:
    import lightgbm

    data = lightgbm.Dataset(X, Y)
    params = {"objective": "binary", "num_leaves": 6, "verbose": -1, "min_data_in_leaf": 5}
    return str(lightgbm.train(params, data, 2).model_to_string())


def lightgbm_with(folder: Path, key: str, value: str) -> Path:
    lines = lightgbm_model().split("\n")
    at = next(at for at, line in enumerate(lines) if line.startswith(f"{key}="))
    first, _, rest = lines[at].partition("=")[2].partition(" ")
    lines[at] = f"{key}={value.ljust(len(first), ' ')} {rest}" if rest else f"{key}={value}"
    sizes = next(at for at, line in enumerate(lines) if line.startswith("tree_sizes="))
    text = "\n".join(lines)
    start = [text.index(f"Tree={number}\n") for number in range(2)] + [text.index("end of trees")]
    lines[sizes] = "tree_sizes=" + " ".join(str(b - a) for a, b in itertools.pairwise(start))
    return written(folder / "m.txt", "\n".join(lines))


for key, value in {
    "left_child": "999999", "right_child": "-99999999", "split_feature": "99999999",
    "num_leaves": "600000000", "decision_type": "1", "threshold": "x", "max_feature_idx": "-5",
    "num_class": "99999", "num_cat": "77", "objective": "multiclass num_class:100000",
}.items():  # fmt: skip

    @case(f"lightgbm {key} {value}", "InvalidModel")
    def _(folder: Path, canary: Path, key: str = key, value: str = value) -> Path:
        return lightgbm_with(folder, key, value)


@case("lightgbm sizes", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    text = lightgbm_model()
    at = text.index("tree_sizes=")
    return written(folder / "m.txt", text[:at] + "tree_sizes=7 7" + text[text.index("\n", at) :])


# Folders.


def hf_folder(folder: Path, config: Any, **more: bytes) -> Path:
    import torch
    from safetensors.torch import save

    root = folder / "m"
    written(root / "config.json", json.dumps({"model_type": "bert", **config}))
    written(root / "model.safetensors", save({"w": torch.ones(2)}))
    for name, content in more.items():
        written(root / name, content)
    return root


@case("hf with code of its own", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    code = f"open({str(canary)!r}, 'w')".encode()
    return hf_folder(folder, {"auto_map": {"AutoModel": "mine.Mine"}}, **{"mine.py": code})


@case("hf tokenizer with code of its own", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    text = json.dumps({"auto_map": {"AutoTokenizer": ["mine.Mine", None]}}).encode()
    return hf_folder(folder, {}, **{"tokenizer_config.json": text})


@case("hf of pickles alone", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    root = hf_folder(folder, {}, **{"pytorch_model.bin": pickle.dumps(Sings(canary))})
    (root / "model.safetensors").unlink()
    return root


@case("hf adapter of another model", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    return hf_folder(folder, {}, **{"adapter_config.json": b'{"base_model_name_or_path": "x/y"}'})


@case("hf with attention from elsewhere", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    return hf_folder(folder, {"_attn_implementation": "somebody/payload"})


@case("hf with a backbone from elsewhere", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    fetched = {"backbone": "somebody/weights", "use_pretrained_backbone": True}
    return hf_folder(folder, {"architectures": ["BertModel"], **fetched})


@case("hf with more layers than weights", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    return hf_folder(folder, {"architectures": ["BertModel"], "num_hidden_layers": 10**9})


@case("hf index that leads outside", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    text = json.dumps({"weight_map": {"w": "../../x.safetensors"}}).encode()
    return hf_folder(folder, {}, **{"model.safetensors.index.json": text})


@case("hf with a broken file of weights", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    return hf_folder(folder, {}, **{"model.safetensors": struct.pack("<Q", 1 << 50) + b"{"})


@case("pyfunc folder", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    root = folder / "m"
    written(
        root / "MLmodel", "flavors:\n  python_function:\n    loader_module: mine\n    code: code\n"
    )
    written(root / "code" / "mine.py", f"open({str(canary)!r}, 'w')")
    return root


@case("predictor of any module", "UntrustedModel")
def _(folder: Path, canary: Path) -> Path:
    written(folder / "side" / "canary_predictor.py", f"open({str(canary)!r}, 'w')")
    sys.path.insert(0, str(folder / "side"))
    return written(folder / "m" / "predictor.json", '{"class": "canary_predictor:X"}').parent


@case("predictor with files elsewhere", "InvalidModel")
def _(folder: Path, canary: Path) -> Path:
    text = '{"class": "m:X", "path": "../../etc"}'
    return written(folder / "m" / "predictor.json", text).parent


# Truncated, flipped, empty, and under another's name: every format.

FORMATS: dict[str, tuple[str, Any]] = {
    "skops": ("m.skops", skops_model),
    "pt2": ("m.pt2", program),
    "onnx": ("m.onnx", graph),
    "xgboost": ("m.json", lambda: xgboost_model().encode()),
    "lightgbm": ("m.txt", lambda: lightgbm_model().encode()),
}

for title, (file, content) in FORMATS.items():

    @case(f"{title} cut short", "InvalidModel")
    def _(folder: Path, canary: Path, file: str = file, content: Any = content) -> Path:
        whole = content()
        return written(folder / file, whole[: len(whole) // 4])

    @case(f"{title} with flipped bits", "InvalidModel UntrustedModel")
    def _(folder: Path, canary: Path, file: str = file, content: Any = content) -> Path:
        whole = bytearray(content())
        for at in range(10, len(whole), 7):
            whole[at] ^= 0x5A
        return written(folder / file, bytes(whole))

    @case(f"{title} empty", "InvalidModel")
    def _(folder: Path, canary: Path, file: str = file, content: Any = content) -> Path:
        return written(folder / file, b"")


for title, file in {"skops": "m.onnx", "pt2": "m.skops", "onnx": "m.safetensors",
                    "xgboost": "m.onnx", "lightgbm": "m.json"}.items():  # fmt: skip

    @case(f"{title} called {file}", "InvalidModel")
    def _(folder: Path, canary: Path, file: str = file, title: str = title) -> Path:
        return written(folder / file, FORMATS[title][1]())


def outcome(name: str, folder: Path) -> dict[str, Any]:
    """Register and load one case, and say what came of it."""
    from mlopskit.errors import MlopskitError
    from mlopskit.registry.local import LocalRegistry

    canary = folder / "canary"
    (folder / "given").mkdir(parents=True)
    path = CASES[name][1](folder / "given", canary)
    found = "none"
    with LocalRegistry(folder / "registry") as registry:
        try:
            registry.register("m", path)
            registry.load("m", 1)
        except MlopskitError as exc:
            found = type(exc).__name__
        except Exception as exc:  # noqa: BLE001 - that is what is looked for
            found = f"{type(exc).__module__}.{type(exc).__qualname__}: {exc}"[:300]
    sang = canary.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return {"case": name, "error": found, "sang": sang}


def main(folder: Path, without: list[str]) -> None:
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Libraries that print do so elsewhere.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number, name in enumerate(name for name in CASES if name not in without):
        out.write(json.dumps(outcome(name, folder / str(number))) + "\n")
        out.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

"""PyTorch programs as `torch.export` writes them, rebuilt from what was checked.

`torch.export.load` must not see a file that nobody checked. In 2.13 it unpickles sample inputs, if
need be without ``weights_only``; it reads sizes with SymPy, which evaluates them; it resolves an
operator from the root of `torch`, from where `os.system` can be reached; it runs guards that are
Python; and it loads compiled libraries. All of these are refused here, or left out of the archive
that PyTorch is given.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry.flavors.archives import check_archive
from mlopskit.registry.flavors.json_files import mappings_in, read_json
from mlopskit.registry.flavors.lazily import check_floor, is_a, library

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.registry.flavors import Files

TAKES = "a torch module with an input example, or an ExportedProgram"
LIBRARIES: tuple[str, ...] = ("torch",)
SUFFIXES: tuple[str, ...] = (".pt2",)
FOLDERS = False
FILE: Final = "model.pt2"
FLOOR: Final = "2.10"  # CVE-2025-32434, CVE-2026-24747
MODEL: Final = "models/model.json"
SAMPLES: Final = "data/sample_inputs/model.pt"
_CONFIGS: Final = (
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
_KEPT: Final = re.compile(r"data/(weights/weight|constants/tensor)_\d+\Z")
_PLAIN: Final = re.compile(
    r"(archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id|version)\Z"
)
_OPERATOR: Final = re.compile(r"torch\.ops\.(aten|prims)\.(_{0,2}[a-z][a-z0-9_]*)\.([A-Za-z]\w*)\Z")
_ARITHMETIC: Final = re.compile(
    r"_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge|getitem|and_|or_|not_)\Z"
)
# A size: symbols, whole numbers and a few functions of them. No power, which could take for ever.
_SYMBOL: Final = re.compile(
    r"Symbol\('[su]\d+'(, (positive|nonnegative|integer)=True)*\)|Integer\(-?\d{1,19}\)"
)
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_WORDS: Final = frozenset(
    ["Add", "Mul", "Max", "Min", "Mod", "FloorDiv", "CeilDiv", "PythonMod", "CleanDiv", "true"]
)
_ROWS: Final = r"L(\['\w+'\]|\[\d+\])+\.size\(\)\[0\]"
_SAME_ROWS: Final = re.compile(rf"{_ROWS} == {_ROWS}\Z")
_SIZE: Final = re.compile(r"[\w\s()+\-*,]{0,2000}\Z")
# Operators with a text among their arguments; a text could else be the name of a file.
_TEXTS: Final = frozenset(
    [
        *("div", "div_", "divide", "gelu", "gelu_backward", "einsum", "pad", "searchsorted"),
        *("scatter_reduce", "index_reduce", "scatter", "meshgrid", "bucketize"),
        *("linalg_matrix_norm", "linalg_norm", "linalg_qr", "stft"),
    ]
)
_CONTAINERS: Final = ("builtins.tuple", "builtins.list", "builtins.dict", None)


def takes(model: Any, example: Any = None) -> bool:
    """Tell whether an object is an exported program, or a module that comes with an example.

    Models of transformers are modules too, and those of Keras may be: they have formats of their
    own.
    """
    others = is_a(model, "transformers", "PreTrainedModel") or is_a(model, "keras", "Model")
    plain = is_a(model, "torch", "Module") and not others
    return _is_program(model) or (bool(example) and plain)


def recognises(files: Files) -> bool:
    """Tell by its table of contents whether a file is an archive of `torch.export`."""
    if len(files) != 1:
        return False
    try:
        with zipfile.ZipFile(files[0][1]) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False
    return "archive_format" in names or MODEL in names


def save(model: Any, folder: Path, example: Mapping[str, Any] | None = None) -> None:
    """Export a module with its example, any number of rows, and write the program.

    Raises:
        InvalidModel: If PyTorch cannot export it, or it would not be loaded again.
    """
    torch = library("torch", "A PyTorch program", "torch")
    try:
        program = model if _is_program(model) else _exported(torch, model, example or {})
        torch.export.save(program, folder / FILE)
    except Exception as exc:
        raise InvalidModel(
            f"torch.export cannot export the {type(model).__name__}: {exc}. "
            "Without an input example its state dict alone is kept."
        ) from exc
    try:
        _rebuilt(torch, folder / FILE, "the program")
    except UntrustedModel as exc:
        raise InvalidModel(f"The {type(model).__name__} would not be loaded again: {exc}") from exc


def load(folder: Path, label: str, *, trusted: bool) -> Any:
    """Return the program as a module, on the CPU.

    Raises:
        UntrustedModel: If it holds pickles, Python, libraries or operators that are not PyTorch's
            own, and `trusted` is not exactly True.
        InvalidModel: If it is not sound.
    """
    torch = library("torch", "A PyTorch program", "torch")
    (path,) = folder.iterdir()
    if trusted is True:
        content: Any = str(path)
    else:
        check_floor(label, "torch", torch.__version__, FLOOR)
        content = _rebuilt(torch, path, label)
    try:
        program = torch.export.load(content)
        if trusted is not True:
            program.example_inputs = None
        return program.module()
    except Exception as exc:  # A broken archive makes PyTorch raise almost anything.
        raise InvalidModel(f"{label} is no sound program of torch.export: {exc}") from exc


def _is_program(model: Any) -> bool:
    return is_a(model, "torch.export", "ExportedProgram")


def _exported(torch: Any, module: Any, example: Mapping[str, Any]) -> Any:
    """Export a module for the CPU; the first dimension of each input is that of the rows.

    The module stays on its device, and each of its layers in its mode.
    """
    weights = next(chain(module.parameters(), module.buffers()), None)
    device = "cpu" if weights is None else weights.device.type
    inputs = []
    for array in example.values():
        tensor = torch.from_numpy(array.copy())
        # Of one row PyTorch would conclude that there is never another.
        tensor = torch.cat([tensor, tensor]) if len(tensor) == 1 else tensor
        inputs.append(tensor if weights is None else tensor.to(weights.device))
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        shapes = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
        program = torch.export.export(module, tuple(inputs), dynamic_shapes=shapes)
    finally:
        for each in training:
            each.training = True
    if device == "cpu":
        return program
    from torch.export.passes import move_to_device_pass  # noqa: PLC0415 - seldom needed

    return move_to_device_pass(program, "cpu")


def _rebuilt(torch: Any, path: Path, label: str) -> io.BytesIO:
    """Return the archive anew, with what was checked and nothing else."""
    names = check_archive(path, label)
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1:
        raise InvalidModel(f"{label} has {len(roots)} folders at its top, and one belongs there.")
    (root,) = roots
    inner = {name.partition("/")[2] for name in names}
    for needed in (MODEL, *_CONFIGS):
        if needed not in inner:
            raise InvalidModel(f"{label} lacks {needed!r}.")
    samples = io.BytesIO()
    torch.save(((), {}), samples)
    out = io.BytesIO()
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(out, "w") as made:
        for name in sorted(inner - {SAMPLES}):
            try:
                content = given.read(f"{root}/{name}")
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as exc:
                raise InvalidModel(f"{label} is no sound zip file: {exc}") from exc
            if name == MODEL:
                content = json.dumps(_checked(torch, read_json(content, label), label)).encode()
            elif name in _CONFIGS:
                content = json.dumps(_config(read_json(content, label), label)).encode()
            elif not (_KEPT.match(name) or _PLAIN.match(name)):
                raise UntrustedModel(label, f"it holds {name!r}, which is no tensor")
            made.writestr(f"model/{name}", content)
        made.writestr(f"model/{SAMPLES}", samples.getvalue())
    out.seek(0)
    return out


def _config(given: Any, label: str) -> Any:
    for each in mappings_in(given):
        if each.get("use_pickle"):
            raise UntrustedModel(label, "it holds a pickle")
        name = each.get("path_name", "weight_0")
        if not isinstance(name, str) or not re.fullmatch(r"(weight|tensor)_\d+", name):
            raise UntrustedModel(label, f"it names {name!r}, which is no tensor")
    return given


def _checked(torch: Any, given: Any, label: str) -> Any:
    """Return a program without its metadata, all of whose parts are of reviewed kinds."""
    if not isinstance(given, dict) or "graph_module" not in given:
        raise InvalidModel(f"{label} holds no program.")
    for each in mappings_in(given):
        if each.get("guards_code"):
            each["guards_code"] = _without_same_rows(each["guards_code"], label)
        if any(each.get(key) for key in ("custom_obj_values", "as_custom_obj", "as_operator")):
            raise UntrustedModel(label, "it holds an object of somebody's own class")
        if "target" in each and "inputs" in each:
            _check_operator(torch, each, label)
            each["metadata"] = {}
        for key in ("expr_str", "as_expr"):
            if isinstance(each.get(key), str):
                _check_size(each[key], label)
        for key in ("in_spec", "out_spec"):
            if key in each:
                _check_spec(each[key], label)
        if each.get("treespec_namedtuple_fields"):
            raise UntrustedModel(label, "its inputs are of somebody's own class")
    return given


def _without_same_rows(guards: Any, label: str) -> list[str]:
    """Leave out guards that say of inputs what their shapes say too: they have as many rows."""
    for each in guards if isinstance(guards, list) else [guards]:
        if not isinstance(each, str) or not _SAME_ROWS.match(each):
            raise UntrustedModel(label, "it holds guards, which are Python")
    return []


def _check_operator(torch: Any, node: Mapping[str, Any], label: str) -> None:
    name = node["target"]
    if isinstance(name, str) and _ARITHMETIC.match(name):
        return
    found = _OPERATOR.match(name) if isinstance(name, str) else None
    if found is None:
        raise UntrustedModel(label, f"it calls {name!r}, which is no operator of PyTorch's own")
    space, operator, overload = found.groups()
    resolved = getattr(getattr(getattr(torch.ops, space), operator, None), overload, None)
    if not isinstance(resolved, torch._ops.OpOverload):
        raise InvalidModel(f"{label} calls {name!r}, which PyTorch {torch.__version__} has not.")
    texts = any("str" in str(argument.type) for argument in resolved._schema.arguments)
    if texts and operator not in _TEXTS:
        raise UntrustedModel(label, f"it calls {name!r}, which takes a text")


def _check_size(text: str, label: str) -> None:
    rest = _SYMBOL.sub("1", text)
    words = set(_WORD.findall(rest))
    if "**" in rest or not _SIZE.match(rest) or not words <= _WORDS or rest.count("(") > 50:
        raise UntrustedModel(label, f"it computes a size with {text[:80]!r}")


def _check_spec(text: Any, label: str) -> None:
    parts = mappings_in(read_json(text.encode() if isinstance(text, str) else b"", label))
    for each in parts:
        context = each.get("context")
        plain = context is None or (isinstance(context, str) and "__enum__" not in context)
        if each.get("type") not in _CONTAINERS or not plain or "__enum__" in each:
            raise UntrustedModel(label, f"its inputs are of the class {each.get('type')!r}")

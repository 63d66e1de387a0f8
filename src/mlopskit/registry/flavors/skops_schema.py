"""The table of contents of a skops file, as far as building what it names touches memory.

A tree is built by compiled code that reads as many numbers as it is told there are, before anything
could look at the tree.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel
from mlopskit.registry.flavors.json_files import mappings_in, read_json

if TYPE_CHECKING:
    from pathlib import Path

_TREE: Final = ("sklearn.tree._tree", "Tree")


def check_schema(path: Path, label: str) -> None:
    """Check how the trees of a file are built.

    Raises:
        InvalidModel: If one is built in another way than skops writes it.
    """
    with zipfile.ZipFile(path) as archive:
        for each in mappings_in(read_json(archive.read("schema.json"), label)):
            named = (each.get("__module__"), each.get("__class__")) == _TREE
            if each.get("__loader__") == "TreeNode":
                _check_tree(archive, each, label)
            elif named:
                raise InvalidModel(f"{label} builds a tree with {each.get('__loader__')}.")


def _check_tree(archive: zipfile.ZipFile, node: dict[str, Any], label: str) -> None:
    import numpy as np  # noqa: PLC0415 - skops needs it

    try:
        given = node["__reduce__"]["args"]
        features, classes, outputs = given["content"]
        kinds = [each["__loader__"] for each in (given, features, classes, outputs)]
        numbers = [json.loads(each["content"]) for each in (features, outputs)]
        array = np.load(io.BytesIO(archive.read(classes["file"])), allow_pickle=False)
        sound = (
            kinds == ["TupleNode", "JsonNode", "NdArrayNode", "JsonNode"]
            and (classes["type"], classes["__class__"]) == ("numpy", "ndarray")
            and all(type(number) is int and number > 0 for number in numbers)
            and array.shape == (numbers[1],)
            and bool((array > 0).all())
        )
    except Exception as exc:  # A broken file lacks anything, or has it in another shape.
        raise InvalidModel(f"{label} builds a tree of {type(exc).__name__} {exc}.") from exc
    if not sound:
        raise InvalidModel(f"{label} builds a tree of other numbers of classes than it has.")

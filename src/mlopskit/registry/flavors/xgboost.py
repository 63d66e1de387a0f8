"""XGBoost's own JSON and UBJSON, whose trees are checked before compiled code follows them.

Version 3.2 crashes on a child, a feature or a category that leads outside, at loading or at the
first prediction. What is loaded is written anew from what was checked.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, MissingDependency
from mlopskit.registry.flavors.ubjson import decoded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.registry.flavors import Files

TAKES = "an XGBoost Booster or scikit-learn style model"
LIBRARIES: tuple[str, ...] = ("xgboost", "xgboost-cpu")
SUFFIXES: tuple[str, ...] = (".json", ".ubj")
FOLDERS = False
FILE: Final = "model.json"
# The only classes that a file can name.
CLASSES: Final = (
    "Booster",
    "XGBClassifier",
    "XGBRegressor",
    "XGBRanker",
    "XGBRFClassifier",
    "XGBRFRegressor",
)
_MARK: Final = "mlopskit_class"
_PER_NODE: Final = (
    *("left_children", "right_children", "parents", "split_indices", "split_conditions"),
    *("split_type", "default_left", "base_weights", "loss_changes", "sum_hessian"),
)


def takes(model: Any, example: Any = None) -> bool:  # noqa: ARG001
    """Tell whether an object is a booster, or one of XGBoost's estimators."""
    kind = type(model)
    return kind.__module__.startswith("xgboost.") and kind.__name__ in CLASSES


def recognises(files: Files) -> bool:
    """Tell by its first bytes whether a file is JSON or UBJSON with a ``learner``."""
    if len(files) != 1:
        return False
    name, path = files[0]
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:2] in (b"{L", b"{i", b"{U", b"{l", b"{I"):
        return b"learner" in head[:32] or name.lower().endswith(".ubj")
    start = head.lstrip()
    return start[:1] == b"{" and b'"learner"' in head[:256]


def save(model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG001 - no tracing
    """Write JSON, with the name of the class among its attributes."""
    kind = type(model).__name__
    booster = model if kind == "Booster" else model.get_booster()
    try:
        found = json.loads(bytes(booster.save_raw("json")))
    except Exception as exc:
        raise InvalidModel(f"XGBoost cannot save the {kind}: {exc}") from exc
    found["learner"]["attributes"][_MARK] = kind
    _check(found, f"the {kind}")
    (folder / FILE).write_text(json.dumps(found, separators=(",", ":")))


def load(folder: Path, label: str, *, trusted: bool) -> Any:  # noqa: ARG001 - trust changes nothing
    """Read a booster, or the estimator that was saved.

    Raises:
        InvalidModel: If the file is broken, or a tree leads outside itself.
    """
    (path,) = folder.iterdir()
    try:
        raw = path.read_bytes()
        found = json.loads(raw) if raw.lstrip()[1:].lstrip()[:1] == b'"' else decoded(raw)
        kind = found["learner"]["attributes"].pop(_MARK, "Booster")
        _check(found, label)
    except InvalidModel:
        raise
    except Exception as exc:  # A broken file lacks anything, or has it in another shape.
        raise InvalidModel(
            f"{label} is no sound model of XGBoost: {type(exc).__name__} {exc}"
        ) from exc
    if kind not in CLASSES:
        raise InvalidModel(
            f"{label} names the class {kind!r}, and these are built: {', '.join(CLASSES)}."
        )
    model = getattr(_xgboost(), kind)()
    try:
        model.load_model(bytearray(json.dumps(found).encode()))
    except Exception as exc:
        raise InvalidModel(f"{label} is no sound model of XGBoost: {exc}") from exc
    return model


def _check(found: Mapping[str, Any], label: str) -> None:
    learner = found["learner"]
    params = learner["learner_model_param"]
    features = int(params["num_feature"])
    booster = learner["gradient_booster"]
    groups = max(1, int(params["num_class"]), int(params.get("num_target", 1)))
    booster = booster.get("gbtree", booster)
    model = booster["model"]
    if groups > 65536 or not 0 <= features < 1 << 31:
        raise InvalidModel(f"{label} has {groups} outputs and {features} features.")
    if booster.get("name") == "gblinear":
        if len(model["weights"]) != (features + 1) * groups:
            raise InvalidModel(f"{label} has {len(model['weights'])} weights, which is not enough.")
        return
    trees = model["trees"]
    if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in trees):
        raise InvalidModel(
            f"{label} has trees with several values at a leaf, which nothing checks."
        )
    if any(model.get("cats", {}).get("enc", [])):
        raise InvalidModel(
            f"{label} holds the names of categories, which nothing checks. Train on their codes."
        )
    steps = model.get("iteration_indptr", [0, len(trees)])
    sound = (
        int(model["gbtree_model_param"]["num_trees"]) == len(trees) == len(model["tree_info"])
        and all(0 <= group < groups for group in model["tree_info"])
        and steps[0] == 0
        and steps[-1] == len(trees)
        and all(a <= b for a, b in pairwise(steps))
        and all(tree["id"] == at for at, tree in enumerate(trees))
        and len(learner["gradient_booster"].get("weight_drop", trees)) == len(trees)
    )
    if not sound or not all(_tree_is_sound(tree, features, groups) for tree in trees):
        raise InvalidModel(f"{label} holds a tree that leads outside itself.")


def _tree_is_sound(  # noqa: PLR0911 - one for each thing that can be wrong
    tree: Mapping[str, Any], features: int, groups: int
) -> bool:
    count = len(tree["left_children"])
    param = tree["tree_param"]
    vector = int(param["size_leaf_vector"])
    if int(param["num_nodes"]) != count or not count or vector not in (0, 1):
        return False
    if int(param["num_feature"]) > features or groups < 1:
        return False
    if any(len(tree[key]) != count for key in _PER_NODE):
        return False
    inner = [at for at in range(count) if tree["left_children"][at] != -1]
    for at in range(count):
        left, right = tree["left_children"][at], tree["right_children"][at]
        if left == -1 and right == -1:
            continue
        if not (0 < left < count and 0 < right < count and left != right):
            return False
        # Every node has one parent, and only the first has none, so that no walk can come back.
        if tree["parents"][left] != at or tree["parents"][right] != at:
            return False
        if not 0 <= tree["split_indices"][at] < features or tree["split_type"][at] not in (0, 1):
            return False
    reached, waiting = 0, [0]
    while waiting and reached <= count:
        at = waiting.pop()
        reached += 1
        if at in (0,) or tree["left_children"][at] != -1:
            below = tree["left_children"][at], tree["right_children"][at]
            waiting += [each for each in below if each != -1]
    live = reached + int(param["num_deleted"]) == count or reached == count
    root = tree["parents"][0] in (-1, 2147483647)
    return live and root and reached <= count and _sets_are_sound(tree, inner)


def _sets_are_sound(tree: Mapping[str, Any], inner: list[int]) -> bool:
    nodes, starts = tree["categories_nodes"], tree["categories_segments"]
    sizes, values = tree["categories_sizes"], tree["categories"]
    sorting = [at for at in inner if tree["split_type"][at] == 1]
    return (
        len(nodes) == len(starts) == len(sizes)
        and list(nodes) == sorting
        and all(
            a >= 0 and n > 0 and a + n <= len(values) for a, n in zip(starts, sizes, strict=True)
        )
        and all(0 <= value < 1 << 24 for value in values)
    )


def _xgboost() -> Any:
    try:
        import xgboost  # noqa: PLC0415 - takes a second, and few processes need it
    except ModuleNotFoundError as exc:
        raise MissingDependency(
            "An XGBoost model", "xgboost", "pip install 'mlopskit[xgboost]'"
        ) from exc
    return xgboost

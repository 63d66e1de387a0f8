"""XGBoost's own JSON and UBJSON, whose trees are checked before compiled code follows them.

Version 3.2 crashes on a child, a feature or a category that leads outside, at loading or at the
first prediction. What is loaded is written anew from what was checked.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, MissingDependency
from mlopskit.registry.flavors.ubjson import decoded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
# A deeper tree overruns the stack when it is explained.
DEEPEST: Final = 1024
# How many features a file may have that names none, and how many more its trees can vouch for.
_FEW: Final = 1 << 16
_MOST: Final = 1 << 20
_COUNT: Final = re.compile(r"[0-9]{1,10}\Z")
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
    _check(found, f"the {kind}", trusted=False)
    (folder / FILE).write_text(json.dumps(found, separators=(",", ":")))


def load(folder: Path, label: str, *, trusted: bool) -> Any:
    """Read a booster, or the estimator that was saved; trust allows many features without names.

    Raises:
        InvalidModel: If the file is broken, or a tree leads outside itself.
    """
    (path,) = folder.iterdir()
    try:
        raw = path.read_bytes()
        found = json.loads(raw) if raw.lstrip()[1:].lstrip()[:1] == b'"' else decoded(raw)
        kind = found["learner"]["attributes"].pop(_MARK, "Booster")
        _check(found, label, trusted=trusted is True)
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


def _check(found: Mapping[str, Any], label: str, *, trusted: bool) -> None:
    learner = found["learner"]
    params = learner["learner_model_param"]
    features, groups = _count(params["num_feature"]), _groups(learner, label)
    booster = learner["gradient_booster"]
    booster = booster.get("gbtree", booster)
    model = booster["model"]
    if groups > 65536 or features >= 1 << 31:
        raise InvalidModel(f"{label} has {groups} outputs and {features} features.")
    columns = [learner.get("feature_names", []), learner.get("feature_types", [])]
    if any(len(each) not in (0, features) for each in columns):
        raise InvalidModel(f"{label} names other features than the {features} it has.")
    if booster.get("name") == "gblinear":
        if len(model["weights"]) != (features + 1) * groups:
            raise InvalidModel(f"{label} has {len(model['weights'])} weights, which is not enough.")
        return
    trees = model["trees"]
    _check_width(trees, features, len(columns[0]), label, trusted=trusted)
    if any(_count(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in trees):
        raise InvalidModel(
            f"{label} has trees with several values at a leaf, which nothing checks."
        )
    if any(any(each) for each in model.get("cats", {}).values()):
        raise InvalidModel(
            f"{label} holds the names of categories, which nothing checks. Train on their codes."
        )
    steps = model.get("iteration_indptr", [0, len(trees)])
    at_once = _count(model["gbtree_model_param"]["num_parallel_tree"])
    sound = (
        _count(model["gbtree_model_param"]["num_trees"]) == len(trees) == len(model["tree_info"])
        and 0 < at_once * groups < 1 << 31
        and all(0 <= group < groups for group in model["tree_info"])
        and steps[0] == 0
        and steps[-1] == len(trees)
        and all(a < b and (b - a) % groups == 0 for a, b in pairwise(steps))
        and all(tree["id"] == at for at, tree in enumerate(trees))
        and len(learner["gradient_booster"].get("weight_drop", trees)) == len(trees)
    )
    if not sound or not all(_tree_is_sound(tree, features) for tree in trees):
        raise InvalidModel(f"{label} holds a tree that leads outside itself.")


def _count(text: Any) -> int:
    """Return a number as XGBoost writes it: text that it and Python read alike."""
    if not isinstance(text, str) or not _COUNT.match(text):
        raise ValueError(f"{text!r} is no count")
    return int(text)


def _groups(learner: Mapping[str, Any], label: str) -> int:
    """Return how many scores a row has, on which everything that follows has to agree."""
    params, objective = learner["learner_model_param"], learner["objective"]
    classes, targets = _count(params["num_class"]), _count(params.get("num_target", "1"))
    groups = max(1, classes, targets)
    start = json.loads(params["base_score"])
    start = start if isinstance(start, list) else [start]
    shares = objective.get("softmax_multiclass_param")
    if (
        (classes > 1 and targets > 1)
        or len(start) not in (1, groups)
        or not all(isinstance(each, int | float) and isfinite(each) for each in start)
        or (str(objective["name"]).startswith("multi:") and shares is None)
        or (shares is not None and max(1, _count(shares["num_class"])) != max(1, classes))
    ):
        raise InvalidModel(
            f"{label} has the objective {objective['name']!r} and a base score of {len(start)}, "
            f"for {classes} classes and {targets} targets."
        )
    return groups


def _check_width(
    trees: Sequence[Mapping[str, Any]], features: int, named: int, label: str, *, trusted: bool
) -> None:
    """Refuse more features than the trees use: XGBoost sets memory aside for 64 rows of them."""
    if trusted or features <= max(_FEW, named):
        return
    used = max((max(tree["split_indices"], default=0) for tree in trees), default=0) + 1
    if features > min(_MOST, 2 * used):
        raise InvalidModel(
            f"{label} has {features} features, and its trees use the first {used}. Up to {_FEW}, "
            f"or twice what they use and at most {_MOST}, are loaded without names for them."
        )


def _tree_is_sound(  # noqa: PLR0911 - one for each thing that can be wrong
    tree: Mapping[str, Any], features: int
) -> bool:
    count = len(tree["left_children"])
    param = tree["tree_param"]
    if _count(param["num_nodes"]) != count or not count:
        return False
    if _count(param["num_feature"]) > features:
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
    reached, depth, level = 0, 0, [0]
    while level and reached <= count and depth < DEEPEST:
        reached, depth = reached + len(level), depth + 1
        split = [at for at in level if tree["left_children"][at] != -1]
        level = [tree[key][at] for at in split for key in ("left_children", "right_children")]
    if level:
        return False
    live = reached + _count(param["num_deleted"]) == count or reached == count
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

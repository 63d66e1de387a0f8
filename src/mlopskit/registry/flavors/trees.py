"""The trees of a loaded model: every child, feature and category set must be where it says.

Compiled code follows these indices without looking, so that a forged one reads foreign memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel

if TYPE_CHECKING:
    from collections.abc import Iterator

_HISTOGRAM: Final = "sklearn.ensemble._hist_gradient_boosting.predictor"
_PLAIN: Final = "sklearn.tree._tree"


def check_trees(model: Any, label: str) -> None:
    """Check every tree in a model.

    Raises:
        InvalidModel: If one leads outside itself.
    """
    for tree, features in _trees(model):
        sound = (
            _histogram_is_sound(tree, features)
            if type(tree).__module__ == _HISTOGRAM
            else _plain_is_sound(tree, features)
        )
        if not sound:
            raise InvalidModel(f"{label} holds a tree that leads outside itself.")


def _trees(model: Any) -> Iterator[tuple[Any, int | None]]:
    """Yield every tree below an object, with the number of features its owner was trained on."""
    seen: set[int] = set()
    waiting: list[tuple[Any, int | None]] = [(model, None)]
    while waiting:
        item, features = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        kind = type(item)
        if (kind.__module__, kind.__name__) in ((_HISTOGRAM, "TreePredictor"), (_PLAIN, "Tree")):
            yield item, features
            continue
        if isinstance(item, Mapping):
            below: list[Any] = list(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            below = list(item)
        elif kind.__module__ == "numpy" and getattr(item, "dtype", "") == "O":
            below = list(item.flat)
        else:
            own = getattr(item, "__dict__", {})
            below = list(own.values())
            features = own.get("n_features_in_", own.get("_n_features", features))
        waiting += [(each, features) for each in below]


def _histogram_is_sound(tree: Any, features: int | None) -> bool:
    """Check the nodes of histogram gradient boosting: children come after their parent."""
    import numpy as np  # noqa: PLC0415 - there are trees, so NumPy is there

    nodes = tree.nodes
    if nodes.ndim != 1 or not len(nodes):
        return False
    inner = nodes[nodes["is_leaf"] == 0]
    parents = np.flatnonzero(nodes["is_leaf"] == 0)
    sets = len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets)
    sorted_out = inner[inner["is_categorical"] != 0]["bitset_idx"]
    return bool(
        (np.minimum(inner["left"], inner["right"]) > parents).all()
        and (np.maximum(inner["left"], inner["right"]) < len(nodes)).all()
        and (inner["feature_idx"] >= 0).all()
        and (features is None or (inner["feature_idx"] < features).all())
        and (sorted_out < min(sets)).all()
    )


def _plain_is_sound(tree: Any, features: int | None) -> bool:
    """Check the nodes of a decision tree: children come after their parent."""
    import numpy as np  # noqa: PLC0415 - there are trees, so NumPy is there

    left, right, feature = tree.children_left, tree.children_right, tree.feature
    parents = np.flatnonzero(left != -1)
    children = np.stack([left[parents], right[parents]])
    return bool(
        tree.node_count == len(left) > 0
        and (children > parents).all()
        and (children < tree.node_count).all()
        and (feature[parents] >= 0).all()
        and (feature[parents] < min(tree.n_features, features or tree.n_features)).all()
    )

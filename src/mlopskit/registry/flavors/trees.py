"""scikit-learn's trees and what holds them: every index must stay inside what it leads into.

Compiled code follows these indices without looking, so that a forged one reads or writes foreign
memory. What it is given to look up is bounded by the owner of a tree alone, and often by the owner
of the owner; all of them have to agree.
"""

from __future__ import annotations

from typing import Any, Final

HISTOGRAM: Final = ("sklearn.ensemble._hist_gradient_boosting.predictor", "TreePredictor")
PLAIN: Final = ("sklearn.tree._tree", "Tree")
OUTSIDE: Final = "with a tree that leads outside itself"
_ARRAYS: Final = frozenset(["nodes", "raw_left_cat_bitsets", "binned_left_cat_bitsets"])
_APART: Final = "whose trees were not trained on its own features and classes"


def count(value: Any) -> int:
    """Return a whole number that is not negative.

    Raises:
        ValueError: If it is anything else, as an array of one number is.
    """
    import numpy as np  # noqa: PLC0415 - there is a model of scikit-learn, so NumPy is there

    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return int(value)


def names(item: Any) -> tuple[str, str]:
    """Return the module and the name of an object's class."""
    return type(item).__module__, type(item).__name__


def decision_tree(own: dict[str, Any]) -> str | None:
    """Tell what is wrong with an estimator that is one tree."""
    if "tree_" not in own:
        return None
    tree, features = own["tree_"], count(own["n_features_in_"])
    if names(tree) != PLAIN or tree.n_features != features:
        return _APART
    if _groups(own) != (tree.n_outputs, tree.max_n_classes):
        return _APART
    return None if _plain_is_sound(tree, features) else OUTSIDE


def forest(own: dict[str, Any]) -> str | None:
    """Tell what is wrong with a forest, which hands its trees rows that only it has checked."""
    if "estimators_" not in own:
        return None
    features = count(own["n_features_in_"])
    for each in own["estimators_"]:
        if not _is_fitted_tree(each, features) or _groups(own) != _groups(vars(each)):
            return _APART
    return None


def isolation_forest(own: dict[str, Any]) -> str | None:
    """Tell what is wrong with an isolation forest, whose trees get columns of a row each."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    if "estimators_" not in own:
        return None
    features, most = count(own["n_features_in_"]), count(own["_max_features"])
    trees, columns = own["estimators_"], own["estimators_features_"]
    if len(trees) != len(columns):
        return _APART
    for tree, chosen in zip(trees, columns, strict=True):
        plain = type(chosen) is np.ndarray and chosen.dtype.kind in "iu" and chosen.ndim == 1
        if not plain or len(chosen) != most or not _is_fitted_tree(tree, most):
            return _APART
        if most > features or ((chosen < 0) | (chosen >= features)).any():
            return OUTSIDE
    return None


def boosting(own: dict[str, Any]) -> str | None:
    """Tell what is wrong with gradient boosting, whose trees write into one array of results."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    if "estimators_" not in own:
        return None
    trees, features = own["estimators_"], count(own["n_features_in_"])
    if type(trees) is not np.ndarray or trees.ndim != 2 or trees.dtype != object or not trees.size:
        return _APART
    width = trees.shape[1]
    if count(own["n_trees_per_iteration_"]) != width:
        return _APART
    loss = own["_loss"]
    exact = names(loss)[0] == "sklearn._loss.loss" and names(loss.link)[0] == "sklearn._loss.link"
    if not exact or loss.is_multiclass != (width > 1):
        return _APART
    for each in trees.flat:
        if not _is_fitted_tree(each, features) or _groups(vars(each)) != (1, 1):
            return _APART
    return _start(own["init_"], len(own["classes_"]) if "classes_" in own else None, width)


def _start(first: Any, classes: int | None, width: int) -> str | None:
    """Check what boosting begins with: as many columns as there are trees in a step."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    if isinstance(first, str) and first == "zero":
        return None
    sound = False
    if names(first) == ("sklearn.dummy", "DummyClassifier"):
        prior = np.asarray(first.class_prior_)
        known = first.n_outputs_ == 1 and first.n_classes_ == classes
        sound = known and first._strategy == "prior" and prior.shape == (classes,)
        sound = sound and width == (classes if classes and classes > 2 else 1)
    elif names(first) == ("sklearn.dummy", "DummyRegressor"):
        sound = classes is None and first.n_outputs_ == 1 and width == 1
        sound = sound and np.asarray(first.constant_).shape == (1, 1)
    return None if sound else "that begins with what nothing checks, or with as many columns"


def histogram_boosting(  # noqa: PLR0911 - one for each thing that can be wrong
    own: dict[str, Any],
) -> str | None:
    """Tell what is wrong with histogram gradient boosting."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    if "_predictors" not in own:
        return None
    features, width = count(own["n_features_in_"]), count(own["n_trees_per_iteration_"])
    bins = own["_bin_mapper"]
    sorting = np.asarray(bins.is_categorical_)
    edges = bins.bin_thresholds_
    if sorting.shape != (features,) or not isinstance(edges, list) or len(edges) != features:
        return _APART
    if not all(_are_codes(edges[at]) for at in np.flatnonzero(sorting)):
        return _APART
    if np.shape(own["_baseline_prediction"]) not in ((1, width), (width,), ()):
        return _APART
    if not _keeps_the_columns(own["_preprocessor"], features):
        return "that changes how many columns there are before its trees see them"
    for step in own["_predictors"]:
        if not isinstance(step, list) or len(step) != width:
            return _APART
        if not all(_histogram_is_sound(tree, sorting != 0) for tree in step):
            return OUTSIDE
    return None


def _are_codes(values: Any) -> bool:
    """Tell whether the categories of a feature fit the 256 bits of a set."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    found = np.asarray(values)
    return bool(found.ndim == 1 and ((found >= 0) & (found < 256)).all())


def _keeps_the_columns(  # noqa: PLR0911 - one for each thing that can be wrong
    before: Any, features: int
) -> bool:
    """Tell whether a preprocessor is the one that `fit` makes: nothing looks at what it returns."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    if before is None:
        return True
    own = vars(before)
    if names(before) != ("sklearn.compose._column_transformer", "ColumnTransformer"):
        return False
    if count(own["n_features_in_"]) != features or own["transformer_weights"] is not None:
        return False
    taken: list[int] = []
    for name, each, columns in own["transformers_"]:
        if isinstance(each, str) and each == "drop":
            continue
        kind = names(each)
        if kind == ("sklearn.preprocessing._function_transformer", "FunctionTransformer"):
            if not _only_checks(each):
                return False
        elif kind != ("sklearn.preprocessing._encoders", "OrdinalEncoder"):
            return False
        chosen = np.asarray(columns)
        if chosen.shape != (features,) or chosen.dtype != bool:
            return False
        found = np.flatnonzero(chosen).tolist()
        if list(own["_transformer_to_input_indices"][name]) != found:
            return False
        taken += found
    return sorted(taken) == list(range(features))


def _only_checks(each: Any) -> bool:
    func, more = each.func, each.kw_args
    return bool(
        names(func) == ("functools", "partial")
        and getattr(func.func, "__module__", "") == "sklearn.utils.validation"
        and func.func.__name__ == "check_array"
        and not func.args
        and not set(func.keywords) - {"dtype", "ensure_all_finite", "force_all_finite"}
        and not more
    )


def _is_fitted_tree(each: Any, features: int) -> bool:
    return bool(
        names(each)[0] == "sklearn.tree._classes"
        and "tree_" in vars(each)
        and count(each.n_features_in_) == features
    )


def _groups(own: dict[str, Any]) -> tuple[int, int]:
    """Return how many outputs there are, and the classes of the one that has most.

    Raises:
        ValueError: If the classes are not as many as they are said to be.
    """
    import numpy as np  # noqa: PLC0415 - who has the model has it

    outputs = count(own["n_outputs_"])
    if "n_classes_" not in own or "classes_" not in own:
        return outputs, 1
    sizes, classes = own["n_classes_"], own["classes_"]
    if not isinstance(sizes, list | np.ndarray):
        sizes, classes = [sizes], [classes]
    if len(sizes) != outputs or [count(size) for size in sizes] != [len(each) for each in classes]:
        raise ValueError(f"{sizes} classes of {outputs} outputs")
    return outputs, max(count(size) for size in sizes)


def _histogram_is_sound(tree: Any, sorting: Any) -> bool:
    """Check the nodes of histogram gradient boosting: children come after their parent."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    if names(tree) != HISTOGRAM or set(vars(tree)) != _ARRAYS:
        return False
    if not all(type(each) is np.ndarray for each in vars(tree).values()):
        return False
    nodes, sets = tree.nodes, (tree.raw_left_cat_bitsets, tree.binned_left_cat_bitsets)
    if nodes.ndim != 1 or not len(nodes):
        return False
    if any(each.ndim != 2 or each.shape[1] != 8 or each.dtype != np.uint32 for each in sets):
        return False
    parents = np.flatnonzero(nodes["is_leaf"] == 0)
    inner = nodes[parents]
    if (inner["feature_idx"] < 0).any() or (inner["feature_idx"] >= len(sorting)).any():
        return False
    categories = inner[inner["is_categorical"] != 0]
    return bool(
        (np.minimum(inner["left"], inner["right"]) > parents).all()
        and (np.maximum(inner["left"], inner["right"]) < len(nodes)).all()
        and sorting[categories["feature_idx"]].all()
        and (categories["bitset_idx"] < min(len(each) for each in sets)).all()
    )


def _plain_is_sound(tree: Any, features: int) -> bool:
    """Check the nodes of a decision tree: children come after their parent, and have only one."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    if not tree.node_count == tree.capacity > 0:
        return False
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    parents = np.flatnonzero(left != -1)
    children = np.stack([left[parents], right[parents]])
    return bool(
        (children > parents).all()
        and (np.sort(children, axis=None) == np.arange(1, tree.node_count)).all()
        and (feature[parents] >= 0).all()
        and (feature[parents] < features).all()
        # The paths of rows are written to an array that is so deep.
        and _is_as_deep(left, right, tree.max_depth)
    )


def _is_as_deep(left: Any, right: Any, depth: int) -> bool:
    import numpy as np  # noqa: PLC0415 - who has the model has it

    level = np.array([0])
    for _ in range(min(depth, len(left)) + 1):
        level = level[left[level] != -1]
        if not len(level):
            return 0 <= depth < len(left)
        level = np.concatenate([left[level], right[level]])
    return False

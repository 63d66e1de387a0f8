"""What compiled code of scikit-learn follows in a loaded model without looking, held to its bounds.

A file can name any public estimator, with any value for each of its attributes. NumPy looks at
every index; scikit-learn's compiled code, libsvm and SciPy's sparse matrices do not. This covers
`predict`, `transform` and the like: training a model of somebody else further is not covered.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel
from mlopskit.registry.flavors import trees
from mlopskit.registry.flavors.trees import count, names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MOST_THREADS: Final = 1024
_PLAIN: Final = (property, type(None), bool, int, float, str, tuple, list, dict, set, frozenset)
# None of these has more parameters than `p`.
_METRICS: Final = frozenset(
    [
        *("euclidean", "l2", "sqeuclidean", "minkowski", "p", "manhattan", "cityblock", "l1"),
        *("chebyshev", "infinity", "cosine", "correlation", "canberra", "braycurtis", "hamming"),
        *("jaccard", "dice", "rogerstanimoto", "russellrao", "sokalsneath", "haversine"),
        *("precomputed", "nan_euclidean"),
    ]
)


def check_native(model: Any, label: str) -> None:
    """Check all that a model holds.

    Raises:
        InvalidModel: If something in it leads outside, or nothing checks it.
    """
    try:
        for item in _below(model):
            reason = _wrong(item)
            if reason:
                raise InvalidModel(  # noqa: TRY301
                    f"{label} holds a {type(item).__name__} {reason}."
                )
    except InvalidModel:
        raise
    except Exception as exc:  # An attribute can be missing, or anything.
        raise InvalidModel(
            f"{label} is no sound model of scikit-learn: {type(exc).__name__} {exc}"
        ) from exc


def _below(model: Any) -> Iterator[Any]:
    """Yield every object in a model, itself included, once."""
    import numpy as np  # noqa: PLC0415 - there is a model of scikit-learn, so NumPy is there

    seen: set[int] = set()
    kept: list[Any] = []  # An identity is good as long as its object is.
    waiting = [model]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, str | bytes | int | float | type(None)):
            continue
        seen.add(id(item))
        kept.append(item)
        yield item
        if isinstance(item, type) or names(item)[0].startswith("scipy.sparse"):
            continue
        if isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
        elif isinstance(item, np.ndarray):
            waiting += item.flat if item.dtype == object else []
        elif isinstance(item, partial):
            waiting += [item.func, item.args, item.keywords]
        waiting += _parts(item)


def _parts(item: Any) -> list[Any]:
    """Return an object's attributes, but for the trees that the check of their owner looks at."""
    own = getattr(item, "__dict__", {})
    checked = {"tree_"} if _is(item, "BaseDecisionTree") else set()
    if _is(item, "BaseHistGradientBoosting"):
        checked.add("_predictors")
    return [value for key, value in own.items() if key not in checked]


def _is(item: Any, name: str) -> bool:
    return any(
        kind.__name__ == name and kind.__module__.startswith("sklearn.")
        for kind in type(item).__mro__
    )


def _wrong(item: Any) -> str | None:
    module, name = names(item)
    if (module, name) in (trees.PLAIN, trees.HISTOGRAM):
        return "outside the estimator that it belongs to"
    if isinstance(item, type):
        own = item.__module__.partition(".")[0] in ("numpy", "builtins")
        return None if own else f"{item.__qualname__} where a value belongs"
    if module.startswith("scipy.sparse"):
        return _sparse(item)
    if module.startswith("numpy.random"):
        return _random(item)
    return _estimator(item) if module.startswith("sklearn.") else None


def _estimator(item: Any) -> str | None:
    own: dict[str, Any] = getattr(item, "__dict__", {})
    for key, value in own.items():
        # scikit-learn would call it, instead of the method that looks at what it is given.
        if not isinstance(inspect.getattr_static(type(item), key, None), _PLAIN):
            return f"with a {key} of its own, which is a method"
        threads = key in ("n_jobs", "_n_threads", "n_threads") and value is not None
        if threads and (isinstance(value, bool) or abs(int(value)) > _MOST_THREADS):
            return f"with a {key} of {value}"
    found = (check(own) for kind, check in _CHECKS.items() if _is(item, kind))
    return next((reason for reason in found if reason), None)


def _sparse(item: Any) -> str | None:
    if item.format not in ("csr", "csc"):
        return f"of the format {item.format}, which nothing checks"
    try:
        item.check_format(full_check=True)
    except ValueError as exc:
        return f"that leads outside itself: {exc}"
    return None


def _random(item: Any) -> str | None:
    """Check where a generator stands in its own numbers."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    source = getattr(item, "_bit_generator", getattr(item, "bit_generator", item))
    if not isinstance(source, np.random.BitGenerator):
        return "without a source of numbers"
    state: Any = source.state
    at = int(state["state"]["pos"]) if "MT19937" in names(source)[1] else 0
    return None if 0 <= at <= 624 and 0 <= int(state.get("buffer_pos", 0)) <= 4 else _OUTSIDE


_OUTSIDE: Final = "that leads outside itself"


def _machine(own: dict[str, Any]) -> str | None:
    """Check a support vector machine: libsvm takes every array to be as long as it should."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    if "support_vectors_" not in own:
        return None
    if "_impl" in own or "_sparse_kernels" in own or not isinstance(own["kernel"], str):
        return "with a kernel that nothing checks"
    places, vectors, weights = own["support_"], own["support_vectors_"], own["_dual_coef_"]
    found, features, sparse = len(places), count(own["n_features_in_"]), own["_sparse"]
    sizes = own["_n_support"]
    if "classes_" in own:
        classes = len(own["classes_"])
        whole = sizes.shape == (classes,) and int(sizes.astype(np.int64).sum()) == found
    else:
        classes = 2
        whole = sizes.tolist() == [found, found]
    pairs = classes * (classes - 1) // 2
    whole = whole and classes > 1 and bool((sizes >= 0).all())
    whole = whole and sizes.dtype == np.int32 and places.ndim == 1
    whole = whole and weights.shape == (classes - 1, found)
    whole = whole and own["_intercept_"].shape == (pairs,)
    whole = whole and {own["_probA"].size, own["_probB"].size} <= {0, pairs}
    whole = whole and own["_probA"].size == own["_probB"].size
    if sparse:
        whole = whole and weights.data.size == (classes - 1) * found
    if own["kernel"] == "precomputed":
        whole = whole and not sparse and vectors.size == 0 and own["shape_fit_"][0] == features
        whole = whole and bool(((places >= 0) & (places < features)).all())
    else:
        whole = whole and vectors.shape == (found, features)
    return None if whole else "whose support vectors are not as many as it says"


def _neighbors(own: dict[str, Any]) -> str | None:
    """Check neighbours that are searched without a tree."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    if own.get("_fit_X") is None:
        return None
    if own.get("effective_metric_") not in _METRICS or set(own["effective_metric_params_"]) - {"p"}:
        return "with a metric that nothing checks"
    shape = count(own["n_samples_fit_"]), count(own["n_features_in_"])
    if own["_fit_X"].shape != shape or own.get("_tree") is not None:
        return "whose rows are not as many as it says"
    if "classes_" in own:
        codes = np.asarray(own["_y"])
        codes = codes.reshape(-1, 1) if codes.ndim == 1 else codes
        classes = own["classes_"] if own.get("outputs_2d_") else [own["classes_"]]
        if codes.dtype.kind not in "iu" or codes.shape != (shape[0], len(classes)):
            return "whose rows are not as many as it says"
        for at, each in enumerate(classes):
            if ((codes[:, at] < 0) | (codes[:, at] >= len(each))).any():
                return "with rows of a class that there is not"
    return None


def _centers(own: dict[str, Any]) -> str | None:
    if "cluster_centers_" not in own or "_n_threads" not in own:
        return None
    shape = own["cluster_centers_"].shape
    sound = len(shape) == 2 and shape[0] and shape[1] == count(own["n_features_in_"])
    return None if sound and count(own["_n_threads"]) else "whose centers have other features"


def _one_hot(own: dict[str, Any]) -> str | None:
    """Check an encoder, which writes where its counts of columns lead."""
    import numpy as np  # noqa: PLC0415 - who has the model has it

    if "categories_" not in own or "_n_features_outs" not in own:
        return None
    categories, widths = own["categories_"], own["_n_features_outs"]
    dropped = own["_drop_idx_after_grouping"]
    mappings = own["_default_to_infrequent_mappings"] if own["_infrequent_enabled"] else None
    if not len(categories) == len(widths) == count(own["n_features_in_"]):
        return _COLUMNS
    for at, each in enumerate(categories):
        size = len(each)
        if mappings is not None and mappings[at] is not None:
            mapping = np.asarray(mappings[at])
            if mapping.shape != (size,) or mapping.dtype.kind not in "iu" or mapping.min() < 0:
                return _COLUMNS
            size = int(mapping.max()) + 1
        if dropped is not None and dropped[at] is not None:
            if count(dropped[at]) >= size:
                return _COLUMNS
            size -= 1
        if count(widths[at]) != size:
            return _COLUMNS
    return None


_COLUMNS: Final = "whose columns are not as many as it says"


def _vocabulary(own: dict[str, Any], key: str) -> str | None:
    if own.get(key) is None:
        return None
    places = [count(each) for each in own[key].values()]
    return None if sorted(places) == list(range(len(places))) else _COLUMNS


def _hasher(own: dict[str, Any]) -> str | None:
    return None if 0 < count(own["n_features"]) < 1 << 31 else _COLUMNS


def _unchecked(own: dict[str, Any]) -> str | None:
    return "whose tree of clusters nothing checks" if "labels_" in own else None


_CHECKS: Final[Mapping[str, Callable[[dict[str, Any]], str | None]]] = {
    "BaseDecisionTree": trees.decision_tree,
    "BaseForest": trees.forest,
    "IsolationForest": trees.isolation_forest,
    "BaseGradientBoosting": trees.boosting,
    "BaseHistGradientBoosting": trees.histogram_boosting,
    "BaseLibSVM": _machine,
    "NeighborsBase": _neighbors,
    "_BaseKMeans": _centers,
    "OneHotEncoder": _one_hot,
    "CountVectorizer": partial(_vocabulary, key="vocabulary_"),
    "DictVectorizer": partial(_vocabulary, key="vocabulary_"),
    "MultiLabelBinarizer": partial(_vocabulary, key="_cached_dict"),
    "FeatureHasher": _hasher,
    "HashingVectorizer": _hasher,
    # Its tree is followed by `dbscan_clustering`.
    "HDBSCAN": _unchecked,
}

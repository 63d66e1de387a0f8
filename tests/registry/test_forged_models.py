"""Models of scikit-learn whose numbers lead compiled code outside its memory are refused.

None of them is asked for a prediction here: where a check is missing, that ends the process.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore")  # The libraries warn about one another.

RANDOM = np.random.default_rng(11)
X = RANDOM.normal(size=(150, 4))
CODED = np.column_stack([X[:, :3], RANDOM.integers(0, 5, 150)])
Y = (X[:, 0] > 0).astype(int)
THREE = RANDOM.integers(0, 3, 150)
FAR = 500_000_000


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with LocalRegistry(tmp_path / "registry") as opened:
        yield opened


def load(registry: Registry, path: Path, content: bytes, **more: Any) -> Any:
    path.write_bytes(content)
    registry.register("model", path)
    return registry.load("model", "latest", **more)


def far_tree(estimator: Any) -> Any:
    """Return an estimator's tree, as if it had been trained on very many features."""
    from sklearn.tree._tree import Tree

    state = estimator.tree_.__getstate__()
    nodes = state["nodes"].copy()
    nodes["feature"][nodes["left_child"] != -1] = FAR - 1
    classes = np.array([estimator.tree_.max_n_classes], dtype=np.intp)
    tree = Tree(FAR, classes, 1)
    tree.__setstate__({**state, "nodes": nodes})
    return tree


def fitted(name: str, target: Any = None, data: Any = X, **settings: Any) -> Any:
    from sklearn.utils import all_estimators

    if name == BOOSTING:  # Older ones do not trust its loss.
        pytest.importorskip("skops", minversion="0.16")
    kind = dict(all_estimators())[name]
    if not hasattr(data, "shape"):  # Words and labels are not learned from targets.
        return kind(**settings).fit(data)
    return kind(**settings).fit(data, THREE if target is None else target)


def inner_tree(name: str, **settings: Any) -> Any:
    model = fitted(name, X[:, 0] if name.endswith("Regressor") else THREE, **settings)
    last = np.asarray(model.estimators_, dtype=object).flat[-1]
    last.tree_, last.n_features_in_ = far_tree(last), FAR
    return model


def nameless_tree() -> Any:
    model = fitted("DecisionTreeClassifier", max_depth=2)
    model.tree_ = far_tree(model)
    del model.n_features_in_
    return model


def shared_tree() -> Any:
    model = fitted("DecisionTreeClassifier", max_depth=2)
    other = fitted("DecisionTreeClassifier", max_depth=2)
    model.tree_ = other.tree_ = far_tree(model)
    other.n_features_in_ = FAR
    model.other = other
    return model


def bare_tree() -> Any:
    from sklearn.pipeline import Pipeline

    return Pipeline([("tree", fitted("DecisionTreeClassifier", max_depth=2).tree_)])


def shallow_tree() -> Any:
    model = fitted("DecisionTreeClassifier", max_depth=4)
    model.tree_.max_depth = 0
    return model


def own_method() -> Any:
    model = fitted("RandomForestClassifier", n_estimators=2)
    model._validate_X_predict = np.negative
    return model


def changed(name: str, *more: Any, target: Any = None, data: Any = X, **changes: Any) -> Any:
    """Return a function that trains a model and changes its attributes."""

    def make() -> Any:
        model = fitted(name, target, data, **dict(*more))
        for key, value in changes.items():
            setattr(model, key, value(getattr(model, key)) if callable(value) else value)
        return model

    return make


def histogram(change: Callable[[Any], None]) -> Any:
    def make() -> Any:
        settings = {"max_iter": 2, "categorical_features": [3]}
        model = fitted("HistGradientBoostingClassifier", Y, CODED, **settings)
        change(model)
        return model

    return make


def sort(model: Any) -> None:
    """Let every node ask for a set of categories."""
    for tree in (tree for step in model._predictors for tree in step):
        nodes = tree.nodes.copy()
        nodes["is_categorical"], nodes["bitset_idx"] = nodes["is_leaf"] == 0, 0
        nodes["feature_idx"] = 0  # The sorted column comes first.
        tree.nodes = nodes
        tree.raw_left_cat_bitsets = tree.binned_left_cat_bitsets = np.zeros((1, 8), np.uint32)


def no_bits(model: Any) -> None:
    sort(model)
    for tree in (tree for step in model._predictors for tree in step):
        tree.raw_left_cat_bitsets = tree.binned_left_cat_bitsets = np.zeros((1, 0), np.uint32)


def no_categories(model: Any) -> None:
    sort(model)
    model._bin_mapper.is_categorical_ = np.zeros(4, dtype=np.uint8)


def few_bins(model: Any) -> None:
    model._bin_mapper.is_categorical_ = np.ones(1, dtype=np.uint8)
    model._bin_mapper.bin_thresholds_ = model._bin_mapper.bin_thresholds_[:1]


def fewer_columns(model: Any) -> None:
    model._preprocessor.transformers_ = model._preprocessor.transformers_[:1]


def other_columns(model: Any) -> None:
    from sklearn.feature_selection import SelectKBest

    model._preprocessor = SelectKBest(k=1).fit(CODED, Y)


def lost_generator() -> Any:
    model = fitted("RandomForestClassifier", n_estimators=2)
    model.random_state = np.random.RandomState(3)
    kind, key, _, *rest = model.random_state.get_state()
    model.random_state.set_state((kind, key, 1_000_000, *rest))
    return model


def wide_labels() -> Any:
    model = fitted("MultiLabelBinarizer", None, [[1, 2], [3]])
    model.transform([[1]])
    model._cached_dict = {1: 0, 2: 1, 3: FAR}
    return model


def start(name: str, init: Any, **more: Any) -> Any:
    from sklearn import dummy

    def make() -> Any:
        first = getattr(dummy, init)().fit(X, X[:, 0])
        for key, value in more.items():
            setattr(first, key, value)
        model = fitted(name, X[:, 0] if name.endswith("Regressor") else THREE, n_estimators=2)
        model.init_ = first
        return model

    return make


BOOSTING = "GradientBoostingClassifier"
ISOLATION = "IsolationForest"
BRUTE = {"algorithm": "brute"}
FORGED: dict[str, Callable[[], Any]] = {
    "boosting with a tree of more features": lambda: inner_tree(
        "GradientBoostingRegressor", n_estimators=3
    ),
    "forest with a tree of more features": lambda: inner_tree(
        "RandomForestClassifier", n_estimators=3
    ),
    "isolation forest with such a tree": lambda: inner_tree(ISOLATION, n_estimators=3),
    "tree without a number of features": nameless_tree,
    "tree of two owners": shared_tree,
    "tree that is a step of a pipeline": bare_tree,
    "tree deeper than it says": shallow_tree,
    "boosting of fewer results than trees": changed(
        BOOSTING, {"n_estimators": 2}, n_trees_per_iteration_=1
    ),
    "boosting with another loss": changed(
        BOOSTING, {"n_estimators": 2}, _loss=lambda loss: loss.link
    ),
    "boosting that begins with one column": start(BOOSTING, "DummyRegressor"),
    "boosting that begins with none": start(
        "GradientBoostingRegressor", "DummyRegressor", constant_=np.zeros((1, 0))
    ),
    "histogram without bits": histogram(no_bits),
    "histogram without categories": histogram(no_categories),
    "histogram with few bins": histogram(few_bins),
    "histogram that loses columns": histogram(fewer_columns),
    "histogram that selects columns": histogram(other_columns),
    "histogram of many results": histogram(
        lambda model: setattr(model, "n_trees_per_iteration_", 1_000_000)
    ),
    "isolation forest of fewer columns": changed(ISOLATION, {"n_estimators": 2}, _max_features=2),
    "isolation forest of other columns": changed(
        ISOLATION,
        {"n_estimators": 2},
        estimators_features_=lambda found: [each[:1] for each in found],
        _max_features=1,
    ),
    "forest with a method of its own": own_method,
    "forest of very many threads": changed(
        "RandomForestClassifier", {"n_estimators": 2}, n_jobs=10**6
    ),
    "generator that stands outside": lost_generator,
    "machine of fewer weights": changed("SVC", _dual_coef_=lambda found: found[:, :2].copy()),
    "machine of more classes": changed("SVC", _n_support=lambda n: np.tile(n, 50)),
    "machine of fewer vectors": changed("SVR", support_vectors_=lambda found: found[:2].copy()),
    "machine of another kind": changed("SVC", _impl="epsilon_svr"),
    "machine without intercepts": changed("SVC", _intercept_=lambda found: found[:1].copy()),
    "machine of a kernel outside": changed(
        "SVC", {"kernel": "precomputed"}, data=X @ X.T, support_=lambda found: found + FAR
    ),
    "centers of other features": changed(
        "KMeans", {"n_clusters": 3}, cluster_centers_=lambda found: found[:, :1].copy()
    ),
    "neighbors of other features": changed(
        "KNeighborsClassifier", BRUTE, _fit_X=lambda found: found[:, :1].copy()
    ),
    "neighbors of no class": changed("KNeighborsClassifier", BRUTE, _y=lambda found: found + FAR),
    "neighbors of another metric": changed(
        "KNeighborsClassifier", BRUTE, effective_metric_params_={"V": np.ones(1)}
    ),
    "encoder of fewer columns": changed(
        "OneHotEncoder", data=THREE.reshape(-1, 1), _n_features_outs=[1]
    ),
    "encoder that drops what is not there": changed(
        "OneHotEncoder",
        {"drop": "first"},
        data=THREE.reshape(-1, 1),
        _drop_idx_after_grouping=np.array([-9], dtype=object),
    ),
    "encoder of groups outside": changed(
        "OneHotEncoder",
        {"min_frequency": 60},
        data=THREE.reshape(-1, 1),
        _default_to_infrequent_mappings=[np.array([FAR, 0, 1])],
    ),
    "words outside": changed("CountVectorizer", data=["a bb", "cc"], vocabulary_={"bb": FAR}),
    "keys outside": changed("DictVectorizer", data=[{"a": 1}], vocabulary_={"a": FAR}),
    "labels outside": wide_labels,
    "hashes of no columns": changed("FeatureHasher", data=[{"a": 1}], n_features=0),
    "clusters of a tree": changed("HDBSCAN"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_model_of_scikit_learn_that_leads_outside_is_refused(
    registry: Registry, tmp_path: Path, name: str
) -> None:
    skops_io = pytest.importorskip("skops.io")
    with pytest.raises(InvalidModel):
        load(registry, tmp_path / "m.skops", skops_io.dumps(FORGED[name]()))


def test_what_would_not_be_loaded_is_not_registered(registry: Registry) -> None:
    pytest.importorskip("skops")
    with pytest.raises(InvalidModel, match="not trained on its own features"):
        registry.register("model", shared_tree())
    assert registry.list_models() == []


def entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(found: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in found.items():
            archive.writestr(name, content)
    return out.getvalue()


def tree_nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("__loader__") == "TreeNode":
            yield value
        for each in value.values():
            yield from tree_nodes(each)
    elif isinstance(value, list):
        for each in value:
            yield from tree_nodes(each)


@pytest.mark.parametrize("change", ["outputs", "loader"])
def test_a_tree_that_overruns_while_it_is_built_is_never_built(
    registry: Registry, tmp_path: Path, change: str
) -> None:
    skops_io = pytest.importorskip("skops.io")
    found = entries(skops_io.dumps(fitted("DecisionTreeClassifier", max_depth=2)))
    schema = json.loads(found["schema.json"])
    (node,) = tree_nodes(schema)
    if change == "outputs":
        node["__reduce__"]["args"]["content"][2]["content"] = "3"
    else:
        node.update(__loader__="ConstructorFromReduceNode", content=node["__reduce__"]["args"])
    found["schema.json"] = json.dumps(schema).encode()
    with pytest.raises(InvalidModel, match="builds a tree"):
        load(registry, tmp_path / "m.skops", zipped(found))


def test_a_sparse_matrix_that_leads_outside_is_refused(registry: Registry, tmp_path: Path) -> None:
    skops_io = pytest.importorskip("skops.io")
    model = fitted("SparseRandomProjection", n_components=2)
    model.components_.indices[:] = FAR
    found = entries(skops_io.dumps(model))
    kind = type(model.components_)
    # The name of the class is not looked at, and this one is trusted.
    schema = found["schema.json"].decode().replace(f'"{kind.__name__}"', '"spmatrix"')
    schema = schema.replace(f'"{kind.__module__}"', '"scipy.sparse._matrix"')
    found["schema.json"] = schema.encode()
    with pytest.raises(InvalidModel, match="leads outside itself"):
        load(registry, tmp_path / "m.skops", zipped(found))


BOTH = np.column_stack([Y, THREE])
SOUND: dict[str, Callable[[], Any]] = {
    "trees of two outputs": lambda: fitted("RandomForestClassifier", BOTH, n_estimators=2),
    "one tree of two outputs": lambda: fitted("DecisionTreeClassifier", BOTH),
    "regression of two outputs": lambda: fitted("ExtraTreesRegressor", X[:, :2], n_estimators=2),
    "boosting from zero": lambda: fitted(BOOSTING, n_estimators=2, init="zero"),
    "boosting of three": lambda: fitted(BOOSTING, n_estimators=2),
    "boosting of quantiles": lambda: fitted(
        "GradientBoostingRegressor", X[:, 0], n_estimators=2, loss="quantile"
    ),
    "isolation of columns": lambda: fitted(ISOLATION, n_estimators=3, max_features=2),
    "histogram of categories": histogram(lambda model: None),
    "bag of columns": lambda: fitted("BaggingClassifier", n_estimators=3, max_features=2),
    "machine of three": lambda: fitted("SVC"),
    "machine of one": lambda: fitted("OneClassSVM"),
    "neighbors of three": lambda: fitted("KNeighborsClassifier", algorithm="brute"),
    "neighbors of two outputs": lambda: fitted("KNeighborsClassifier", BOTH, algorithm="brute"),
    "centers": lambda: fitted("KMeans", n_clusters=3),
    "network": lambda: fitted("MLPClassifier", max_iter=5),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_of_scikit_learn_still_loads(registry: Registry, name: str) -> None:
    pytest.importorskip("skops")
    model = SOUND[name]()
    data = CODED if "histogram" in name else X
    registry.register("model", model)
    np.testing.assert_array_equal(registry.load("model", 1).predict(data), model.predict(data))


@pytest.mark.parametrize("drop", [None, "first", "if_binary"])
def test_an_encoder_of_rare_categories_still_loads(registry: Registry, drop: Any) -> None:
    pytest.importorskip("skops")
    codes = np.column_stack([THREE, CODED[:, 3], Y])
    model = fitted("OneHotEncoder", None, codes, min_frequency=35, drop=drop)
    registry.register("model", model)
    found = registry.load("model", 1).transform(codes)
    np.testing.assert_array_equal(found.toarray(), model.transform(codes).toarray())


def test_a_matrix_of_scipy_by_its_own_name_still_needs_trust(
    registry: Registry, tmp_path: Path
) -> None:
    skops_io = pytest.importorskip("skops.io")
    model = fitted("SparseRandomProjection", n_components=2)
    with pytest.raises(UntrustedModel, match=r"scipy\.sparse"):
        load(registry, tmp_path / "m.skops", skops_io.dumps(model))

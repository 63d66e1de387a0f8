"""Boosters and networks whose numbers contradict one another are refused before they are built.

None of them is asked for a prediction: where a check is missing, that ends the process.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlopskit.errors import InvalidModel
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore")  # The libraries warn about one another.

RANDOM = np.random.default_rng(11)
X = RANDOM.normal(size=(150, 4))
Y = (X[:, 0] > 0).astype(int)
THREE = RANDOM.integers(0, 3, 150)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with LocalRegistry(tmp_path / "registry") as opened:
        yield opened


def load(registry: Registry, path: Path, content: bytes, **more: Any) -> Any:
    path.write_bytes(content)
    registry.register("model", path)
    return registry.load("model", "latest", **more)


# LightGBM.


def lightgbm_text(**settings: Any) -> str:
    lightgbm = pytest.importorskip("lightgbm")
    given = {"objective": "binary", "num_leaves": 6, "verbose": -1, **settings}
    target = THREE if "num_class" in settings else Y
    return str(lightgbm.train(given, lightgbm.Dataset(X, target), 2).model_to_string())


def lightgbm_chain(depth: int) -> str:
    """Return a sound model of one tree that is so deep."""
    inner, head = depth, lightgbm_text().split("\ntree_sizes=")[0]
    fields = {
        "num_leaves": [inner + 1],
        "num_cat": [0],
        "split_feature": [0] * inner,
        "split_gain": [1] * inner,
        "threshold": [0] * inner,
        "decision_type": [2] * inner,
        "left_child": [*range(1, inner), -1],
        "right_child": [-at - 2 for at in range(inner)],
        "leaf_value": [1] * (inner + 1),
        "internal_value": [0] * inner,
        "internal_weight": [1] * inner,
        "internal_count": [1] * inner,
        "is_linear": [0],
        "shrinkage": [1],
    }
    lines = [f"{key}={' '.join(map(str, values))}" for key, values in fields.items()]
    tree = "\n".join(["Tree=0", *lines]) + "\n\n\n"
    return (
        f"{head}\ntree_sizes={len(tree)}\n\n{tree}end of trees\n\nparameters:\nend of parameters\n"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("objective=binary sigmoid:1", "objective=multiclass num_class:50"),
        ("objective=binary sigmoid:1", "objective=multiclassova num_class:50 sigmoid:1"),
        ("objective=binary sigmoid:1", "objective=multiclass num_class:1 num_class:9"),
        ("objective=binary sigmoid:1", "objective="),
        ("objective=binary sigmoid:1", "objective"),
        ("objective=binary sigmoid:1", "objective=binary\x0bsigmoid:1"),
        ("num_class=1", "num_class=3"),
        ("num_class=1", "num_class=1\nnum_class=1"),
        ("num_class=1", "num_class=\u0661"),
        ("label_index=0", "label_index=99999999"),
        ("feature_infos=[", "feature_infos=x["),
        ("Tree=0\n", "Tree=0 Tree=0\n"),
        ("Tree=0\nnum_leaves", "Tree=0\n\nnum_leaves"),
        ("[boosting: gbdt]", "[boosting"),
        ("tree\nversion=v4", "tree\nversion=v4\nsubmodel=x"),
    ],
)
def test_a_file_of_lightgbm_that_contradicts_itself_is_refused(
    registry: Registry, tmp_path: Path, old: str, new: str
) -> None:
    text = lightgbm_text()
    assert old in text
    assert load(registry, tmp_path / "m.txt", text.encode()).num_trees() == 2
    with pytest.raises(InvalidModel):
        load(registry, tmp_path / "m.txt", text.replace(old, new, 1).encode())


def test_lightgbm_writes_as_many_results_as_there_are_classes(
    registry: Registry, tmp_path: Path
) -> None:
    text = lightgbm_text(objective="multiclass", num_class=3)
    assert load(registry, tmp_path / "m.txt", text.encode()).predict(X).shape == (150, 3)
    with pytest.raises(InvalidModel, match="num_class:100000"):
        load(registry, tmp_path / "m.txt", text.replace("num_class:3", "num_class:100000").encode())


def test_a_tree_of_lightgbm_may_be_deep_and_not_bottomless(
    registry: Registry, tmp_path: Path
) -> None:
    booster = load(registry, tmp_path / "m.txt", lightgbm_chain(1000).encode())
    assert booster.predict(X, pred_contrib=True).shape == (150, 5)
    with pytest.raises(InvalidModel, match="leads outside"):
        load(registry, tmp_path / "m.txt", lightgbm_chain(1100).encode())


def test_linear_trees_of_lightgbm_load_and_their_features_are_looked_at(
    registry: Registry, tmp_path: Path
) -> None:
    text = lightgbm_text(objective="regression", linear_tree=True)
    lightgbm = pytest.importorskip("lightgbm")
    booster = load(registry, tmp_path / "m.txt", text.encode())
    np.testing.assert_array_equal(booster.predict(X), lightgbm.Booster(model_str=text).predict(X))
    lines = (each for each in text.split("\n") if each.startswith("leaf_features="))
    line = next(each for each in lines if "0" in each)
    spoiled = line.replace("0", "9")
    with pytest.raises(InvalidModel, match="leads outside"):
        load(registry, tmp_path / "m.txt", text.replace(line, spoiled, 1).encode())


# XGBoost.


def xgboost_model(**settings: Any) -> Any:
    xgb = pytest.importorskip("xgboost")
    given = {"objective": "multi:softprob", "num_class": 3, "max_depth": 2, **settings}
    return json.loads(bytes(xgb.train(given, xgb.DMatrix(X, THREE), 2).save_raw("json")))


def set_in(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(found: Any) -> None:
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = to

    return change


PARAMS = ("learner", "learner_model_param")
MODEL = ("learner", "gradient_booster", "model")


@pytest.mark.parametrize(
    "change",
    [
        set_in(*PARAMS, "num_feature", to=str(2**31 - 1)),
        set_in(*PARAMS, "num_feature", to="100000"),
        set_in(*PARAMS, "num_target", to="3"),
        set_in(*PARAMS, "base_score", to="[" + ",".join(["5E-1"] * 1000) + "]"),
        set_in(*PARAMS, "base_score", to="[NaN]"),
        set_in("learner", "objective", "softmax_multiclass_param", "num_class", to="100000"),
        set_in("learner", "feature_names", to=["a"]),
        set_in(*MODEL, "gbtree_model_param", "num_parallel_tree", to="2147483647"),
        set_in(*MODEL, "iteration_indptr", to=[0, 5, 6]),
        set_in(*MODEL, "iteration_indptr", to=[0, 3, 3, 6]),
        set_in(*MODEL, "cats", to={"enc": [], "sorted_idx": [99], "feature_segments": []}),
    ],
)
def test_a_file_of_xgboost_that_contradicts_itself_is_refused(
    registry: Registry, tmp_path: Path, change: Callable[[Any], None]
) -> None:
    found = xgboost_model()
    assert load(registry, tmp_path / "m.json", json.dumps(found).encode()).num_features() == 4
    change(found)
    with pytest.raises(InvalidModel):
        load(registry, tmp_path / "m.json", json.dumps(found).encode())


def test_many_features_of_xgboost_need_trees_that_use_them_or_trust(
    registry: Registry, tmp_path: Path
) -> None:
    found = xgboost_model()
    found["learner"]["learner_model_param"]["num_feature"] = "200000"
    content = json.dumps(found).encode()
    with pytest.raises(InvalidModel, match="its trees use the first"):
        load(registry, tmp_path / "m.json", content)
    assert load(registry, tmp_path / "m.json", content, trusted=True).num_features() == 200_000

    found["learner"]["gradient_booster"]["model"]["trees"][0]["split_indices"][0] = 150_000
    booster = load(registry, tmp_path / "m.json", json.dumps(found).encode())
    assert booster.num_features() == 200_000


def test_a_tree_of_xgboost_is_not_bottomless(registry: Registry, tmp_path: Path) -> None:
    found = xgboost_model()
    depth = 1100
    count = 2 * depth + 1
    leaf = [at % 2 == 1 or at == count - 1 for at in range(count)]  # Nodes 1, 3, 5... and the last.
    tree = found["learner"]["gradient_booster"]["model"]["trees"][0]
    for key in ("base_weights", "loss_changes", "sum_hessian", "split_conditions"):
        tree[key] = [0.5] * count
    for key in ("split_indices", "split_type", "default_left"):
        tree[key] = [0] * count
    tree["left_children"] = [-1 if leaf[at] else at + 1 for at in range(count)]
    tree["right_children"] = [-1 if leaf[at] else at + 2 for at in range(count)]
    tree["parents"] = [2147483647, *((at - 1) // 2 * 2 for at in range(1, count))]
    tree["tree_param"].update(num_nodes=str(count), num_deleted="0")
    with pytest.raises(InvalidModel, match="leads outside"):
        load(registry, tmp_path / "m.json", json.dumps(found).encode())


# Keras.


def entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(found: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in found.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    for needed in ("torch", "h5py"):
        pytest.importorskip(needed)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def keras_entries(keras: Any, folder: Path) -> dict[str, bytes]:
    layers = keras.layers
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3), layers.Dense(2)])
    model.save(folder / "given.keras")
    return entries((folder / "given.keras").read_bytes())


@pytest.mark.parametrize("units", [[1_000_000_000, 2], [6000, 6000]], ids=["one", "both"])
def test_a_size_that_its_weights_do_not_have_is_refused_before_memory_is_taken(
    registry: Registry, tmp_path: Path, keras: Any, units: list[int]
) -> None:
    found = keras_entries(keras, tmp_path)
    config = json.loads(found["config.json"])
    dense = config["config"]["layers"][1:]
    for layer, number in zip(dense, units, strict=True):
        layer["config"]["units"] = number
    dense[1]["build_config"]["input_shape"] = [None, units[0]]
    found["config.json"] = json.dumps(config).encode()
    with pytest.raises(InvalidModel, match=r"no weights of such a size|asks for \d+ numbers"):
        load(registry, tmp_path / "m.keras", zipped(found))


def test_weights_that_are_not_stored_whole_are_refused(
    registry: Registry, tmp_path: Path, keras: Any
) -> None:
    h5py = pytest.importorskip("h5py")
    found = keras_entries(keras, tmp_path)
    out = io.BytesIO(found["model.weights.h5"])
    with h5py.File(out, "r+") as file:
        file.create_dataset("hollow", (1 << 30,), "f4", chunks=(1024,))
    found["model.weights.h5"] = out.getvalue()
    with pytest.raises(InvalidModel, match="not stored whole"):
        load(registry, tmp_path / "m.keras", zipped(found))


def test_models_of_keras_with_state_of_every_kind_still_load(
    registry: Registry, keras: Any
) -> None:
    layers = keras.layers
    words = keras.Input((6,))
    found = layers.Embedding(50, 8)(words)
    found = layers.LayerNormalization()(found + layers.MultiHeadAttention(2, 4)(found, found))
    found = layers.Dropout(0.1)(layers.Bidirectional(layers.GRU(5))(found))
    model = keras.Model(words, layers.Dense(2)(layers.BatchNormalization()(found)))
    registry.register("model", model)
    rows = RANDOM.integers(0, 50, (3, 6))
    np.testing.assert_allclose(
        registry.load("model", 1).predict(rows, verbose=0),
        model.predict(rows, verbose=0),
        rtol=1e-5,
    )

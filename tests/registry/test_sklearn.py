from __future__ import annotations

import functools
import io
import json
import os
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("skops")

from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier
from skops import io as skops_io

from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry import compare_on, infer_signature
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry import Registry

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(200, 3))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(np.int64)
MIXED = np.array([[("u", "v")[y], x[0], x[1]] for x, y in zip(X, Y, strict=True)], dtype=object)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with LocalRegistry(tmp_path / "registry") as opened:
        yield opened


def encoded(*steps: Any) -> Any:
    columns = ColumnTransformer(
        [
            ("one", OneHotEncoder(handle_unknown="ignore"), [0]),
            ("code", OrdinalEncoder(), [0]),
            ("target", TargetEncoder(), [0]),
            ("scale", StandardScaler(), [1, 2]),
        ]
    )
    return make_pipeline(columns, *steps)


@pytest.mark.parametrize(
    "model",
    [
        AdaBoostClassifier(n_estimators=3),
        CalibratedClassifierCV(LogisticRegression()),
        DecisionTreeClassifier(),
        ExtraTreesClassifier(3),
        GradientBoostingClassifier(n_estimators=3),
        GradientBoostingRegressor(n_estimators=3, loss="huber"),
        HistGradientBoostingClassifier(max_iter=3, early_stopping=True),
        HistGradientBoostingRegressor(max_iter=3, loss="poisson"),
        HistGradientBoostingRegressor(max_iter=3, loss="quantile", quantile=0.9),
        LogisticRegression(),
        RandomForestClassifier(3),
        RandomForestRegressor(3),
        Ridge(),
        StackingClassifier([("tree", DecisionTreeClassifier())]),
        VotingClassifier([("line", LogisticRegression())]),
        make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=3)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_model_of_scikit_learns_own_types_loads_without_trust(
    registry: Registry, model: Any
) -> None:
    model.fit(X, Y)
    made = registry.register("model", model)

    assert made.flavor == "sklearn"
    np.testing.assert_array_equal(registry.load("model", 1).predict(X), model.predict(X))


@pytest.mark.parametrize(
    "last", [HistGradientBoostingClassifier(max_iter=3), LogisticRegression()], ids=str
)
def test_a_pipeline_with_encoders_loads_without_trust(registry: Registry, last: Any) -> None:
    model = encoded(last).fit(MIXED, Y)
    registry.register("model", model, signature=infer_signature(X, model.predict(MIXED)))

    loaded = registry.load("model", "latest")
    np.testing.assert_array_equal(loaded.predict_proba(MIXED), model.predict_proba(MIXED))


def test_trees_over_categories_load_without_trust(registry: Registry) -> None:
    codes = np.column_stack([RANDOM.integers(0, 9, 200), X[:, 0]])
    model = HistGradientBoostingClassifier(max_iter=20, categorical_features=[0])
    model.fit(codes, (codes[:, 0] % 3 == 1).astype(int))
    registry.register("model", model)
    np.testing.assert_array_equal(
        registry.load("model", 1).predict_proba(codes), model.predict_proba(codes)
    )


def test_a_type_of_somebody_else_is_refused_by_name(registry: Registry, tmp_path: Path) -> None:
    model = KNeighborsClassifier().fit(X, Y)
    path = tmp_path / "foreign.skops"
    skops_io.dump(model, path)
    registry.register("model", path)

    with pytest.raises(UntrustedModel, match=r"sklearn\.neighbors\._kd_tree\.KDTree"):
        registry.load("model", 1)
    loaded = registry.load("model", 1, trusted=True)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_a_command_in_a_skops_file_never_runs(registry: Registry, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "evil.skops"
    skops_io.dump(functools.partial(os.system, f"touch {canary}"), path)
    registry.register("evil", path)

    with pytest.raises(UntrustedModel, match=r"posix\.system"):
        registry.load("evil", 1)
    assert not canary.exists()


class Custom(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Not one of scikit-learn's own."""


def shout(x: Any) -> Any:
    return x


@pytest.mark.parametrize(
    "model",
    [Custom(), make_pipeline(FunctionTransformer(shout), Ridge())],
    ids=["class", "function"],
)
def test_a_model_that_could_not_be_loaded_is_not_registered(registry: Registry, model: Any) -> None:
    with pytest.raises(InvalidModel, match="test_sklearn"):
        registry.register("model", model)
    assert registry.list_models() == []


def test_a_pickle_under_a_skops_name_inside_a_zip_runs_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "model.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", b"{}")
        archive.writestr("data.pkl", pickle.dumps(functools.partial(os.system, "true")))
    registry.register("model", path)
    with pytest.raises(InvalidModel, match="no sound skops file"):
        registry.load("model", 1)


def test_a_bomb_is_refused_before_it_unpacks(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b"{}")
        with archive.open("zeros.npy", "w") as file:
            for _ in range(70):
                file.write(bytes(1 << 20))
    registry.register("model", path)
    with pytest.raises(InvalidModel, match="unpack"):
        registry.load("model", 1)


def forged(model: Any, name: str, change: Callable[[Any], None]) -> bytes:
    """Return a skops file in which each array with a field has been changed."""
    given = zipfile.ZipFile(io.BytesIO(skops_io.dumps(model)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for entry in given.namelist():
            content = given.read(entry)
            if entry.endswith(".npy"):
                array = np.load(io.BytesIO(content))
                if name in (array.dtype.names or ()):
                    change(array)
                buffer = io.BytesIO()
                np.save(buffer, array)
                content = buffer.getvalue()
            archive.writestr(entry, content)
    return out.getvalue()


def far(array: Any) -> None:
    array["left" if "left" in array.dtype.names else "left_child"][0] = 1_000_000


def cycle(array: Any) -> None:
    array["left" if "left" in array.dtype.names else "left_child"][0] = 0


def wide(array: Any) -> None:
    array["feature_idx" if "feature_idx" in array.dtype.names else "feature"][0] = 4096


@pytest.mark.parametrize("change", [far, cycle, wide])
@pytest.mark.parametrize(
    ("model", "field"),
    [
        (HistGradientBoostingClassifier(max_iter=2), "left"),
        (DecisionTreeClassifier(), "left_child"),
        (RandomForestClassifier(2), "left_child"),
        (GradientBoostingClassifier(n_estimators=2), "left_child"),
    ],
    ids=["histogram", "tree", "forest", "boosting"],
)
def test_a_forged_tree_is_refused_before_it_reads_foreign_memory(
    registry: Registry, tmp_path: Path, model: Any, field: str, change: Callable[[Any], None]
) -> None:
    path = tmp_path / "forged.skops"
    path.write_bytes(forged(model.fit(X, Y), field, change))
    registry.register("model", path)
    with pytest.raises(InvalidModel, match="leads outside"):
        registry.load("model", 1)


def test_the_manifest_names_the_libraries(registry: Registry, tmp_path: Path) -> None:
    made = registry.register("model", Ridge().fit(X, Y))
    text = (tmp_path / "registry" / "blobs" / made.digest[7:9] / made.digest[7:]).read_text()
    assert set(json.loads(text)["libraries"]) == {"numpy", "scikit-learn", "skops"}


def test_candidate_and_holder_are_compared_on_the_same_data(registry: Registry) -> None:
    registry.register("model", DecisionTreeClassifier(max_depth=1).fit(X, Y))
    registry.register("model", DecisionTreeClassifier().fit(X, Y))
    gate = compare_on(lambda model: {"accuracy": model.score(X, Y)}, "accuracy", by=0.01)
    first = registry.promote("model", 1, "production", [gate])
    second = registry.promote("model", 2, "production", [gate])

    (evidence,) = second.evidence.values()
    assert first
    assert second
    assert evidence["candidate"] == 1.0
    assert evidence["holder"] == first.evidence["compare_on(accuracy)"]["candidate"]
    assert evidence["holder"] < 0.99
    assert evidence["holder_version"] == 1

    registry.register("model", DecisionTreeClassifier().fit(X, Y))
    third = registry.promote("model", 3, "production", [gate])
    assert not third
    assert "not 0.01 better" in third.reasons[0]

"""Objects of each library go into a registry and come out with the same answers."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlopskit import Predictor
from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry import flavors
from mlopskit.registry.blobs import Manifest, read
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore")  # The libraries warn about one another.

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(200, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
CODES = np.column_stack([RANDOM.integers(0, 20, 200), X[:, 0]]).astype(np.float32)
CHOSEN = np.isin(CODES[:, 0], [1, 5, 9]).astype(int)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with LocalRegistry(tmp_path / "registry") as opened:
        yield opened


def there_and_back(
    registry: Registry, model: Any, answer: Callable[[Any], Any], **more: Any
) -> Any:
    """Register a model, load it without trust, and compare what the two answer."""
    registry.register("model", model, **more)
    loaded = registry.load("model", "latest")
    np.testing.assert_allclose(answer(loaded), answer(model), rtol=1e-6)
    return loaded


@pytest.mark.parametrize("booster", ["gbtree", "dart", "gblinear"])
def test_a_booster_of_xgboost(registry: Registry, booster: str) -> None:
    xgb = pytest.importorskip("xgboost")
    data = xgb.DMatrix(X, Y)
    model = xgb.train({"booster": booster, "objective": "binary:logistic"}, data, 3)
    there_and_back(registry, model, lambda each: each.predict(data))


@pytest.mark.parametrize("name", ["XGBClassifier", "XGBRegressor", "XGBRFClassifier"])
def test_an_estimator_of_xgboost_keeps_its_class(registry: Registry, name: str) -> None:
    xgb = pytest.importorskip("xgboost")
    model = getattr(xgb, name)(n_estimators=3, gamma=0.5).fit(X, Y)
    loaded = there_and_back(registry, model, lambda each: each.predict(X))
    assert type(loaded) is type(model)


def test_categories_of_xgboost(registry: Registry) -> None:
    xgb = pytest.importorskip("xgboost")
    types = {"feature_types": ["c", "q"], "enable_categorical": True}
    model = xgb.train({"max_cat_to_onehot": 2}, xgb.DMatrix(CODES, CHOSEN, **types), 3)
    there_and_back(registry, model, lambda each: each.predict(xgb.DMatrix(CODES, **types)))


def test_a_file_of_ubjson(registry: Registry, tmp_path: Path) -> None:
    xgb = pytest.importorskip("xgboost")
    model = xgb.train({}, xgb.DMatrix(X, Y), 3)
    model.save_model(tmp_path / "model.ubj")
    assert registry.register("model", tmp_path / "model.ubj").flavor == "xgboost"
    loaded = registry.load("model", 1)
    np.testing.assert_array_equal(loaded.predict(xgb.DMatrix(X)), model.predict(xgb.DMatrix(X)))


def test_a_booster_of_lightgbm(registry: Registry) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(X, Y), 3)
    there_and_back(registry, model, lambda each: each.predict(X))


def test_a_classifier_of_lightgbm_keeps_its_labels(registry: Registry) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    labels = np.array(["no", "yes"])[Y]
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(X, labels)
    loaded = there_and_back(registry, model, lambda each: each.predict_proba(X))
    assert loaded.predict(X).tolist() == model.predict(X).tolist()
    assert type(loaded) is type(model)


def test_categories_of_lightgbm(registry: Registry) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMRegressor(n_estimators=3, verbose=-1, min_data_per_group=1, cat_smooth=0)
    model.fit(CODES, CHOSEN, categorical_feature=[0])
    there_and_back(registry, model, lambda each: each.predict(CODES))


def network(torch: Any) -> Any:
    nn = torch.nn
    layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.GELU(), nn.Linear(8, 1)
    return nn.Sequential(*layers).eval()


def test_a_module_with_an_example_of_one_row_is_exported_for_any_number(registry: Registry) -> None:
    torch = pytest.importorskip("torch")

    def answer(model: Any) -> Any:
        return model(torch.from_numpy(X)).detach().numpy()

    there_and_back(registry, network(torch), answer, input_example=X[:1])
    assert registry.get_version("model", 1).flavor == "torch"


def test_a_module_of_several_inputs_takes_as_many_rows_of_each(registry: Registry) -> None:
    torch = pytest.importorskip("torch")

    class Joined(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, one: Any, other: Any) -> Any:
            return torch.cat([one, other], 1)

    def answer(model: Any) -> Any:
        return model(torch.from_numpy(X), torch.from_numpy(X[:, :1].copy())).numpy()

    example = {"one": X[:2], "other": X[:2, :1]}
    loaded = there_and_back(registry, Joined(), answer, input_example=example)
    with pytest.raises(RuntimeError, match="shape"):
        loaded(torch.from_numpy(X), torch.from_numpy(X[:3, :1].copy()))


def test_a_module_that_takes_one_number_of_rows_alone_is_refused(registry: Registry) -> None:
    torch = pytest.importorskip("torch")

    class Fixed(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, rows: Any) -> Any:
            return rows + torch.ones(3, 1)

    with pytest.raises(InvalidModel, match="guards"):
        registry.register("model", Fixed(), input_example=X[:3])


def test_a_module_without_an_example_is_its_state_dict(registry: Registry) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    model = network(torch)
    registry.register("model", model)
    loaded = registry.load("model", 1)
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())


def test_a_state_dict_of_torch_save(registry: Registry, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.arange(3)}, tmp_path / "model.pt")
    registry.register("model", tmp_path / "model.pt")
    assert registry.load("model", 1)["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("outside", [False, True])
def test_a_graph_of_onnx(registry: Registry, tmp_path: Path, outside: bool) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    helper = onnx.helper
    weights = onnx.numpy_helper.from_array(X[:4, :2].copy(), "w")
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, size])
        for name, size in (("x", 4), ("y", 2))
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weights]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    source: Any = model
    if outside:
        source = tmp_path / "graph"
        source.mkdir()
        path = str(source / "model.onnx")
        onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    registry.register("model", source)
    loaded = registry.load("model", 1)
    (found,) = runtime.InferenceSession(loaded.SerializeToString()).run(None, {"x": X})
    np.testing.assert_allclose(found, X @ X[:4, :2], rtol=1e-5)


def test_models_of_keras(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("h5py")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    given = keras.Input((4,))
    inner = keras.layers.Dense(3, activation="relu", kernel_regularizer="l2")(given)
    model = keras.Model(given, keras.layers.Add()([inner, inner]) + 1.0)
    there_and_back(registry, model, lambda each: each.predict(X, verbose=0))
    # On this backend it is a module of torch too, which an example would have exported.
    assert registry.register("with-example", model, input_example=X).flavor == "keras"


def test_a_model_of_transformers(registry: Registry) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=30, intermediate_size=8, **sizes)
    model = transformers.BertForSequenceClassification(config).eval()
    words = torch.from_numpy(RANDOM.integers(0, 30, (3, 5)))
    there_and_back(registry, model, lambda each: each(words).logits.detach().numpy())
    kept = registry.register("with-example", model, input_example=words.numpy())
    assert kept.flavor == "hf"


class Doubles(Predictor):
    """Multiplies by what is in its file."""

    factor = 2.0

    def load(self, path: Any) -> None:
        if path is not None:
            self.factor = float(path.read_text())

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"y": inputs["x"] * self.factor}


def test_a_predictor_needs_trust_since_its_class_is_named_by_the_file(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "factor.txt").write_text("3")
    registry.register("model", (Doubles, tmp_path / "factor.txt"))
    with pytest.raises(UntrustedModel, match="Doubles"):
        registry.load("model", 1)
    loaded = registry.load("model", 1, trusted=True)
    assert loaded.predict({"x": X})["y"].tolist() == (X * 3).tolist()


def test_a_predictor_that_nobody_else_could_import_is_not_registered(registry: Registry) -> None:
    class Local(Doubles):
        pass

    with pytest.raises(InvalidModel, match="another process"):
        registry.register("model", Local)


def test_a_folder_of_mlflow_needs_trust(registry: Registry, tmp_path: Path) -> None:
    pyfunc = pytest.importorskip("mlflow.pyfunc")

    class Triples(pyfunc.PythonModel):  # type: ignore[misc,name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            with open(context.artifacts["factor"]) as file:
                return model_input * int(file.read())

    (tmp_path / "factor.txt").write_text("3")
    pyfunc.save_model(
        tmp_path / "model",
        python_model=Triples(),
        artifacts={"factor": str(tmp_path / "factor.txt")},
        pip_requirements=[],
    )
    assert registry.register("model", tmp_path / "model").flavor == "pyfunc"
    with pytest.raises(UntrustedModel, match="MLmodel"):
        registry.load("model", 1)
    loaded = registry.load("model", 1, trusted=True)
    assert loaded.predict(X).tolist() == (X * 3).tolist()


def test_trust_turns_no_broken_file_into_a_run(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(b"PK\x03\x04" + b"x" * 50)
    registry.register("model", path)
    with pytest.raises(InvalidModel):
        registry.load("model", 1, trusted=True)


def test_an_object_is_packed_with_the_environment_that_loads_it() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    with flavors.packed({"w": torch.ones(2)}) as package:
        assert package.environment is not None
        assert f"torch=={torch.__version__}" in package.environment.requirements
        manifest = Manifest(flavor="safetensors", files=(), environment=package.environment)
        assert read(manifest.canonical, "x").environment == package.environment


def test_a_manifest_from_before_environments_keeps_its_digest() -> None:
    old = b'{"files":[],"flavor":"file","format":1,"libraries":{},"python":"","signature":null}'
    assert read(old, "x").canonical == old


def test_importing_the_flavors_imports_no_library() -> None:
    code = (
        "import sys; from mlopskit.registry import flavors; flavors.known();"
        "heavy = 'torch onnx xgboost lightgbm keras skops numpy'.split();"
        "print(sorted({*heavy} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "mlopskit-words"
version = "1.0"
[project.entry-points."mlopskit.flavors"]
words = "mlopskit_words"
[tool.hatch.build.targets.wheel]
only-include = ["mlopskit_words.py"]
"""
MODULE = """
from mlopskit.errors import InvalidModel
from mlopskit.hookspecs import hookimpl

class Words:
    TAKES, LIBRARIES, SUFFIXES, FOLDERS = "a list of words", ("mlopskit-words",), (".words",), False
    def takes(self, model, example=None):
        return isinstance(model, list)
    def recognises(self, files):
        return len(files) == 1 and files[0][1].read_bytes().startswith(b"WORDS")
    def save(self, model, folder, example=None):
        (folder / "model.words").write_text("WORDS " + " ".join(model))
    def load(self, folder, label, *, trusted):
        return next(folder.iterdir()).read_text().split()[1:]

@hookimpl
def make_flavor():
    return Words()
"""
USE = """
import mlopskit as mk
with mk.open_registry("local:models") as registry:
    made = registry.register("m", ["a", "b"])
    print(made.flavor, registry.load("m", 1), *registry.manifest("m", 1).libraries.items())
with mk.open_tracker("local:runs") as tracker, tracker.start_run(experiment="e") as run:
    run.log_model(["c"], "m")
"""


def test_a_flavor_of_another_distribution_is_one_file(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "mlopskit_words.py").write_text(MODULE)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--no-build-isolation", "--target", str(site), str(source)]
    subprocess.run(install, check=True, capture_output=True)

    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "words ['a', 'b'] ('mlopskit-words', '1.0')"

"""The gate that asks a candidate again and again: how, by what it is, and how long it takes."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("skops")

from sklearn.linear_model import LinearRegression

import mlopskit as mk
from mlopskit.errors import InvalidInput
from mlopskit.registry import Decision, latency_budget
from mlopskit.registry.gates import rehearse
from mlopskit.registry.gates.answering import Example, natural, way_of
from mlopskit.registry.gates.latency import judged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlopskit.registry import Registry

RANDOM = np.random.default_rng(11)
ROWS = RANDOM.normal(size=(400, 1))
X = RANDOM.normal(size=(20, 3)).astype("float32")
LAVISH: dict[str, Any] = {"p99_ms": 1e9, "n": 100, "warmup": 0}


def sloped(slope: float) -> LinearRegression:
    """Return a model that answers `slope` times what it is asked."""
    x = np.array([[0.0], [1.0]])
    return LinearRegression(fit_intercept=False).fit(x, slope * x[:, 0])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with mk.open_registry(f"local:{tmp_path / 'registry'}") as opened:
        yield opened


def evidence(decision: Decision) -> Any:
    (found,) = decision.evidence.values()
    return found


def test_the_registered_example_is_what_the_model_is_asked(registry: Registry) -> None:
    asked: list[Any] = []

    def predict(model: Any, inputs: Any) -> Any:
        asked.append(inputs)
        return model.predict(inputs)

    registry.register("net", sloped(2.0), input_example=np.array([[1.0], [3.0]]))
    gate = latency_budget(p50_ms=1e9, p99_ms=1e9, predict=predict, warmup=3, n=100)
    decision = rehearse(registry, "net", 1, "production", (gate,))

    assert decision, decision.reasons
    assert len(asked) == 103
    assert asked[0].tolist() == [[1.0], [3.0]]
    found = evidence(decision)
    assert found["n"] == 100
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]


def test_an_example_of_columns_is_asked_as_a_frame(registry: Registry) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [0.0, 1.0, 2.0], "b": [1.0, 0.0, 1.0]})
    model = LinearRegression().fit(frame, [0.0, 1.0, 2.0])
    registry.register("net", model, input_example=frame)

    gate = latency_budget(p99_ms=1e9, n=100, warmup=0)
    decision = rehearse(registry, "net", 1, "production", (gate,))
    assert decision, decision.reasons


def test_inputs_of_ones_own_need_no_example(registry: Registry) -> None:
    registry.register("net", sloped(2.0))
    assert rehearse(
        registry, "net", 1, "production", (latency_budget(p99_ms=1e9, inputs=ROWS, n=100),)
    )
    decision = rehearse(registry, "net", 1, "production", (latency_budget(p99_ms=1e9, n=100),))
    assert "input example" in decision.reasons[0]


def test_no_model_answers_in_no_time(registry: Registry) -> None:
    registry.register("net", sloped(2.0))
    gate = latency_budget(p50_ms=1e-9, p99_ms=1e9, inputs=ROWS, n=100)
    decision = rehearse(registry, "net", 1, "production", (gate,))
    assert not decision
    assert "over 1e-09 ms" in decision.reasons[0]


def test_a_quantile_is_an_answer_that_was_timed() -> None:
    taken = [float(at) for at in range(200, 0, -1)]

    found = judged(taken, {"p50": 100.0, "p99": 198.0}, 0)
    assert found
    assert (found.evidence["p50_ms"], found.evidence["p99_ms"]) == (100.0, 198.0)
    assert not judged(taken, {"p50": 99.9}, 0)
    assert not judged(taken, {"p99": 197.9}, 0)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"p99_ms": 0}, {"p50_ms": math.nan}, {"p99_ms": 1, "n": 99}, {"p99_ms": 1, "warmup": -1}],
    ids=str,
)
def test_a_budget_that_says_nothing_is_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        latency_budget(**arguments)


# What models are asked with, by what they are.


def frame(*columns: str) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(X[:, : len(columns)], columns=list(columns))


def of_one_column(_: Path) -> Any:
    rows = frame("a")
    model = LinearRegression().fit(rows, X[:, 1])
    return model, rows, model.predict(rows)


def of_a_column_called_input(_: Path) -> Any:
    rows = frame("input")
    model = LinearRegression().fit(rows, X[:, 1])
    return model, rows, model.predict(rows)


def xgboost_of_an_array(_: Path) -> Any:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.train({}, xgboost.DMatrix(X, X[:, 0]), 2)
    return model, X, model.predict(xgboost.DMatrix(X))


def xgboost_of_a_frame(_: Path) -> Any:
    xgboost = pytest.importorskip("xgboost")
    rows = frame("a", "b", "c")
    model = xgboost.train({}, xgboost.DMatrix(rows, X[:, 0]), 2)
    return model, rows, model.predict(xgboost.DMatrix(rows))


def xgboost_of_named_columns_and_an_array(_: Path) -> Any:
    model, rows, expected = xgboost_of_a_frame(_)
    return model, rows.to_numpy(), expected


def lightgbm_of_one_column(_: Path) -> Any:
    lightgbm = pytest.importorskip("lightgbm")
    rows = frame("a")
    params = {"verbose": -1, "min_data_in_leaf": 1}
    model = lightgbm.train(params, lightgbm.Dataset(rows, X[:, 0].copy()), 2)
    return model, rows, model.predict(rows)


def torch_of_one_input(_: Path) -> Any:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    return model, X, model(torch.from_numpy(X)).detach().numpy()


def torch_of_two_inputs(_: Path) -> Any:
    torch = pytest.importorskip("torch")

    class Joined(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, one: Any, other: Any) -> Any:
            return torch.cat([one, other], 1)

    example = {"one": X, "other": X[:, :1]}
    return Joined(), example, np.concatenate([X, X[:, :1]], axis=1)


def graph(inputs: dict[str, int], operator: str) -> Any:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper

    def value(name: str, columns: int) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, columns])

    node = helper.make_node(operator, list(inputs), ["y"])
    given = [value(name, columns) for name, columns in inputs.items()]
    made = helper.make_graph([node], "g", given, [value("y", max(inputs.values()))])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def onnx_of_an_array(_: Path) -> Any:
    return graph({"x": 3}, "Neg"), X.astype("float64"), [-X]


def onnx_of_columns_side_by_side(_: Path) -> Any:
    return graph({"x": 3}, "Neg"), frame("a", "b", "c"), [-X]


def onnx_of_columns_by_name(_: Path) -> Any:
    return graph({"p": 1, "q": 1}, "Sub"), frame("q", "p"), [X[:, 1:2] - X[:, :1]]


def keras_of_one_input(folder: Path) -> Any:
    keras = pytest.importorskip("keras")
    given = keras.Input((3,))
    model = keras.Model(given, keras.layers.Dense(2)(given))
    model.save(folder / "model.keras")
    return folder / "model.keras", X, model.predict(X, verbose=0)


def keras_of_two_inputs(folder: Path) -> Any:
    keras = pytest.importorskip("keras")
    one, other = keras.Input((3,), name="one"), keras.Input((1,), name="other")
    model = keras.Model([one, other], keras.layers.Concatenate()([one, other]))
    model.save(folder / "model.keras")
    example = {"other": X[:, :1], "one": X}
    return folder / "model.keras", example, np.concatenate([X, X[:, :1]], axis=1)


def transformer(folder: Path, *names: str) -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=30, intermediate_size=8, **sizes)
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(folder / "bert")
    words = RANDOM.integers(0, 30, (3, 5))
    example = {
        name: words if name == "input_ids" else np.eye(3, 5, dtype="int64") for name in names
    }
    given = {name: torch.from_numpy(array) for name, array in example.items()}
    expected = model(**(given or {"input_ids": torch.from_numpy(words)})).logits.detach().numpy()
    return folder / "bert", example or words, expected


def transformer_by_names(folder: Path) -> Any:
    return transformer(folder, "attention_mask", "input_ids")


def transformer_of_an_array(folder: Path) -> Any:
    return transformer(folder)


class Joins(mk.Predictor):
    """Writes two inputs beside each other, one of them texts, and changes what it was given."""

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        inputs["word"][0] += b"!"
        return {"y": np.char.add(inputs["word"].astype("S9"), inputs["end"].astype("S9"))}


def predictor(_: Path) -> Any:
    words = np.array(["é", "b"], dtype=object)
    ends = np.array([1, 2])
    return Joins, {"word": words, "end": ends}, {"y": np.array(["é!1".encode(), b"b2"])}


@pytest.mark.filterwarnings("ignore")  # The libraries warn about one another.
@pytest.mark.parametrize(
    "made",
    [
        of_one_column,
        of_a_column_called_input,
        xgboost_of_an_array,
        xgboost_of_a_frame,
        xgboost_of_named_columns_and_an_array,
        lightgbm_of_one_column,
        torch_of_one_input,
        torch_of_two_inputs,
        onnx_of_an_array,
        onnx_of_columns_side_by_side,
        onnx_of_columns_by_name,
        keras_of_one_input,
        keras_of_two_inputs,
        transformer_by_names,
        transformer_of_an_array,
        predictor,
    ],
)
def test_a_model_is_asked_with_its_example_in_the_way_of_its_library(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    made: Callable[[Path], Any],
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    source, example, expected = made(tmp_path)
    registry.register("net", source, input_example=example)
    model = registry.load("net", 1, trusted=made is predictor)
    capsys.readouterr()

    gate = latency_budget(trusted=made is predictor, **LAVISH)
    decision = rehearse(registry, "net", 1, "production", gate)
    assert decision, decision.reasons
    ask = way_of(model, Example(registry.example("net", 1)[0]))
    for _ in range(2):
        same(ask(), expected)
    same(way_of(model, example)(), expected)
    assert capsys.readouterr().out == "", "no model draws its progress"


def same(answer: Any, expected: Any) -> None:
    answer = getattr(answer, "logits", answer)
    if isinstance(expected, dict):
        assert answer["y"].tolist() == expected["y"].tolist()
    else:
        np.testing.assert_allclose(np.asarray(answer), expected, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_asked_is_refused_with_what_it_is(registry: Registry) -> None:
    pytest.importorskip("torch")
    registry.register("net", torch_of_one_input(Path())[0])
    decision = rehearse(registry, "net", 1, "production", latency_budget(inputs=X, **LAVISH))
    assert "A builtins.dict has no predict()" in decision.reasons[0]


def test_a_graph_of_other_inputs_is_told(registry: Registry) -> None:
    registry.register("net", graph({"x": 3}, "Neg"), input_example={"a": X, "b": X})
    decision = rehearse(registry, "net", 1, "production", latency_budget(**LAVISH))
    assert decision.reasons == ("latency_budget: The graph takes x, and is to be asked with a, b.",)


def test_without_pandas_columns_of_numbers_are_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    one, two = np.array([1.0, 2.0]), np.array([3, 4])
    assert natural(Example(a=one)).tolist() == [[1.0], [2.0]]
    assert natural(Example(a=one, b=two)).tolist() == [[1.0, 3.0], [2.0, 4.0]]
    words = Example(a=one, b=np.array(["x", "y"], dtype=object))
    assert natural(words) == dict(words)
    assert natural(Example(input=one)) is one, "what was one array is that array"


def test_a_function_of_ones_own_is_given_a_frame_of_one_column(registry: Registry) -> None:
    pytest.importorskip("pandas")
    registry.register("net", sloped(2.0), input_example=frame("a"))
    shapes: set[tuple[int, ...]] = set()
    gate = latency_budget(predict=lambda _, rows: shapes.add(rows.shape), **LAVISH)

    assert rehearse(registry, "net", 1, "production", gate)
    assert shapes == {(20, 1)}

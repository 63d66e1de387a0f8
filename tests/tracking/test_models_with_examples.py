"""A model that a run logs with an example is kept as the registry keeps it, and predicts again."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

import mlopskit as mk
from mlopskit.errors import InvalidInput, InvalidModel, NotFound
from mlopskit.testing.wandb_server import KEY, WandbServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking import Artifact

np = pytest.importorskip("numpy")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # The libraries warn about one another.
]

X = np.random.default_rng(7).normal(size=(6, 3)).astype(np.float32)
EXAMPLE = "mlopskit-example.json"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty database once: its migrations take seconds."""
    mlflow = pytest.importorskip("mlflow")
    path: Path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["local", "mlflow", "wandb-offline", "wandb-online"])
def everywhere(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[mk.Kit]:
    """Yield a kit for each tracker there is; its registry is the embedded one."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    line: Any = "local"
    server = None
    if request.param == "mlflow":
        path = tmp_path / "m.db"
        shutil.copy(request.getfixturevalue("empty_store"), path)
        line = {"backend": "mlflow", "location": f"sqlite:///{path}", "flush_timeout_s": 120}
    elif request.param.startswith("wandb"):
        pytest.importorskip("wandb")
        line = {"backend": "wandb", "location": "team/churn", "flush_timeout_s": 120}
        if request.param == "wandb-offline":
            line |= {"mode": "offline", "folder": str(tmp_path / "wandb")}
        else:
            server = WandbServer()
            server.__enter__()
            line |= {"base_url": server.url, "api_key": KEY}
    try:
        with mk.Kit(tracking=line, home=tmp_path / "home") as kit:
            yield kit
    finally:
        if server is not None:
            server.__exit__(None, None, None)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[mk.Kit]:
    with mk.Kit(home=tmp_path / "home") as opened:
        yield opened


def network(torch: Any, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    nn = torch.nn
    layers = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2)
    return nn.Sequential(*layers)


def files_of(kit: mk.Kit, run: str, name: str) -> dict[str, Artifact]:
    found = [each for each in kit.tracker.list_artifacts(run) if each.logged_as == name]
    return {each.name.removeprefix(f"{name}/"): each for each in found}


def logged(kit: mk.Kit, model: Any, example: Any = None, name: str = "net", **more: Any) -> str:
    with kit.tracker.start_run("e") as run:
        run.log_model(model, name, input_example=example, **more)
    return run.id


# On every tracker.


def test_a_module_of_a_run_predicts_wherever_it_was_logged(everywhere: mk.Kit) -> None:
    torch = pytest.importorskip("torch")
    losses = {0.5: network(torch, 1), 0.25: network(torch, 2)}
    runs = {}
    for loss, model in losses.items():
        with everywhere.tracker.start_run("e") as run:
            run.log_metrics({"loss": loss})
            run.log_model(model, "net", input_example=X[:1])
        runs[loss] = run.id
    best = everywhere.best_model("loss", higher_is_better=False)
    loaded = everywhere.registry.load(f"runs:/{runs[0.5]}/net")

    assert (best.run.id, best.name) == (runs[0.25], "net")
    for found, model in ((best.model, losses[0.25]), (loaded, losses[0.5])):
        expected = model.eval()(torch.from_numpy(X))
        assert torch.allclose(found(torch.from_numpy(X)), expected, atol=1e-6)

    kept = files_of(everywhere, runs[0.5], "net")
    assert set(kept) == {"model.pt2", EXAMPLE}
    assert kept["model.pt2"].metadata["flavor"] == "torch"


def test_a_model_that_is_logged_again_is_the_newer_one(everywhere: mk.Kit) -> None:
    """Also where the backend still lists the files of before."""
    torch = pytest.importorskip("torch")
    model = network(torch)
    with everywhere.tracker.start_run("e") as run:
        run.log_model({"w": torch.zeros(1)}, "net")
        run.log_model(model, "net", input_example=X)
    loaded = everywhere.registry.load(f"runs:/{run.id}/net")

    expected = model.eval()(torch.from_numpy(X))
    assert torch.allclose(loaded(torch.from_numpy(X)), expected, atol=1e-6)


# As the registry keeps it.


def test_the_example_of_a_run_is_that_of_the_registry(kit: mk.Kit) -> None:
    torch = pytest.importorskip("torch")
    model = network(torch)
    run = logged(kit, model, X[:2])
    kit.registry.register("direct", model, input_example=X[:2])
    version = kit.registry.register("net", f"runs:/{run}/net")
    direct = kit.registry.get_version("direct", 1)

    inputs, outputs = kit.registry.example("net", 1)
    assert [(name, rows.tolist()) for name, rows in inputs.items()] == [("input", X[:2].tolist())]
    assert outputs == {}
    assert (version.flavor, version.signature) == ("torch", direct.signature)
    assert version.signature is not None
    assert {each.path for each in kit.registry.manifest("net", 1).files} == {"model.pt2", EXAMPLE}
    assert kit.registry.load("net", 1)(torch.from_numpy(X)).shape == (6, 2)


def test_another_example_may_be_given_when_it_is_registered(kit: mk.Kit) -> None:
    torch = pytest.importorskip("torch")
    run = logged(kit, network(torch), X[:2])
    kit.registry.register("net", f"runs:/{run}/net", input_example=X[:3])

    assert kit.registry.example("net", 1)[0]["input"].shape == (3, 3)


def test_a_signature_that_is_given_stays(kit: mk.Kit) -> None:
    torch = pytest.importorskip("torch")
    signature = mk.infer_signature({"rows": X}, {"scores": X[:, :2]})
    run = logged(kit, network(torch), X[:2], signature=signature)

    assert kit.registry.register("net", f"runs:/{run}/net").signature == signature


@pytest.mark.parametrize("form", ["mapping", "pandas", "tensor"])
def test_an_example_has_the_forms_that_the_registry_takes(kit: mk.Kit, form: str) -> None:
    torch = pytest.importorskip("torch")

    class Sum(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, a: Any, b: Any = 0) -> Any:
            return a + b

    columns = {"a": X[:, 0], "b": X[:, 1]}
    example: Any = columns
    if form == "pandas":
        example = pytest.importorskip("pandas").DataFrame(columns)
    elif form == "tensor":
        example = torch.from_numpy(X[:, 0].copy()).requires_grad_()
    run = logged(kit, Sum(), example)
    given = [torch.from_numpy(each.copy()) for each in columns.values()]
    given = given[: 1 if form == "tensor" else 2]

    found = kit.registry.load(f"runs:/{run}/net")
    assert torch.equal(found(*given), sum(given))
    if len(given) == 2:
        with pytest.raises(Exception, match="shape"):
            found(given[0], given[1][:1])


def test_a_module_without_an_example_is_its_state_dict(kit: mk.Kit) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    model = network(torch)
    run = logged(kit, model)

    assert set(files_of(kit, run, "net")) == {"model.safetensors"}
    assert kit.registry.load(f"runs:/{run}/net").keys() == model.state_dict().keys()


def test_a_file_keeps_its_flavor_beside_an_example(kit: mk.Kit, tmp_path: Path) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    skops = pytest.importorskip("skops.io")
    path = tmp_path / "model.skops"
    skops.dump(linear.LinearRegression().fit(X, X[:, 0]), path)
    for example in (X, [{"x": 1.0}]):
        run = logged(kit, path, example)

        assert kit.registry.register("line", f"runs:/{run}/net").flavor == "sklearn"
        found = kit.registry.load(f"runs:/{run}/net").predict(X)
        np.testing.assert_allclose(found, X[:, 0], rtol=1e-4)
    assert kit.registry.example("line", 1)[0]["input"].tolist() == X.tolist()
    with pytest.raises(NotFound, match="input example"):
        kit.registry.example("line", 2)


@pytest.mark.parametrize(
    "example",
    [
        [{"x": 1.0}],
        {"at": [datetime(2026, 5, 1, tzinfo=UTC)]},
        {"x": [1.0, None]},
    ],
)
def test_what_no_protocol_has_a_word_for_is_a_table_for_people(kit: mk.Kit, example: Any) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    pytest.importorskip("skops")
    model = linear.LinearRegression().fit(X, X[:, 0])
    run = logged(kit, model, example)

    assert set(files_of(kit, run, "net")) == {"model.skops", "input_example/rows.json"}
    found = kit.registry.load(f"runs:/{run}/net").predict(X)
    np.testing.assert_allclose(found, model.predict(X))


def test_secrets_are_taken_out_of_an_example(kit: mk.Kit, tmp_path: Path) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    pytest.importorskip("skops")
    example = {"url": ["https://ada:hunter2@host/", "plain"], "api_key": ["abcdefgh", ""]}
    run = logged(kit, linear.LinearRegression().fit(X, X[:, 0]), example)
    path = kit.tracker.download_artifact(run, f"net/{EXAMPLE}", tmp_path / "got")

    data = {each["name"]: each["data"] for each in json.loads(path.read_text())["inputs"]}
    assert data == {
        "url": ["https://ada:[redacted]@host/", "plain"],
        "api_key": ["[redacted]", ""],
    }


# What cannot be kept.


def test_a_module_that_cannot_be_exported_is_refused_with_the_way_out(kit: mk.Kit) -> None:
    torch = pytest.importorskip("torch")

    class Stubborn(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, rows: Any) -> Any:
            return rows if rows.sum().item() > 0 else -rows

    with kit.tracker.start_run("e") as run:
        with pytest.raises(InvalidModel, match=r"Without an input example .* state dict"):
            run.log_model(Stubborn(), "net", input_example=X)
        assert kit.tracker.list_artifacts(run.id) == []


def test_an_example_that_is_too_large_is_refused(kit: mk.Kit) -> None:
    torch = pytest.importorskip("torch")
    with (
        kit.tracker.start_run("e") as run,
        pytest.raises(InvalidInput, match="A few rows are enough"),
    ):
        run.log_model(network(torch), "net", input_example=np.full((500_000, 3), 1 / 7))


def test_a_file_of_the_models_own_is_not_overwritten_by_an_example(
    kit: mk.Kit, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / EXAMPLE).write_text("mine")
    (folder / "weights.bin").write_bytes(b"w")
    with kit.tracker.start_run("e") as run:
        with pytest.raises(InvalidInput, match=rf"{EXAMPLE}.*Rename"):
            run.log_model(folder, "net", input_example=X)
        run.log_model(folder, "net")
    with pytest.raises(InvalidModel, match="example of"):
        kit.registry.register("net", f"runs:/{run.id}/net")


# The module that is logged goes on as it was.


def test_a_watched_module_in_training_is_logged_and_left_as_it_was(kit: mk.Kit) -> None:
    torch = pytest.importorskip("torch")
    model = network(torch)
    model[1].eval()  # A layer that is frozen.
    modes = [each.training for each in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with kit.tracker.start_run("e") as run:
        run.watch(model)
        model(torch.from_numpy(X)).sum().backward()
        run.log_model(model, "net", input_example=X)
        model(torch.from_numpy(X)).sum().backward()

    assert [each.training for each in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert list(kit.tracker.get_metric_history(run.id, "gradients/4.bias/norm").steps) == [0]
    assert kit.registry.load(f"runs:/{run.id}/net")(torch.from_numpy(X)).shape == (6, 2)


def test_a_module_on_a_gpu_is_loaded_on_the_cpu(kit: mk.Kit) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = network(torch).cuda()
    run = logged(kit, model, torch.from_numpy(X).cuda())
    loaded = kit.registry.load(f"runs:/{run}/net")

    assert {each.device.type for each in model.parameters()} == {"cuda"}
    expected = model.eval().cpu()(torch.from_numpy(X))
    assert torch.allclose(loaded(torch.from_numpy(X)), expected, atol=1e-4)

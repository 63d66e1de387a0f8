"""Models that a run logged: loaded without registering, registered by their address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import mlopskit as mk
from mlopskit.errors import (
    BackendError,
    IntegrityError,
    InvalidInput,
    InvalidModel,
    InvalidName,
    NotFound,
    Unsupported,
    UntrustedModel,
)
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

numpy = pytest.importorskip("numpy")
linear_model = pytest.importorskip("sklearn.linear_model")


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[mk.Kit]:
    with mk.Kit(home=tmp_path / "home") as opened:
        yield opened


def fitted(slope: float) -> Any:
    return linear_model.LinearRegression().fit([[0.0], [1.0]], [0.0, slope])


def logged(kit: mk.Kit, *losses: float, **more: Any) -> list[str]:
    ids = []
    for loss in losses:
        with kit.tracker.start_run("e") as run:
            run.log_metrics({"loss": loss, "acc@1": 1 - loss})
            model = fitted(loss)
            signature = mk.infer_signature({"x": [[0.5]]}, {"y": [0.5]})
            run.log_model(model, "line", signature=signature, input_example=[{"x": 0.5}])
            for name, path in more.items():
                run.log_model(path, name)
        ids.append(run.id)
    return ids


def test_a_model_of_a_run_loads_without_being_registered(kit: mk.Kit) -> None:
    (run,) = logged(kit, 0.25)
    model = kit.registry.load(f"runs:/{run}/line")

    assert model.predict([[2.0]])[0] == pytest.approx(0.5)
    assert kit.registry.list_models() == []


def test_a_model_of_a_run_is_registered_by_its_address(kit: mk.Kit) -> None:
    (run,) = logged(kit, 0.25)
    version = kit.registry.register("line", f"runs:/{run}/line", metrics={"loss": 0.25})

    assert (version.run_id, version.flavor) == (run, "sklearn")
    assert version.signature is not None
    assert [spec.name for spec in version.signature.inputs] == ["x"]
    assert "skops" in version.lineage.libraries
    assert kit.registry.load("line", 1).predict([[2.0]])[0] == pytest.approx(0.5)


def test_the_best_run_leads_to_its_model(kit: mk.Kit) -> None:
    ids = logged(kit, 0.5, 0.125, 0.25)
    best = kit.best_model("loss", higher_is_better=False)

    assert (best.run.id, best.name) == (ids[1], "line")
    assert best.model.predict([[8.0]])[0] == pytest.approx(1.0)
    assert kit.best_model("acc@1").run.id == ids[1]
    assert kit.best_model("loss", where="metrics.loss < 0.4").run.id == ids[2]


def test_what_has_no_best_model_says_so(kit: mk.Kit, tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"w")
    (run,) = logged(kit, 0.5, other=path)

    with pytest.raises(NotFound, match="f1"):
        kit.best_model("f1")
    with pytest.raises(InvalidInput, match="line, other"):
        kit.best_model("loss")
    with pytest.raises(InvalidModel, match="plain file"):
        kit.best_model("loss", name="other")
    with pytest.raises(NotFound, match="line"):
        kit.registry.load(f"runs:/{run}/lime")
    with pytest.raises(NotFound):
        kit.registry.load(f"runs:/{'0' * 32}/line")


def test_a_pickle_of_a_run_runs_nothing(kit: mk.Kit, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04K\x07.")
    (run,) = logged(kit, 0.5, seven=path)

    with pytest.raises(UntrustedModel):
        kit.registry.load(f"runs:/{run}/seven")
    assert kit.registry.load(f"runs:/{run}/seven", trusted=True) == 7


def test_changed_bytes_of_a_run_are_noticed(kit: mk.Kit) -> None:
    (run,) = logged(kit, 0.5)
    files = [each for each in kit.tracker.list_artifacts(run) if each.logged_as == "line"]
    for file in files:
        digest = file.digest.removeprefix("sha256:")
        (blob,) = kit.home.rglob(digest)
        blob.chmod(0o600)
        blob.write_bytes(b"x" * file.size)
    with pytest.raises(IntegrityError):
        kit.registry.load(f"runs:/{run}/line")


@pytest.mark.parametrize("address", ["runs:/", "runs:/a", "runs:/a/", "runs://"])
def test_a_broken_address_is_refused(kit: mk.Kit, address: str) -> None:
    with pytest.raises(InvalidName, match="runs:/<run>/<name>"):
        kit.registry.load(address)
    with pytest.raises(InvalidName):
        kit.registry.register("line", address)


def test_a_registry_without_a_kit_knows_no_runs(tmp_path: Path) -> None:
    with (
        LocalRegistry(tmp_path) as registry,
        pytest.raises(Unsupported, match="without a kit"),
    ):
        registry.load(f"runs:/{'0' * 32}/line")


def test_an_opened_registry_asks_the_configured_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPSKIT_HOME", str(tmp_path / "home"))
    with mk.load() as kit:
        (run,) = logged(kit, 0.25)
    with mk.open_registry() as registry:
        assert registry.load(f"runs:/{run}/line").predict([[2.0]])[0] == pytest.approx(0.5)


def test_a_registered_example_is_what_a_server_is_held_to(kit: mk.Kit) -> None:
    rows = numpy.array([[1.0], [2.0]])
    model = fitted(0.25)
    kit.registry.register(
        "line", model, input_example=rows, output_example={"prediction": model.predict(rows)}
    )
    example = kit.registry.example("line", 1)

    kit.server.deploy("line", kit.registry.load("line", 1), version=1, example=example)
    with pytest.raises(BackendError, match="otherwise"):
        kit.server.deploy("line", fitted(0.5), version=2, example=example)
    assert [each.version for each in kit.server.models()] == ["1"]

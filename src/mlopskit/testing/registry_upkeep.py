"""What every model registry keeps beside promotions: edits, questions, lineage, manifests."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import (
    InvalidInput,
    InvalidModel,
    InvalidName,
    NotFound,
)
from mlopskit.registry import Registry, Signature, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path


class RegistryUpkeep:
    """A part of `RegistryContract`, which gives `registry` and `source`."""

    # Editing.

    def test_a_version_is_edited_and_the_rest_stays(self, registry: Registry, source: Path) -> None:
        given: dict[str, Any] = {
            "tags": {"team": "a", "old": "x", "stays": "y"},
            "metrics": {"auc": 0.5},
            "description": "before",
        }
        made = registry.register("churn", source, **given)
        registry.register("churn", source)
        edited = registry.update_version("churn", 1, tags={"team": "späti", "old": None, "n": ""})

        assert edited.tags == {"team": "späti", "stays": "y", "n": ""}
        assert edited.model_copy(update={"tags": made.tags}) == made
        assert registry.update_version("churn", "1", description="").description == ""
        assert registry.get_version("churn", 1).tags == edited.tags
        assert registry.get_version("churn", 2).tags == {}

    def test_a_model_is_edited(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        registry.register("other", source)
        registry.update_model("churn", description="who leaves", tags={"team": "a", "x": "1"})
        registry.update_model("churn", tags={"x": None, "long": "y" * 9000})

        model = registry.get_model("churn")
        assert (model.description, model.tags) == ("who leaves", {"team": "a", "long": "y" * 9000})
        assert registry.get_model("other").tags == {}
        assert registry.list_models()[0] == model

    def test_an_edit_is_in_the_history_without_secrets(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source)
        registry.update_version("churn", 1, tags={"db_password": "hunter2!"}, why="asked")
        registry.update_model("churn", description="key ghp_" + "a" * 36)

        first, second = registry.history("churn")[1:]
        assert (first.action, first.version, first.why) == ("edited", 1, "asked")
        assert list(first.details["tags"]) == ["db_password"]
        assert (second.action, second.version) == ("edited", None)
        kept = str(registry.history("churn")) + str(registry.list_versions("churn"))
        assert "hunter2!" not in kept
        assert "ghp_" not in kept

    def test_a_bad_edit_is_refused(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source, tags={"team": "a"})
        bad: list[dict[str, Any]] = [{}, {"tags": {}}, {"tags": {"n": 3}}, {"description": 7}]
        for each in bad:
            with pytest.raises(InvalidInput):
                registry.update_version("churn", 1, **each)
            with pytest.raises(InvalidInput):
                registry.update_model("churn", **each)
        with pytest.raises(InvalidName):
            registry.update_version("churn", 1, tags={"a\0b": None})
        for name, ref in (("absent", 1), ("churn", 9)):
            with pytest.raises(NotFound):
                registry.update_version(name, ref, description="x")
        with pytest.raises(NotFound):
            registry.update_model("absent", description="x")
        assert len(registry.history("churn")) == 1

    # Finding and comparing.

    def test_versions_are_found_by_the_filter_language(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source, metrics={"auc": 0.8}, tags={"team": "a"})
        registry.register("churn", source, metrics={"auc": 0.9}, description="it's best")
        registry.register("other", source, metrics={"auc": 0.7, "acc@1": 1})
        registry.promote("churn", 1, "production")

        def found(where: str, name: str | None = None, **how: Any) -> list[tuple[str, int]]:
            versions = registry.search_versions(where, name, **how)
            return [(each.name, each.version) for each in versions]

        assert found("metrics.auc > 0.75") == [("churn", 1), ("churn", 2)]
        assert found("metrics.auc > 0.75 and not stage = 'production'") == [("churn", 2)]
        assert found("tags.team = 'a' or metrics.`acc@1` = 1") == [("churn", 1), ("other", 1)]
        assert found("description like '%it''s%'") == [("churn", 2)]
        assert found("version >= 2", "churn") == [("churn", 2)]
        assert found("", order_by="metrics.auc desc", limit=2) == [("churn", 2), ("churn", 1)]
        with pytest.raises(InvalidInput, match=r"column 1 .*\n.*params"):
            registry.search_versions("params.lr > 1")
        with pytest.raises(NotFound):
            registry.search_versions("", "absent")

    def test_models_are_found_by_the_filter_language(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source)
        registry.register("other", source)
        registry.register("other", source)
        registry.update_model("churn", tags={"team": "a"})

        assert [m.name for m in registry.search_models("versions > 1 or tags.team = 'a'")] == [
            "churn",
            "other",
        ]
        assert [m.name for m in registry.search_models("tags.team is null")] == ["other"]
        assert registry.search_models(order_by="latest desc", limit=1)[0].name == "other"

    def test_the_best_version_is_found(self, registry: Registry, source: Path) -> None:
        for metrics in ({"auc": 0.8}, {"auc": 0.9}, {"auc": math.nan}, {"loss": 1}, {"auc": 0.9}):
            registry.register("churn", source, metrics=metrics)

        assert registry.best_version("churn", "auc").version == 5
        assert registry.best_version("churn", "auc", where="version < 5").version == 2
        assert registry.best_version("churn", "auc", higher_is_better=False).version == 1
        with pytest.raises(NotFound, match="auc"):
            registry.best_version("churn", "f1")

    def test_two_versions_are_compared(self, registry: Registry, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "same").write_bytes(b"1")
        (folder / "weights").write_bytes(b"2")
        inputs = (TensorSpec(name="age", dtype="int64"),)
        common: dict[str, Any] = {"code": "c1", "tags": {"team": "a"}}
        registry.register(
            "churn",
            folder,
            metrics={"auc": 0.8, "n": 3},
            data="d1",
            signature=Signature(inputs=inputs),
            **common,
        )
        (folder / "weights").write_bytes(b"3")
        (folder / "more").write_bytes(b"4")
        wider = Signature(inputs=(*inputs, TensorSpec(name="x", dtype="str")))
        registry.register("churn", folder, metrics={"auc": 0.9, "n": 3}, signature=wider, **common)

        found = registry.compare_versions("churn", 1, "latest")
        assert (found.a.version, found.b.version) == (1, 2)
        assert found.metrics == {"auc": (0.8, 0.9)}
        assert found.tags == {}
        assert found.lineage == {"data": ("d1", None)}
        assert sorted(found.files) == ["more", "weights"]
        assert found.files["more"][0] is None
        assert found.signature is not None
        assert found.signature.breaks == ("The input 'x' is new.",)
        same = registry.compare_versions("churn", 1, 1)
        assert (same.metrics, same.files, same.lineage) == ({}, {}, {})

    def test_the_manifest_says_what_a_version_consists_of(
        self, registry: Registry, source: Path
    ) -> None:
        made = registry.register("churn", source)
        manifest = registry.manifest("churn", 1)

        assert manifest.digest == made.digest
        assert [(file.path, file.size) for file in manifest.files] == [("weights.bin", 256)]

    # Lineage and examples.

    def test_the_lineage_of_a_version_is_kept(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source, run_id="a" * 32, data="sha256:00", code="v1-dirty")
        found = registry.get_version("churn", 1)

        assert (found.run_id, found.lineage.data, found.lineage.code) == (
            "a" * 32,
            "sha256:00",
            "v1-dirty",
        )
        assert found.lineage.python.count(".") == 2

    def test_an_example_is_kept_beside_the_files(
        self, registry: Registry, source: Path, tmp_path: Path
    ) -> None:
        numpy = pytest.importorskip("numpy")
        inputs = {
            "age": numpy.array([[1, 2]], "int32"),
            "flag": numpy.array([True]),
            "word": numpy.array(["späti"], object),
        }
        made = registry.register(
            "churn", source, input_example=inputs, output_example=numpy.array([0.1 + 0.2])
        )
        asked, answered = registry.example("churn", 1)

        assert {key: value.tolist() for key, value in asked.items()} == {
            "age": [[1, 2]],
            "flag": [True],
            "word": ["späti"],
        }
        assert asked["age"].dtype == "int32"
        assert answered["output"].tolist() == [0.1 + 0.2]
        assert made.signature is not None
        assert [(spec.name, spec.dtype) for spec in made.signature.inputs] == [
            ("age", "int32"),
            ("flag", "bool"),
            ("word", "str"),
        ]
        registry.register("churn", source)
        with pytest.raises(NotFound, match="example"):
            registry.example("churn", 2)

    def test_an_example_does_not_hinder_loading(self, registry: Registry, tmp_path: Path) -> None:
        pytest.importorskip("numpy")
        path = tmp_path / "model.pkl"
        path.write_bytes(b"\x80\x04K\x07.")  # The pickle of 7.
        registry.register("churn", path, input_example=[[1.5]])
        assert registry.load("churn", 1, trusted=True) == 7

    @pytest.mark.parametrize("example", [3, {}, {"x": 1.0}, {"x": [object()]}])
    def test_a_bad_example_is_refused(self, registry: Registry, source: Path, example: Any) -> None:
        pytest.importorskip("numpy")
        with pytest.raises(InvalidInput):
            registry.register("churn", source, input_example=example)
        assert registry.list_models() == []

    def test_progress_is_told(self, registry: Registry, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "a").write_bytes(bytes(3 << 20))
        (folder / "b").write_bytes(b"x" * 10)
        told: list[tuple[int, int]] = []
        registry.register("churn", folder, told=lambda done, total: told.append((done, total)))

        assert told[-1] == ((3 << 20) + 10,) * 2
        assert told == sorted(told)

    def test_an_empty_path_is_no_path(
        self, registry: Registry, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(source.parent)
        with pytest.raises(InvalidInput, match="empty"):
            registry.register("churn", "")
        assert registry.list_models() == []

    # Manifests.

    def test_a_changed_manifest_is_noticed(self, registry: Registry, source: Path) -> None:
        made = registry.register("churn", source)
        text = registry._manifest(made)
        registry._manifest = lambda version: text.replace(b'"size":256', b'"size":255')  # type: ignore[method-assign]
        with pytest.raises(InvalidModel, match="digest"):
            registry.load("churn", 1, trusted=True)

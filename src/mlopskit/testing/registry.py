"""What every model registry keeps."""

from __future__ import annotations

import math
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlopskit.errors import (
    Conflict,
    InvalidInput,
    InvalidModel,
    InvalidName,
    MlopskitError,
    NotFound,
    UntrustedModel,
)
from mlopskit.registry import (
    CAPABILITIES,
    GateContext,
    GateResult,
    Registry,
    Signature,
    TensorSpec,
)
from mlopskit.testing.registry_deleting import RegistryDeleting
from mlopskit.testing.registry_people import RegistryPeople
from mlopskit.testing.registry_stages import RegistryStages
from mlopskit.testing.registry_upkeep import RegistryUpkeep
from mlopskit.testing.tool import ToolContract

HOSTILE = (
    "",
    " ",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:x",
    "a\0b",
    "\u202egnp.exe",
    "a\nb",
    "nul",
    "COM1.txt",
    "-rf",
    "x" * 10_000,
    "a#b",
    "%2e%2e",
    "ä",
)
RESERVED = ("latest", "LATEST", "v1", "V12", "7", "production", "Staging", "none", "archived")
SIGNATURE = Signature(
    inputs=(TensorSpec(name="age", dtype="int64"), TensorSpec(name="x", dtype="f", shape=(-1, 3))),
    outputs=(TensorSpec(name="late", dtype="float64"),),
)


class Canary:
    """Unpickled, it writes a file: whoever finds the file has seen code run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "sang")


class RegistryContract(
    RegistryStages, RegistryUpkeep, RegistryDeleting, RegistryPeople, ToolContract
):
    """Subclass this, and give it a `registry` fixture that returns an empty registry.

    The registry has the default stages.
    """

    interface = Registry
    vocabulary = CAPABILITIES

    @pytest.fixture
    def registry(self) -> Registry:
        """Return an empty registry. Each backend's tests override this."""
        raise NotImplementedError

    @pytest.fixture
    def tool(self, registry: Registry) -> Registry:
        """Return the registry as the tool that all domains share."""
        return registry

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """Return a file to register."""
        path = tmp_path / "weights.bin"
        path.write_bytes(bytes(range(256)))
        return path

    # Registering and reading.

    def test_what_is_registered_reads_back(self, registry: Registry, source: Path) -> None:
        given: dict[str, Any] = {
            "run_id": "0f" * 16,
            "metrics": {"auc": 0.1 + 0.2, "acc@1": 1, "loss": -0.0, "auc[land=DE]": math.inf},
            "tags": {"team": "späti", "val/owner": "", "card.use_case": "x" * 20_000},
            "signature": SIGNATURE,
            "description": "first\nsecond",
        }
        made = registry.register("churn.model-2", source, **given)

        assert registry.get_version("churn.model-2", 1) == made
        assert (made.name, made.version, made.stage, made.aliases) == (
            "churn.model-2",
            1,
            "none",
            (),
        )
        assert made.run_id == given["run_id"]
        assert made.metrics == {
            "auc": 0.1 + 0.2,
            "acc@1": 1.0,
            "loss": 0.0,
            "auc[land=DE]": math.inf,
        }
        assert math.copysign(1, made.metrics["loss"]) == -1
        assert made.tags == given["tags"]
        assert made.signature == SIGNATURE
        assert made.description == "first\nsecond"
        assert made.created_at.utcoffset() == timedelta(0)
        assert made.size == 256

    def test_a_metric_may_be_not_a_number(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source, metrics={"auc": math.nan})
        assert math.isnan(registry.get_version("churn", 1).metrics["auc"])

    def test_versions_are_numbered_from_one(self, registry: Registry, source: Path) -> None:
        made = [registry.register("churn", source).version for _ in range(3)]
        other = registry.register("other", source).version

        assert (made, other) == ([1, 2, 3], 1)
        assert [each.version for each in registry.list_versions("churn")] == [1, 2, 3]

    def test_models_are_listed_by_name(self, registry: Registry, source: Path) -> None:
        assert registry.list_models() == []
        registry.register("other", source)
        self.two(registry, source)
        registry.promote("churn", 1, "production")
        registry.set_alias("churn", "champion", 2)

        churn, other = registry.list_models()
        assert (churn.name, churn.versions, churn.latest) == ("churn", 2, 2)
        assert churn.stages == {"production": 1}
        assert churn.aliases == {"champion": 2}
        assert (other.name, other.stages) == ("other", {})

    @pytest.mark.parametrize("name", HOSTILE)
    def test_a_hostile_name_is_refused(self, registry: Registry, source: Path, name: str) -> None:
        registry.register("churn", source)
        with pytest.raises(InvalidName):
            registry.register(name, source)
        with pytest.raises(InvalidName):
            registry.set_alias("churn", name, 1)
        with pytest.raises(MlopskitError):
            registry.get_version(name, 1)
        with pytest.raises(InvalidName):
            registry.get_version("churn", "@" + name)
        assert [model.name for model in registry.list_models()] == ["churn"]

    @pytest.mark.parametrize("metric", ["0.5", True + 1j, None, 2**53 + 1, [0.5]])
    def test_a_metric_that_is_no_float_is_refused(
        self, registry: Registry, source: Path, metric: Any
    ) -> None:
        with pytest.raises(InvalidInput):
            registry.register("churn", source, metrics={"auc": metric})
        assert registry.list_models() == []

    def test_a_tag_that_is_no_text_is_refused(self, registry: Registry, source: Path) -> None:
        for tags in ({"layers": 3}, {"description": None}, {"a": "\ud800"}, {"a": "\0"}):
            given: Any = tags
            with pytest.raises(InvalidInput):
                registry.register("churn", source, tags=given)
        assert registry.list_models() == []

    def test_what_is_no_signature_is_refused(self, registry: Registry, source: Path) -> None:
        given: Any = {"inputs": []}
        with pytest.raises(InvalidInput, match="infer_signature"):
            registry.register("churn", source, signature=given)

    def test_secrets_are_not_stored(self, registry: Registry, source: Path) -> None:
        tags = {"db_password": "hunter2!", "data": "postgres://u:geheim@h/db", "team": "a"}
        registry.register("churn", source, tags=tags, description="key ghp_" + "a" * 36)

        found = registry.get_version("churn", 1)
        assert found.tags["team"] == "a"
        assert not {"hunter2!", "geheim", "ghp_"} & {
            word for word in ("hunter2!", "geheim", "ghp_") if word in found.model_dump_json()
        }

    def test_what_no_flavor_takes_is_refused(self, registry: Registry) -> None:
        with pytest.raises(InvalidModel, match=r"builtins\.dict.*sklearn.*folder"):
            registry.register("churn", {"weights": [1, 2]})
        assert registry.list_models() == []

    def test_a_path_to_nothing_is_refused(self, registry: Registry, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="absent"):
            registry.register("churn", tmp_path / "absent")
        assert registry.list_models() == []

    # References.

    def test_a_version_goes_by_number_alias_stage_and_latest(
        self, registry: Registry, source: Path
    ) -> None:
        self.two(registry, source)
        registry.set_alias("churn", "champion", 1)
        registry.promote("churn", 1, "staging")

        refs: list[int | str] = [1, "1", "@champion", "staging", "latest", 2]
        found = [registry.get_version("churn", ref).version for ref in refs]
        assert found == [1, 1, 1, 1, 2, 2]

    @pytest.mark.parametrize("ref", [3, "3", "99999999999999999999", "@champion", "production"])
    def test_what_is_not_there_is_not_found(
        self, registry: Registry, source: Path, ref: int | str
    ) -> None:
        self.two(registry, source)
        with pytest.raises((NotFound, InvalidName)):
            registry.get_version("churn", ref)
        with pytest.raises((NotFound, InvalidName)):
            registry.get_version("absent", ref)

    @pytest.mark.parametrize("ref", [0, -1, True, "", "v1", "champion", "@", "1.0", "@../x", None])
    def test_what_is_no_reference_is_refused(
        self, registry: Registry, source: Path, ref: Any
    ) -> None:
        registry.register("churn", source)
        with pytest.raises(InvalidName):
            registry.get_version("churn", ref)

    @pytest.mark.parametrize("method", ["list_versions", "history"])
    def test_an_unknown_model_is_not_found(self, registry: Registry, method: str) -> None:
        with pytest.raises(NotFound, match="absent"):
            getattr(registry, method)("absent")

    # Aliases.

    def test_an_alias_moves(self, registry: Registry, source: Path) -> None:
        self.two(registry, source)
        registry.set_alias("churn", "champion", 1)
        moved = registry.set_alias("churn", "champion", 2)

        assert moved.aliases == ("champion",)
        assert registry.get_version("churn", 1).aliases == ()

    def test_an_alias_is_deleted_and_the_version_stays(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source)
        registry.set_alias("churn", "champion", 1)
        registry.delete_alias("churn", "champion")

        assert registry.get_version("churn", 1).aliases == ()
        with pytest.raises(NotFound, match="champion"):
            registry.delete_alias("churn", "champion")

    @pytest.mark.parametrize("alias", RESERVED)
    def test_a_reserved_alias_is_refused(
        self, registry: Registry, source: Path, alias: str
    ) -> None:
        registry.register("churn", source)
        with pytest.raises(InvalidName):
            registry.set_alias("churn", alias, 1)

    # Bytes.

    def test_a_file_comes_back_equal(
        self, registry: Registry, source: Path, tmp_path: Path
    ) -> None:
        registry.register("churn", str(source))
        source.write_bytes(b"changed since")
        folder = registry.download("churn", 1, tmp_path / "out")

        assert folder == tmp_path / "out"
        assert [path.name for path in folder.iterdir()] == ["weights.bin"]
        assert (folder / "weights.bin").read_bytes() == bytes(range(256))

    def test_a_folder_comes_back_equal(self, registry: Registry, tmp_path: Path) -> None:
        given = tmp_path / "given"
        (given / "deep").mkdir(parents=True)
        (given / "deep" / "a.bin").write_bytes(b"")
        (given / "späti.txt").write_text("x")
        registry.register("churn", given)
        folder = registry.download("churn", "latest", tmp_path / "out")

        found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        assert sorted(found) == ["deep/a.bin", "späti.txt"]
        assert found["späti.txt"].read_text() == "x"

    def test_a_download_overwrites_nothing(
        self, registry: Registry, source: Path, tmp_path: Path
    ) -> None:
        registry.register("churn", source)
        busy = tmp_path / "busy"
        busy.mkdir()
        (busy / "mine").write_text("x")

        with pytest.raises(Conflict, match="busy"):
            registry.download("churn", 1, busy)
        with pytest.raises(Conflict):
            registry.download("churn", 1, busy / "mine")
        assert [path.name for path in busy.iterdir()] == ["mine"]
        assert sorted(path.name for path in tmp_path.iterdir() if "busy" in path.name) == ["busy"]

    def test_a_folder_with_a_link_is_refused(self, registry: Registry, tmp_path: Path) -> None:
        given = tmp_path / "given"
        given.mkdir()
        (given / "link").symlink_to("/etc/passwd")
        with pytest.raises(InvalidModel, match="link"):
            registry.register("churn", given)
        assert registry.list_models() == []

    @pytest.mark.parametrize("name", ["model.pkl", "model.bin", "model.joblib", "model.skops"])
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_a_pickle_runs_nothing_until_it_is_trusted(
        self, registry: Registry, tmp_path: Path, name: str, protocol: int
    ) -> None:
        canary = tmp_path / "canary"
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Canary(canary), protocol=protocol))
        registry.register("evil", path)

        with pytest.raises(UntrustedModel, match="trusted=True"):
            registry.load("evil", 1)
        assert not canary.exists()

    def test_a_pickle_loads_when_it_is_trusted(self, registry: Registry, tmp_path: Path) -> None:
        path = tmp_path / "model.pkl"
        path.write_bytes(pickle.dumps({"w": [1.5, 2]}))
        registry.register("churn", path)
        assert registry.load("churn", 1, trusted=True) == {"w": [1.5, 2]}

    def test_a_plain_file_is_not_guessed_at(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        for trusted in (False, True):
            with pytest.raises(InvalidModel, match="download"):
                registry.load("churn", 1, trusted=trusted)

    def test_a_gate_result_keeps_plain_evidence(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        evidence = {"n": 3, "low": -math.inf, "rows": [1, 2.5], "by": {"a": None}}

        def gate(context: GateContext) -> GateResult:
            return GateResult(passed=True, reason="fine", evidence=evidence)

        decision = registry.promote("churn", 1, "staging", [gate])
        kept = registry.history("churn")[-1].decision
        assert kept == decision
        assert kept is not None
        assert kept.evidence == {"gate": evidence}

"""What every model registry keeps when something is deleted or collected."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import (
    Conflict,
    InvalidInput,
    NotFound,
)

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry import Registry


NOTHING = timedelta(0)


class RegistryDeleting:
    """A part of `RegistryContract`, which gives `registry` and `source`."""

    # Deleting.

    def test_a_version_is_deleted_and_its_number_stays_taken(
        self, registry: Registry, source: Path
    ) -> None:
        for _ in range(3):
            registry.register("churn", source)
        registry.delete_version("churn", 3, consent=True, why="wrong data")
        registry.delete_version("churn", 1, consent=True)

        assert [each.version for each in registry.list_versions("churn")] == [2]
        for ref in (1, 3, "3"):
            with pytest.raises(NotFound):
                registry.get_version("churn", ref)
        assert registry.get_version("churn", "latest").version == 2
        assert registry.register("churn", source).version == 4
        (model,) = registry.list_models()
        assert (model.versions, model.latest) == (2, 4)
        entry = next(e for e in registry.history("churn") if e.action == "deleted")
        assert (entry.version, entry.before, entry.why) == (3, "none", "wrong data")

    def test_deleting_needs_consent(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)
        anything: Any
        for anything in (False, 1, "yes"):
            with pytest.raises(InvalidInput, match="consent=True"):
                registry.delete_version("churn", 1, consent=anything)
            with pytest.raises(InvalidInput, match="consent=True"):
                registry.delete_model("churn", consent=anything)
        assert registry.get_version("churn", 1).version == 1

    def test_what_is_in_use_is_not_deleted(self, registry: Registry, source: Path) -> None:
        for _ in range(3):
            registry.register("churn", source)
        registry.promote("churn", 1, "production")
        registry.set_alias("churn", "champion", 2)

        with pytest.raises(Conflict, match="production"):
            registry.delete_version("churn", 1, consent=True)
        with pytest.raises(Conflict, match="champion"):
            registry.delete_version("churn", "@champion", consent=True)
        with pytest.raises(Conflict):
            registry.delete_model("churn", consent=True)
        assert [each.version for each in registry.list_versions("churn")] == [1, 2, 3]
        registry.promote("churn", 1, "archived")
        registry.delete_version("churn", 1, consent=True)

    def test_a_deleted_model_is_gone_and_its_history_stays(
        self, registry: Registry, source: Path
    ) -> None:
        registry.register("churn", source)
        registry.register("churn", source)
        registry.delete_model("churn", consent=True)

        assert registry.list_models() == []
        with pytest.raises(NotFound):
            registry.list_versions("churn")
        with pytest.raises(NotFound):
            registry.get_version("churn", "latest")
        actions = [entry.action for entry in registry.history("churn")]
        assert actions == ["registered", "registered", "deleted", "deleted"]
        assert registry.register("churn", source).version == 3

    def test_a_rollback_passes_over_a_deleted_version(
        self, registry: Registry, source: Path
    ) -> None:
        for number in (1, 2, 3):
            registry.register("churn", source)
            registry.promote("churn", number, "production")
        registry.delete_version("churn", 2, consent=True)

        assert registry.rollback("churn", "production").version == 1

    # Collecting.

    def test_bytes_are_collected_when_nothing_needs_them(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        if "gc" not in registry.capabilities:
            pytest.skip(registry.capabilities["gc"].note)
        path = tmp_path / "weights.bin"
        for content in (b"a" * 100, b"b" * 100, b"c" * 100):
            path.write_bytes(content)
            registry.register("churn", path)
        registry.delete_version("churn", 2, consent=True)

        assert registry.gc(dry_run=False).removed == ()  # Deleted within the last month.
        planned = registry.gc(window=NOTHING)
        assert planned.dry_run
        assert planned.size >= 100
        done = registry.gc(window=NOTHING, dry_run=False)
        assert done.removed == planned.removed
        assert registry.gc(window=NOTHING, dry_run=False).removed == ()
        assert registry.gc(dry_run=False).removed == ()  # In a longer window again.
        for number, letter in ((1, b"a"), (3, b"c")):
            out = registry.download("churn", number, tmp_path / str(number))
            assert (out / "weights.bin").read_bytes() == letter * 100

    def test_equal_bytes_of_another_version_are_not_collected(
        self, registry: Registry, source: Path, tmp_path: Path
    ) -> None:
        if "gc" not in registry.capabilities:
            pytest.skip(registry.capabilities["gc"].note)
        registry.register("churn", source)
        registry.register("other", source, metrics={"auc": 1})
        registry.delete_model("churn", consent=True)
        registry.gc(window=NOTHING, dry_run=False)

        assert (registry.download("other", 1, tmp_path / "out") / "weights.bin").is_file()

    def test_a_dry_run_tells_all_that_would_go(self, registry: Registry, tmp_path: Path) -> None:
        if "gc" not in registry.capabilities:
            pytest.skip(registry.capabilities["gc"].note)
        path = tmp_path / "weights.bin"
        for letter in (b"a", b"b", b"c", b"b", b"d", b"e"):
            path.write_bytes(letter * 100)
            registry.register("churn", path)
        registry.register("other", path)
        registry.promote("churn", 2, "production")
        registry.delete_version("churn", 5, consent=True)

        for keep_last in (2, 1, 0):
            planned = registry.gc(window=NOTHING, keep_last=keep_last)
            done = registry.gc(window=NOTHING, keep_last=keep_last, dry_run=False)
            assert done.versions == planned.versions
            assert done.removed == planned.removed
            assert (keep_last == 2) == ("churn/1" in done.versions)
        out = registry.download("churn", 2, tmp_path / "out")
        assert (out / "weights.bin").read_bytes() == b"b" * 100

    def test_what_is_held_is_not_collected(self, registry: Registry, source: Path) -> None:
        if "gc" not in registry.capabilities:
            pytest.skip(registry.capabilities["gc"].note)
        for _ in range(6):
            registry.register("churn", source)
        registry.promote("churn", 1, "production")
        registry.promote("churn", 2, "production")
        registry.set_alias("churn", "champion", 3)

        kept = registry.gc(keep_last=0)
        assert kept.versions == ()  # All are younger than the window.
        planned = registry.gc(window=NOTHING, keep_last=1)
        assert planned.versions == ("churn/1", "churn/4", "churn/5")
        assert len(registry.list_versions("churn")) == 6
        registry.gc(window=NOTHING, keep_last=1, dry_run=False)
        assert [each.version for each in registry.list_versions("churn")] == [2, 3, 6]
        with pytest.raises(InvalidInput):
            registry.gc(keep_last=-1)
        with pytest.raises(InvalidInput):
            registry.gc(window=-timedelta(days=1))

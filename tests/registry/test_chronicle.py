"""A registry on a chronicle keeps the contract on a tool that can do next to nothing."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry.shelf import Shelf, ShelfRegistry

from mlopskit.errors import Conflict, IntegrityError, NotFound
from mlopskit.testing import RegistryContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.registry.entities import HistoryEntry
    from mlopskit.registry.gates import GateContext
    from mlopskit.registry.standing import Standing

pytestmark = pytest.mark.core


@pytest.fixture
def registry(shelf: Shelf) -> Iterator[ShelfRegistry]:
    with ShelfRegistry(shelf) as opened:
        yield opened


class TestChronicledRegistry(RegistryContract):
    @pytest.fixture
    def registry(self, shelf: Shelf) -> Iterator[ShelfRegistry]:
        with ShelfRegistry(shelf) as opened:
            yield opened


def lines(entries: list[HistoryEntry]) -> list[tuple[Any, ...]]:
    return [(e.id, e.action, e.version, e.before, e.after) for e in entries]


# Changes.


def test_a_change_is_made_again_after_a_quicker_one(shelf: Shelf, registry: ShelfRegistry) -> None:
    registry.add("churn")
    registry.add("churn")
    registry.set_alias("churn", "champion", 1)
    other = ShelfRegistry(shelf, "bob")
    registry.chronicle.before = lambda: other.set_alias("churn", "champion", 2)
    registry.delete_alias("churn", "champion")

    last = registry.history("churn")[-1]
    assert (last.action, last.version, last.before) == ("alias_deleted", 2, "2")


def test_a_version_that_is_put_to_use_meanwhile_is_not_deleted(
    shelf: Shelf, registry: ShelfRegistry
) -> None:
    registry.add("churn")
    registry.add("churn")
    other = ShelfRegistry(shelf, "bob")
    registry.chronicle.before = lambda: other.promote("churn", 1, "production")

    with pytest.raises(Conflict, match="put to use"):
        registry.delete_model("churn", consent=True)
    assert [each.version for each in registry.list_versions("churn")] == [1, 2]


def test_gates_are_asked_again_about_a_holder_that_came_meanwhile(
    shelf: Shelf, registry: ShelfRegistry
) -> None:
    registry.add("churn")
    registry.add("churn")
    other = ShelfRegistry(shelf, "bob")
    registry.chronicle.before = lambda: other.promote("churn", 1, "production")

    assert not registry.promote("churn", 2, "production", [lambda c: c.holder is None])
    assert registry.get_version("churn", "production").version == 1


def test_threads_leave_one_version_in_production(shelf: Shelf) -> None:
    for _ in range(8):
        ShelfRegistry(shelf).add("churn")
    refused: list[int] = []

    def work(number: int) -> None:
        mine = ShelfRegistry(shelf, f"worker {number}")
        if not mine.promote("churn", number, "production", [lambda c: c.holder is None]):
            refused.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    registry = ShelfRegistry(shelf)
    entries = registry.history("churn")
    assert len(refused) == 7
    assert [e.action for e in entries].count("promoted") == 1
    assert [e.id for e in entries] == list(range(1, len(entries) + 1))
    assert shelf.shown["churn", "production"] == registry.get_version("churn", "production").version


def test_a_model_that_never_stands_still_is_a_conflict(
    shelf: Shelf, registry: ShelfRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlopskit.registry.chronicle.time.sleep", lambda _: None)
    registry.add("churn")
    other = ShelfRegistry(shelf, "bob")

    def busy() -> None:
        other.update_model("churn", tags={"n": "1"})
        registry.chronicle.before = busy

    registry.chronicle.before = busy
    with pytest.raises(Conflict, match="50 times"):
        registry.set_alias("churn", "champion", 1)
    assert registry.get_version("churn", 1).aliases == ()


# What the tool shows.


def test_what_could_not_be_shown_is_shown_by_whoever_comes_next(
    shelf: Shelf, registry: ShelfRegistry
) -> None:
    registry.add("churn")
    shelf.away = "show"
    assert registry.promote("churn", 1, "production")
    assert shelf.shown == {}
    shelf.away = ""

    ShelfRegistry(shelf).list_versions("churn")
    assert shelf.shown["churn", "production"] == 1
    shelf.asked.clear()
    ShelfRegistry(shelf).list_versions("churn")
    assert "show" not in shelf.asked


def test_who_was_quicker_and_slower_to_show_it_is_overwritten(
    shelf: Shelf, registry: ShelfRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writes first and shows last: what is shown in the end is what was written last."""
    registry.add("churn")
    registry.add("churn")
    other = ShelfRegistry(shelf, "bob")
    project = registry._project

    def slowly(standing: Standing) -> bool:
        monkeypatch.setattr(registry, "_project", project)
        other.promote("churn", 2, "production")
        return project(standing)

    monkeypatch.setattr(registry, "_project", slowly)
    registry.promote("churn", 1, "production")
    assert shelf.shown["churn", "production"] == 2


def test_a_registration_whose_line_is_lost_is_told_of_later(
    shelf: Shelf, registry: ShelfRegistry, source: Path
) -> None:
    shelf.away = "put"
    assert registry.register("churn", source).version == 1
    shelf.away = ""
    assert ShelfRegistry(shelf).register("churn", source).version == 2

    assert lines(registry.history("churn")) == [
        (1, "registered", 2, None, "none"),
        (2, "registered", 1, None, "none"),
    ]


def test_ids_do_not_change_when_others_register(shelf: Shelf, registry: ShelfRegistry) -> None:
    """Neither by a version that came before a change and is told of after it."""
    registry.add("churn")
    registry.chronicle.before = lambda: registry.add("churn")
    registry.set_alias("churn", "champion", 1)
    seen = registry.history("churn")
    registry.add("churn")
    registry.set_alias("churn", "champion", 3)

    now = registry.history("churn")
    assert now[: len(seen)] == seen
    assert lines(now) == [
        (1, "registered", 1, None, "none"),
        (2, "alias_set", 1, None, "1"),
        (3, "registered", 2, None, "none"),
        (4, "registered", 3, None, "none"),
        (5, "alias_set", 3, "1", "3"),
    ]


def test_who_may_only_read_is_told_of_versions_without_a_line(
    shelf: Shelf, registry: ShelfRegistry, source: Path
) -> None:
    registry.register("churn", source)
    registry.add("churn")
    shelf.away = "put"
    assert [entry.version for entry in registry.history("churn")] == [1, 2]


def test_a_model_that_mlopskit_never_changed_is_only_read(
    shelf: Shelf, registry: ShelfRegistry
) -> None:
    registry.add("churn", stage="production", aliases=("champion",))
    assert registry.get_version("churn", "production").aliases == ("champion",)
    assert [entry.action for entry in registry.history("churn")] == [
        "registered",
        "promoted",
        "alias_set",
    ]
    assert registry.pending() == []
    assert shelf.lists == {}


def native(shelf: Shelf, number: int, **change: Any) -> None:
    """Change a version with the tool's own means."""
    found = shelf.versions["churn"][number - 1]
    version = found.version.model_copy(update=change)
    shelf.versions["churn"][number - 1] = dataclasses.replace(found, version=version)


def test_stages_of_the_tool_count_until_mlopskit_moves_a_version(
    shelf: Shelf, registry: ShelfRegistry
) -> None:
    for _ in range(3):
        registry.add("churn")
    native(shelf, 1, stage="production")
    registry.set_alias("churn", "champion", 3)
    assert registry.get_version("churn", "production").version == 1
    native(shelf, 1, stage="archived")
    native(shelf, 2, stage="production")
    assert registry.get_version("churn", "production").version == 2
    registry.promote("churn", 3, "production")
    native(shelf, 1, stage="production")  # Past every gate.

    assert registry.get_version("churn", "production").version == 3
    assert [each.stage for each in registry.list_versions("churn")] == [
        "archived",
        "archived",
        "production",
    ]
    moved = [e for e in registry.history("churn") if e.action in ("promoted", "displaced")]
    assert [(e.version, e.after, e.details.get("imported")) for e in moved] == [
        (1, "production", True),
        (1, "archived", True),
        (2, "production", True),
        (2, "archived", None),
        (3, "production", None),
    ]
    assert registry.rollback("churn", "production").version == 2


def test_aliases_of_the_tool_count_until_mlopskit_sets_the_same(
    shelf: Shelf, registry: ShelfRegistry
) -> None:
    registry.add("churn")
    registry.add("churn")
    native(shelf, 1, aliases=("shadow", "champion"))
    registry.set_alias("churn", "champion", 2)
    native(shelf, 1, aliases=("champion",))
    native(shelf, 2, aliases=("shadow",))

    assert [each.aliases for each in registry.list_versions("churn")] == [
        (),
        ("champion", "shadow"),
    ]
    assert registry.get_version("churn", "@shadow").version == 2
    native(shelf, 2, aliases=())
    with pytest.raises(NotFound):
        registry.get_version("churn", "@shadow")


def test_a_version_that_was_deleted_in_the_tool_holds_nothing(
    shelf: Shelf, registry: ShelfRegistry
) -> None:
    for number in (1, 2, 3):
        registry.add("churn")
        registry.promote("churn", number, "production")
    registry.set_alias("churn", "champion", 3)
    del shelf.versions["churn"][1:]

    for ref in (3, "@champion", "production"):
        with pytest.raises(NotFound):
            registry.get_version("churn", ref)
    assert registry.get_version("churn", "latest").stage == "archived"
    assert registry.rollback("churn", "production").version == 1


def test_a_number_that_was_given_again_inherits_nothing(
    shelf: Shelf, registry: ShelfRegistry
) -> None:
    registry.add("churn", "old")
    registry.promote("churn", 1, "production")
    registry.set_alias("churn", "champion", 1)
    registry.update_version("churn", 1, description="old")
    del shelf.versions["churn"][:], shelf.numbers["churn"]
    registry.add("churn", "new")

    found = registry.get_version("churn", 1)
    assert (found.stage, found.aliases, found.description) == ("none", (), "")
    with pytest.raises(NotFound):
        registry.get_version("churn", "production")
    assert registry.history("churn")[-1].action == "registered"


def test_a_deletion_that_was_cut_short_is_finished(shelf: Shelf, registry: ShelfRegistry) -> None:
    registry.add("churn")
    registry.add("churn")
    shelf.away = "remove"
    registry.delete_version("churn", 1, consent=True)
    shelf.away = ""
    assert len(shelf.versions["churn"]) == 2
    with pytest.raises(NotFound):
        registry.get_version("churn", 1)

    assert [each.version for each in registry.list_versions("churn")] == [2]
    assert len(shelf.versions["churn"]) == 1


def test_two_versions_in_a_stage_of_the_tool_have_one_holder(
    shelf: Shelf, registry: ShelfRegistry
) -> None:
    """The chronicle knows of the first alone, and a promotion would wait for it for ever."""
    for _ in range(3):
        registry.add("churn")
    native(shelf, 1, stage="production")
    registry.set_alias("churn", "champion", 3)
    native(shelf, 2, stage="production")

    assert registry.get_model("churn").stages["production"] == 2
    assert registry.get_version("churn", "production").version == 2
    holders = []

    def ask(context: GateContext) -> bool:
        holders.append(context.holder.version if context.holder else None)
        return True

    assert registry.promote("churn", 3, "production", [ask])
    assert holders == [2]


def test_the_first_stage_is_that_of_versions_without_a_line_too(
    shelf: Shelf, registry: ShelfRegistry, source: Path
) -> None:
    registry.register("churn", source)
    registry.register("churn", source)
    registry.promote("churn", 1, "production")
    registry.add("churn")

    assert registry.get_model("churn").stages == {"production": 1}
    assert registry.get_version("churn", "none").version == 3


def test_a_version_is_there_whatever_hinders_its_line(
    shelf: Shelf, registry: ShelfRegistry, source: Path
) -> None:
    registry.register("churn", source)

    def damage() -> None:
        shelf.lists["churn"][0] = "damaged"
        raise IntegrityError("The text 1", "a", "b")

    registry.chronicle.before = damage
    assert registry.register("churn", source).version == 2
    with pytest.raises(IntegrityError):
        registry.list_versions("churn")


def test_a_model_without_versions_is_not_named_as_one_that_is_there(
    shelf: Shelf, registry: ShelfRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tools keep the name."""
    registry.add("churn")
    registry.add("fraud")
    registry.delete_model("churn", consent=True)
    monkeypatch.setattr(registry, "_native_names", lambda: ["churn", "fraud"])

    with pytest.raises(NotFound) as raised:
        registry.get_version("churn", 1)
    assert str(raised.value) == "There is no model 'churn'. There is: fraud."


def test_a_version_is_read_with_two_requests(shelf: Shelf, registry: ShelfRegistry) -> None:
    registry.add("churn")
    registry.set_alias("churn", "champion", 1)
    registry.promote("churn", 1, "production")
    for ref in (1, "@champion", "production"):
        shelf.asked.clear()
        registry.get_version("churn", ref)
        assert shelf.asked == ["read", "version"]

"""A registry on a chronicle keeps the contract on a tool that can do next to nothing."""

from __future__ import annotations

import dataclasses
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry.shelf import Shelf, ShelfChronicle, ShelfRegistry

from mlopskit.errors import BackendError, Conflict, IntegrityError, NotFound
from mlopskit.registry.lines import Line
from mlopskit.registry.texts import SEAL, _seal
from mlopskit.testing import RegistryContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.registry.entities import HistoryEntry
    from mlopskit.registry.standing import Standing

pytestmark = pytest.mark.core

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "blobs")


@pytest.fixture
def registry(shelf: Shelf) -> Iterator[ShelfRegistry]:
    with ShelfRegistry(shelf) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    return path


class TestChronicledRegistry(RegistryContract):
    @pytest.fixture
    def registry(self, shelf: Shelf) -> Iterator[ShelfRegistry]:
        with ShelfRegistry(shelf) as opened:
            yield opened


def lines(entries: list[HistoryEntry]) -> list[tuple[Any, ...]]:
    return [(e.id, e.action, e.version, e.before, e.after) for e in entries]


# The chronicle.


def test_an_entry_has_its_place_as_its_id(shelf: Shelf) -> None:
    chronicle = ShelfChronicle("ada", shelf)
    first = chronicle.append(
        "churn", [Line("churn", 1, "registered"), Line("churn", 1, "edited")], 0
    )
    second = chronicle.append("churn", [Line("churn", 1, "edited")], 2)

    assert first is not None
    assert second is not None
    assert [entry.id for entry in first + second] == [1, 2, 3]
    assert chronicle.read("churn") == first + second
    assert ShelfChronicle("bob", shelf).read_all() == {"churn": first + second}


def test_of_two_writers_one_succeeds(shelf: Shelf) -> None:
    ada, bob = ShelfChronicle("ada", shelf), ShelfChronicle("bob", shelf)
    ada.append("churn", [Line("churn", 1, "registered")], 0)
    assert bob.append("churn", [Line("churn", 1, "edited")], 0) is None
    bob.read("churn")
    ada.before = lambda: bob.append("churn", [Line("churn", 1, "edited", why="bob")], 1)

    assert ada.append("churn", [Line("churn", 1, "edited", why="ada")], 1) is None
    assert [entry.by for entry in ada.read("churn")] == ["ada", "bob"]


def test_a_clock_that_goes_back_keeps_the_order(
    shelf: Shelf, registry: ShelfRegistry, source: Path
) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    registry.add("churn", created_at=later)
    registry.add("churn")
    registry.promote("churn", 1, "production")

    times = [entry.at for entry in registry.history("churn")]
    assert times == [later] * 3


def test_bytes_are_attached_with_their_line(shelf: Shelf, registry: ShelfRegistry) -> None:
    version = registry.add("churn").version
    registry._attach(version, "note", b"\x00\xff", Line("churn", 1, "signed"))
    registry._attach(version, "note", b"later", Line("churn", 1, "signed"))

    assert ShelfRegistry(shelf)._attachment(version, "note") == b"later"
    assert registry._attachment(version, "other") is None
    assert [entry.action for entry in registry.history("churn")][1:] == ["signed", "signed"]
    registry.delete_version("churn", 1, consent=True)
    assert registry._attachment(version, "note") is None


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "taken out", "twice", "swapped"])
def test_a_damaged_chronicle_is_never_taken_for_a_history(
    shelf: Shelf, registry: ShelfRegistry, damage: str
) -> None:
    registry.add("churn")
    registry.set_alias("churn", "champion", 1)
    registry.set_alias("churn", "shadow", 1)
    registry.promote("churn", 1, "production")
    texts = shelf.lists["churn"]
    if damage == "changed":
        texts[1] = texts[1].replace("shadow", "shabow")
    elif damage == "cut":
        texts[1] = texts[1][:-1]
    elif damage == "empty":
        texts[1] = ""
    elif damage == "taken out":
        del texts[1]
    elif damage == "twice":
        texts.insert(1, texts[1])
    else:
        texts[1], texts[2] = texts[2], texts[1]

    for each in (registry, ShelfRegistry(shelf)):
        with pytest.raises(IntegrityError, match=r"text [23] .*'churn'"):
            each.get_version("churn", 1)


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"lines": [{}]}', '{"lines": [{"action": "x"}]}']
)
def test_a_text_of_a_later_mlopskit_is_not_guessed_at(
    shelf: Shelf, registry: ShelfRegistry, body: str
) -> None:
    registry.add("churn")
    registry.set_alias("churn", "champion", 1)
    texts = shelf.lists["churn"]
    texts.append(_seal(texts[-1][:SEAL], body) + body)

    with pytest.raises(BackendError, match=r"text 2 .*'churn'"):
        registry.get_version("churn", 1)


def test_what_somebody_else_reads_is_read_anew_if_the_list_was_replaced(shelf: Shelf) -> None:
    chronicle, other = ShelfChronicle("ada", shelf), ShelfChronicle("bob", shelf)
    chronicle.append("churn", [Line("churn", 1, "registered")], 0)
    shelf.lists.clear()
    other.append("churn", [Line("churn", 2, "registered"), Line("churn", 2, "edited")], 0)

    assert [entry.version for entry in chronicle.read("churn")] == [2, 2]


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


def test_a_version_is_read_with_two_requests(shelf: Shelf, registry: ShelfRegistry) -> None:
    registry.add("churn")
    registry.set_alias("churn", "champion", 1)
    registry.promote("churn", 1, "production")
    for ref in (1, "@champion", "production"):
        shelf.asked.clear()
        registry.get_version("churn", ref)
        assert shelf.asked == ["read", "version"]

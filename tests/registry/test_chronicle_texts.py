"""A chronicle has one order that all see, and nothing that was changed in it is taken for true."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.registry.shelf import Shelf, ShelfChronicle, ShelfRegistry

from mlopskit.errors import BackendError, IntegrityError
from mlopskit.registry.lines import Line
from mlopskit.registry.texts import SEAL, _seal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.core


@pytest.fixture
def registry(shelf: Shelf) -> Iterator[ShelfRegistry]:
    with ShelfRegistry(shelf) as opened:
        yield opened


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

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.features import FeatureView, rows
from mlopskit.features.references import select
from mlopskit.features.values import microseconds, plain

pytestmark = pytest.mark.core

VIEW = FeatureView("v", ["k", "j"], ["x"], created="created")
AT = datetime(2024, 1, 1, tzinfo=UTC)


def row(**changes: Any) -> dict[str, Any]:
    return {"k": 1, "j": "a", "x": 2.5, "event_timestamp": AT, "created": AT, **changes}


def test_rows_and_columns_are_the_same_events() -> None:
    as_rows = rows.events(VIEW, [row(), row(k=2, x=None)])
    one, two = row(), row(k=2, x=None)
    as_columns = rows.events(VIEW, {name: (one[name], two[name]) for name in one})
    assert as_rows == as_columns
    assert as_rows.keys == [(1, "a"), (2, "a")]
    assert as_rows.values == [{"x": 2.5}, {"x": None}]
    assert as_rows.times == as_rows.created == [1_704_067_200_000_000] * 2


def test_what_is_wrong_is_said_with_its_place() -> None:
    with pytest.raises(InvalidInput, match=r"row 1, lacks the column 'j'.*'k'"):
        rows.events(VIEW, [row(), {"k": 1}])
    with pytest.raises(InvalidInput, match="row 1 is no dict but 7"):
        rows.events(VIEW, [row(), 7])
    with pytest.raises(InvalidInput, match="different lengths"):
        rows.events(VIEW, {**{name: [value] for name, value in row().items()}, "x": [1.0, 2.0]})
    with pytest.raises(InvalidInput, match="must be a list"):
        rows.events(VIEW, row())
    with pytest.raises(InvalidInput, match="null key in row 1"):
        rows.events(VIEW, [row(), row(j=None)])
    with pytest.raises(InvalidInput, match="row 1: 'noon'"):
        rows.events(VIEW, [row(), row(event_timestamp="noon")])


def test_several_views_share_what_is_asked() -> None:
    views = {"v": VIEW, "w": FeatureView("w", ["j"], ["y"])}
    found = rows.lookups(select(["v:x", "w:y"], views.__getitem__), [{"k": 1, "j": None}, row()])
    assert found.entities == {"k": [1, 1], "j": [None, "a"]}
    assert found.keys == {("k", "j"): [None, (1, "a")], ("j",): [None, ("a",)]}


@pytest.mark.parametrize(
    "value",
    [
        AT,
        AT.replace(tzinfo=None),
        AT.astimezone(timezone(timedelta(hours=-7))),
        date(2024, 1, 1),
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        "2024-01-01T09:00:00+09:00",
    ],
)
def test_a_time_is_read_in_many_forms(value: object) -> None:
    assert microseconds("it", value) == 1_704_067_200_000_000


@pytest.mark.parametrize("value", [None, 3, 1.5, "yesterday", b"2024", object()])
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="it:"):
        microseconds("it", value)


def test_a_text_of_a_subclass_is_kept_as_text() -> None:
    class Colour(StrEnum):
        RED = "red"

    assert type(plain(Colour.RED, "it")) is str
    assert plain(("a", [1, None]), "it") == ["a", [1, None]]


def test_a_frame_without_the_packages_for_frames_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "mlopskit.features.frames", raising=False)
    monkeypatch.setitem(sys.modules, "narwhals", None)
    with pytest.raises(MissingDependency, match=r"mlopskit\[local\]"):
        rows.events(VIEW, object())

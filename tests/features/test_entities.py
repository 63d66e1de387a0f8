from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlopskit.errors import InvalidInput, InvalidName, NotFound
from mlopskit.features import FeatureService, FeatureStatus, FeatureView, OnlineFeatures
from mlopskit.features.entities import EPOCH, duration

pytestmark = pytest.mark.core


def test_a_view_is_made_by_position() -> None:
    view = FeatureView("w", ["k"], ["a", "b"], Path("w.parquet"), "at", "written", 60)
    assert view.entities == ("k",)
    assert view.features == ("a", "b")
    assert view.source == "w.parquet"
    assert (view.timestamp, view.created, view.ttl) == ("at", "written", timedelta(minutes=1))
    assert view.columns == ("k", "a", "b", "at", "written")


def test_a_mapping_of_features_gives_dtypes_in_many_spellings() -> None:
    view = FeatureView("w", ["k"], {"a": float, "b": "int64", "c": datetime, "d": "string"})
    assert view.features == ("a", "b", "c", "d")
    assert view.dtypes == {"a": "float", "b": "int", "c": "timestamp", "d": "str"}
    with pytest.raises(InvalidInput, match=r"'complex'.*bool, bytes"):
        FeatureView("w", ["k"], {"a": "complex"})
    with pytest.raises(InvalidInput, match="'z'"):
        FeatureView("w", ["k"], ["a"], dtypes={"z": "int"})


def test_a_view_reads_back_from_its_json_and_can_be_in_a_set() -> None:
    view = FeatureView("w", ["k"], {"a": float}, ttl=timedelta(days=1, microseconds=1))
    assert FeatureView.model_validate_json(view.model_dump_json()) == view
    assert FeatureView.model_validate(view.model_dump()) == view
    assert len({view, FeatureView("w", ["k"], {"a": "float"}, ttl=view.ttl)}) == 1
    with pytest.raises(ValueError, match="frozen"):
        view.name = "other"  # type: ignore[misc]  # on purpose


def test_every_column_of_a_view_is_another_one() -> None:
    for arguments in (
        (["k", "k"], ["a"]),
        (["k"], ["k"]),
        (["k"], ["a", "A"]),
        (["k"], ["event_timestamp"]),
    ):
        with pytest.raises(InvalidInput, match="twice"):
            FeatureView("w", *arguments)
    with pytest.raises(InvalidInput, match="twice"):
        FeatureView("w", ["k"], ["a"], timestamp="at", created="at")


def test_a_view_has_keys_and_features_in_lists() -> None:
    with pytest.raises(InvalidInput, match=r"write \['k'\]"):
        FeatureView("w", "k", ["a"])
    with pytest.raises(InvalidInput, match="no join key"):
        FeatureView("w", [], ["a"])
    with pytest.raises(InvalidInput, match="no feature"):
        FeatureView("w", ["k"], [])
    with pytest.raises(InvalidName, match="':'"):
        FeatureView("w", ["k"], ["a:b"])
    with pytest.raises(InvalidName, match="U\\+202E"):
        FeatureView("w", ["\u202ek"], ["a"])


def test_a_service_refers_to_features_once() -> None:
    assert FeatureService("s", ["v:a", "v:b:c"]).features == ("v:a", "v:b:c")
    with pytest.raises(InvalidInput, match="twice"):
        FeatureService("s", ["v:a", "v:a"])
    with pytest.raises(InvalidInput, match="'a' is no reference"):
        FeatureService("s", ["a"])


@pytest.mark.parametrize("value", [-1, timedelta(-1), "soon", float("nan"), float("inf"), [1]])
def test_a_duration_is_positive(value: object) -> None:
    with pytest.raises(InvalidInput, match="ttl"):
        duration("ttl", value)  # type: ignore[arg-type]  # on purpose


def test_no_duration_is_no_limit() -> None:
    assert duration("ttl", None) is None
    assert duration("ttl", 0) is None
    assert duration("ttl", 0.5) == timedelta(milliseconds=500)


def test_an_answer_is_read_by_row_and_by_column() -> None:
    fresh, missing = FeatureStatus.FRESH, FeatureStatus.MISSING
    answer = OnlineFeatures(
        {"k": [1, 2]},
        ["v:x"],
        ["x"],
        values=[[5, None]],
        statuses=[[fresh, missing]],
        event_times=[[1, None]],
    )
    assert len(answer.rows) == len(answer) == 2
    assert answer.rows[0]["v:x"].value == 5
    assert answer.rows[0]["v:x"].event_time == EPOCH + timedelta(microseconds=1)
    assert answer.rows[0]["v:x"].event_time.tzinfo is UTC
    assert [row["v:x"].status for row in answer.rows] == ["FRESH", "MISSING"]
    assert [dict(row) for row in answer.rows[0:1]] == [{"v:x": answer.rows[0]["v:x"]}]
    assert answer.rows[-1]["v:x"].event_time is None
    assert "v:x" in answer.rows[0]
    assert "v:y" not in answer.rows[0]
    with pytest.raises(IndexError):
        answer.rows[2]
    with pytest.raises(KeyError):
        answer.rows[0]["v:y"]
    with pytest.raises(NotFound, match="'v:y'"):
        answer.statuses("v:y")
    assert answer.to_dict() == {"k": [1, 2], "x": [5, None]}
    assert "FRESH" in repr(answer.rows[0])
    assert repr(answer) == "<OnlineFeatures 2 rows of v:x>"

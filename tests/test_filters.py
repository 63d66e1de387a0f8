"""What the filter language takes and refuses. How it answers is in the contract."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mlopskit.errors import InvalidInput
from mlopskit.filters import (
    Both,
    Comparison,
    Field,
    In,
    IsNull,
    Like,
    Not,
    Order,
    matches,
    parse,
    parse_order,
)
from mlopskit.tracking import RunRecord

pytestmark = pytest.mark.core

LOSS = Field("metrics", "loss")
RUN = RunRecord(
    id="a" * 32,
    name="100%_done",
    experiment="e",
    status="finished",
    params={
        "flag": True,
        "one": 1,
        "text": "it's",
        "deep": {"a.b": 1, "c": {"d": "x"}},
        "none": None,
    },
    tags={"k=v": "line\nend"},
    metrics={"loss": 0.5, "nan": float("nan"), "big": 2**53 + 1},
    started_at=datetime(2026, 5, 4, 12, tzinfo=UTC),
)


def test_and_binds_closer_than_or_and_not_closest() -> None:
    one, two, three = (Comparison(LOSS, "=", number) for number in (1, 2, 3))

    assert parse("metrics.loss = 1 OR NOT metrics.loss == 2 AND metrics.loss=3") == Both(
        "or", (one, Both("and", (Not(two), three)))
    )
    assert parse("(metrics.loss=1 or metrics.loss=2) and not not metrics.loss=3") == Both(
        "and", (Both("or", (one, two)), three)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.loss <> -1.5e-3", Comparison(LOSS, "!=", -0.0015)),
        ("metric.`loss` != .5", Comparison(LOSS, "!=", 0.5)),
        ('params."a ""b"" c" = "x""y"', Comparison(Field("params", 'a "b" c'), "=", 'x"y')),
        ("tags.`and or` = 'it''s'", Comparison(Field("tags", "and or"), "=", "it's")),
        ("params.val/acc@1-x = TRUE", Comparison(Field("params", "val/acc@1-x"), "=", True)),
        ("name ilike 'A_%'", Like(Field("attributes", "name"), "A_%", True)),
        ("attributes.id not in ('a')", Not(In(Field("attributes", "id"), ("a",)))),
        ("parent_id is not null", Not(IsNull(Field("attributes", "parent_id")))),
    ],
)
def test_it_reads(text: str, expected: Any) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("metrics.loss", 13),
        ("metrics.loss <", 15),
        ("metrics.loss < x", 16),
        ("metrics.loss < 1 and", 21),
        ("metrics.loss < 1 metrics.b > 2", 18),
        ("(metrics.loss < 1", 18),
        ("metrics.loss in ()", 18),
        ("metrics.loss in (1 2)", 20),
        ("metrics.loss is 3", 17),
        ("lose < 1", 1),
        ("attributes.lose < 1", 1),
        ("name like 3", 11),
        ("name = 'open", 8),
        ("name = 'a'; drop table run", 11),
        ("metrics. < 1", 8),
        ("metrics.`` < 1", 8),
        ("1 < metrics.loss", 1),
        ("(" * 200 + "name = 'x'" + ")" * 200, 102),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_column(text: str, column: int) -> None:
    with pytest.raises(InvalidInput, match=rf"at column {column} "):
        parse(text)


def test_a_long_chain_is_no_deep_one() -> None:
    found = parse(" and ".join(["not not metrics.loss < 1"] * 5000))

    assert found is not None
    assert matches(found, RUN)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("params.flag = true", True),
        ("params.flag = 1", False),
        ("params.one = 1.0", True),
        ("params.one = true", False),
        ("params.text = 'it''s'", True),
        ("params.text < 3 or params.text >= 3", False),
        ("params.text != 3", True),
        ("params.deep.c.d = 'x'", True),
        ("params.deep.c.e is null", True),
        ("params.none is null", True),
        ("params.none = 1 or not params.none = 1", False),
        ("metrics.nan = nan and not metrics.nan < 1 and metrics.nan != 1", True),
        ("metrics.big = 9007199254740993 and metrics.big != 9007199254740992", True),
        ("metrics.absent < 1 or metrics.loss < 1", True),
        ("metrics.absent < 1 and metrics.loss > 1", False),
        ("not (metrics.absent < 1 and metrics.loss > 1)", True),
        ("not (metrics.absent < 1 or metrics.loss > 1)", False),
        ("metrics.loss not in (1, 'x', true)", True),
        ("name like '100\\%%'", False),
        ("name like '100%'", True),
        ("name like '100'", False),
        ("tags.`k=v` like 'line%end'", True),
        ("started_at < '2026-05-04T14:00:00+01:00'", True),
        ("started_at >= '2026-05-04T12:00:00' and ended_at is null", True),
        ("started_at < 'yesterday' or started_at >= 'yesterday'", False),
    ],
)
def test_it_answers(text: str, answer: bool) -> None:
    found = parse(text)

    assert found is not None
    assert matches(found, RUN) is answer


def test_an_order_is_a_field_and_a_direction() -> None:
    assert parse_order(["metrics.loss DESC", "name", "tags.`a b` asc"]) == [
        Order(LOSS, descending=True),
        Order(Field("attributes", "name")),
        Order(Field("tags", "a b")),
    ]
    with pytest.raises(InvalidInput, match="column 14"):
        parse_order(["metrics.loss down"])

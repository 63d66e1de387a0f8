"""Filters and orders as SQL over the tables in `local_rows`.

What SQL cannot say exactly it says too widely: the caller applies the whole filter again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlopskit.filters import Both, Comparison, In, IsNull, Like, Not
from mlopskit.tracking.local_series import nearest
from mlopskit.tracking.values import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from sqlite3 import Connection

    from mlopskit.filters import Field, Filter, Order

# Times, and the status (which may yet turn out to be lost), are not compared here.
COLUMNS: Final[Mapping[str, str]] = {
    "id": "run.id",
    "name": "run.name",
    "experiment": "run.experiment",
    "parent_id": "run.parent_id",
    "group": "run.group_name",
    "job_type": "run.job_type",
    "notes": "run.notes",
}
SORTABLE: Final[Mapping[str, str]] = {
    **COLUMNS,
    "started_at": "run.started_ms",
    "ended_at": "run.ended_ms",
}
# Rounding may make two numbers equal, and never turns their order round.
_WIDER: Final[Mapping[str, str]] = {"<": "<=", "<=": "<=", ">": ">=", ">=": ">=", "=": "="}


@dataclass(frozen=True, slots=True)
class Sql:
    """A condition on table `run`.

    Attributes:
        text: With question marks for what is given.
        given: In their order.
        exact: Whether it holds for just the runs that match, among those that have the value.
    """

    text: str
    given: tuple[Any, ...] = ()
    exact: bool = False


ANY: Final = Sql("1")


def condition(where: Filter | None) -> Sql:
    """Return a condition that every run which matches a filter meets."""
    if where is None:
        return ANY
    if isinstance(where, Both):
        return _both([condition(part) for part in where.parts], where.word)
    if isinstance(where, Not):
        part = condition(where.part)
        return Sql(f"not ({part.text})", part.given) if part.exact else ANY
    return _leaf(where)


def _both(parts: Sequence[Sql], word: str) -> Sql:
    if word == "or" and ANY in parts:
        return ANY
    text = f" {word} ".join(f"({part.text})" for part in parts)
    given = tuple(each for part in parts for each in part.given)
    return Sql(text, given, all(part.exact for part in parts))


def _leaf(where: Comparison | In | Like | IsNull) -> Sql:
    field = where.field
    if field.kind == "attributes":
        return _attribute(where)
    if isinstance(where, Like) or (field.kind == "params" and "." in field.key):
        return ANY
    if isinstance(where, IsNull):
        table = {"params": "param", "tags": "tag", "metrics": "series"}[field.kind]
        return Sql(
            f"run.number not in (select run from {table} where key = ?)",  # noqa: S608 - ours
            (field.key,),
            exact=True,
        )
    if isinstance(where, In):
        equal = [_compared(field, "=", value) for value in where.values]
        return _both(equal, "or") if equal else ANY
    return _compared(field, where.sign, where.value)


def _attribute(where: Comparison | In | Like | IsNull) -> Sql:
    column = COLUMNS.get(where.field.key)
    if column is None:
        return ANY
    if isinstance(where, IsNull):
        return Sql(f"{column} is null", exact=True)
    if isinstance(where, In) and all(isinstance(value, str) for value in where.values):
        marks = ", ".join("?" * len(where.values))
        return Sql(f"{column} in ({marks})", where.values, exact=True)
    if isinstance(where, Comparison) and isinstance(where.value, str):
        return Sql(f"{column} {where.sign} ?", (where.value,), exact=True)
    return ANY


def _compared(field: Field, sign: str, value: Any) -> Sql:
    if field.kind == "metrics":
        table, number = "series", "last_number"
    elif field.kind == "params":
        table, number = "param", "number"
    else:
        table, number = "tag", ""
    if isinstance(value, str):
        if field.kind == "metrics" or sign != "=":
            return ANY
        return Sql(
            f"run.number in (select run from {table} where key = ? and value = ?)",  # noqa: S608 - ours
            (field.key, to_json(value)),
            exact=True,
        )
    near = nearest(value)
    if not number or near is None or sign not in _WIDER or math.isnan(near):
        return ANY
    return Sql(
        f"run.number in (select run from {table} where key = ? and {number} {_WIDER[sign]} ?)",  # noqa: S608 - ours
        (field.key, near),
    )


def sorts(order: Sequence[Order], connection: Connection) -> bool:
    """Tell whether `ordering` gives just the order that `filters.ordered` does."""
    for each in order:
        if each.field.kind == "metrics":
            odd = connection.execute(
                "select 1 from series where key = ? and typeof(last_value) = 'text'"
                " and last_value <> '-0.0' limit 1",
                (each.field.key,),
            ).fetchone()
            if odd is not None:
                return False  # Two ints that no float equals may have one nearest float.
        elif each.field.kind != "attributes" or each.field.key not in SORTABLE:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to look for runs, and in which order they come: one of several in a row.

    Attributes:
        source: The tables.
        where: A condition, always true or not.
        given: What their question marks stand for.
        keys: What to sort by.
    """

    source: str
    where: str
    given: tuple[Any, ...]
    keys: str


def plans(order: Sequence[Order]) -> list[Plan]:
    """Return where to look, one after the other: the latest first among equals."""
    if len(order) == 1 and order[0].field.kind == "metrics":
        key, down = order[0].field.key, "desc" if order[0].descending else "asc"
        joined = "run left join series as by0 on by0.run = run.number and by0.key = ?"
        return [
            # From the index, which knows the order: a limit ends the search early.
            Plan(
                "series as by0 cross join run",
                "run.number = by0.run and by0.key = ? and by0.last_number is not null",
                (key,),
                f"by0.last_number {down}, by0.run desc",
            ),
            Plan(joined, "by0.last_number is null", (key,), "by0.run is null, run.number desc"),
        ]
    source, given, keys = "run", [], []
    for number, each in enumerate(order):
        if each.field.kind == "metrics":
            name = f"by{number}"
            source += f" left join series as {name} on {name}.run = run.number and {name}.key = ?"
            given.append(each.field.key)
            column = f"{name}.last_number"
            keys.append(f"{name}.run is null")
        else:
            column = SORTABLE[each.field.key]
        keys.append(f"{column} is null, {column} {'desc' if each.descending else 'asc'}")
    return [Plan(source, "1", tuple(given), ", ".join([*keys, "run.number desc"]))]

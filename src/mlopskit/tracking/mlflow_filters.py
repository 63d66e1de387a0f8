"""Filters and orders as MLflow's search takes them, as far as it does.

MLflow joins comparisons by ``and`` only. What it cannot be asked is left out: then it finds too
many runs, and the caller applies the whole filter again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from mlopskit.filters import Both, Comparison, IsNull, Not
from mlopskit.tracking.escapes import key_to_store, param_to_text, tag_to_text
from mlopskit.tracking.mlflow_layout import LONGEST_PARAM, OWN, RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlopskit.filters import Field, Filter, Order

    KeptApart = Callable[[str, str], bool]

# A run that reads lost may be RUNNING or KILLED in MLflow.
STATUSES: Final[Mapping[str, str]] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
}
NEWEST: Final = "attributes.start_time DESC"


def filter_of(where: Filter | None, kept_apart: KeptApart) -> str:
    """Return a filter of MLflow's that every run which matches ours meets.

    Args:
        where: Ours.
        kept_apart: Tells whether any run keeps values of a key (of kind ``odd`` for metrics,
            ``param`` for params) where MLflow does not look.
    """
    parts = where.parts if isinstance(where, Both) and where.word == "and" else (where,)
    found: list[str] = []
    for part in parts:
        if isinstance(part, Both) and part.word == "and":
            found.append(filter_of(part, kept_apart))
        elif isinstance(part, Comparison):
            found.append(_comparison(part, kept_apart))
        elif isinstance(part, Not) and isinstance(part.part, IsNull):
            found.append(_is_there(part.part.field))
    return " and ".join(each for each in found if each)


def sorts(order: Sequence[Order], kept_apart: KeptApart) -> bool:
    """Tell whether `order_of` gives just the order that `filters.ordered` does."""
    for each in order:
        if each.field.kind == "metrics":
            if _quoted(each.field.key) is None or kept_apart("odd", each.field.key):
                return False
        elif each.field.key != "started_at":
            return False
    return True


def order_of(order: Sequence[Order]) -> list[str]:
    """Return an order as MLflow takes it: the latest first among equals."""
    keys = []
    for each in order:
        name = "attributes.start_time"
        if each.field.kind == "metrics":
            name = f"metrics.{_quoted(each.field.key)}"
        keys.append(f"{name} {'DESC' if each.descending else 'ASC'}")
    return [*keys, NEWEST]


def _comparison(part: Comparison, kept_apart: KeptApart) -> str:
    field, value = part.field, part.value
    if field.kind == "metrics":
        return _metric(part, kept_apart)
    if part.sign != "=" or not isinstance(value, str):
        return ""
    if field.kind == "attributes":
        return _attribute(field.key, value)
    if field.kind == "tags":
        return _equal("tags", _quoted(field.key, reserved=RESERVED), tag_to_text(value))
    text = param_to_text(value)
    if "." in field.key or len(text) > LONGEST_PARAM or kept_apart("param", field.key):
        return ""
    return _equal("params", _quoted(field.key), text)


def _metric(part: Comparison, kept_apart: KeptApart) -> str:
    key, value = _quoted(part.field.key), part.value
    number = isinstance(value, int | float) and not isinstance(value, bool) and _fits(value)
    if key is None or not number or part.sign == "!=" or kept_apart("odd", part.field.key):
        return ""
    # MLflow reads 1e22, and not 1e+22.
    return f"metrics.{key} {part.sign} {str(value).replace('+', '')}"


def _attribute(key: str, value: str) -> str:
    if key == "name":
        return _equal("attributes", "run_name", value)
    if key == "status" and value in STATUSES:
        return f"attributes.status = '{STATUSES[value]}'"
    if key in ("group", "job_type"):
        return _equal("tags", f"`{OWN}{key}`", value)
    return ""


def _is_there(field: Field) -> str:
    if field.kind == "tags" and (key := _quoted(field.key, reserved=RESERVED)) is not None:
        return f"tags.{key} IS NOT NULL"
    return ""


def _equal(kind: str, key: str | None, text: str) -> str:
    # A long tag is kept in a file.
    if key is None or len(text) > 250 or any(char in text for char in "'\"\\`"):
        return ""
    return f"{kind}.{key} = '{text}'"


def _quoted(key: str, *, reserved: tuple[str, ...] = ()) -> str | None:
    """Return a key as MLflow's filters name it; None if it has another name in foreign runs."""
    stored = key_to_store(key, reserved=reserved)
    if stored != key and (":" in key or key.startswith(("_mk", *reserved))):
        return None
    return None if any(char in stored for char in "`'\"\\") else f"`{stored}`"


def _fits(value: Any) -> bool:
    try:
        return math.isfinite(float(value)) and float(value) == value
    except OverflowError:
        return False

"""The filters and the order of runs, as W&B's API takes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlopskit.testing.wandb_answers import Json

_COMPARED: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$eq": lambda held, value: bool(held == value),
    "$ne": lambda held, value: bool(held != value),
    "$gt": lambda held, value: bool(held > value),
    "$gte": lambda held, value: bool(held >= value),
    "$lt": lambda held, value: bool(held < value),
    "$lte": lambda held, value: bool(held <= value),
    "$in": lambda held, value: held in value,
    "$nin": lambda held, value: held not in value,
    "$regex": lambda held, value: re.search(value, str(held)) is not None,
}
# What the SDK calls an attribute of a run, and what it is called here.
_ATTRIBUTES: Final = {
    "displayName": "display",
    "display_name": "display",
    "jobType": "job",
    "createdAt": "created",
    "created_at": "created",
    "heartbeatAt": "beat",
    "sweep": "sweep",
}


def matches(run: Json, wanted: Json) -> bool:
    """Tell whether a run matches a filter of MongoDB's, as W&B's API takes it."""
    for key, value in wanted.items():
        if key == "$and":
            held = all(matches(run, each) for each in value)
        elif key == "$or":
            held = any(matches(run, each) for each in value)
        elif key == "$nor":
            held = not any(matches(run, each) for each in value)
        else:
            held = _meets(_held(run, key), value)
        if not held:
            return False
    return True


def _meets(held: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict) or not any(key.startswith("$") for key in wanted):
        return bool(held == wanted) or (isinstance(held, list) and wanted in held)
    for sign, value in wanted.items():
        if sign == "$not":
            met = not _meets(held, value)
        elif sign == "$exists":
            met = (held is not None) == bool(value)
        elif isinstance(held, list) and sign in ("$in", "$nin"):
            met = bool({*held} & {*value}) == (sign == "$in")
        else:
            try:
                met = _COMPARED[sign](held, value)
            except TypeError:
                met = False
        if not met:
            return False
    return True


def _held(run: Json, key: str) -> Any:
    head, _, rest = key.partition(".")
    if head == "config":
        found = run["config"].get(rest.removesuffix(".value"))
        if found is not None:
            return found.get("value")
        return _deep({k: v.get("value") for k, v in run["config"].items()}, rest)
    if head in ("summary", "summary_metrics", "summaryMetrics"):
        return run["summary"].get(rest, _deep(run["summary"], rest))
    return run.get(_ATTRIBUTES.get(key, key))


def _deep(values: Any, path: str) -> Any:
    for part in path.split("."):
        if part == "value":
            continue
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def in_order(runs: list[Json], order: str) -> list[Json]:
    """Sort as ``+summary_metrics.loss`` says, runs without the value last."""
    key = order.lstrip("+-") or "createdAt"
    there = [run for run in runs if _held(run, key) is not None]
    there.sort(key=lambda run: _held(run, key), reverse=order.startswith("-"))
    return there + [run for run in runs if _held(run, key) is None]

"""What is registered beside a model's files, checked and without secrets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlopskit.errors import InvalidInput
from mlopskit.names import check_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.redaction import Redactor


@dataclass(frozen=True, slots=True)
class Details:
    """The run, the metrics, the tags and the description of a version to be."""

    run_id: str | None
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    description: str


def checked_details(
    redactor: Redactor,
    *,
    run_id: str | None,
    metrics: Mapping[str, float] | None,
    tags: Mapping[str, str] | None,
    description: str,
) -> Details:
    """Return what a caller gave, or say what of it cannot be kept.

    Raises:
        InvalidName: If the name of a metric, a tag or the run cannot be kept.
        InvalidInput: If a metric is no number, or a tag or the description no text.
    """
    if run_id is not None:
        check_label("run", run_id)
    for key, text in (tags or {}).items():
        check_label("tag", key)
        _check_text(key, text)
    _check_text("description", description)
    clean: dict[str, str] = redactor.value(dict(tags or {}))
    return Details(
        run_id=run_id,
        metrics={check_label("metric", key): _number(key, v) for key, v in (metrics or {}).items()},
        tags=clean,
        description=redactor.text(description),
    )


def _check_text(key: str, text: Any) -> None:
    if not isinstance(text, str):
        raise InvalidInput(
            f"{key!r} is {text!r}, which is a {type(text).__name__}. Tags and the description are "
            "texts: pass str(...) of it."
        )
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"{key!r} holds a lone surrogate, which no store can keep.") from exc
    if "\0" in text:
        raise InvalidInput(f"{key!r} holds a NUL character, which not every store can keep.")


def _number(key: str, value: Any) -> float:
    """Return a metric as a float that equals it."""
    if isinstance(value, str | bytes) or not (
        hasattr(value, "__float__") or hasattr(value, "__index__")
    ):
        raise InvalidInput(f"Metric {key!r} is {value!r}, which is no number.")
    try:
        number = float(value)
        same = bool(number == value) or math.isnan(number)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInput(f"Metric {key!r} is {value!r}, which is no single number.") from exc
    if not same:
        raise InvalidInput(
            f"Metric {key!r} is {value!r}, which a 64-bit float cannot hold exactly. "
            "Round it first, or keep it as a tag."
        )
    return number

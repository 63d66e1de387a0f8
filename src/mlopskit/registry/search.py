"""Finding versions and models by the filter language of `mlopskit.filters`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mlopskit import filters
from mlopskit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VERSIONS: Final = filters.Vocabulary(
    ("metrics", "tags"),
    (
        *("name", "version", "stage", "flavor", "size", "digest", "run_id", "description"),
        "created_at",
    ),
)
MODELS: Final = filters.Vocabulary(
    ("tags",), ("name", "versions", "latest", "description", "created_at", "updated_at")
)
_Record = TypeVar("_Record")


def found(
    records: Iterable[_Record],
    where: str,
    order_by: str | Sequence[str],
    limit: int | None,
    of: filters.Vocabulary,
) -> list[_Record]:
    """Return the records that match, in order.

    Raises:
        InvalidInput: If the filter, the order or the limit cannot be read.
    """
    if limit is not None and limit < 0:
        raise InvalidInput(f"The limit is {limit}; it must be 0 or more.")
    question = filters.parse(where, of)
    order = filters.parse_order([order_by] if isinstance(order_by, str) else order_by, of)
    matching = [each for each in records if question is None or filters.matches(question, each)]
    return list(islice(filters.ordered(matching, order), limit))


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what two mappings hold differently; None stands for what one of them lacks."""
    return {
        key: (one.get(key), other.get(key))
        for key in sorted(one.keys() | other.keys())
        if not _same(one.get(key), other.get(key))
    }


def _same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN

"""What a caller asks for, found in the definitions and given column names."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlopskit.errors import InvalidInput, NotFound
from mlopskit.features.entities import checked_references, split_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlopskit.features.entities import FeatureView


@dataclass(frozen=True, slots=True)
class Selection:
    """References, grouped by view.

    Attributes:
        references: Each ``"view:feature"``, as asked for.
        names: The column name of each reference.
        views: The views they belong to, in the order of their first mention.
        columns: For each view's name, its features with their places among the references.
    """

    references: tuple[str, ...]
    names: tuple[str, ...]
    views: tuple[FeatureView, ...]
    columns: Mapping[str, list[tuple[str, int]]]


def select(
    references: Sequence[str],
    get_view: Callable[[str], FeatureView],
    taken: Sequence[str] = (),
) -> Selection:
    """Find what is referred to.

    A column carries the feature's own name; ``view__feature`` where another feature, a join key or
    a column of the caller's frame (`taken`) has that name.

    Raises:
        NotFound: If a view or one of its features does not exist.
        InvalidInput: If there is no free name for a column.
    """
    references = checked_references(references)
    asked = [split_reference(reference) for reference in references]
    views: dict[str, FeatureView] = {}
    columns: dict[str, list[tuple[str, int]]] = {}
    for at, (name, feature) in enumerate(asked):
        if name not in views:
            views[name] = get_view(name)
            columns[name] = []
        if feature not in views[name].features:
            raise NotFound(f"feature of the view {name!r} called", feature, views[name].features)
        columns[name].append((feature, at))
    busy = {*taken, *(key for view in views.values() for key in view.entities)}
    return Selection(references, _column_names(asked, busy), tuple(views.values()), columns)


def _column_names(asked: Sequence[tuple[str, str]], busy: set[str]) -> tuple[str, ...]:
    count = Counter(feature for _, feature in asked)
    names = [
        feature if count[feature] == 1 and feature not in busy else f"{view}__{feature}"
        for view, feature in asked
    ]
    for name, uses in Counter(names).items():
        if uses > 1 or name in busy:
            raise InvalidInput(
                f"The column {name!r} of the result would be there twice. Rename the column of the "
                "frame, or ask for one of the features alone."
            )
    return tuple(names)

"""What is about to be written down: a line of the history, and what an edit changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.registry.entities import Action, Decision


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the history, before it has a place in it; see `HistoryEntry` for its fields."""

    name: str
    version: int | None
    action: Action
    alias: str | None = None
    before: str | None = None
    after: str | None = None
    why: str = ""
    decision: Decision | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edit:
    """What changes of a model or a version.

    Attributes:
        description: The new one; None leaves it as it is.
        tags: New values by name; None takes the tag away.
    """

    description: str | None = None
    tags: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def details(self) -> dict[str, Any]:
        """The edit as the history keeps it."""
        found: dict[str, Any] = {}
        if self.description is not None:
            found["description"] = self.description
        if self.tags:
            found["tags"] = dict(self.tags)
        return found

    def of(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return tags as they are after the edit."""
        merged = {**tags, **self.tags}
        return {key: text for key, text in merged.items() if text is not None}

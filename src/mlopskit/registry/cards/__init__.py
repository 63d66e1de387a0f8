"""Model cards: what people should know before they use a model, beside what the registry knows.

The fields follow M. Mitchell et al., Model Cards for Model Reporting, FAT* 2019,
https://doi.org/10.1145/3287560.3287596.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

from mlopskit.errors import InvalidInput, UnknownOption
from mlopskit.registry.cards.page import page
from mlopskit.registry.cards.sections import KNOWN, REQUIRED, WRITTEN, markdown, sections
from mlopskit.registry.entities import FROZEN, HistoryEntry, ModelVersion
from mlopskit.registry.slices import all_slices, whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlopskit.registry.base import Registry
    from mlopskit.registry.references import Ref

__all__ = ["KNOWN", "REQUIRED", "WRITTEN", "ModelCard", "check_fields", "read_card", "write_card"]

PREFIX: Final = "card."
_DECISIVE: Final = frozenset(
    ["promoted", "refused", "rolled_back", "displaced", "requested", "approved", "rejected"]
)


class ModelCard(BaseModel):
    """What is known of a version, for those who use it or answer for it.

    Attributes:
        version: The version.
        written: What people wrote, by field; see `WRITTEN`.
        metrics: What was measured on all the data when it was registered.
        slices: What was measured on parts of the data, by metric and slice; see `by_slice`.
        decisions: What was decided about it, the first thing first, with the reasons.
    """

    model_config = FROZEN

    version: ModelVersion
    written: Mapping[str, str] = Field(default_factory=dict)
    metrics: Mapping[str, float] = Field(default_factory=dict)
    slices: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)
    decisions: tuple[HistoryEntry, ...] = ()

    @property
    def title(self) -> str:
        """The model's name and the version, with its label if it has one."""
        label = self.version.tags.get("label")
        return f"{self.version.name} {self.version.version}" + (f" ({label})" if label else "")

    def missing(self, *fields: str) -> list[str]:
        """Return those of these fields that are not filled in.

        Raises:
            UnknownOption: If a card has no such field.
        """
        check_fields(fields)
        known = {
            "metrics": self.metrics,
            "slices": self.slices,
            "signature": self.version.signature,
            "lineage": self.version.lineage.data or self.version.lineage.code,
            "decisions": self.decisions,
        }
        return [
            field
            for field in fields
            if not (known[field] if field in known else self.written.get(field, "").strip())
        ]

    def to_markdown(self) -> str:
        """Return the card as Markdown; what others wrote in it is shown, and does nothing."""
        return markdown(self.title, sections(self))

    def to_html(self) -> str:
        """Return the card as a page that needs nothing else."""
        return page(self.title, sections(self))


def write_card(
    registry: Registry, name: str, ref: Ref | None = None, *, why: str = "", **fields: str | None
) -> None:
    """Fill in fields of a model card; those that are not named stay.

    They are kept as tags ``card.<field>``, and the change is in the history.

    Args:
        registry: Where the model is registered.
        name: The model's name.
        ref: Which version. Left out, the fields are those of the model: every version has them
            that does not have its own.
        why: A reason for the history.
        fields: Texts by field; see `WRITTEN`. None takes one away.

    Raises:
        UnknownOption: If a card has no such field.
        InvalidInput: If there is nothing to write, or a field is no text.
        NotFound: If there is no such model or version.
    """
    for field in fields:
        if field not in WRITTEN:
            raise UnknownOption("field of a model card", field, WRITTEN)
    if not fields:
        raise InvalidInput(f"There is nothing to write. A card has: {', '.join(WRITTEN)}.")
    tags = {f"{PREFIX}{field}": text for field, text in fields.items()}
    if ref is None:
        registry.update_model(name, tags=tags, why=why)
    else:
        registry.update_version(name, ref, tags=tags, why=why)


def read_card(registry: Registry, name: str, ref: Ref) -> ModelCard:
    """Return the card of a version, filled in with all that is known.

    Raises:
        NotFound: If there is no such model or version.
    """
    version = registry.get_version(name, ref)
    written = _written(registry.get_model(name).tags) | _written(version.tags)
    if "data" not in written and version.lineage.data:
        written["data"] = f"Data with the fingerprint {version.lineage.data}."
    return ModelCard(
        version=version,
        written={field: written[field] for field in WRITTEN if written.get(field)},
        metrics=whole(version.metrics),
        slices=all_slices(version.metrics),
        decisions=tuple(
            entry
            for entry in registry.history(name)
            if entry.version == version.version and entry.action in _DECISIVE
        ),
    )


def check_fields(fields: Iterable[str]) -> None:
    """Refuse what is no field of a card.

    Raises:
        UnknownOption: If a card has no such field.
    """
    for field in fields:
        if field not in WRITTEN and field not in KNOWN:
            raise UnknownOption("field of a model card", field, [*WRITTEN, *KNOWN])


def _written(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(PREFIX): text for key, text in tags.items() if key.startswith(PREFIX)}

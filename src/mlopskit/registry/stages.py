"""The stages of a model's life: their order, the moves between them, and how many each holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlopskit.errors import ConfigError
from mlopskit.names import check_identifier

NO_STAGE: Final = "none"
PRODUCTION: Final = "production"
NUMBERED: Final = re.compile(r"v?[0-9]+\Z", re.IGNORECASE)


class StageGraph(BaseModel):
    """The stages of a model's life, and which moves between them are allowed.

    By default none -> staging -> production -> archived: a version moves forward, stages may be
    skipped, and the one version in production is archived when another takes its place.

    Attributes:
        order: The stages from the first, where a version is before any promotion, to the last.
        transitions: For each stage, those that can be entered from it. Left out, they are all the
            later ones.
        limits: How many versions a stage holds. The one that entered first makes room. Left out, it
            is one in ``"production"``, where there is such a stage.
        displaced_to: The stage of a version that made room. Left out, it is the last of the order,
            or the first where the last one has a limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: tuple[str, ...] = (NO_STAGE, "staging", "production", "archived")
    transitions: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    limits: Mapping[str, int] = Field(default_factory=dict)
    displaced_to: str = ""

    @classmethod
    def of(cls, given: StageGraph | Mapping[str, Any] | Sequence[str] | None) -> StageGraph:
        """Return a graph from a graph, its fields as a table, or just the order of its stages.

        Raises:
            ConfigError: If it is not a graph of stages.
        """
        if isinstance(given, StageGraph):
            return given
        fields: Any = {} if given is None else given
        if isinstance(given, Sequence) and not isinstance(given, str):
            fields = {"order": tuple(given)}
        try:
            graph = cls.model_validate(fields)
        except ValueError as exc:
            raise ConfigError(f"stages={given!r} is no graph of stages: {exc}") from exc
        return graph

    @model_validator(mode="before")
    @classmethod
    def _with_limits(cls, given: Any) -> Any:
        """One version in production is the default where there is such a stage."""
        if isinstance(given, Mapping) and "limits" not in given:
            order = given.get("order", cls.model_fields["order"].default)
            limits = {PRODUCTION: 1} if PRODUCTION in tuple(order)[1:] else {}
            return {**given, "limits": limits}
        return given

    def model_post_init(self, context: Any) -> None:  # noqa: ARG002 - pydantic's signature
        """Refuse a graph that contradicts itself."""
        for stage in self.order:
            check_identifier("stage", stage)
            if stage.lower() == "latest" or NUMBERED.match(stage):
                raise ValueError(f"{stage!r} would be taken for a version; call it otherwise")
        if len({stage.lower() for stage in self.order}) != len(self.order) or len(self.order) < 2:
            raise ValueError("the order needs at least two stages, each named once")
        targets = [stage for stages in self.transitions.values() for stage in stages]
        displaced = [self.displaced_to] if self.displaced_to else []
        for stage in [*self.transitions, *targets, *self.limits, *displaced]:
            if stage not in self.order:
                raise ValueError(f"{stage!r} is not in the order {list(self.order)}")
        if any(limit < 1 for limit in self.limits.values()):
            raise ValueError("a limit below 1 would keep a stage empty")
        if self.initial in self.limits:
            raise ValueError(f"versions begin in {self.initial!r}, which has no limit")
        if self.retired in self.limits:
            raise ValueError(f"{self.retired!r} takes the displaced versions and has no limit")

    @property
    def initial(self) -> str:
        """The stage of a version that was never promoted."""
        return self.order[0]

    @property
    def retired(self) -> str:
        """The stage of a version that had to make room."""
        if self.displaced_to:
            return self.displaced_to
        return self.initial if self.order[-1] in self.limits else self.order[-1]

    def next(self, stage: str) -> tuple[str, ...]:
        """Return the stages that may be entered from a stage."""
        if stage not in self.order:
            return self.order[1:]  # The graph was changed since: whatever it was, it may move on.
        if self.transitions:
            return self.transitions.get(stage, ())
        return self.order[self.order.index(stage) + 1 :]

"""What every model registry keeps of stages, gates and the history."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import (
    Conflict,
    InvalidInput,
    NotFound,
)
from mlopskit.registry import (
    GateContext,
    ModelVersion,
    Registry,
    all_of,
    any_of,
    at_least,
    at_most,
    better_than,
)
from mlopskit.tool import Context

if TYPE_CHECKING:
    from pathlib import Path


class RegistryStages:
    """A part of `RegistryContract`, which gives `registry` and `source`."""

    def two(self, registry: Registry, source: Path) -> None:
        """Register two versions of one model, the second one better."""
        registry.register("churn", source, metrics={"auc": 0.8, "loss": 0.5})
        registry.register("churn", source, metrics={"auc": 0.85, "loss": 0.25})

    # Stages and gates.

    def test_a_version_is_promoted_and_the_holder_makes_room(
        self, registry: Registry, source: Path
    ) -> None:
        self.two(registry, source)
        first = registry.promote("churn", 1, "production")
        second = registry.promote("churn", 2, "production")

        assert first
        assert second.approved
        assert second.holder == 1
        stages = [each.stage for each in registry.list_versions("churn")]
        assert stages == ["archived", "production"]

    def test_a_refused_version_stays_where_it_is(self, registry: Registry, source: Path) -> None:
        self.two(registry, source)
        registry.promote("churn", 2, "production")
        decision = registry.promote(
            "churn", 1, "production", [at_least("auc", 0.8), at_least("auc", 0.81)]
        )

        assert not decision
        assert decision.reasons == ("auc is 0.8, at least 0.8.", "auc is 0.8, not at least 0.81.")
        assert decision.evidence["at_least(auc)#2"]["limit"] == 0.81
        assert decision.failed == ("at_least(auc)#2",)
        assert registry.history("churn")[-1].decision == decision
        assert registry.get_version("churn", "production").version == 2
        assert registry.get_version("churn", 1).stage == "none"

    def test_a_gate_sees_the_candidate_and_the_holder(
        self, registry: Registry, source: Path
    ) -> None:
        self.two(registry, source)
        registry.promote("churn", 1, "production")
        seen: list[GateContext] = []

        def gate(context: GateContext) -> bool:
            seen.append(context)
            return True

        registry.promote("churn", 2, "production", [gate])
        (context,) = seen
        assert context.candidate.version == 2
        assert context.holder is not None
        assert (context.holder.version, context.stage) == (1, "production")
        assert context.registry is registry

    def test_a_gate_that_raises_refuses(self, registry: Registry, source: Path) -> None:
        registry.register("churn", source)

        def broken(context: GateContext) -> bool:
            raise ZeroDivisionError("no rows")

        decision = registry.promote("churn", 1, "production", [broken])
        assert not decision
        assert "ZeroDivisionError: no rows" in decision.reasons[0]
        assert registry.get_version("churn", 1).stage == "none"

    @pytest.mark.parametrize("answer", [None, 1, "yes", [True]])
    def test_a_gate_that_answers_neither_yes_nor_no_refuses(
        self, registry: Registry, source: Path, answer: Any
    ) -> None:
        registry.register("churn", source)
        assert not registry.promote("churn", 1, "production", [lambda _: answer])

    def test_gates_compare_registered_metrics(self, registry: Registry, source: Path) -> None:
        self.two(registry, source)
        registry.promote("churn", 1, "production")

        refused = [
            better_than("production", "auc", by=0.051),
            better_than("production", "loss"),
            better_than("production", "f1"),
            at_most("loss", 0.2),
        ]
        for gate in refused:
            assert not registry.promote("churn", 2, "production", [gate])
        passed = [
            better_than("production", "auc", by=0.04),
            better_than("production", "loss", higher_is_better=False),
            better_than("staging", "auc"),
            at_most("loss", 0.25),
        ]
        assert registry.promote("churn", 2, "production", passed)

    def test_gates_are_joined(self, registry: Registry, source: Path) -> None:
        self.two(registry, source)

        def broken(context: GateContext) -> bool:
            raise KeyError("f1")

        good, bad = at_least("auc", 0.8), at_most("loss", 0.4)
        refused = registry.promote("churn", 1, "production", [all_of(good, bad)])
        assert not refused
        assert refused.reasons == ("auc is 0.8, at least 0.8. loss is 0.5, not at most 0.4.",)
        assert refused.evidence["all_of"]["at_most(loss)"]["candidate"] == 0.5
        assert not registry.promote("churn", 1, "production", [any_of(bad, broken)])
        assert registry.promote("churn", 1, "production", [any_of(bad, broken, good)])
        with pytest.raises(InvalidInput):
            any_of()

    def test_the_stages_allow_only_their_moves(self, registry: Registry, source: Path) -> None:
        self.two(registry, source)
        registry.promote("churn", 1, "production")

        for stage in ("production", "staging", "none"):
            with pytest.raises(Conflict, match="archived"):
                registry.promote("churn", 1, stage)
        with pytest.raises(NotFound, match=r"prodution.*production"):
            registry.promote("churn", 1, "prodution")
        with pytest.raises(NotFound):
            registry.promote("churn", 9, "production")

    def test_gates_are_asked_again_when_the_holder_changed(
        self, registry: Registry, source: Path
    ) -> None:
        self.two(registry, source)
        registry.register("churn", source)
        holders: list[int | None] = []

        def slow(context: GateContext) -> bool:
            holders.append(context.holder.version if context.holder else None)
            if len(holders) == 1:
                registry.promote("churn", 1, "production")
            return True

        decision = registry.promote("churn", 2, "production", [slow])
        assert holders == [None, 1]
        assert decision.holder == 1
        assert registry.get_version("churn", "production").version == 2

    def test_a_stage_that_never_stands_still_is_a_conflict(
        self, registry: Registry, source: Path
    ) -> None:
        for _ in range(5):
            registry.register("churn", source)
        free = iter(range(1, 5))

        def slower(context: GateContext) -> bool:
            registry.promote("churn", next(free), "production")
            return True

        with pytest.raises(Conflict, match="changed 3 times"):
            registry.promote("churn", 5, "production", [slower])
        assert registry.get_version("churn", 5).stage == "none"

    def test_listeners_hear_of_promotions_alone(self, registry: Registry, source: Path) -> None:
        heard: list[tuple[str, int, str, bool]] = []

        def notify(event: str, **details: Any) -> None:
            version: ModelVersion = details["version"]
            heard.append((event, version.version, version.stage, details["decision"].approved))

        old = registry.context
        registry.context = Context(home=old.home, redactor=old.redactor, notify=notify)
        self.two(registry, source)
        registry.promote("churn", 1, "production")
        registry.promote("churn", 2, "production", [lambda _: False])
        registry.promote("churn", 2, "production")
        registry.rollback("churn", "production")

        assert heard == [
            ("model_promoted", 1, "production", True),
            ("model_promoted", 2, "production", True),
            ("model_promoted", 1, "production", True),
        ]

    # History.

    def test_a_rollback_goes_back_as_far_as_there_was(
        self, registry: Registry, source: Path
    ) -> None:
        for number in (1, 2, 3):
            registry.register("churn", source)
            registry.promote("churn", number, "production")

        assert registry.rollback("churn", "production").version == 2
        assert registry.rollback("churn", "production").version == 1
        with pytest.raises(Conflict, match="before version 1"):
            registry.rollback("churn", "production")
        stages = [each.stage for each in registry.list_versions("churn")]
        assert stages == ["production", "archived", "archived"]

    def test_a_gate_that_exits_is_a_refusal_that_is_kept(
        self, registry: Registry, source: Path
    ) -> None:
        def leaves(context: GateContext) -> bool:
            sys.exit(0)

        self.two(registry, source)
        assert not registry.promote("churn", 1, "production", leaves)

        (refused,) = (each for each in registry.history("churn") if each.action == "refused")
        assert refused.decision is not None
        assert "exit" in " ".join(refused.decision.reasons)

    def test_a_missing_version_is_named_as_it_is_said(
        self, registry: Registry, source: Path
    ) -> None:
        self.two(registry, source)
        for ask in (registry.get_version, registry.load):
            with pytest.raises(NotFound, match="There is no version 9 of 'churn'"):
                ask("churn", 9)

    def test_a_rollback_takes_nothing_out_of_a_later_stage(
        self, registry: Registry, source: Path
    ) -> None:
        for _ in range(2):
            registry.register("churn", source)
        registry.promote("churn", 1, "staging")
        registry.promote("churn", 2, "staging")
        registry.promote("churn", 1, "production")

        with pytest.raises(Conflict, match="production"):
            registry.rollback("churn", "staging")
        assert registry.get_version("churn", "production").version == 1
        assert registry.get_version("churn", "staging").version == 2

    def test_after_a_rollback_another_version_can_follow(
        self, registry: Registry, source: Path
    ) -> None:
        for number in (1, 2, 3):
            registry.register("churn", source)
            if number < 3:
                registry.promote("churn", number, "production")
        registry.rollback("churn", "production")
        registry.promote("churn", 3, "production")

        assert registry.rollback("churn", "production").version == 1

    def test_the_history_says_who_did_what_and_why(self, registry: Registry, source: Path) -> None:
        self.two(registry, source)
        registry.promote("churn", 1, "production", why="first")
        registry.set_alias("churn", "champion", 1)
        refusal = registry.promote("churn", 2, "production", [at_least("auc", 0.9)])
        registry.promote("churn", 2, "production")
        registry.rollback("churn", "production", why="it was slow")
        registry.delete_alias("churn", "champion")

        entries = registry.history("churn")
        assert [(e.action, e.version, e.before, e.after) for e in entries] == [
            ("registered", 1, None, "none"),
            ("registered", 2, None, "none"),
            ("promoted", 1, "none", "production"),
            ("alias_set", 1, None, "1"),
            ("refused", 2, "none", "production"),
            ("displaced", 1, "production", "archived"),
            ("promoted", 2, "none", "production"),
            ("displaced", 2, "production", "archived"),
            ("rolled_back", 1, "archived", "production"),
            ("alias_deleted", 1, "1", None),
        ]
        assert entries[4].decision == refusal
        assert (entries[2].why, entries[8].why) == ("first", "it was slow")
        assert all(entry.by for entry in entries)
        assert [e.at for e in entries] == sorted(e.at for e in entries)

    def test_the_holder_of_an_earlier_time_is_known(self, registry: Registry, source: Path) -> None:
        self.two(registry, source)
        registry.promote("churn", 1, "production")
        registry.promote("churn", 2, "production")
        first, second = [e.at for e in registry.history("churn") if e.action == "promoted"]

        assert registry.at("churn", "production", first).version == 1
        assert registry.at("churn", "production", second).version == 2
        later = second.replace(tzinfo=None) + timedelta(days=1)
        assert registry.at("churn", "production", later).version == 2
        with pytest.raises(NotFound):
            registry.at("churn", "production", datetime(2000, 1, 1, tzinfo=UTC))
        with pytest.raises(NotFound):
            registry.at("churn", "staging", second)

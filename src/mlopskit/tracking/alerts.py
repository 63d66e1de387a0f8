"""Rules for when somebody wants to be told about a run, and what watches them.

The rules are held against what reaches the journal, in a thread of their own: whoever logs does
not pay for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, PositiveFloat, PrivateAttr, ValidationError

from mlopskit import filters
from mlopskit.errors import InvalidInput
from mlopskit.tracking.entities import RunEvent, RunRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.tracking.entities import MetricsLogged


class AlertRules(BaseModel):
    """When to tell the hook `run_alerted` about a run.

    Attributes:
        when: Filters over ``metrics.``, such as ``"metrics.loss > 10"``. Each tells once, when the
            run's newest values first match it, and again after they did not.
        nan: Tell when a metric becomes NaN or infinite, once for each metric.
        stalled_s: Tell when nothing was logged for so many seconds; None for never.
        ended: Tell how the run ended.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: tuple[str, ...] = ()
    nan: bool = True
    stalled_s: PositiveFloat | None = None
    ended: bool = True
    _parsed: tuple[tuple[str, filters.Filter], ...] = PrivateAttr(())

    @classmethod
    def of(cls, rules: AlertRules | Mapping[str, object] | None) -> AlertRules | None:
        """Make rules of what an option holds; None for no alerts at all.

        Raises:
            InvalidInput: If a rule cannot be read.
        """
        if rules is None or isinstance(rules, AlertRules):
            return rules
        if not isinstance(rules, Mapping):
            raise InvalidInput(f"alerts is {rules!r}; it is a table such as {{nan = true}}.")
        given = {**rules}
        if isinstance(given.get("when"), str):
            given["when"] = [given["when"]]
        try:
            return cls(**given)
        except ValidationError as exc:
            said = exc.errors()[0]
            place = ".".join(str(part) for part in said["loc"])
            raise InvalidInput(f"alerts.{place} cannot be taken: {said['msg']}.") from exc

    def model_post_init(self, context: Any, /) -> None:  # noqa: ARG002 - pydantic's signature
        """Read the filters once."""
        parsed = []
        for text in self.when:
            where = filters.parse(text)
            if where is None or any(field.kind != "metrics" for field in filters.fields(where)):
                raise InvalidInput(
                    f"The alert {text!r} must compare metrics, such as 'metrics.loss > 10'."
                )
            parsed.append((text, where))
        self._parsed = tuple(parsed)

    @property
    def filters(self) -> tuple[tuple[str, filters.Filter], ...]:
        """Each rule of `when`, as text and as read."""
        return self._parsed


class Watch:
    """Holds the rules against one run.

    Args:
        rules: When to tell.
        run: What is known of the run when it begins.
        tell: Is given each event.
        clock: The time in seconds, for what stalls.
    """

    def __init__(
        self,
        rules: AlertRules,
        run: RunRecord,
        tell: Callable[[RunEvent], None],
        clock: Callable[[], float],
    ) -> None:
        self._rules = rules
        self._run = run
        self._tell = tell
        self._clock = clock
        self._metrics: dict[str, Any] = {}
        self._steps: dict[str, int] = {}
        self._matched: set[str] = set()
        self._odd: set[str] = set()
        self._heard = clock()
        self._stalled = False

    def see(self, record: MetricsLogged) -> None:
        """Take what was logged."""
        self._heard = self._clock()
        self._stalled = False
        self._metrics.update(record.metrics)
        self._steps.update(dict.fromkeys(record.metrics, record.step))
        if self._rules.nan:
            self._see_odd(record)
        now = self._run.model_copy(update={"metrics": self._metrics})
        for text, where in self._rules.filters:
            if not filters.matches(where, now):
                self._matched.discard(text)
            elif text not in self._matched:
                self._matched.add(text)
                key = filters.fields(where)[0].key
                value, step = self._metrics.get(key), self._steps.get(key)
                said = f"{text}: {key} is {value} at step {step}."
                self._say("threshold", said, "warning", key=key, value=value, step=step)

    def look(self) -> None:
        """Notice that nothing has come for long."""
        limit = self._rules.stalled_s
        if limit is None or self._stalled or self._clock() - self._heard < limit:
            return
        self._stalled = True
        self._say("stalled", f"Nothing was logged for {limit:g} seconds.", "warning")

    def end(self, status: str) -> None:
        """Tell how the run ended."""
        if not self._rules.ended:
            return
        kind: Any = status
        level = "info" if status == "finished" else "error"
        self._say(kind, f"The run has {_ENDS.get(status, 'ended')}.", level)

    def _see_odd(self, record: MetricsLogged) -> None:
        for key, value in record.metrics.items():
            if isinstance(value, int) or math.isfinite(value):
                self._odd.discard(key)
            elif key not in self._odd:
                self._odd.add(key)
                text = f"{key} is {value} at step {record.step}."
                self._say("nan", text, "error", key=key, value=value, step=record.step)

    def _say(self, kind: Any, text: str, level: Any, **about: Any) -> None:
        self._tell(event(self._run, kind, text, level, **about))


_ENDS = {"finished": "finished", "failed": "failed", "killed": "been killed"}


def event(run: RunRecord, kind: Any, text: str, level: Any, **about: Any) -> RunEvent:
    """Return an event of a run, as of now."""
    return RunEvent(
        kind=kind,
        run_id=run.id,
        run_name=run.name,
        experiment=run.experiment,
        text=text,
        level=level,
        at=datetime.now(UTC),
        **about,
    )

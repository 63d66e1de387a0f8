"""The demo's rules. They were written down before their outcome was known, and nothing is tuned.

* At the end of every month the triggers look at drift, performance and age; any one is enough.
* A challenger trains on the thirteen weeks that end two weeks before the decision, and is compared
  with the champion on these two weeks, which neither has trained on.
* The gate asks for a hundredth of AUC more than the champion has. With about 12,000 labelled
  flights in two weeks, the difference of two such models has a standard error of about 0.004, so
  that a challenger that is no better seldom passes by luck.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from mlopskit.demo.data import DAY
from mlopskit.demo.model import LABEL, quality, score
from mlopskit.lifecycle.triggers import Evidence, any_of, on_drift, on_performance, on_schedule
from mlopskit.registry.gates import GateResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import pyarrow as pa

    from mlopskit.lifecycle.triggers import TriggerDecision
    from mlopskit.monitoring.entities import DriftReport

METRIC: Final = "auc"
WINDOW: Final = 14 * DAY
TRAINING: Final = 91 * DAY
MARGIN: Final = 0.01
DROP: Final = 0.02
SHARE: Final = 0.5
AGE: Final = timedelta(days=90)
# A first model has nothing to be compared with but the guess by the hour of the day.
FIRST_MARGIN: Final = 0.02

TRIGGERS: Final = any_of(
    on_performance(METRIC, drop=DROP), on_drift(share=SHARE), on_schedule(every=AGE)
)


def whether_to_retrain(
    now: datetime, trained: datetime, drift: DriftReport, auc: float, accepted: float
) -> TriggerDecision:
    """Ask the triggers.

    Args:
        now: The time of the decision.
        trained: The last moment that the serving model was trained on.
        drift: The month against the serving model's training data.
        auc: The month's AUC; NaN where no flight of one of the classes has landed.
        accepted: The AUC that the serving model was accepted with.
    """
    performance = {} if auc != auc else {METRIC: (round(auc, 4), round(accepted, 4))}  # noqa: PLR0124 - NaN
    return TRIGGERS(
        Evidence(now=now, last_trained_at=trained, drift=drift, performance=performance)
    )


def judged_on(recent: pa.Table) -> Callable[[Any], dict[str, float]]:
    """Return a function that says how good a model is on these flights."""
    late = recent[LABEL].to_numpy()
    return lambda model: quality(late, score(model, recent))


def beats_the_clock(auc: float, by_hour: float) -> Callable[[Any], GateResult]:
    """Return the first model's gate: it must rank better than the hour of the day does."""

    def gate(_: Any) -> GateResult:
        passed = auc >= by_hour + FIRST_MARGIN
        word = "at least" if passed else "less than"
        return GateResult(
            passed=passed,
            reason=f"AUC {auc:.4f} on the last two weeks of February, {word} {FIRST_MARGIN} above "
            f"the {by_hour:.4f} of a guess by the hour of the day.",
            evidence={"auc": auc, "auc_by_hour": by_hour},
        )

    return gate

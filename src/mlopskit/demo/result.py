"""What a demo run found out, as plain records: the terminal and the report are drawn from these."""

from __future__ import annotations

import calendar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

Outcome = Literal["kept", "promoted", "refused"]

YEAR: Final = 2013


def month_name(month: int) -> str:
    """Return the name of a month by its number."""
    return calendar.month_name[month]


@dataclass(frozen=True)
class Prepared:
    """What was read and stored before the replay began."""

    flights: int
    weather: int
    events: int
    cached: bool


@dataclass(frozen=True)
class Version:
    """One registered model and where it comes from.

    Attributes:
        version: Its number in the registry.
        digest: The digest of its bytes.
        run_id: The tracked run that made it.
        fingerprint: The SHA-256 of its training table.
        trained: The first and the last day it was trained on, as ISO dates.
        trained_until: The end of its training data, in seconds since 1970.
        rows: Training rows.
        auc: Its AUC on the two weeks after its training data, which it was judged on.
        cached: Whether the training was answered from the runner's cache.
    """

    version: int
    digest: str
    run_id: str
    fingerprint: str
    trained: tuple[str, str]
    trained_until: int
    rows: int
    auc: float
    cached: bool


@dataclass(frozen=True)
class Swap:
    """A change of the served version while requests kept coming."""

    sent: int
    answered: int
    by_version: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Requests that got no answer."""
        return self.sent - self.answered


@dataclass(frozen=True)
class Decision:
    """What was decided at the end of a month, and why.

    Attributes:
        outcome: ``kept`` (no trigger fired), ``promoted`` or ``refused`` (by the gate).
        triggers: What the triggers said, a sentence each.
        gate: What the gate said; empty where nothing was trained.
        champion_auc: AUC of the serving model on the last two weeks; None where not compared.
        challenger_auc: AUC of the retrained model on the same rows.
        window_rows: How many labelled flights both were compared on.
        version: The version of the challenger.
        swap: The change of versions, where there was one.
    """

    outcome: Outcome
    triggers: tuple[str, ...]
    gate: tuple[str, ...] = ()
    champion_auc: float | None = None
    challenger_auc: float | None = None
    window_rows: int = 0
    version: int | None = None
    swap: Swap | None = None


@dataclass(frozen=True)
class Month:
    """One replayed month.

    Attributes:
        month: Its number.
        rows: Flights scored through the server.
        labelled: Those that had landed when the month was judged.
        cancelled: Those that were cancelled or diverted: they never get a label.
        first_version: The version that was trained on January and February.
        live_version: The version that served it.
        auc_first: AUC of the first model, which is never retrained.
        auc_live: AUC of the serving model.
        drifted: Columns that drifted from what the serving model was trained on.
        effects: The size of drift by column, against the serving model's training data.
        effects_first: The same against January and February.
        thresholds: The size from which a column counts as drifted.
        drift_share: The share of columns that drifted, serving model.
        drift_share_first: The same against January and February.
        compared: Values read online that were compared with history afterwards.
        differing: Those of them that differ.
        decision: What was decided at its end.
    """

    month: int
    rows: int
    labelled: int
    cancelled: int
    first_version: int
    live_version: int
    auc_first: float
    auc_live: float
    drifted: tuple[str, ...]
    effects: dict[str, float]
    effects_first: dict[str, float]
    thresholds: dict[str, float]
    drift_share: float
    drift_share_first: float
    compared: int
    differing: int
    decision: Decision

    @property
    def name(self) -> str:
        """The month's name."""
        return month_name(self.month)

    @property
    def retrained(self) -> bool:
        """Whether another than the first model served it."""
        return self.live_version != self.first_version


@dataclass(frozen=True)
class DemoResult:
    """A whole demo run.

    Attributes:
        months: The replayed months, in order.
        versions: Every model that was registered, in order.
        prepared: What was read before.
        requests: Scoring requests over HTTP, those during swaps included.
        answered: Those that were answered.
        run_id: The tracked run of the replay, parent of every training run.
        cached_steps: Steps answered from the runner's cache.
        ran_steps: Steps that ran.
        seconds: How long it all took.
        home: The folder that everything was left under.
        tools: The backend behind each domain.
        commands: Command lines that look into what was left.
        report: The HTML report.
    """

    months: tuple[Month, ...]
    versions: tuple[Version, ...]
    prepared: Prepared
    requests: int
    answered: int
    run_id: str
    cached_steps: int
    ran_steps: int
    seconds: float
    home: Path
    tools: dict[str, str]
    commands: tuple[str, ...]
    report: Path

    @property
    def columns(self) -> tuple[str, ...]:
        """The monitored columns, in order."""
        return tuple(self.months[0].effects) if self.months else ()

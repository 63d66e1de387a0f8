"""What stands above the domains: deciding when to train again."""

from mlopskit.lifecycle.triggers import (
    Drift,
    Evidence,
    Performance,
    Trigger,
    TriggerDecision,
    all_of,
    any_of,
    cool_down,
    on_drift,
    on_performance,
    on_schedule,
    on_volume,
)

__all__ = [
    "Drift",
    "Evidence",
    "Performance",
    "Trigger",
    "TriggerDecision",
    "all_of",
    "any_of",
    "cool_down",
    "on_drift",
    "on_performance",
    "on_schedule",
    "on_volume",
]

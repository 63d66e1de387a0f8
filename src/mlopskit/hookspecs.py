"""Every extension point of mlopskit, on one page.

A backend is a module that implements one ``make_*`` hook and is named by an entry point in the
group ``mlopskit.<domain>``. A listener is a module that implements some of the event hooks and is
named by an entry point in the group ``mlopskit.events``. An implementation may leave out the
arguments that it does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.features.base import FeatureStore
    from mlopskit.lifecycle.triggers import TriggerDecision
    from mlopskit.monitoring.base import DriftDetector
    from mlopskit.monitoring.entities import DriftReport
    from mlopskit.pipelines.base import Runner
    from mlopskit.registry.base import Registry
    from mlopskit.registry.entities import Decision, ModelVersion
    from mlopskit.registry.flavors import Flavor
    from mlopskit.serving.base import Server
    from mlopskit.tool import Context
    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import RunEvent, RunRecord

hookspec = pluggy.HookspecMarker("mlopskit")
hookimpl = pluggy.HookimplMarker("mlopskit")


# Backends. `location` is what follows the colon of the config line (None where nothing does),
# `options` the rest of the backend's table, `context` where its state lives.


@hookspec(firstresult=True)
def make_tracker(  # type: ignore[empty-body]  # a specification, never called
    location: str | None, options: Mapping[str, Any], context: Context
) -> Tracker:
    """Build a tracker."""


@hookspec(firstresult=True)
def make_registry(  # type: ignore[empty-body]  # a specification, never called
    location: str | None, options: Mapping[str, Any], context: Context
) -> Registry:
    """Build a model registry."""


@hookspec(firstresult=True)
def make_server(  # type: ignore[empty-body]  # a specification, never called
    location: str | None, options: Mapping[str, Any], context: Context
) -> Server:
    """Build a model server, not yet started."""


@hookspec(firstresult=True)
def make_feature_store(  # type: ignore[empty-body]  # a specification, never called
    location: str | None, options: Mapping[str, Any], context: Context
) -> FeatureStore:
    """Build a feature store."""


@hookspec(firstresult=True)
def make_drift_detector(  # type: ignore[empty-body]  # a specification, never called
    location: str | None, options: Mapping[str, Any], context: Context
) -> DriftDetector:
    """Build a drift detector."""


@hookspec(firstresult=True)
def make_runner(  # type: ignore[empty-body]  # a specification, never called
    location: str | None, options: Mapping[str, Any], context: Context
) -> Runner:
    """Build a pipeline runner."""


# Flavors: how models become files, and files models. A flavor is a module that implements this hook
# and is named by an entry point in the group ``mlopskit.flavors``; the entry point's name is the
# flavor's.


@hookspec(firstresult=True)
def make_flavor() -> Flavor:  # type: ignore[empty-body]  # a specification, never called
    """Build a flavor of models."""


# Events. Every listener is called; what it returns is ignored, and what it raises is logged.


@hookspec
def run_finished(run: RunRecord) -> None:
    """Hear that a tracked run has ended, whatever its status."""


@hookspec
def run_alerted(alert: RunEvent) -> None:
    """Hear what a tracker's `AlertRules` noticed in a run, or what `Run.alert` says.

    Called in a thread of mlopskit's own, soon after it happened.
    """


@hookspec
def model_registered(version: ModelVersion) -> None:
    """Hear that a model has a new version."""


@hookspec
def alias_set(version: ModelVersion, alias: str) -> None:
    """Hear that an alias points to a version."""


@hookspec
def model_promoted(version: ModelVersion, stage: str, decision: Decision) -> None:
    """Hear that a model version has entered a stage."""


@hookspec
def drift_detected(report: DriftReport) -> None:
    """Hear that a report found drift."""


@hookspec
def retraining_decided(decision: TriggerDecision) -> None:
    """Hear what the triggers decided about retraining, and why."""

"""Training, tracking, registering and promoting, for the first model and for every challenger."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from mlopskit.demo import decisions, figures, model, steps
from mlopskit.demo.data import HOUR, month_start
from mlopskit.demo.features import CATEGORIES, COLUMNS, NUMBERS
from mlopskit.demo.result import Version
from mlopskit.demo.world import instant
from mlopskit.registry.gates import compare_on
from mlopskit.registry.signatures import infer_signature

if TYPE_CHECKING:
    from mlopskit.kit import Kit
    from mlopskit.pipelines.entities import PipelineRun
    from mlopskit.registry.entities import Decision
    from mlopskit.tracking.run import Run

EXPERIMENT: Final = "flights"
STAGE: Final = "production"


@dataclass(frozen=True)
class Trained:
    """A model that was trained, tracked and registered, and what its gate said.

    Attributes:
        version: The version, with its lineage.
        model: The pipeline.
        table: What it was trained on.
        decision: What the registry decided on promoting it.
        window_rows: How many labelled flights it was judged on.
        champion_auc: The AUC of the model in production on these; None where there was none.
    """

    version: Version
    model: Any
    table: pa.Table
    decision: Decision
    window_rows: int
    champion_auc: float | None


@dataclass(frozen=True)
class Span:
    """A stretch of time in seconds since 1970, the end not included."""

    start: int
    end: int

    @property
    def days(self) -> tuple[str, str]:
        """Its first and last day in New York, roughly: hours before dawn count for the day."""
        first, last = instant(self.start), instant(self.end - 6 * HOUR)
        return first.date().isoformat(), last.date().isoformat()


class Trainer:
    """Trains with the kit's tools, from tables of historical features.

    Attributes:
        cached: Steps that were answered from the runner's cache.
        ran: Steps that ran.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self.cached = 0
        self.ran = 0

    def first(self, parent: Run, history: pa.Table) -> Trained:
        """Train on January and February, pass the first gate, and promote."""
        end = month_start(3)
        span = Span(month_start(1), end)
        cut = end - decisions.WINDOW
        whole = window(history, span.start, end, by=end)
        before = window(history, span.start, cut, by=cut)
        recent = window(history, cut, end, by=end)
        done = self.run(steps.first_model, before, recent, whole)
        content, quality = done.output
        by_hour = hour_of_day(before, recent)
        gate = decisions.beats_the_clock(quality[decisions.METRIC], by_hour)
        return self._register(parent, _Job(done, content, quality, span, whole, recent), gate)

    def challenger(self, parent: Run, history: pa.Table, end: int) -> Trained:
        """Train on the weeks before the last two, and let the gate compare on these two."""
        cut = end - decisions.WINDOW
        span = Span(max(cut - decisions.TRAINING, month_start(1)), cut)
        before = window(history, span.start, cut, by=cut)
        recent = window(history, cut, end, by=end)
        done = self.run(steps.challenger, before, recent)
        content, quality = done.output
        gate = compare_on(decisions.judged_on(recent), decisions.METRIC, by=decisions.MARGIN)
        return self._register(parent, _Job(done, content, quality, span, before, recent), gate)

    def run(self, pipeline: Any, *args: Any) -> PipelineRun:
        """Run a pipeline, counting which of its steps were cached."""
        done = self._kit.runner.run(pipeline, *args)
        cached = sum(step.cached for step in done.steps.values())
        self.cached += cached
        self.ran += len(done.steps) - cached
        return done

    def _register(self, parent: Run, job: _Job, gate: Any) -> Trained:
        registry = self._kit.registry
        trained = model.loads(job.content)
        fingerprint = fingerprint_of(job.table)
        with self._kit.tracker.start_run(
            EXPERIMENT,
            name=f"train {job.span.days[0]} to {job.span.days[1]}",
            params=model.params(trained)
            | {"rows": job.table.num_rows, "columns": list(COLUMNS), "data_sha256": fingerprint},
            tags={"trained_from": job.span.days[0], "trained_to": job.span.days[1]},
            parent=parent,
        ) as run:
            for step, metrics in enumerate(model.iterations(trained)):
                run.log_metrics(metrics, step=step)
            run.log_metrics(job.quality)
            late, guess = job.recent[model.LABEL].to_numpy(), model.score(trained, job.recent)
            run.log_figure(figures.training(model.iterations(trained), late, guess), "training.png")
            version = registry.register(
                model.NAME,
                trained,
                run_id=run.id,
                metrics=job.quality,
                tags={"data_sha256": fingerprint, "pipeline_run": job.done.id},
                signature=signature(job.recent, guess),
                description=f"Trained on {job.span.days[0]} to {job.span.days[1]}.",
            )
            decision = registry.promote(model.NAME, version.version, STAGE, gates=[gate])
            run.set_tags({"version": str(version.version), "approved": str(decision.approved)})
            run.log_dict({"reasons": list(decision.reasons)}, "gate.json")
        return Trained(
            Version(
                version=version.version,
                digest=version.digest,
                run_id=run.id,
                fingerprint=fingerprint,
                trained=job.span.days,
                trained_until=job.span.end,
                rows=job.table.num_rows,
                auc=job.quality[decisions.METRIC],
                cached=all(step.cached for step in job.done.steps.values()),
            ),
            trained,
            job.table,
            decision,
            window_rows=job.recent.num_rows,
            champion_auc=_champion(decision),
        )


def _champion(decision: Decision) -> float | None:
    """Return what the gate measured for the version in production, where it measured one."""
    found = [each.get("holder") for each in decision.evidence.values()]
    return next((auc for auc in found if auc is not None), None)


@dataclass(frozen=True)
class _Job:
    done: PipelineRun
    content: bytes
    quality: dict[str, float]
    span: Span
    table: pa.Table
    recent: pa.Table


def window(history: pa.Table, start: int, end: int, *, by: int) -> pa.Table:
    """Return what a model sees: the rows of a time whose label was known by another."""
    asked = history["asked"].to_numpy()
    rows = (asked >= start) & (asked < end) & (history["landed"].to_numpy() <= by)
    return history.filter(pa.array(rows)).select([*COLUMNS, model.LABEL]).combine_chunks()


def hour_of_day(before: pa.Table, recent: pa.Table) -> float:
    """Return the AUC of guessing by how often flights of an hour were late."""
    rates = before.group_by("hour").aggregate([(model.LABEL, "mean")])
    share = dict(
        zip(rates["hour"].to_pylist(), rates[f"{model.LABEL}_mean"].to_pylist(), strict=True)
    )
    guess = np.array([share.get(hour, 0.0) for hour in recent["hour"].to_pylist()])
    return model.quality(recent[model.LABEL].to_numpy(), guess)[decisions.METRIC]


def signature(table: pa.Table, guess: Any) -> Any:
    """Return the signature of the model, from rows and answers."""
    few = table.slice(0, 100)
    inputs = {name: few[name].to_numpy().astype(object) for name in CATEGORIES}
    inputs |= {name: few[name].to_numpy().astype(np.float64) for name in NUMBERS}
    return infer_signature(inputs, {model.PROBABILITY: guess[:100]})


def fingerprint_of(table: pa.Table) -> str:
    """Return the SHA-256 of a table's contents, in Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()

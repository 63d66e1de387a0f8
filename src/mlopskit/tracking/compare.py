"""Compares runs, of one tracker or of several: what they were given, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from mlopskit.errors import InvalidInput, NotFound
from mlopskit.tracking.values import same

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import Artifact, MetricHistory, Number, RunRecord

POINTS: Final = 200
Direction = Literal["maximize", "minimize"]


class _Absent:
    """Stands for a value that a run does not have; it equals nothing but itself."""

    def __repr__(self) -> str:
        return "-"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Column:
    """One of the runs that are compared.

    Attributes:
        label: Its name, with as much of its id as tells it from the others.
        target: `Tracker.target` of where it is.
        run: What it says of itself.
    """

    label: str
    target: str
    run: RunRecord


@dataclass(frozen=True, slots=True)
class Course:
    """How one metric went in one run.

    Attributes:
        steps: Of the values, in the order logged; thinned to some hundred for plotting.
        values: Likewise.
        last: The value at the last step.
        last_step: That step.
        lowest: Over all finite values; None where there is none.
        highest: Likewise.
        best: The one of the two that the direction asks for; None without a direction.
        best_step: The first step with that value.
    """

    steps: Sequence[int]
    values: Sequence[float]
    last: Number
    last_step: int
    lowest: Number | None
    highest: Number | None
    best: Number | None = None
    best_step: int | None = None


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Several runs beside each other.

    Attributes:
        columns: The runs, in the order asked for; the values below are in this order.
        params: Those that differ, nested ones by their dotted keys; `ABSENT` where a run has none.
        tags: Those that differ, likewise.
        same_params: How many params all of the runs share.
        same_tags: Likewise.
        metrics: How each metric went; None where a run does not have it.
        directions: Of the metrics for which somebody said whether more or less is better.
        artifacts: The digest of each file; None where a run does not have it.
    """

    columns: tuple[Column, ...]
    params: Mapping[str, tuple[Any, ...]]
    tags: Mapping[str, tuple[Any, ...]]
    same_params: int
    same_tags: int
    metrics: Mapping[str, tuple[Course | None, ...]]
    artifacts: Mapping[str, tuple[str | None, ...]]
    directions: Mapping[str, Direction] = field(default_factory=dict)

    def winners(self, key: str) -> tuple[int, ...]:
        """Return the places of the runs with the best value; none where no direction says it."""
        bests = [None if each is None else each.best for each in self.metrics[key]]
        values = [each for each in bests if each is not None]
        if not values:
            return ()
        best = max(values) if self.directions[key] == "maximize" else min(values)
        return tuple(at for at, each in enumerate(bests) if each == best)


def compare_runs(
    runs: Sequence[tuple[Tracker, RunRecord]],
    *,
    max_points: int = POINTS,
    maximize: Collection[str] = (),
    minimize: Collection[str] = (),
) -> RunComparison:
    """Compare two or more runs.

    Args:
        runs: Each with the tracker that has it.
        max_points: Of a course, for plotting; every extreme stays.
        maximize: Metrics of which the highest value is the best.
        minimize: Metrics of which the lowest value is the best.

    Raises:
        InvalidInput: If there are fewer than two, or a metric is to be both.
        NotFound: If one has gone in the meantime, or none has a metric with a direction.
    """
    if len(runs) < 2:
        raise InvalidInput(f"To compare takes two runs at least, and this is {len(runs)}.")
    records = [run for _, run in runs]
    params, same_params = _differing([_flat(run.params) for run in records])
    tags, same_tags = _differing([run.tags for run in records])
    keys = sorted({key for run in records for key in run.metrics})
    directions = _directions(keys, maximize, minimize)
    files = [
        {each.name: _known(each) for each in tracker.list_artifacts(run.id)}
        for tracker, run in runs
    ]
    names = sorted({name for each in files for name in each})
    return RunComparison(
        columns=tuple(
            Column(label, tracker.target, run)
            for label, (tracker, run) in zip(_labels(records), runs, strict=True)
        ),
        params=params,
        tags=tags,
        same_params=same_params,
        same_tags=same_tags,
        metrics={
            key: tuple(
                _course(tracker, run, key, max_points, directions.get(key)) for tracker, run in runs
            )
            for key in keys
        },
        artifacts={name: tuple(each.get(name) for each in files) for name in names},
        directions=directions,
    )


def _directions(
    keys: Collection[str], maximize: Collection[str], minimize: Collection[str]
) -> dict[str, Direction]:
    ups, downs = _names(maximize), _names(minimize)
    for key in (*ups, *downs):
        if key not in keys:
            raise NotFound("metric", key, keys)
    if both := sorted(ups & downs):
        raise InvalidInput(f"{both[0]!r} is to be maximized and minimized; leave out one of them.")
    return {key: "maximize" if key in ups else "minimize" for key in sorted(ups | downs)}


def _names(given: Collection[str]) -> set[str]:
    return {given} if isinstance(given, str) else set(given)


def _course(
    tracker: Tracker, run: RunRecord, key: str, max_points: int, direction: Direction | None
) -> Course | None:
    if key not in run.metrics:
        return None
    history = tracker.get_metric_history(run.id, key, max_points=max_points)
    values = [_near(value) for value in _plain(history)]
    finite = [value for value in values if math.isfinite(value)]
    steps = [int(step) for step in history.steps]
    lowest, highest = min(finite, default=None), max(finite, default=None)
    best = {"maximize": highest, "minimize": lowest, None: None}[direction]
    return Course(
        steps=steps,
        values=values,
        last=run.metrics[key],
        last_step=run.last_steps[key],
        lowest=lowest,
        highest=highest,
        best=best,
        best_step=None if best is None else _first_step(steps, values, best),
    )


def _first_step(steps: Sequence[int], values: Sequence[float], best: float) -> int:
    return min(step for step, value in zip(steps, values, strict=True) if value == best)


def _plain(history: MetricHistory) -> list[Any]:
    values = history.values
    found: list[Any] = values.tolist() if hasattr(values, "tolist") else list(values)
    return found


def _near(value: Number) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _differing(
    held: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, tuple[Any, ...]], int]:
    """Return what differs, and the count of what does not."""
    keys = sorted({key for values in held for key in values})
    rows = {key: tuple(values.get(key, ABSENT) for values in held) for key in keys}
    different = {key: row for key, row in rows.items() if not _all_same(row)}
    return different, len(rows) - len(different)


def _all_same(row: Sequence[Any]) -> bool:
    if any(value is ABSENT for value in row):
        return False
    return all(same(row[0], value) for value in row[1:])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and all(isinstance(each, str) for each in value):
            found |= _flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def _known(artifact: Artifact) -> str:
    return artifact.digest or artifact.uri or f"{artifact.size} bytes"


def _labels(runs: Sequence[RunRecord]) -> list[str]:
    names = [run.name for run in runs]
    return [
        run.name if names.count(run.name) == 1 else f"{run.name} {run.id[:8]}".strip()
        for run in runs
    ]

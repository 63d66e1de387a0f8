"""A run that was read, told again as the records of a journal."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from mlopskit.tracking import records
from mlopskit.tracking.entities import Started

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlopskit.tracking.entities import Artifact, MetricHistory, Number
    from mlopskit.tracking.snapshot import Snapshot


def raws(whole: Snapshot) -> Iterator[list[Any]]:
    """Yield the records of a run as they are written, with the times that they had."""
    run = whole.run
    begun = _begun(whole)
    start = Started(
        position=0,
        time_ms=begun,
        name=run.name,
        experiment=run.experiment,
        parent_id=run.parent_id,
        owner=run.owner,
        group=run.group,
        job_type=run.job_type,
        notes=run.notes,
    )
    yield records.started(start, begun)
    if run.params:
        yield records.params_logged(run.params, begun, overwrite=False)
    if run.tags:
        yield ["tags", begun, dict(run.tags)]
    yield from (records.dataset_logged(each, begun) for each in run.datasets)
    yield from (records.artifact_used(each, begun) for each in run.inputs)
    for time_ms, step, metrics in rows(whole.histories):
        yield ["metrics", time_ms, step, metrics]
    for files in together(whole.artifacts):
        at = files[0].logged_at
        time_ms = begun if at is None else round(at.timestamp() * 1000)
        yield records.files_logged(files[0].logged_as or files[0].name, files, time_ms)
    if run.heartbeat_at is not None:
        yield ["alive", round(run.heartbeat_at.timestamp() * 1000)]
    if run.ended_at is not None:
        status = "killed" if run.status == "running" else run.status
        yield records.ended(status, run.owner, round(run.ended_at.timestamp() * 1000))


def rows(
    histories: Mapping[str, MetricHistory],
) -> Iterator[tuple[int, int, dict[str, Number]]]:
    """Yield (time, step, metrics) in the order of time; points of one time and step share one.

    The points of each metric stay in their order, whatever their times are.
    """
    columns = {
        key: [_plain(each) for each in (history.timestamps, history.steps, history.values)]
        for key, history in histories.items()
    }
    heads = [(c[0][0], c[1][0], key, 0) for key, c in columns.items() if c[0]]
    heapq.heapify(heads)
    while heads:
        time_ms, step = heads[0][:2]
        metrics: dict[str, Number] = {}
        taken: list[tuple[str, int]] = []
        while heads and heads[0][:2] == (time_ms, step):
            _, _, key, at = heapq.heappop(heads)
            metrics[key] = columns[key][2][at]
            taken.append((key, at + 1))
        for key, at in taken:
            times, steps, _ = columns[key]
            if at < len(times):
                heapq.heappush(heads, (times[at], steps[at], key, at))
        yield time_ms, step, metrics


def together(artifacts: Sequence[Artifact]) -> list[list[Artifact]]:
    """Return files in groups of those that were logged at once."""
    groups: dict[str, list[Artifact]] = {}
    for each in artifacts:
        kept = each.model_dump_json(include={"type", "metadata", "aliases", "logged_at"})
        groups.setdefault(f"{each.logged_as or each.name}\0{kept}", []).append(each)
    return sorted(groups.values(), key=_logged)


def _logged(files: list[Artifact]) -> float:
    return files[0].logged_at.timestamp() if files[0].logged_at else 0.0


def _begun(whole: Snapshot) -> int:
    """Return when a run began, as near as is known: foreign ones may not say it."""
    times = [at for at in (whole.run.started_at, whole.run.ended_at) if at is not None]
    return round(times[0].timestamp() * 1000) if times else 0


def _plain(column: Sequence[Any]) -> list[Any]:
    found: list[Any] = column.tolist() if hasattr(column, "tolist") else list(column)
    return found

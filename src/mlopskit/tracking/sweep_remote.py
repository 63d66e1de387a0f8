"""Trials on other processes and machines: a Dask client, or any executor of Python's own kind.

A trial opens the tracker where it runs, logs its own run, and knows the trials that had ended when
it began: by those it is judged. It sends back how it ended.
"""

from __future__ import annotations

import os
import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mlopskit.tracking import sweep_search
from mlopskit.tracking.sweep_trials import (
    Done,
    Outcome,
    Trial,
    TrialPruned,
    attempt,
    trial_tags,
    write_state,
    write_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.sweep_study import Asked


class Client(Protocol):
    """What takes a call and returns its future: Dask's ``Client``, or an ``Executor``."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any) -> Any:
        """Call it somewhere, soon."""


@dataclass(frozen=True, slots=True)
class Task:
    """One trial, with all that it needs elsewhere.

    Attributes:
        reopen: Opens the tracker.
        objective: The user's.
        search: What `sweep_search.study` takes.
        experiment: Of the run.
        name: The sweep's.
        parent_id: The sweep's run.
        metric: What the value is logged as.
        number: The trial's.
        point: The coordinates of its params.
        ended: The trials that it is judged by.
    """

    reopen: Callable[[], Tracker]
    objective: Callable[[Trial], Any]
    search: dict[str, Any]
    experiment: str
    name: str
    parent_id: str
    metric: str
    number: int
    point: dict[str, int | float]
    ended: tuple[Done, ...]

    def __call__(self) -> Done:
        """Run the trial here."""
        study = sweep_search.study(**self.search)
        for each in self.ended:
            study.add(each)
        asked = study.ask_for(self.number, self.point)
        params = self.search["space"].params(self.point)
        with (
            self.reopen() as tracker,
            tracker.start_run(
                self.experiment,
                name=f"{self.name}-{self.number}",
                params=params,
                tags=trial_tags(self.number, self.point),
                parent=self.parent_id,
                group=self.name,
                job_type="trial",
            ) as run,
        ):
            trial = Trial(self.number, params, run, asked, self.metric)
            pruned = (TrialPruned, sweep_search.load().PRUNED)
            outcome = attempt(self.objective, trial, pruned)
            write_value(run, self.metric, outcome)
            attrs = study.tell(asked, outcome)
            write_state(run, outcome, attrs)
            run.finish(outcome.status)
        return Done(
            number=self.number,
            run_id=run.id,
            state=outcome.state,
            params=params,
            value=outcome.value,
            error=outcome.error,
            point=self.point,
            reported=asked.reported,
            attrs=attrs,
        )


def _call(task: Task) -> Done:
    return task()


def elsewhere(
    client: Client, asked: Iterable[tuple[Asked, Task]], at_once: int
) -> Iterator[tuple[Asked, Done]]:
    """Run trials by a client; yield each as it ends.

    Args:
        client: Runs them.
        asked: Each is asked for when there is room for it.
        at_once: How many may be under way.
    """
    waiting = iter(asked)
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    under_way: dict[Any, tuple[Asked, Task]] = {}
    try:
        while True:
            while len(under_way) < at_once and (one := next(waiting, None)) is not None:
                future = client.submit(_call, one[1])
                under_way[future] = one
                future.add_done_callback(ended.put)
            if not under_way:
                return
            future = ended.get()
            asked_one, task = under_way.pop(future)
            yield asked_one, _result(future, task)
    finally:
        for future in under_way:
            future.cancel()


def _result(future: Any, task: Task) -> Done:
    try:
        done: Done = future.result()
    except Exception as exc:  # noqa: BLE001 - a worker that died, a tracker that cannot be opened
        error = f"{type(exc).__name__}: {exc}"
        params = task.search["space"].params(task.point)
        return Done(task.number, "", "failed", params, error=error, point=task.point)
    return done


def outcome_of(done: Done) -> Outcome:
    """Return how a trial ended, as the search is told."""
    return Outcome(done.state, done.value, done.error)


def room(client: Client, workers: int) -> int:
    """Return how many trials may be under way: what was asked for, or what the client has."""
    if workers > 1:
        return workers
    threads = getattr(client, "nthreads", None)
    if callable(threads):  # Dask's, by worker.
        return max(1, sum(int(count) for count in threads().values()))
    return int(getattr(client, "_max_workers", 0)) or os.cpu_count() or 1

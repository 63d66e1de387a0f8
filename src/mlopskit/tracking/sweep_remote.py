"""Trials on other processes and machines: a Dask client, or any executor of Python's own kind.

A trial opens the tracker where it runs, logs its own run, and knows the trials that had ended when
it began: by those it is judged. It sends back how it ended.
"""

from __future__ import annotations

import logging
import os
import queue
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mlopskit.errors import BackendError
from mlopskit.tracking import sweep_search
from mlopskit.tracking.sweep_trials import (
    LONGEST_ERROR,
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


logger = logging.getLogger(__name__)


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

    Raises:
        BackendError: If the client takes no more, as an executor does one of whose processes died.
    """
    waiting = iter(asked)
    broken: tuple[Exception, Task] | None = None
    count = 0
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    under_way: dict[Any, tuple[Asked, Task]] = {}
    try:
        while True:
            while broken is None and len(under_way) < at_once:
                if (one := next(waiting, None)) is None:
                    break
                try:
                    future = client.submit(_call, one[1])
                except Exception as exc:  # noqa: BLE001 - the client's own, whatever it is
                    broken = exc, one[1]
                    break
                under_way[future] = one
                future.add_done_callback(ended.put)
            if not under_way:
                if broken is not None:
                    raise _no_more(*broken, count) from broken[0]
                return
            future = ended.get()
            asked_one, task = under_way.pop(future)
            count += 1
            yield asked_one, _result(future, task)
    finally:
        for future in under_way:
            future.cancel()


def _result(future: Any, task: Task) -> Done:
    try:
        done: Done = future.result()
    except Exception as exc:  # noqa: BLE001 - a worker that died, a tracker that cannot be opened
        error = _said(exc)
        if isinstance(exc, BrokenExecutor):
            error = f"A process of the client died, this trial's or another one's: {error}"
        logger.warning("Trial %d failed: %s.", task.number, error)
        error = error[:LONGEST_ERROR]
        params = task.search["space"].params(task.point)
        return Done(task.number, "", "failed", params, error=error, point=task.point)
    return done


def _no_more(error: Exception, task: Task, count: int) -> BackendError:
    return BackendError(
        f"The client takes no more trials ({_said(error)}); {count} of this call had ended. Call "
        f"the sweep {task.name!r} again with a new client, and it goes on."
    )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).rstrip('.')}"


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

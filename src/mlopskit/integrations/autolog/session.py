"""One training that is logged: its run, and a wall that no error of ours gets through."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from mlopskit.integrations.held import HeldRun
from mlopskit.integrations.plain import plain
from mlopskit.tracking.ranks import this_rank
from mlopskit.tracking.run import status_of
from mlopskit.tracking.within import current_run, only_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.integrations.held import Destination
    from mlopskit.tracking.run import Run

logger = logging.getLogger(__name__)

EXAMPLE_ROWS = 5

# How often what was trained in each run.
_trained: WeakKeyDictionary[Run, Counter[str]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Options:
    """What is logged, and where; `autolog` says what each means."""

    to: Destination = None
    log_models: bool = True
    log_input_examples: bool = False
    silent: bool = False


class Sessions:
    """The trainings of this process that are logged.

    A training inside another one (a search that fits candidates, a pipeline that fits its steps) is
    a part of it, and so is one in another thread meanwhile that stands in no run's block: they make
    no run.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._lock = threading.Lock()
        self._open: dict[int, Session] = {}
        self._said: set[type[Exception]] = set()

    @property
    def open(self) -> Session | None:
        """The training that is logged in this thread."""
        return self._open.get(threading.get_ident())

    @contextmanager
    def training(self, what: str) -> Iterator[Session | None]:
        """Log what is trained in the block; None where it is a part of another training."""
        thread = threading.get_ident()
        with self._lock:
            part = thread in self._open or (self._open and current_run() is None)
            session = None if part or this_rank() else Session(self.options, what)
            if session is not None:
                self._open[thread] = session
        if session is None:
            yield None
            return
        try:
            with session.wall("begin a run", said=self._said):
                session.begin()
            try:
                yield session
            except BaseException as exc:
                with session.wall("end the run"):
                    session.end(exc)
                raise
            with session.wall("end the run"):
                session.end(None)
        finally:
            with self._lock:
                del self._open[thread]


class Session:
    """What one training logs. Every call of it is made behind `wall`.

    Attributes:
        one: Whether it trains one model. The rounds of several would be one series of a metric.
    """

    def __init__(self, options: Options, what: str) -> None:
        self.one = True
        self.options = options
        self.what = what
        self._held: HeldRun | None = None
        self._run: Run | None = None
        self._told = False
        self._prefix = what

    def begin(self) -> None:
        """Log to the run in whose block the code stands, or open one.

        In a thread that stands in none, it is the one run in whose block another thread stands.
        """
        self._run = current_run() or only_run()
        if self._run is None:
            self._held = HeldRun(self.options.to, {})
            self._run = self._held.open(name=self.what)
        before = _trained.setdefault(self._run, Counter())
        before[self.what] += 1
        if before[self.what] > 1:
            self._prefix = f"{self.what}-{before[self.what]}"
        self._run.set_tags({"trained": self.what})

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Log how long the training itself takes, and nothing of what is logged around it."""
        begun = time.perf_counter()
        yield
        with self.wall("log its duration"):
            self.metrics({"duration_s": time.perf_counter() - begun})

    @property
    def run(self) -> Run | None:
        """The run; None where it could not be opened."""
        return self._run

    @contextmanager
    def wall(self, what: str, *, said: set[type[Exception]] | None = None) -> Iterator[None]:
        """Let no error of logging through: it is told once, unless that is not wanted either.

        Args:
            what: What is tried.
            said: What has failed in earlier trainings, and is not told again; it grows.
        """
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - training goes on, whatever happens to its log
            again = said is not None and type(exc) in said
            if not self._told and not again and not self.options.silent:
                more = "" if said is None else " Nothing of it is logged; this is told once."
                logger.warning("Autologging of %s could not %s: %s%s", self.what, what, exc, more)
            if said is not None:
                said.add(type(exc))
            self._told = True

    def params(self, values: Any) -> None:
        """Log params under names that begin with what is trained, numbered from its second time."""
        if self._run is None:
            return
        found = plain(values)
        self._run.log_params({f"{self._prefix}.{key}": value for key, value in found.items()})

    def metrics(self, values: dict[str, Any], step: int | None = None) -> None:
        """Log numbers; what is none is left out."""
        numbers = {key: float(value) for key, value in values.items() if _is_number(value)}
        if self._run is not None and numbers:
            self._run.log_metrics(numbers, step)

    def data(self, features: Any) -> None:
        """Log the fingerprint of what it is trained on, if that is an array or a frame."""
        is_dense = hasattr(features, "columns") or hasattr(features, "__array__")
        if self._run is not None and is_dense:
            self._run.log_dataset(features, "training")

    def model(self, model: Any, features: Any, predict: Any) -> None:
        """Keep the model, with what it takes and answers.

        Args:
            model: What was trained.
            features: What it was trained on, or columns by name; None, or what has no rows that can
                be taken, such as a generator, leaves out the signature and the example.
            predict: Asks it.
        """
        if self._run is None or not self.options.log_models:
            return
        from mlopskit.registry.signatures import infer_signature  # noqa: PLC0415 - seldom needed

        example = signature = None
        if hasattr(features, "__getitem__"):
            with self.wall("infer the signature"):
                example = features if isinstance(features, dict) else features[:EXAMPLE_ROWS]
                signature = infer_signature(example, predict(example))
        given = example if self.options.log_input_examples else None
        self._run.log_model(model, "model", signature=signature, input_example=given)

    def end(self, error: BaseException | None) -> None:
        """End the run, if it was opened here."""
        if self._held is not None:
            self._held.end(status_of(error))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True

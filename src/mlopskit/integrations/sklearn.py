"""An estimator of scikit-learn whose params, fits and scores are logged to any tracker."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, Self, Unpack

from mlopskit.integrations.held import HeldRun, StartOptions, missing
from mlopskit.integrations.plain import one_value, plain
from mlopskit.tracking.ranks import this_rank
from mlopskit.tracking.run import status_of
from mlopskit.tracking.within import within

try:
    from sklearn.metrics import get_scorer
except ModuleNotFoundError as exc:
    raise missing(exc, "sklearn", "sklearn", package="scikit-learn") from exc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlopskit.integrations.held import Destination
    from mlopskit.tracking.run import Run

__all__ = ["RecordedEstimator"]

TIMED: Final = frozenset(["fit", "partial_fit", "fit_predict", "fit_transform", "score"])


class RecordedEstimator:
    """Stands for an estimator in a ``with`` block, and logs what is done with it.

    ``with RecordedEstimator(LogisticRegression()) as model: model.fit(X, y).score(X, y)``. All that
    `get_params` returns are params, the estimator's class is the tag ``estimator``. Fits and scores
    are timed as the metrics ``fit_s`` and ``score_s``; what `score` returns is ``score``. A search
    such as `GridSearchCV` leaves ``best_score``, the param ``best_params`` and the table
    ``cv_results`` too. Everything else is the estimator's own; clones of it are not recorded. Ranks
    other than 0 log nothing and open nothing.

    Args:
        estimator: What is recorded; it is neither copied nor changed.
        to: A `Tracker`, an open `Run`, which is left open, or a config line; the configured tracker
            if left out.
        start: What `Tracker.start_run` takes.

    Raises:
        InvalidInput: If an open run is to begin in another way.
    """

    def __init__(
        self, estimator: Any, to: Destination = None, **start: Unpack[StartOptions]
    ) -> None:
        self.estimator = estimator
        self._held = HeldRun(to, start)
        self._times: Counter[str] = Counter()

    @property
    def run(self) -> Run | None:
        """The run; None while none is open, and on other ranks."""
        return self._held.run

    def scores(
        self,
        X: Any,  # noqa: N803 - its name in scikit-learn
        y: Any,
        scoring: str | Sequence[str],
        prefix: str = "",
    ) -> dict[str, float]:
        """Log scores by the names that scikit-learn gives to scorers, and return them.

        Args:
            X: What to predict from.
            y: What is right.
            scoring: Such as ``["accuracy", "f1_macro"]``.
            prefix: What their names begin with in the run, such as ``"test/"``.
        """
        names = [scoring] if isinstance(scoring, str) else scoring
        found = {name: float(get_scorer(name)(self.estimator, X, y)) for name in names}
        self._log("scores", {f"{prefix}{name}": value for name, value in found.items()})
        return found

    def __enter__(self) -> Self:
        if not this_rank():
            kind = type(self.estimator)
            self._held.open().set_tags({"estimator": f"{kind.__module__}.{kind.__qualname__}"})
            self._held.log_params(self.estimator.get_params(deep=True))
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._held.end(status_of(error))

    def __getattr__(self, name: str) -> Any:
        if name == "estimator":  # Not there yet, so that pickle may ask.
            raise AttributeError(name)
        value = getattr(self.estimator, name)
        return self._timed(name, value) if name in TIMED else value

    def __repr__(self) -> str:
        return f"<Recorded {self.estimator!r}>"

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            run = self._held.run
            begun = time.perf_counter()
            # So that autologging, if it is on, logs there too.
            with nullcontext() if run is None else within(run):
                result = call(*args, **kwargs)
            metrics: dict[str, Any] = {f"{name}_s": time.perf_counter() - begun}
            if name == "score":
                metrics["score"] = one_value(result)
            elif "fit" in name and hasattr(self.estimator, "cv_results_"):
                metrics.update(self._searched())
            self._log(name, metrics)
            return self if result is self.estimator else result

        return timed

    def _log(self, what: str, metrics: dict[str, Any]) -> None:
        if self._held.run is not None:
            self._held.log_metrics(metrics, self._times[what])
            self._times[what] += 1

    def _searched(self) -> dict[str, float]:
        if self._held.run is None:
            return {}
        results = {
            key: plain(column)
            for key, column in self.estimator.cv_results_.items()
            if key != "params"  # Each of them has a column of its own.
        }
        self._held.run.log_table(results, "cv_results")
        if not hasattr(self.estimator, "best_params_"):
            return {}
        self._held.log_params({"best_params": self.estimator.best_params_})
        return {"best_score": float(self.estimator.best_score_)}
